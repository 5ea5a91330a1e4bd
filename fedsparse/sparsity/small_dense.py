"""Small-dense: a narrow dense network with as many weights as a sparse network, its baseline (Evci et al. 2020)."""

from collections.abc import Callable

from fedsparse.errors import ConfigError
from fedsparse.sparsity.static import Dense


def width_for(parameters: Callable[[float], int], target: int) -> float:
    """The largest width multiplier in (0, 1] whose network has at most ``target`` parameters.

    Args:
        parameters: a function, not decreasing: how many parameters the network of a width has. A network that is built
            under ``torch.device("meta")`` costs no memory.
        target: such as ``round((1 - sparsity) * parameters(1.0))``.

    Raises:
        ConfigError: even the narrowest network has more parameters.
    """
    low, high = 0.0, 1.0
    if parameters(high) <= target:
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if parameters(middle) <= target else (low, middle)
    if low == 0.0:
        raise ConfigError(
            f"small-dense: the narrowest network has {parameters(high):,} parameters, more than {target:,}"
        )
    return low


class SmallDense(Dense):
    """A dense topology, because the model itself is narrow: ``Experiment.network`` builds it with ``width_for``."""
