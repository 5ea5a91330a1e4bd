"""Runs with weights and inputs of few bits, as a user types them."""

from pathlib import Path

import pytest

from fedsparse.commands import main
from tests.e2e.as_user import run

FEW = ["--weight-bits", "4", "--activation-bits", "8"]


@pytest.mark.parametrize("more", [["--sparsity", "0.5"], ["--weight-steps", "learned"]], ids=str)
def test_a_seed_gives_the_same_bits_with_any_number_of_workers(
    tmp_path: Path, tiny_dataset: str, more: list[str]
) -> None:
    flags = [*FEW, *more, "--dataset", tiny_dataset, "--clients", "8"]
    one, two = (run(tmp_path, *flags, "--workers", workers) for workers in ("1", "2"))
    assert one["summary"]["weights-hash"] == two["summary"]["weights-hash"]
    assert one["summary"]["downlink-bytes"] == two["summary"]["downlink-bytes"]


def test_the_downlink_shrinks_with_the_bits_unless_float_weights_are_asked_for(
    tmp_path: Path, tiny_dataset: str
) -> None:
    def downlink(*flags: str) -> int:
        return run(tmp_path, *flags, "--dataset", tiny_dataset, "--clients", "8")["summary"]["downlink-bytes"]

    dense = downlink("--weight-bits", "4", "--weight-broadcast", "float")
    assert dense > 6 * 4 * 55_338
    assert dense / 8 < downlink("--weight-bits", "4") < dense / 7
    assert dense / 32 < downlink("--weight-bits", "1") < dense / 22


def test_clients_that_train_together_start_from_quantised_weights(tmp_path: Path, tiny_dataset: str) -> None:
    flags = ["--weight-bits", "4", "--dataset", tiny_dataset, "--clients", "8"]
    one, stacked = (run(tmp_path, *flags, "--cohort-batching", kind) for kind in ("off", "on"))
    losses = [[row["train/loss"] for row in result["rounds"][1:]] for result in (one, stacked)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--weight-bits", "1", "--weight-steps", "learned"], "weight-steps = learned: has no levels above 0"),
        (["--weight-bits", "3"], "weight-bits = 3: should be 'off', '8', '4', '2' or '1'"),
        (["--weight-bits", "4", "--float-layers", "fc9"], "float-layers: no layer 'fc9'"),
        (["--weight-steps", "learned"], "has no effect: it needs another weight-bits than off"),
        (
            ["--weight-bits", "4", "--weight-broadcast", "float", "--downlink-compressor", "topk"],
            "has no effect: it needs whole weights on the downlink",
        ),
        (
            ["--weight-bits", "4", "--model", "mlp-small", "--float-layers", "first,3,last"],
            "no convolution or linear layer is left",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: list[str], line: str
) -> None:
    assert main([*flags, "--logdir", str(tmp_path)]) == 2
    (shown,) = capfd.readouterr().err.splitlines()
    assert line in shown
