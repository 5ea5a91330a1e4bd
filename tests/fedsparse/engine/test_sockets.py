"""Sockets need a folder with a short path."""

from pathlib import Path

import pytest

from fedsparse.engine import sockets
from fedsparse.errors import RunFailed


def test_the_temporary_folder_is_taken_while_sockets_fit_and_a_short_one_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    most = sockets.LONGEST - len(str(tmp_path))
    assert sockets.socket_folder(most) == str(tmp_path)
    other = sockets.socket_folder(most + 1)
    assert len(other) < len(str(tmp_path))
    assert Path(other).is_dir()


def test_a_machine_without_a_short_folder_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(sockets, "FOLDERS", ())
    with pytest.raises(RunFailed, match=r"TMPDIR = .*: its path is too long for sockets; 3 characters are allowed"):
        sockets.socket_folder(100)
