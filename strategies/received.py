"""A round's uploads: added up for each network, and asked together for their scores."""

from collections.abc import Callable, Mapping

from fedsparse.aggregation import Aggregator
from fedsparse.strategies.ensemble import Ensemble
from fedsparse.strategies.replies import Replies, Upload
from fedsparse.strategies.server_model import ServerModel


class Received:
    """What a round's clients uploaded so far.

    Args:
        models: the networks, by name.
        aggregator: makes a new aggregator for a network.

    Attributes:
        of: the uploads of each network's clients, by the network's name.
        ensemble: asks each client's model for its scores; None where the server distils nothing.
    """

    def __init__(self, models: Mapping[str, ServerModel], aggregator: Callable[[ServerModel], Aggregator]) -> None:
        first = next(iter(models.values()))
        self.of = {name: Replies(aggregator(model), model.topology.current) for name, model in models.items()}
        self.ensemble = Ensemble(first.experiment) if first.config.server_distils else None

    def add(self, model: ServerModel, upload: Upload) -> None:
        """Add a client's upload, which is about this network."""
        self.of[model.name].add(upload)
        if self.ensemble:
            self.ensemble.add(model, upload.update)

    @property
    def count(self) -> int:
        """How many clients' uploads these are."""
        return sum(replies.count for replies in self.of.values())

    @property
    def samples(self) -> int:
        """How many samples these clients trained on."""
        return sum(replies.samples for replies in self.of.values())
