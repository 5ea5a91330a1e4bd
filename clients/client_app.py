"""The ClientApp. A client reads its settings from the message alone, so that every engine behaves alike."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY
from torch import Tensor

from fedsparse.clients.exchange import encode_update, receive_topology, report_array, update_array
from fedsparse.clients.prune_upload import prune_upload
from fedsparse.clients.receive_frozen import receive_frozen
from fedsparse.clients.receive_weights import receive_weights
from fedsparse.clients.secure import answer_phases, masked_array
from fedsparse.clients.state_store import kept_moments
from fedsparse.clients.workbench import TRAINING, SparseModel, Workbench, workbench
from fedsparse.compression import UpdateCodec
from fedsparse.compression.fixed import FixedPoint
from fedsparse.config import Config
from fedsparse.engine.records import plain_array
from fedsparse.engine.step_records import RECORD, step_record
from fedsparse.models.exits import Exits
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Topology
from fedsparse.sparsity.densities import budget
from fedsparse.sparsity.local_topology import LocalTopology
from fedsparse.sparsity.masks import encode_mask
from fedsparse.sparsity.method import checked
from fedsparse.sparsity.readjust import top_report
from fedsparse.sparsity.ssfl import saliency as weight_saliency
from fedsparse.telemetry.step_log import StepEntry, StepLog
from fedsparse.telemetry.timers import StageTimer
from fedsparse.training.evaluation import Fetch, Score, dense_gradient
from fedsparse.training.evaluation import evaluate as evaluate_model
from fedsparse.training.loop import train as train_model
from fedsparse.training.stacked import train_cohort

app = ClientApp()
answer_phases(app)


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
    config, timer = bench.config, StageTimer(bench.device)
    seed = derive_seed(config.seed, "train", round=round, partition_id=client)
    indices, _ = bench.samples(client)
    augmenting = None
    if config.augment:
        drawn = derive_seed(config.seed, "augment", round=round, partition_id=client)
        augmenting = torch.Generator().manual_seed(drawn)
    fetch = bench.fetch(indices, augmenting)
    if bench.config.attack == "label-flip" and client in bench.attackers:
        fetch = with_flipped_labels(fetch, bench.dataset.classes)
    trained = bench.under_bits(b"").topology if bench.method.trains_all else held.topology
    local = LocalTopology(bench.model, trained, bench.method, round, seed)
    log, entries = step_log(config, timer)
    task: Any = message.content["task"]
    keeping = kept_moments(context, task, client, bench.method) if config.keep_moments else nullcontext()
    with keeping as memory, TRAINING:
        score = train_model(
            bench.model,
            fetch,
            len(indices),
            config,
            bench.task,
            round=round,
            seed=seed,
            timer=timer,
            topology=local,
            log=log,
            memory=memory,
        )
    local.end()
    bench.release()
    reply = _reply(message, context, bench, held, indices, local.topology, score, timer)
    if log:
        reply.content[RECORD] = step_record(log, entries)
    return reply


def with_flipped_labels(fetch: Fetch, classes: int) -> Fetch:
    """The batches of a hostile client in an experiment: class ``c`` becomes ``classes - 1 - c``."""

    def batch(positions: Tensor) -> tuple[Tensor, Tensor]:
        inputs, targets = fetch(positions)
        return inputs, classes - 1 - targets

    return batch


def train_together(messages: Sequence[Message], contexts: Sequence[Context]) -> Callable[[Message, Context], Message]:
    """Train the clients of these messages of one round at once; returns a function that answers each like ``train``."""
    # Opening a message changes its Context. This works on a copy, because `answer` opens each message again.
    scratch = Context(**{**vars(contexts[0]), "state": contexts[0].state.copy()})
    bench, held, _, round = _open(messages[0], scratch)
    config, timer = bench.config, StageTimer(bench.device)
    samples = {c: bench.samples(c)[0] for c in (int(context.node_config[PARTITION_ID_KEY]) for context in contexts)}
    clients = sorted(samples, key=lambda client: -len(samples[client]))
    logs = [step_log(config, timer, clients=len(clients)) for _ in clients]
    with TRAINING:
        weights, scores = train_cohort(
            bench.model,
            bench.fetch_together([samples[client] for client in clients]),
            [len(samples[client]) for client in clients],
            config,
            bench.task,
            round=round,
            seeds=[derive_seed(config.seed, "train", round=round, partition_id=client) for client in clients],
            timer=timer,
            mask=held.topology.mask if held.bits else None,
            logs=[log for log, _ in logs if log],
        )

    def answer(message: Message, context: Context) -> Message:
        bench, held, client, _ = _open(message, context)
        row = clients.index(client)
        bench.model.vector.copy_(weights[row])
        share = timer.share(len(clients))
        reply = _reply(message, context, bench, held, samples[client], held.topology, scores[row], share)
        log, entries = logs[row]
        if log:
            reply.content[RECORD] = step_record(log, entries)
        return reply

    return answer


def step_log(config: Config, timer: StageTimer, clients: int = 1) -> tuple[StepLog | None, list[StepEntry]]:
    """The step log of a client, with the list that its entries go to; None when the settings ask for none."""
    entries: list[StepEntry] = []
    return (StepLog(config.log_interval, timer, entries.append, clients) if config.log_interval else None), entries


def _reply(
    message: Message, context: Context, bench: Workbench, held: SparseModel, indices: Tensor, local: Topology,
    score: Score, timer: StageTimer,
) -> Message:  # fmt: skip
    """The reply that carries the local weights in ``bench.model``.

    Args:
        held: the server's topology.
        indices: the samples that the client trained on.
        local: the client's topology at the end of training.
    """
    client, round, model = int(context.node_config[PARTITION_ID_KEY]), _round(message), bench.model
    part = bench.part(client)
    kept = part.topology if part else _kept(bench, local, client, round, indices, timer)
    own = held if kept is held.topology else bench.under(kept)
    arrays, task = ArrayRecord(), cast(ConfigRecord, message.content["task"])
    if bench.method.reports and bench.method.is_readjustment(round):
        with TRAINING, timer("backward"):  # recompute and compile set torch's random state for a moment
            gradient = dense_gradient(model, bench.fetch(indices), len(indices), bench.task)
        report = bench.method.report(held.topology, model.vector[: model.layout.parameters], gradient, round)
        if report is not None and report.indices.numel():
            arrays["report"] = report_array(report, model.layout, task, client)
    if own.bits != held.bits and not part:  # the server knows who trains which part
        arrays["mask"] = plain_array(encode_mask(own.topology, held.topology))
    update = model.vector.sub_(bench.received)  # in place, because the next message loads the model anew
    codec = codec_for(bench, own, round, len(indices))
    reserved = sum(len(array.data) for array in arrays.values())
    payload, stats = encode_update(bench, context, task, update, own, codec, client, reserved)
    if isinstance(codec.values, FixedPoint) and codec.values.clipped is not None:  # None: sent an earlier payload again
        stats["clipped"] = codec.values.clipped
    if bench.config.secure_aggregation:
        with timer("mask"):
            arrays["masked"] = masked_array(bench, context, message, payload, own, len(indices))
    else:
        arrays["update"] = update_array(payload, own, task, client)
    metrics: dict[str, Any] = {"num-examples": len(indices), **score.tagged("train/", bench.task)}
    metrics |= {f"time/{stage}": seconds for stage, seconds in timer.seconds().items()}
    metrics |= {f"time/{stage}": stats.pop(f"{stage}_seconds") for stage in ("compress", "encode")}
    metrics |= {f"compress/{name}": value for name, value in stats.items()}
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)


def _kept(
    bench: Workbench, local: Topology, client: int, round: int, indices: Tensor, timer: StageTimer
) -> Topology:  # fmt: skip
    """The weights of the upload, of a client whose topology at the end of training is ``local``."""
    if bench.config.upload_pruning == "off":
        uploaded = bench.method.upload_topology(local, bench.model.vector[: bench.layout.parameters])
        return checked(uploaded, bench.layers, bench.layout.parameters)
    with timer("prune"):
        seed = derive_seed(bench.config.seed, "calibration", round=round, partition_id=client)
        return prune_upload(bench, indices, seed)


def codec_for(bench: Workbench, own: SparseModel, round: int, samples: int) -> UpdateCodec:
    """The codec of an update that was trained on so many samples."""
    if bench.config.secure_aggregation:
        return bench.fixed_sum.codec(own.codec, samples)
    votes = bench.method.clients_vote and bench.method.is_readjustment(round)
    return own.whole_codec if votes else own.codec


@app.query("saliency")
def saliency(message: Message, context: Context) -> Message:
    """Report the largest saliencies |g w| of the initial weights, as many as the topology will keep."""
    bench, held, client, round = _open(message, context)
    indices, _ = bench.samples(client)
    measured = indices
    if bench.config.saliency_samples:
        seed = derive_seed(bench.config.seed, "calibration", round=round, partition_id=client)
        order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed))
        measured = indices[order[: bench.config.saliency_samples].to(indices.device)]
    with TRAINING:
        gradient = dense_gradient(bench.model, bench.fetch(measured), len(measured), bench.task)
    scores = weight_saliency(bench.model.vector[: bench.model.layout.parameters], gradient)
    report = top_report(
        scores, held.topology.prunable, budget(bench.layers, bench.config.sparsity, bench.config.sparsity_of)
    )
    task = cast(ConfigRecord, message.content["task"])
    arrays = ArrayRecord({"report": report_array(report, bench.model.layout, task, client)})
    metrics = MetricRecord({"num-examples": len(indices)})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss and accuracy of the global weights on the samples that this client holds out.

    A client that trains only the first classifiers of a network evaluates the last of these.
    """
    bench, _, client, _ = _open(message, context)
    _, indices = bench.samples(client)
    score = evaluate_model(bench.model, bench.fetch(indices), len(indices), bench.task)
    metrics: dict[str, Any] = {"num-examples": len(indices), **score.tagged("eval/client_", bench.task)}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _open(message: Message, context: Context) -> tuple[Workbench, SparseModel, int, int]:
    """The workbench with the message's weights loaded, their topology, the partition id and the round."""
    content: Any = message.content  # indexed, because `content.array_records` builds a new dict at every access
    client = int(context.node_config[PARTITION_ID_KEY])
    bench = workbench(tuple(content["config"].items()), tuple(content["task"].get("ranks", ())), client)
    torch.set_num_threads(bench.config.threads)
    if bench.config.lora_rank:
        receive_frozen(bench, context, content.get("frozen"), content["task"], client)
    held = receive_topology(bench, context, content.get("topology"), content["task"], client)
    if isinstance(bench.model.module, Exits):
        bench.model.module.depth = bench.depth(client)
    if bench.config.downlink_is_whole:
        bench.receive(content["arrays"]["weights"].data, bench.part(client) or held.compact)
    else:
        weights = receive_weights(bench, context, message, held.compact.layout, client)
        bench.load(held.compact.scatter(weights).as_dense())
    return bench, held, client, _round(message)


def _round(message: Message) -> int:
    return int(message.content["task"]["round"])  # type: ignore[arg-type]
