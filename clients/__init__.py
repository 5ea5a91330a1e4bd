"""Flower's ClientApp: receive, train, compress, reply."""
