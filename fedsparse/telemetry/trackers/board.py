"""TensorBoard, which needs no service: event files in the run folder."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from torch.utils.tensorboard.summary import hparams

from fedsparse.config import Config
from fedsparse.config.effects import in_effect
from fedsparse.telemetry.events import SummaryWriter, cut_events, event_sizes
from fedsparse.telemetry.tags import PARTS
from fedsparse.telemetry.trackers import Details, Run, Tracker

AT_THE_END = "at the end"
"""The group of a run's last numbers. TensorBoard shows the first five curves by name as columns beside the settings."""
COLUMNS = ("uplink-bytes", "downlink-bytes", "seconds")
"""The columns beside the headline and the loss."""


class Board(Tracker):
    """Event files of TensorBoard, the only tracker that shows histograms, images and curves over bytes."""

    is_optional = False  # an event file that cannot be written is a full disk, of which the run has to tell

    def __init__(self, run: Run, saved: Any = None) -> None:
        super().__init__(run)
        cut_events(run.folder, saved or {})
        self._board = SummaryWriter(str(run.folder))
        if saved is None:
            self._board.add_text("config", changed(run.config))
            self._board.add_custom_scalars(self._layout())

    def _layout(self) -> dict[str, dict[str, list[Any]]]:
        """The charts of the tab CUSTOM SCALARS, each with a regular expression for its tags."""
        headline = self.run.headline
        over = {f"{headline} over uplink, in bytes": f"^{headline}_over_uplink_bytes$"}
        if self.run.config.network() or self.run.config.compute_seconds:
            over[f"{headline} over simulated time, in ms"] = f"^{headline}_over_simulated_ms$"
        parts = {f"{part}, summed over clients": f"^time/({'|'.join(tags)})$" for part, tags in PARTS.items()}
        times = {"a round": "^time/round$", **parts, "evaluate": "^time/evaluate$"}
        titles = {"what a byte buys": over, "where the seconds go": times}
        if self.run.config.client_models:
            titles["networks side by side"] = {headline: f"^models/.*/{headline.removeprefix('eval/')}$"}
        return {title: {name: ["Multiline", [tag]] for name, tag in charts.items()} for title, charts in titles.items()}

    def round(self, round: int, row: Mapping[str, float]) -> None:
        for tag, value in row.items():
            self._board.add_scalar(tag, value, round)
        tag = self.run.headline
        if tag in row:
            # Curves over bytes and simulated time: TensorBoard's step, a whole number, is the x axis. The units are so
            # small that no two evaluations meet, and the same for all runs, so that their curves can be compared.
            self._board.add_scalar(f"{tag}_over_uplink_bytes", row[tag], int(row["comm/uplink_total"]))
            if "time/simulated_total" in row:
                milliseconds = int(1000 * row["time/simulated_total"])
                self._board.add_scalar(f"{tag}_over_simulated_ms", row[tag], milliseconds)

    def scalar(self, tag: str, value: float, step: int) -> None:
        self._board.add_scalar(tag, value, step)

    def details(self, round: int, details: Details) -> None:
        for tag, value in details.scalars.items():
            self._board.add_scalar(tag, value, round)
        for tag, h in details.histograms.items():
            self._board.add_histogram_raw(
                tag, h.low, h.high, h.number, h.sum, h.squares, h.limits, h.counts, global_step=round
            )
        for tag, image in details.images.items():
            self._board.add_image(tag, image, round, dataformats="HW")

    def figure(self, tag: str, figure: Figure) -> None:
        self._board.add_figure(tag, figure)

    def state(self) -> Any:
        """Where the files end, because a run that goes on cuts off what came later."""
        self._board.flush()
        return event_sizes(self.run.folder)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write what the tab HPARAMS shows.

        This leaves out TensorBoard's description of an experiment, because TensorBoard would take the columns of all
        runs from the one that it finds first. Without it, TensorBoard shows the settings in which the runs differ.
        """
        headline, settings = self.run.headline.removeprefix("eval/"), in_effect(self.run.config)
        _, start, end = hparams({k: str(v).lower() if isinstance(v, bool) else v for k, v in settings.items()}, {})
        assert self._board.file_writer  # it is open until the end
        for part in (start, end):
            self._board.file_writer.add_summary(part)
        for name in (headline, "loss", *COLUMNS):
            if summary.get(name) is not None:
                self._board.add_scalar(f"{AT_THE_END}/{name}", summary[name], summary["rounds"])
        self._board.close()


def changed(config: Config) -> str:
    """A table, in Markdown, of the settings that have an effect and are not at their defaults."""
    defaults = Config.from_mapping({}).flat()
    rows = [f"| {k} | {v} | {defaults[k]} |" for k, v in in_effect(config).items() if v != defaults[k]]
    return "\n".join(["| setting | value | default |", "|---|---|---|", *rows])
