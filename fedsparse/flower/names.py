"""The names under which CompressMod and CompressedStrategy find one another's content in a message."""

RECORD = "fedsparse"
"""The ConfigRecord that the server adds to a message for the mod alone. Its entries:"""
ROUND = "round"
ACCEPTED = "accepted-round"
"""The last round accepted from this client; in messages of the training."""
ARRAYS, HASH = "arrays", "hash"
"""With a compressed downlink: the arrays that payloads stand for, as JSON, and the digest of their weights."""

PAYLOAD = "fedsparse/payload"
"""The Array of a reply's first ArrayRecord that holds its payload."""
WHOLE, CHANGE = "fedsparse/whole", "fedsparse/change-"
"""The Arrays of a message's first ArrayRecord that hold the payloads of a compressed downlink."""
