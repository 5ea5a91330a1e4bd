"""What happens at the end of a round: evaluation on the pooled test set, measurements, a checkpoint."""

import time

from fedsparse.report.early_exits import figure_of_run
from fedsparse.strategies.fedavg import FedAvg
from fedsparse.strategies.layer_details import layer_histograms, mask_images, residual_of
from fedsparse.strategies.saver import Saver
from fedsparse.telemetry.folder import labels
from fedsparse.telemetry.recorder import Recorder
from fedsparse.telemetry.step_log import StepTable
from fedsparse.telemetry.tags import of_model
from fedsparse.telemetry.trackers import Details
from fedsparse.training.early_exit import early_exits
from fedsparse.training.evaluation import evaluate
from fedsparse.vector import round_hash


class RoundEnd:
    """Called after every round, and as round 0 before the first: evaluate when due, record everything, save."""

    def __init__(self, strategy: FedAvg, recorder: Recorder, saver: Saver, table: StepTable) -> None:
        self.strategy, self.recorder = strategy, recorder
        self.saver, self.table = saver, table
        self.began = time.perf_counter()

    def __call__(self, round: int) -> None:
        strategy, experiment, cohort = self.strategy, self.strategy.model.experiment, self.strategy.cohort
        metrics = cohort.tally.metrics
        if strategy.evaluates(round):
            with cohort.tally.timer("evaluate"):
                metrics |= self._scores()
            if round == experiment.config.rounds:
                model, fetch = strategy.model.trained, experiment.fetch_test
                if found := early_exits(model, fetch, experiment.data.test_size, experiment.task):
                    self.recorder.extra |= found
                    self.recorder.figure("early-exits", figure_of_run(found, self.recorder.headline))
        metrics |= {f"time/{stage}": seconds for stage, seconds in cohort.tally.timer.seconds().items()}
        metrics["weights/hash"] = round_hash(*strategy.vectors)
        now = time.perf_counter()
        metrics["time/round"], self.began = now - self.began, now
        for client, steps in cohort.tally.steps.items():
            for entry in steps.entries:
                self.table.show(round, str(client), entry)
            self.table.finish(steps.taken)
        self.recorder.record(round, metrics)
        self.saver.round_ended(round)
        if strategy.has_details:
            self.recorder.details(round, self._details(round))
        self.saver.save_if_due(round)

    def _scores(self) -> dict[str, float]:
        """The scores on the pooled test set: of the network that results are about, and of each one of several."""
        experiment, models = self.strategy.model.experiment, self.strategy.models
        task, samples = experiment.task, experiment.data.test_size
        scores = [evaluate(model.trained, experiment.fetch_test, samples, task) for model in models.values()]
        metrics = scores[0].tagged("eval/", task)
        if self.strategy.config.client_models:
            named = dict(zip(labels(list(models)), scores, strict=True))
            self.recorder.extra["models"] = {label: score.tagged("", task) for label, score in named.items()}
            for label, score in named.items():
                metrics |= score.tagged(of_model(label), task)
        return metrics

    def _details(self, round: int) -> Details:
        """What the trackers show of the layers: densities, and in some rounds histograms and pictures."""
        strategy, topology = self.strategy, self.strategy.model.topology
        cohort, parameters = strategy.cohort, topology.layout.parameters
        details = Details(dict(topology.details), strategy.details)
        strategy.details = {}
        own = [client for client in cohort.clients if cohort.of(client) is strategy.model]
        if strategy.evaluates(round) and own:
            residual = residual_of(own[0], self.saver.grid, cohort.state_folder, parameters)
            if residual is not None:
                details.histograms |= layer_histograms("residual", residual, topology.current)
        if topology.metrics["topology/changed"] or round in (0, strategy.config.rounds):
            details.histograms |= layer_histograms("weights", strategy.model.weights, topology.current)
            details.images |= mask_images(topology.current)
        return details
