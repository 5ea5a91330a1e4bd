"""Small-dense: a narrower dense network with as many weights, which any sparse one has to beat (Evci et al. 2020)."""

from collections.abc import Callable

from fedsparse.sparsity.static import Dense


def width_for(parameters: Callable[[float], int], target: int, steps: int = 40) -> float:
    """The largest width multiplier in (0, 1] whose network has at most ``target`` parameters.

    Args:
        parameters: of the network at a width; not decreasing. Built under ``torch.device("meta")`` it costs no memory.
        target: such as ``round((1 - sparsity) * parameters(1.0))``.
        steps: bisections of the width.

    Raises:
        ValueError: even the narrowest network has more.
    """
    low, high = 0.0, 1.0
    if parameters(high) <= target:
        return high
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if parameters(middle) <= target else (low, middle)
    if low == 0.0:
        raise ValueError(
            f"small-dense: the narrowest network has {parameters(high):,} parameters, more than {target:,}"
        )
    return low


class SmallDense(Dense):
    """Dense, for a model built with ``width_for``."""
