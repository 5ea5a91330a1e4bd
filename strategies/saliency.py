"""Before round 1, SSFL asks every client how much its loss depends on each weight of the initial model."""

import logging
from collections.abc import Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedsparse.compression import PayloadError
from fedsparse.compression.wire import binding
from fedsparse.config.agreement import run_name
from fedsparse.engine.records import array_bytes
from fedsparse.errors import RunFailed, reason
from fedsparse.sparsity.readjust import ReportSum
from fedsparse.sparsity.reports import decode_report
from fedsparse.strategies.acceptance import check_content, read_metrics
from fedsparse.strategies.server_model import ServerModel

log = logging.getLogger("fedsparse")


def ask_saliency(grid: Grid, dense: ServerModel, nodes: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
    """The sum of the clients' saliencies of the initial weights, weighted by samples. A client sends its largest alone.

    Args:
        dense: with the initial weights, and the topology in which every weight exists.

    Returns:
        The sum, float64, shape ``(parameters,)``; and the bytes both ways, under telemetry's tags.

    Raises:
        RunFailed: no client answered.
    """
    experiment, weights = dense.experiment, dense.broadcast(0)
    run = run_name(experiment.config)
    task = ConfigRecord({"round": 0, "state-folder": "", "run": run, **dense.told})
    question = RecordDict({"arrays": weights, "config": ConfigRecord(experiment.config.flat()), "task": task})
    kind = f"{MessageType.QUERY}.saliency"
    asked = [Message(question, dst_node_id=node, message_type=kind) for node in nodes]
    answers = {r.metadata.src_node_id: r for r in grid.send_and_receive(asked, timeout=experiment.config.round_timeout)}
    total, received = ReportSum(experiment.layout.parameters), 0
    for client, node in enumerate(nodes):  # in a fixed order, because floating-point addition depends on it
        if node not in answers or answers[node].has_error():
            why = reason(answers[node].error.reason or "") if node in answers else "no reply"
            log.warning("client %d did not tell its saliency: %s", client, why)
            continue
        received += array_bytes(answers[node].content)
        try:
            check_content(answers[node].content, experiment.layout)
            samples, _ = read_metrics(answers[node], {}, int(experiment.partition.sizes[client]))
            arrays = answers[node].content.array_records.get("arrays", ArrayRecord())
            if "report" not in arrays:
                raise PayloadError("it has no report")
            report = decode_report(arrays["report"].data, experiment.layout, 0, binding(run, client))
            total.add(report, samples)
        except PayloadError as error:
            log.warning("client %d: its saliency is refused: %s", client, error)
    if not total.known.any():
        raise RunFailed("no client told its saliency: ssfl cannot choose a topology")
    sent = len(asked) * sum(len(array.data) for array in weights.values())
    return total.total, {"comm/uplink_bytes": float(received), "comm/downlink_bytes": float(sent)}
