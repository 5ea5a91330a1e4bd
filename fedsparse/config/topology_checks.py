"""Settings of topologies and of upload pruning that contradict each other."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedsparse.config import Config

FIXED = ("dense", "static", "small-dense", "ssfl")
"""Topologies that never change."""


def check_topology(config: "Config") -> None:
    """Check the settings of topologies and of upload pruning together.

    Raises:
        ValueError: one line that says what contradicts what.
    """
    n, _, m = config.nm.partition(":")
    if config.nm and not (n.isdecimal() and m.isdecimal() and 0 < int(n) <= int(m)):
        raise ValueError(f"nm = {config.nm}: should be N:M with 1 <= N <= M, such as 2:4")
    if config.upload_pruning != "off" and config.topology_method != "dense":
        raise ValueError(
            f"upload-pruning = {config.upload_pruning} chooses the topology; leave topology, sparsity and "
            "need-readjust out, and give upload-sparsity or nm"
        )
    if config.readjustment_end > config.rounds:
        raise ValueError(f"readjustment-end = {config.readjustment_end} is more than rounds = {config.rounds}")
    if config.topology not in ("auto", "dense") and not config.sparsity:
        raise ValueError(f"topology = {config.topology} with sparsity = 0: every weight exists; give a sparsity")
    if config.need_readjust and not config.sparsity:
        raise ValueError("need-readjust with sparsity = 0: every weight exists, and none can be grown")
    if config.need_readjust and config.topology in FIXED:
        raise ValueError(f"need-readjust with topology = {config.topology}, which never changes; leave one of them out")
