"""The ServerApp: settings -> experiment, strategy, rounds, telemetry."""

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

from fedsparse.checkpoint import Checkpoints, Saved
from fedsparse.client_models import shares_of
from fedsparse.compression import ClientState, UpdateCodec
from fedsparse.config import Config
from fedsparse.config.agreement import check_agreement
from fedsparse.config.effects import has_effect
from fedsparse.config.topology_checks import FIXED
from fedsparse.engine import LocalGrid
from fedsparse.engine.stopping import finishing, stoppable
from fedsparse.errors import ConfigError
from fedsparse.experiment import Experiment
from fedsparse.files import locked
from fedsparse.provenance import continued, provenance_of
from fedsparse.sparsity import Topology
from fedsparse.sparsity.topology import initialise_
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.strategies.nodes import meet_federation
from fedsparse.strategies.round_end import RoundEnd
from fedsparse.strategies.saliency import ask_saliency
from fedsparse.strategies.saver import CLIENTS, FOLDER, Saver, going_on, restore, telemetry
from fedsparse.strategies.server_model import ServerModel
from fedsparse.strategies.server_topology import ServerTopology
from fedsparse.strategies.state_place import keeps_files
from fedsparse.telemetry.folder import create_run_folder, labels, save_models, short
from fedsparse.telemetry.log_file import keep_log
from fedsparse.telemetry.progress import human_bytes
from fedsparse.telemetry.recorder import Recorder
from fedsparse.telemetry.step_log import StepTable
from fedsparse.training.batchnorm import joined
from fedsparse.training.stacked import group_size
from fedsparse.vector import digest

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One federated run: Flower's runtime calls this with its own grid."""
    federate(grid, Config.from_mapping(context.run_config))


def federate(grid: Grid, config: Config, until: int | None = None) -> Path:
    """One federated run over any grid, a new one or one that goes on.

    Args:
        until: the round after which to stop, as if there were more to come; None for the last.

    Returns:
        The run folder.
    """
    logging.getLogger("flwr").setLevel(logging.WARNING)  # telemetry prints the same as Flower's INFO lines
    config, nodes = meet_federation(grid, config)
    if config.attack != "none" and not isinstance(grid, LocalGrid):
        raise ConfigError(f"attack = {config.attack} is for experiments of main.py, never for a deployment")
    torch.set_num_threads(config.threads)
    resumed, config = config.resume, config.with_model(config.models[0]).replace(resume="")
    experiment = Experiment(config)
    if isinstance(grid, LocalGrid):
        if config.attack != "label-flip":  # whose clients train one by one, each from its own labels
            grid.group = group_size(config, experiment.model, experiment.method)
        if experiment.model.vector.is_cuda:
            grid.overlap(experiment.device)
    with ExitStack() as stack:
        if resumed:
            stack.enter_context(locked(folder := Path(resumed)))
            checkpoints = Checkpoints(folder / FOLDER)
            if saved := going_on(checkpoints, folder):
                check_agreement(saved.config, config, folder)
            strategy = make_strategy(experiment, nodes, grid, saved)
        else:
            strategy, saved = make_strategy(experiment, nodes, grid), None
            folder = create_run_folder(config.logdir, config.name or default_name(config))
            stack.enter_context(locked(folder))
            checkpoints = Checkpoints(folder / FOLDER)
        keep_log(folder)
        states = checkpoints.folder / CLIENTS
        if saved:
            restore(saved, strategy, grid, states)
        if saved.server["store"] == "files" if saved else keeps_files(largest(strategy), grid):
            strategy.cohort.state_folder = str(states)
        announce(experiment, [model.experiment for model in strategy.models.values()][1:])
        _play(grid, experiment, strategy, checkpoints, folder, saved, until)
    return folder


def _play(
    grid: Grid, experiment: Experiment, strategy: FedAvg, checkpoints: Checkpoints, folder: Path, saved: Saved | None,
    until: int | None,
) -> None:  # fmt: skip
    """All rounds, or those after the saved one, with telemetry and checkpoints."""
    config, whole = experiment.config, experiment.dense_layout
    dense, _ = UpdateCodec(whole, "none").encode(torch.ones(whole.size), ClientState(), round=0, seed=0)
    dense_bytes = None if config.client_models else len(dense)
    origin = provenance_of(experiment)
    recording = Recorder(
        config.flat(), folder, config.outfile, config.rounds, dense_bytes, experiment.task.metrics,
        provenance=continued(folder, origin, saved.round) if saved else origin, saved=telemetry(saved),
    )  # fmt: skip
    first = saved.round + 1 if saved else 1
    weights = strategy.broadcast(first)

    def save() -> None:
        recorder.extra["weights-hash"] = digest(*strategy.vectors).hex()
        modules = [model.trained.module for model in strategy.models.values()]
        save_models(modules, config, folder, experiment.dataset.vocabulary)

    with stoppable(), recording as recorder:
        recorder.extra |= strategy.notes
        strategy.has_details = recorder.shows_details
        table = StepTable(experiment.task, recorder.scalar)
        table.done = saved.server["steps"] if saved else 0
        saver = Saver(checkpoints, strategy, grid, recorder, table, save)
        after_round, complete = RoundEnd(strategy, recorder, saver, table), False
        try:
            if not saved:
                recorder.figure("partition", experiment.dataset.plot(experiment.partition))
                after_round(0)
            play(strategy, grid, range(first, (config.rounds if until is None else until) + 1), weights, after_round)
            complete = True
        finally:  # after Ctrl-C, too
            try:
                saver.stopped(complete)
            finally:
                save()
    if checkpoints.folder.exists() and not config.checkpoint_every:
        # It is as large as a model a client, and of no use after the run.
        shutil.rmtree(checkpoints.folder, ignore_errors=True)


def play(
    strategy: FedAvg, grid: Grid, rounds: range, weights: ArrayRecord, after_round: Callable[[int], object]
) -> None:
    """The rounds. Flower's own loop always begins at round 1.

    Args:
        weights: the broadcast for the first round.
        after_round: called with every round that has ended.
    """
    config, nothing = strategy.config, ConfigRecord()
    for round in rounds:
        asked = strategy.configure_train(round, weights, nothing, grid)
        replies = grid.send_and_receive(asked, timeout=config.round_timeout)
        with finishing():
            arrays, _ = strategy.aggregate_train(round, replies)
            assert arrays is not None
            weights = arrays
            asked = strategy.configure_evaluate(round, weights, nothing, grid)
            strategy.aggregate_evaluate(round, grid.send_and_receive(asked, timeout=config.round_timeout))
            after_round(round)


def largest(strategy: FedAvg) -> Experiment:
    """The experiment of the largest network."""
    return max((model.experiment for model in strategy.models.values()), key=lambda each: each.layout.parameters)


def announce(experiment: Experiment, others: Sequence[Experiment]) -> None:
    """Print what the settings do not say: the network's size, samples that moved, a topology without readjustment."""
    config, moved = experiment.config, experiment.partition.moved
    weights, name = experiment.dense_layout.parameters, experiment.model_name
    sparse = f", {config.topology_method} at sparsity {config.sparsity:g}" if config.topology_method != "dense" else ""
    small = f", {experiment.layout.parameters:,} of them or of their factors trained"
    small = small if config.lowrank_layers != "off" or config.lora_rank else ""
    samples = sum(experiment.training_sizes())
    print(f"{name}: {weights:,} weights, {human_bytes(4 * weights)} dense{small}{sparse}; {samples:,} training samples")
    for other in others:
        weights = other.dense_layout.parameters
        print(f"{other.model_name}: {weights:,} weights, {human_bytes(4 * weights)} dense")
    if shares := shares_of(config.client_models):
        word = dict(zip(config.models, labels(config.models), strict=True))
        held = [f"{word[name]} {share / sum(shares.values()):.0%}" for name, share in shares.items()]
        print(f"clients hold one of {', '.join(held)}")
    if moved:
        print(f"{moved} samples changed hands, so that every client holds at least {config.min_samples}")
    if line := joined(config, experiment.model.module, experiment.training_sizes()):
        print(line)
    readjusts = any(map(experiment.method.is_readjustment, range(1, config.rounds + 1)))
    if config.topology_method not in FIXED and config.upload_pruning == "off" and not readjusts:
        interval, end = config.readjustment_interval, config.readjustment()["end"]
        print(f"the topology stays as it is: readjustment-interval = {interval}, but readjustment ends at round {end}")


def make_strategy(experiment: Experiment, nodes: Sequence[int], grid: Grid, saved: Saved | None = None) -> FedAvg:
    """The strategy with the networks of round 1.

    A strategy whose state is ``saved`` starts with every weight, because its topologies are a part of that state.
    """
    config = experiment.config
    experiments = [
        experiment if name == config.model else Experiment(config.with_model(name)) for name in config.models
    ]
    (first, metrics), *others = (make_model(each, nodes, grid, saved) for each in experiments)
    strategy = FedAvg(first, nodes, [model for model, _ in others])
    if not saved:
        strategy.cohort.tally.metrics = first.topology.metrics | metrics
        if strategy.uplink:
            strategy.uplink.spend(0, metrics)
    return strategy


def make_model(
    experiment: Experiment, nodes: Sequence[int], grid: Grid, saved: Saved | None
) -> tuple[ServerModel, dict[str, float]]:
    """A network with the topology of round 1; a method that needs the clients' saliency asks the clients first.

    Returns:
        The network, and what the asking measured.
    """
    if saved and (before := saved.server["strategy"]["models"][experiment.config.model])["ranks"]:
        experiment = Experiment(experiment.config, before["ranks"], before["lost"])
    method, layers = experiment.method, experiment.layers
    weights = experiment.model.vector.cpu().clone()
    if saved:
        full = ServerTopology(experiment, Topology.full(layers, experiment.layout.parameters))
        return ServerModel(experiment, full, weights), {}
    saliency, metrics = None, dict[str, float]()
    if method.needs_saliency:
        dense = ServerTopology(experiment, Topology.full(layers, experiment.layout.parameters))
        saliency, metrics = ask_saliency(grid, ServerModel(experiment, dense, weights), nodes)
    elif method.initial_mask == "magnitude":
        saliency = weights[: experiment.layout.parameters].abs()
    topology = ServerTopology.of_round_1(experiment, saliency)
    if method.scales_initial and method.initial_mask == "random":
        initialise_(weights, topology.current)
    return ServerModel(experiment, topology, weights), metrics


def default_name(config: Config) -> str:
    """Run folders tell their main settings."""
    words = [short(name) for name in (config.dataset, config.distribution, config.strategy, config.compressor)]
    if has_effect("beta", config):
        words[1] += f"-{config.beta:g}"
    if config.sparsity:
        words.append(f"{short(config.topology_method)}-{config.sparsity:g}")
    return "-".join(words)
