"""main.py as a user types it."""

import csv
import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsparse.commands import main
from fedsparse.commands.all_commands import COMMANDS
from fedsparse.commands.command_line import parse
from fedsparse.compression import decode
from fedsparse.config import Config
from fedsparse.engine import LocalGrid
from fedsparse.vector import FlatModel, digest
from tests.e2e.as_user import SMALL, run, shell, tiny
from tests.e2e.tap import TAPPED


def test_a_run_learns_and_leaves_all_result_files(tmp_path: Path) -> None:
    result = run(tmp_path, "--rounds", "12", "--clients-per-round", "5", "--eval-clients", "--lr", "0.1")
    accuracy = [r["eval/accuracy"] for r in result["rounds"]]
    assert max(accuracy[1:]) > accuracy[0] + 0.1
    assert 0 <= result["rounds"][-1]["eval/client_accuracy"] <= 1
    (folder,) = (tmp_path / "runs").iterdir()
    names = {p.name.split(".")[0] for p in folder.iterdir()}
    assert names == {"config", "provenance", "rounds", "result", "partition", "model", "events"}
    rows = list(csv.DictReader((folder / "rounds.csv").open()))
    for stage in ("sample", "data", "forward", "backward", "optimizer", "compress", "encode", "decode", "aggregate"):
        assert float(rows[-1][f"time/{stage}"]) > 0, stage
    assert float(rows[-1]["time/round"]) > 0
    again = main(["--config", str(folder / "config.yaml"), "--rounds", "1"])
    assert again == 0


def test_the_saved_model_is_the_model_that_was_evaluated(tmp_path: Path) -> None:
    result = run(tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    from fedsparse.models import build_model

    model = FlatModel(build_model("cnn-small", (1, 28, 28), 10, "batch", 0))
    model.module.load_state_dict(torch.load(folder / "model.pt", weights_only=True))
    assert digest(model.vector.numpy()).hex() == result["summary"]["weights-hash"]


@pytest.mark.parametrize("compressor", ["none", "topk", "hggtopk", "dgc", "randomk"])
def test_uplink_is_the_payloads_length_and_the_server_adds_the_decoded_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressor: str
) -> None:
    TAPPED.clear()
    original = LocalGrid.__init__
    monkeypatch.setattr(LocalGrid, "__init__", lambda self, _, *a, **k: original(self, "tests.e2e.tap:app", *a, **k))
    result = run(tmp_path, "--compressor", compressor, "--rounds", "2")
    assert result["summary"]["uplink-bytes"] == sum(len(t.payload) for t in TAPPED)
    for round in (1, 2):
        taps = [t for t in TAPPED if t.round == round]
        assert result["rounds"][round]["comm/uplink_bytes"] == sum(len(t.payload) for t in taps)
        assert result["rounds"][round]["comm/downlink_bytes"] == sum(len(t.weights) for t in taps)
    first, second = ([t for t in TAPPED if t.round == r] for r in (1, 2))
    total = sum(t.samples for t in first)
    mean = sum(decode(t.payload, t.layout, t.bound).to_dense().astype(np.float64) * t.samples / total for t in first)
    before, after = (decode(t[0].weights, t[0].layout).to_dense() for t in (first, second))
    np.testing.assert_allclose(after, before + mean, rtol=0, atol=1e-7)


def test_a_seed_gives_the_same_bits_again_with_any_number_of_workers(tmp_path: Path) -> None:
    returning = ("--clients", "6", "--rounds", "4", "--augment", "true")  # most clients train again with a residual
    hashes = [
        run(tmp_path, *returning, "--seed", seed, "--workers", workers)["summary"]["weights-hash"]
        for seed, workers in (("1", "1"), ("1", "1"), ("1", "2"), ("1", "3"), ("2", "1"))
    ]
    assert hashes[0] == hashes[1] == hashes[2] == hashes[3] != hashes[4]


def test_augmentation_changes_the_images_that_clients_train_on(tmp_path: Path) -> None:
    plain, augmented = (run(tmp_path, "--augment", on)["summary"]["weights-hash"] for on in ("false", "true"))
    assert plain != augmented


def test_an_error_feedback_residual_waits_for_the_client_to_come_back(tmp_path: Path) -> None:
    kept, dropped = (
        run(
            tmp_path, "--error-feedback", on, "--clients", "10", "--clients-per-round", "8", "--dataset", tiny(tmp_path)
        )
        for on in ("on", "off")
    )
    assert kept["rounds"][-1]["compress/residual_norm"] > 0
    assert dropped["rounds"][-1]["compress/residual_norm"] == 0
    assert kept["summary"]["weights-hash"] != dropped["summary"]["weights-hash"]


def test_flags_override_files_and_files_override_defaults(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rounds: 7\nbeta: 0.3\nclients_per_round: 4\n")
    arguments = ["--config", str(tmp_path / "a.yaml"), "--beta", "0.5"]
    command, settings, files, own = parse(arguments, COMMANDS, "")
    config = Config.from_mapping(settings)
    assert (command, files, own) == ("run", [], {})
    assert (config.rounds, config.beta, config.clients_per_round, config.lr) == (7, 0.5, 4, Config().lr)


def test_the_partition_command_prints_the_histogram_and_saves_the_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["partition", "--distribution", "shards", "--logdir", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    (picture,) = tmp_path.rglob("partition.png")
    assert str(picture) in shown.replace("\n", "")
    assert picture.stat().st_size > 1000


def test_help_names_the_allowed_values_of_a_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "One of iid, dirichlet, dirichlet-per-client, dirichlet-self-balancing, shards, natural" in shown
    assert ", a .csv file, or one's own as file.py:attribute. [iid]" in shown


@pytest.mark.parametrize(("workers", "ending"), [("1", signal.SIGINT), ("2", signal.SIGINT), ("2", signal.SIGTERM)])
def test_a_terminated_run_saves_its_rounds_and_leaves_no_process(tmp_path: Path, workers: str, ending: int) -> None:
    settings = ["--rounds", "100000", "--workers", workers, "--logdir", str(tmp_path), "--state-store", "files"]
    process = shell(*SMALL, *settings, start_new_session=True)
    assert process.stdout
    for line in process.stdout:
        if line.startswith("round      2/"):
            break
    if ending == signal.SIGINT:
        os.killpg(process.pid, ending)  # a terminal signals the whole group
    else:
        process.send_signal(ending)  # a batch system signals one process
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    (path,) = tmp_path.rglob("result.json")
    result = json.loads(path.read_text())
    assert result["summary"]["ended"] == "interrupted"
    assert result["summary"]["rounds"] >= 2
    assert list(path.parent.glob("checkpoint/clients/*/*.npz"))  # the clients' states are kept, to go on from
    deadline = time.monotonic() + 20
    while group_is_alive(process.pid):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.1)


def group_is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_residuals_in_files_and_in_contexts_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[int] = []
    rmtree = shutil.rmtree

    def counting(folder: str, **options: bool) -> None:
        if states := list(Path(folder).glob("clients/*")):
            removed.append(len(states))
        rmtree(folder, **options)

    monkeypatch.setattr("fedsparse.strategies.server_app.shutil.rmtree", counting)
    few = ["--clients", "10", "--clients-per-round", "8", "--dataset", tiny(tmp_path)]
    context, files = (run(tmp_path, *few, "--state-store", store) for store in ("context", "files"))
    assert context["summary"]["weights-hash"] == files["summary"]["weights-hash"]
    (count,) = removed  # when the run has ended
    assert 8 <= count <= 10


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here")
def test_residuals_that_stay_on_a_gpu_change_no_bit(tmp_path: Path) -> None:
    few = ["--clients", "10", "--clients-per-round", "8", "--dataset", tiny(tmp_path), "--device", "cuda"]
    results = [run(tmp_path, *few, *flags) for flags in ([], ["--state-store", "files"], ["--client-timeout", "600"])]
    assert len({result["summary"]["weights-hash"] for result in results}) == 1


def test_clients_trained_together_end_as_one_by_one_with_any_number_of_workers(tmp_path: Path) -> None:
    flags = ["--model", "mlp-small", "--clients", "40", "--clients-per-round", "20", "--eval-clients"]
    alone = run(tmp_path, *flags, "--cohort-batching", "off")
    together = [run(tmp_path, *flags, "--cohort-batching", "on", "--workers", n) for n in ("1", "2", "3")]
    assert len({result["summary"]["weights-hash"] for result in together}) == 1
    assert together[0]["summary"]["weights-hash"] != alone["summary"]["weights-hash"]  # sums in another order
    for tag in ("train/loss", "eval/loss", "eval/client_loss", "compress/residual_norm", "comm/clients"):
        assert together[0]["rounds"][-1][tag] == pytest.approx(alone["rounds"][-1][tag], rel=1e-3), tag


@pytest.mark.parametrize("method", ["static", "rigl"])
def test_sparse_clients_train_together_too(tmp_path: Path, method: str) -> None:
    flags = ["--model", "mlp-small", "--clients-per-round", "5", "--rounds", "5", "--topology", method]
    flags += ["--sparsity", "0.8", "--dense-layers", "last"]
    flags += ["--need-readjust", "--readjustment-interval", "2"] if method == "rigl" else []
    alone, together = (run(tmp_path, *flags, "--cohort-batching", switch) for switch in ("off", "on"))
    for tag in ("train/loss", "eval/loss", "topology/density", "comm/clients"):
        assert together["rounds"][-1][tag] == pytest.approx(alone["rounds"][-1][tag], rel=1e-2), tag


def test_an_optimizers_moments_stay_with_the_client_and_are_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    flags = ["--dataset", tiny(tmp_path), "--model", "mlp-small", "--clients", "3", "--compressor", "none"]
    flags += ["--optimizer", "adamw", "--lr", "0.01"]
    fresh = run(tmp_path, *flags, "--state-store", "context")
    kept = run(tmp_path, *flags, "--state-store", "context", "--keep-moments")
    others = run(tmp_path, *flags, "--state-store", "files", "--keep-moments", "--workers", "2")
    hashes = [result["summary"]["weights-hash"] for result in (fresh, kept, others)]
    assert hashes[0] != hashes[1] == hashes[2]
    assert kept["summary"]["uplink-bytes"] < 1.2 * fresh["summary"]["uplink-bytes"]
