"""The ClientApp. A client reads its settings from the message alone, so that every engine behaves alike."""

from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY

from clients.state import load_state, save_state
from clients.workbench import Workbench, workbench
from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.engine.records import payload_array
from fedsparse.seeds import derive_seed
from fedsparse.telemetry.timers import StageTimer
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
    bench, client, round = _open(message, context)
    config, model, timer = bench.config, bench.model, StageTimer(bench.device)
    seed = derive_seed(config.seed, "train", round=round, partition_id=client)
    before = model.vector.clone()
    indices, _ = bench.samples(client)
    augmenting = torch.Generator().manual_seed(seed) if config.augment else None
    score = train_model(
        model, bench.fetch(indices, augmenting), len(indices), config, round=round, seed=seed, timer=timer
    )
    task = message.content.config_records["task"]
    file = Path(str(task["state-folder"])) / f"{client}.npz" if task["state-folder"] else None
    state = load_state(context, file)
    bench.codec.settle(state, int(task["accepted-round"]))  # type: ignore[arg-type]
    payload, stats = bench.codec.encode(
        torch.sub(model.vector, before, out=before),
        state,
        round=round,
        seed=derive_seed(config.seed, "compress", round=round, partition_id=client),
    )
    save_state(context, file, state)
    metrics: dict[str, Any] = {"num-examples": len(indices), "train/loss": score.loss, "train/accuracy": score.accuracy}
    metrics |= {f"time/{stage}": seconds for stage, seconds in timer.seconds().items()}
    metrics |= {f"time/{stage}": stats.pop(f"{stage}_seconds") for stage in ("compress", "encode")}
    metrics |= {f"compress/{name}": value for name, value in stats.items()}
    arrays = ArrayRecord({"update": payload_array(payload, model.layout)})
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss and accuracy of the global weights on the samples that this client holds out."""
    bench, client, _ = _open(message, context)
    _, indices = bench.samples(client)
    score = evaluate_model(bench.model, bench.fetch(indices), len(indices))
    metrics: dict[str, Any] = {
        "num-examples": score.samples,
        "eval/client_loss": score.loss,
        "eval/client_accuracy": score.accuracy,
    }
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


def _open(message: Message, context: Context) -> tuple[Workbench, int, int]:
    """The workbench with the message's global weights loaded, the client's partition id, and the round."""
    bench = workbench(Config.from_mapping(message.content.config_records["config"]))
    torch.set_num_threads(bench.config.threads)
    weights = decode(message.content.array_records["arrays"]["weights"].data, bench.model.layout)
    bench.model.vector.copy_(torch.from_numpy(weights.to_dense()))
    round = int(message.content.config_records["task"]["round"])  # type: ignore[arg-type]
    return bench, int(context.node_config[PARTITION_ID_KEY]), round
