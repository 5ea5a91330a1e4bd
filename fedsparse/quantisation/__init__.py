"""Networks whose weights and inputs have few bits: while they train (this package's layers), and on the downlink.

A quantised layer keeps its float weights as its parameters, under the same names. So compression, topologies,
aggregation and checkpoints see the network that they would see without quantisation. In the forward pass the layer
computes with the quantised weights, and the backward pass treats the rounding as the identity: ``straight_through``.
"""

from fedsparse.quantisation.quantised_layers import few_bits, few_bits_layers

__all__ = ["few_bits", "few_bits_layers"]
