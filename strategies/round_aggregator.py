"""The aggregator of a round, as the settings say."""

from fedsparse.aggregation import Aggregator
from fedsparse.aggregation.products import ProductMean
from fedsparse.aggregation.residuals import ResidualMean
from fedsparse.catalogue import AGGREGATORS
from fedsparse.plugins import blamed, call, named
from fedsparse.privacy.client_level import ClientLevel
from fedsparse.strategies.server_model import ServerModel


def round_aggregator(model: ServerModel, round: int, privacy: ClientLevel | None, *, secret: bool) -> Aggregator:
    """A new aggregator, which adds up updates of ``model``.

    Args:
        privacy: the guarantee of differential privacy; None without one.
        secret: draw the noise of privacy from bits that cannot be known, instead of the settings' seed.
    """
    config, mask = model.config, model.topology.current.mask
    if privacy:
        return privacy.sum_of(round, model.topology.compact, secret=secret)
    if config.lowrank_average == "products":
        return ProductMean(model.experiment.model, model.weights, mask)
    if config.lowrank_average == "residual":
        return ResidualMean(model.experiment.model, mask)
    with blamed("aggregator", config.aggregator):
        make = named(AGGREGATORS, config.aggregator)
        aggregator: Aggregator = call(make, model.layout.size, mask, byzantine=config.byzantine)
    return aggregator
