"""Which models and topologies need nothing of a client but its part in the sum of updates.

Differential privacy adds its noise to that sum, and secure aggregation hides everything but that sum.
"""

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.sparsity import TopologyMethod
from fedsparse.vector import Layout


def check_one_support(setting: str, config: Config, layout: Layout, method: TopologyMethod) -> None:
    """Check that all clients of a round upload values of the same weights, and nothing else.

    Args:
        setting: what needs this, in the words of an error.

    Raises:
        ConfigError: they upload more than that; one line.
    """
    if layout.size > layout.parameters:
        name = next(e.name for e in layout.entries if e.start >= layout.parameters)
        raise ConfigError(
            f"{setting}: the model has running statistics ({name}), of BatchNorm or of quantised inputs; choose "
            "--norm group, --activation-bits off, or a model without them"
        )
    if method.clients_choose or method.reports or method.needs_saliency:
        raise ConfigError(
            f"{setting}: topology = {config.topology_method} asks each client for more than its update; choose "
            "static, set, magnitude, small-dense or dense"
        )
