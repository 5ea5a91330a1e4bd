"""Flower's ServerApp: a round of federated averaging, and the server optimizers that follow it."""
