"""What others learn of a client: differential privacy of released weights, secure aggregation of updates."""
