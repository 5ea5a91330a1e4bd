"""Attacks on a run by some of its own clients, for experiments.

The server plays the attackers: it replaces the updates of some clients by hostile ones before it checks them, so that
nothing but these settings can make a client of a deployment hostile. Only ``label-flip`` is at work in the client, as
wrong labels. Attackers know all of their round's honest updates, and send payloads as honest clients do, just within
``max-update-norm``.

``alie``: Baruch, Baruch and Goldberg, "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS
2019, algorithm 3, with the z = 1.5 of its experiments.
"""

from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import Message

from fedsparse.compression import ClientState, PayloadError, UpdateCodec
from fedsparse.compression.wire import bind, binding
from fedsparse.engine.records import payload_array
from fedsparse.seeds import derive_seed
from fedsparse.strategies.cohort import Cohort
from fedsparse.strategies.server_topology import ServerTopology

STRENGTH = 8.0
"""How many times longer than an honest update those of ``noise``, ``scale`` and ``index-poison`` are."""
Z = 1.5


class Attack:
    """The attackers of a run, the same clients in all rounds.

    Args:
        cohort: the settings name the attack and the share of attackers.
    """

    def __init__(self, cohort: Cohort) -> None:
        self.config, self.cohort = cohort.config, cohort
        self.attackers = cohort.model.experiment.attackers

    @property
    def topology(self) -> ServerTopology:
        """The present one."""
        return self.cohort.model.topology

    def claim(self) -> dict[str, str]:
        """What a result says of the attack; nothing without one."""
        if self.config.attack == "none":
            return {}
        return {"attack": f"{self.config.attack} by {len(self.attackers)} of {self.config.clients} clients"}

    def poison(self, answers: Sequence[tuple[int, Message]], round: int) -> None:
        """Replace the attackers' updates among a cohort's answers."""
        if self.config.attack in ("none", "label-flip"):
            return
        own = {client: self._update(client, reply, round) for client, reply in answers}
        honest = [update for client, update in own.items() if update is not None and client not in self.attackers]
        for client, reply in answers:
            mine = own[client]
            if client in self.attackers and mine is not None and honest:
                seed = derive_seed(self.config.seed, "attack", round=round, partition_id=client)
                hostile = self._hostile(mine, honest, seed, round)
                layout = self.topology.compact.layout
                codec = UpdateCodec(layout, **self.config.compression())
                sent, support = hostile.astype(np.float32), self.config.support_seed(round)
                payload, _ = codec.encode(sent, ClientState(), round=round, seed=seed, support=support)
                bound = bind(payload, binding(self.cohort.model.gate.run, client))
                reply.content.array_records["arrays"]["update"] = payload_array(bound, layout)

    def _update(self, client: int, reply: Message, round: int) -> np.ndarray | None:
        """A client's update in the coordinates that travel; None when it cannot be read."""
        try:
            update, _, _ = self.topology.read(reply.content, round, binding(self.cohort.model.gate.run, client))
        except PayloadError:
            return None
        return self.topology.compact.gather(torch.from_numpy(update.to_dense())).numpy()

    def _hostile(self, mine: np.ndarray, honest: Sequence[np.ndarray], seed: int, round: int) -> np.ndarray:
        """A hostile update in place of ``mine``: its weights; the buffers stay as they are."""
        n, hostile = self.topology.compact.layout.parameters, mine.copy()
        length = float(np.linalg.norm(mine[:n]))
        match self.config.attack:
            case "sign-flip":
                hostile[:n] = -mine[:n]
            case "scale":
                hostile[:n] = -STRENGTH * mine[:n]
            case "noise":
                drawn = np.random.default_rng(seed).standard_normal(n)
                hostile[:n] = STRENGTH * length * drawn / np.linalg.norm(drawn)
            case "alie":
                weights = np.stack([update[:n] for update in honest])
                hostile[:n] = weights.mean(axis=0) - Z * weights.std(axis=0)
            case "index-poison":  # all attackers of a round choose the same coordinates, to be their majority
                together = np.random.default_rng(derive_seed(self.config.seed, "attack", round=round))
                at = together.choice(n, max(1, int(self.config.density * n)), replace=False)
                hostile[:n] = 0
                hostile[at] = STRENGTH * length / np.sqrt(at.size) * together.choice((-1, 1), at.size)
        return hostile
