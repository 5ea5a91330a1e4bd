"""The ClientApp. A client reads its settings from the message alone, so that every engine behaves alike."""

from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY

from clients.downlink import receive_weights
from clients.exchange import encode_update, receive_topology, report_array
from clients.workbench import SparseModel, Workbench, workbench
from fedsparse.config import Config
from fedsparse.engine.records import mask_array
from fedsparse.seeds import derive_seed
from fedsparse.sparsity.densities import budget
from fedsparse.sparsity.local import LocalTopology
from fedsparse.sparsity.masks import encode_mask
from fedsparse.sparsity.readjust import top_report
from fedsparse.sparsity.ssfl import saliency as weight_saliency
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training import dense_gradient
from fedsparse.training import evaluate as evaluate_model
from fedsparse.training import train as train_model

app = ClientApp()


@app.query()
def identify(message: Message, context: Context) -> Message:
    """Tell the server which partition this node holds; Flower's node ids are random."""
    return Message(
        RecordDict({"node": ConfigRecord({"partition-id": int(context.node_config[PARTITION_ID_KEY])})}),
        reply_to=message,
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train from the global weights on the client's samples; reply with the compressed update and what was measured."""
    bench, held, client, round = _open(message, context)
    config, model, timer = bench.config, bench.model, StageTimer(bench.device)
    seed = derive_seed(config.seed, "train", round=round, partition_id=client)
    before = model.vector.clone()
    indices, _ = bench.samples(client)
    augmenting = torch.Generator().manual_seed(seed) if config.augment else None
    local = LocalTopology(model, held.topology, bench.method, round, seed)
    score = train_model(
        model,
        bench.fetch(indices, augmenting),
        len(indices),
        config,
        round=round,
        seed=seed,
        timer=timer,
        topology=local,
    )
    own = bench.under(bench.method.upload_topology(local.topology, model.vector[: model.layout.parameters]))
    arrays = ArrayRecord()
    if bench.method.reports and bench.method.is_readjustment(round):
        with timer("backward"):
            gradient = dense_gradient(model, bench.fetch(indices), len(indices))
        report = bench.method.report(held.topology, gradient, round)
        if report is not None and report.indices.numel():
            arrays["report"] = report_array(report, model.layout, round)
    if own.bits != held.bits:
        arrays["mask"] = mask_array(encode_mask(own.topology, held.topology))
    task = message.content.config_records["task"]
    arrays["update"], stats = encode_update(
        bench, context, task, torch.sub(model.vector, before, out=before), own, client
    )
    metrics: dict[str, Any] = {"num-examples": len(indices), "train/loss": score.loss, "train/accuracy": score.accuracy}
    metrics |= {f"time/{stage}": seconds for stage, seconds in timer.seconds().items()}
    metrics |= {f"time/{stage}": stats.pop(f"{stage}_seconds") for stage in ("compress", "encode")}
    metrics |= {f"compress/{name}": value for name, value in stats.items()}
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)


@app.query("saliency")
def saliency(message: Message, context: Context) -> Message:
    """How much the loss depends on each weight of the initial model: the largest |g w|, as many as may exist."""
    bench, held, client, round = _open(message, context)
    indices, _ = bench.samples(client)
    gradient = dense_gradient(bench.model, bench.fetch(indices), len(indices))
    scores = weight_saliency(bench.model.vector[: bench.model.layout.parameters], gradient)
    report = top_report(scores, held.topology.prunable, budget(bench.layers, bench.config.sparsity))
    arrays = ArrayRecord({"report": report_array(report, bench.model.layout, round)})
    metrics = MetricRecord({"num-examples": len(indices)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss and accuracy of the global weights on the samples that this client holds out."""
    bench, _, client, _ = _open(message, context)
    _, indices = bench.samples(client)
    score = evaluate_model(bench.model, bench.fetch(indices), len(indices))
    metrics: dict[str, Any] = {
        "num-examples": score.samples,
        "eval/client_loss": score.loss,
        "eval/client_accuracy": score.accuracy,
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _open(message: Message, context: Context) -> tuple[Workbench, SparseModel, int, int]:
    """The workbench with the message's weights loaded, the topology they are under, the partition id and the round."""
    bench = workbench(Config.from_mapping(message.content.config_records["config"]))
    torch.set_num_threads(bench.config.threads)
    task = message.content.config_records["task"]
    held = receive_topology(bench, context, message.content.array_records.get("topology"), str(task["topology"]))
    client = int(context.node_config[PARTITION_ID_KEY])
    weights = held.compact.widen(receive_weights(bench, context, message, held.compact.layout, client))
    bench.model.vector.copy_(torch.from_numpy(weights.to_dense()))
    return bench, held, client, int(task["round"])  # type: ignore[arg-type]
