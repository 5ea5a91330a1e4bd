"""The runs in folders, and in what they differ."""

from collections.abc import Iterable
from pathlib import Path

from fedsparse.config import Config
from fedsparse.errors import ConfigError
from fedsparse.report.results import FEDERATED, command_of, find_results, used, without_repeats


class FoundRuns:
    """The runs in folders, without repetitions, each with the settings in which they differ.

    Args:
        folders: run folders, sweep folders (all their cells), or result files.

    Attributes:
        runs: the settings that distinguish each run, and its result.
        files: of each run, the file that it was read from.
        configs: of the runs that have a partition.
        notes: a line for each path and each run that is left out.

    Raises:
        ConfigError: a path that does not exist, no run at all, or a result whose settings are not valid.
    """

    def __init__(self, folders: Iterable[str | Path]) -> None:
        found, skipped = find_results(folders)
        found, repeated = without_repeats(found)
        self.notes = skipped + repeated
        self.files = list(found)
        self.configs: list[Config] = []
        settings = []
        for file, result in found.items():
            try:
                config = Config.from_mapping(result["config"])
            except ConfigError as error:
                raise ConfigError(f"{file}: {error}") from None
            command = command_of(result)
            settings.append({"command": command, **used(config, command)})
            if command == FEDERATED:  # a central run has no partition
                self.configs.append(config)
        keys = dict.fromkeys(key for s in settings for key in s)
        differing = [key for key in keys if len({repr(s[key]) for s in settings if key in s}) > 1]
        chosen = [{key: s[key] for key in differing if key in s} for s in settings]
        self.runs = list(zip(chosen, found.values(), strict=True))

    def shares_partition(self) -> bool:
        """Whether all runs of one seed have the same partition."""
        return len({repr((c.loading(), c.replace(seed=0).partitioning())) for c in self.configs}) == 1
