"""The ServerApp: settings -> model, strategy, evaluation on the pooled test set, telemetry."""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import xxhash
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import FIXED, Config
from fedsparse.device import resolve_device
from fedsparse.engine import LocalGrid
from fedsparse.engine.stopping import stoppable
from fedsparse.seeds import derive_seed
from fedsparse.sparsity import Topology, TopologyMethod
from fedsparse.sparsity.setup import build_method, build_network, layers_of
from fedsparse.sparsity.topology import initialise_
from fedsparse.telemetry.folder import create_run_folder, save_model
from fedsparse.telemetry.recorder import Recorder
from fedsparse.training.loop import evaluate
from fedsparse.training.stacked import group_size
from fedsparse.vector import FlatModel
from partitions import Dataset, Partition, load_dataset, normalise, partition, to_device
from partitions.picture import plot_partition
from strategies import STRATEGIES, FedAvg
from strategies.nodes import meet_federation
from strategies.saliency import ask_saliency
from strategies.server_topology import ServerTopology

app = ServerApp()

LARGE_STATE = 2**20  # bytes; about where copying a Context with every message begins to show
LARGE_MEMORY = 2**32  # bytes; of all clients' Contexts, which this process holds


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One federated run: every engine calls this with its own grid."""
    logging.getLogger("flwr").setLevel(logging.WARNING)  # telemetry says it all, and once
    config, nodes = meet_federation(grid, Config.from_mapping(context.run_config))
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    data = to_device(load_dataset(config.dataset, config.data_dir), device)
    parts = partition(data.y_train.cpu(), **config.partitioning())
    network = build_network(config, data.input_shape, data.classes, derive_seed(config.seed, "model"))
    model = FlatModel(network.to(device))
    if isinstance(grid, LocalGrid):
        grid.group = group_size(config, model, build_method(config))
        if device.type == "cuda":
            grid.overlap(device)
    strategy = make_strategy(config, model, nodes, grid)
    folder = create_run_folder(config.logdir, config.name or default_name(config))
    if keeps_files(config, model, grid):
        strategy.state_folder = str(folder / "clients")
    weights = strategy.broadcast(1)
    dense, _ = UpdateCodec(model.layout, compressor="none").encode(model.vector, ClientState(), round=0, seed=0)
    keep_log(folder)
    announce(config, parts, strategy.topology.method)
    recording = Recorder(config.flat(), folder, config.outfile, config.rounds, dense_bytes=len(dense))
    with stoppable(), recording as recorder:
        recorder.figure("partition", plot_partition(data.y_train.cpu(), parts, data.class_names))
        try:
            strategy.start(
                grid,
                weights,
                num_rounds=config.rounds,
                timeout=config.round_timeout,
                evaluate_fn=RoundEnd(strategy, model, data, recorder),
            )
        finally:  # after Ctrl-C too, the weights are worth keeping
            recorder.extra["weights-hash"] = weights_hash(strategy.weights)
            model.vector.copy_(strategy.weights)
            save_model(model.module, folder / "model.pt")
            if strategy.state_folder:  # as large as the model for each client, and of no use to anyone now
                shutil.rmtree(strategy.state_folder, ignore_errors=True)


def announce(config: Config, parts: Partition, method: TopologyMethod) -> None:
    """Say what happens to be other than the settings let one expect."""
    if parts.moved:
        print(f"{parts.moved} samples changed hands, so that every client holds at least {config.min_samples}")
    if config.topology_method not in FIXED and not any(map(method.is_readjustment, range(1, config.rounds + 1))):
        interval, end = config.readjustment_interval, config.readjustment()["end"]
        print(f"the topology stays as it is: readjustment-interval = {interval}, but readjustment ends at round {end}")


def keeps_files(config: Config, model: FlatModel, grid: Grid) -> bool:
    """Whether clients keep their state in files of the run folder, by the settings or by ``auto``'s rule.

    A Context as large as the model doubles Flower's traffic, and small ones of very many clients fill the memory. Nodes
    that ``main.py`` did not start may be on other machines, where that folder means nothing. A client that is trained
    in this process, on a GPU, has its residual there from round to round, where a quarter of what is free holds all of
    them (dgc's momentum takes another); what such clients keep on the host is bounded as elsewhere.
    """
    if config.state_store != "auto":
        return config.state_store == "files"
    size = 4 * model.layout.parameters
    touched = min(config.clients, config.rounds * config.clients_per_round)
    if model.vector.is_cuda and isinstance(grid, LocalGrid) and grid.in_process:
        on_host = not config.downlink_is_whole or config.residual_dtype == "bf16"
        too_much = 4 * size * touched > torch.cuda.mem_get_info(model.vector.device)[0]
        return too_much or (on_host and size * touched > LARGE_MEMORY)
    near = isinstance(grid, LocalGrid) or config.engine == "flower"
    return near and (size > LARGE_STATE or size * touched > LARGE_MEMORY)


def make_strategy(config: Config, model: FlatModel, nodes: Sequence[int], grid: Grid) -> FedAvg:
    """The strategy with the topology of round 1, for which some methods ask the clients first."""
    layout, method = model.layout, build_method(config)
    layers = layers_of(config, model.module, layout)
    weights = model.vector.cpu().clone()
    make, saliency, metrics = STRATEGIES[config.strategy], None, dict[str, float]()
    if method.needs_saliency:
        dense = ServerTopology(config, layout, layers, method, Topology.full(layers, layout.parameters))
        broadcast = make(config, dense, weights, nodes).broadcast(0)
        saliency, metrics = ask_saliency(grid, config, nodes, dense, broadcast)
    topology = ServerTopology.of_round_1(config, layout, layers, method, saliency)
    if method.scales_initial:
        initialise_(weights, topology.topology)
    strategy = make(config, topology, weights, nodes)
    strategy.metrics = strategy.topology.metrics | metrics
    return strategy


def keep_log(folder: Path) -> None:
    """The run's warnings, and the whole tracebacks of failed clients, in ``log.txt``."""
    logger = logging.getLogger("fedsparse")
    for earlier in [h for h in logger.handlers if isinstance(h, logging.FileHandler)]:  # a run in the same process
        logger.removeHandler(earlier)
        earlier.close()
    handler = logging.FileHandler(folder / "log.txt", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


class RoundEnd:
    """Flower calls this after every round, and as round 0 before the first: evaluate when due, record everything."""

    def __init__(self, strategy: FedAvg, model: FlatModel, data: Dataset, recorder: Recorder) -> None:
        self.strategy, self.model, self.data, self.recorder = strategy, model, data, recorder
        self.began = time.perf_counter()

    def __call__(self, round: int, arrays: ArrayRecord) -> MetricRecord | None:
        strategy = self.strategy
        metrics = strategy.metrics
        if strategy.evaluates(round):
            with strategy.timer("evaluate"):
                self.model.vector.copy_(strategy.weights)
                score = evaluate(self.model, self._fetch, len(self.data.y_test))
            metrics |= {"eval/loss": score.loss, "eval/accuracy": score.accuracy}
        metrics |= {f"time/{stage}": seconds for stage, seconds in strategy.timer.seconds().items()}
        now = time.perf_counter()
        metrics["time/round"], self.began = now - self.began, now
        self.recorder.record(round, metrics)
        self._show_topology(round)
        return MetricRecord({tag: v for tag, v in metrics.items() if tag.startswith("eval/")}) or None

    def _show_topology(self, round: int) -> None:
        """For TensorBoard: densities of the layers, agreement of the clients, and the weights that exist."""
        state = self.strategy.topology
        histograms = {}
        if state.metrics["topology/changed"] or round in (0, self.strategy.config.rounds):
            histograms["topology/weights"] = self.strategy.weights[: state.layout.parameters][state.topology.mask]
        self.recorder.details(round, state.details, histograms)

    def _fetch(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return normalise(self.data.x_test[positions], self.data.mean, self.data.std), self.data.y_test[positions]


def default_name(config: Config) -> str:
    """Run folders tell their main settings."""
    heterogeneity = (
        f"{config.distribution}-{config.beta:g}" if config.distribution == "dirichlet" else config.distribution
    )
    dataset = Path(config.dataset).stem
    topology = f"-{config.topology_method}-{config.sparsity:g}" if config.sparsity else ""
    return f"{dataset}-{heterogeneity}-{config.strategy}-{config.compressor}{topology}"


def weights_hash(weights: Tensor) -> str:
    """64 bits of the final weights: equal hashes, equal bits."""
    return xxhash.xxh3_64_hexdigest(weights.numpy().tobytes())
