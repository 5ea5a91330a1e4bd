"""What others learn of a client: secure aggregation, in which the server sees the sum of updates alone."""
