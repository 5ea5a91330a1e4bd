"""The log of a run."""

import logging
import shutil
from pathlib import Path

from fedsparse.telemetry.log_file import keep_log


def test_a_warning_after_a_run_whose_folder_was_removed_disturbs_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    keep_log(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    logging.getLogger("fedsparse").warning("of a later command in the same process")
    keep_log(tmp_path)
    logging.getLogger("fedsparse").warning("of a later run")
    assert (tmp_path / "log.txt").read_text().endswith(" of a later run\n")
