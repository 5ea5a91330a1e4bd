"""``--resume FOLDER``: the settings of the run in that folder."""

from pathlib import Path

from fedsparse.config import Config
from fedsparse.config.agreement import check_agreement
from fedsparse.config.settings import Given
from fedsparse.config.yaml_file import read_yaml
from fedsparse.errors import ConfigError
from fedsparse.report.results import FEDERATED, NoRunError, Result, command_of, is_complete, read_killed, read_result


def resumed(settings: Given) -> Given:
    """All settings of the run that ``resume`` names, together with those that the user gave.

    Raises:
        ConfigError: there is no such run, it cannot go on, or the user gave other settings than it has.
    """
    folder = Path(str(settings["resume"])).expanduser().absolute()
    file = folder / "config.yaml"
    if not file.is_file():
        raise ConfigError(f"resume = {folder}: it has no config.yaml, so it is not the folder of a run")
    before = Config.from_mapping(read_yaml(file))
    asked = {**before.flat(), **settings, "resume": str(folder), "logdir": str(folder.parent)}
    config = Config.from_mapping(asked).absolute_paths()
    check_agreement(before.flat(), config, folder)
    result = measured(folder)
    if result and command_of(result) != FEDERATED:
        raise ConfigError(f"resume = {folder}: it is a run of {command_of(result)}, which keeps no checkpoints")
    grows = config.rounds > before.rounds
    if result and is_complete(result) and grows and not any(folder.glob("checkpoint/*.json")):
        raise ConfigError(
            f"resume = {folder}: this run is complete, and complete runs keep a checkpoint only with checkpoint-every"
        )
    given = Given(config.flat())
    given.typed = settings.typed
    return given


def measured(folder: Path) -> Result | None:
    """The result in a run folder, or what there is of it; None when there is nothing yet."""
    try:
        return read_result(folder / "result.json") if (folder / "result.json").exists() else read_killed(folder)
    except NoRunError:
        return None
    except ConfigError:
        if not (folder / "rounds.csv").exists():
            return None
        raise


def nothing_left(config: Config) -> bool:
    """Whether the run that is to go on has no rounds left."""
    result = measured(Path(config.resume))
    return result is not None and is_complete(result) and result["summary"]["rounds"] >= config.rounds
