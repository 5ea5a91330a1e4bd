"""A partition is written to a file and read again; a file that is no partition of the data gives a one-line error."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.partitions import DataError, Partition, iid, partition, partition_file


def read(path: Path, samples: int, clients: int) -> Partition:
    return partition([0] * samples, partition_file.owners_from(path), clients, seed=0, name=path.name, min_samples=2)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_a_partition_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, ids: list[int]) -> None:
    held = np.unique(ids, return_inverse=True)[1]
    clients = int(held.max()) + 1
    written = partition([0] * len(ids), lambda labels, clients, rng: held, clients, seed=0, min_samples=0)
    path = tmp_path_factory.mktemp("partition") / "partition.csv"
    partition_file.write(path, written)
    again = read(path, len(ids), clients)
    assert np.array_equal(again.order, written.order)
    assert np.array_equal(again.offsets, written.offsets)
    assert (again.moved, again.name) == (0, "partition.csv")


def test_the_file_has_a_header_and_a_line_a_sample(tmp_path: Path) -> None:
    path = tmp_path / "partition.csv"
    partition_file.write(path, partition([0] * 4, lambda labels, clients, rng: [1, 0, 2, 1], 3, seed=0))
    assert path.read_bytes() == b"sample,client\n0,1\n1,0\n2,2\n3,1\n"


def test_lines_may_come_in_any_order_and_with_any_line_ending(tmp_path: Path) -> None:
    path = tmp_path / "partition.csv"
    path.write_bytes(b"\xef\xbb\xbfsample,client\r\n2,0\r\n0,1\r\n1,0")
    assert read(path, 3, 2).owners.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "partition.csv, line 1: the header should be sample,client, not ''"),
        ("client,sample\n0,0", "partition.csv, line 1: the header should be sample,client, not 'client,sample'"),
        ("sample,client\n0,0\n1;1\n", "line 3: should be two whole numbers, sample,client, not '1;1'"),
        ("sample,client\n0,0\n1,0.5\n", "line 3: should be two whole numbers, sample,client, not '1,0.5'"),
        ("sample,client\n0,-1\n", "line 2: should be two whole numbers, sample,client, not '0,-1'"),
        ("sample,client\n0,\n", "line 2: should be two whole numbers, sample,client, not '0,'"),
        ("sample,client\n0,0\n\n1,1\n", "line 3: should be two whole numbers, sample,client, not ''"),
        (f"sample,client\n0,{'9' * 5000}\n", "line 2: should be two whole numbers"),
        ("sample,client\n0,0\n1,1\n0,1\n2,1", "line 4: sample 0 a second time"),
        ("sample,client\n0,0\n1,1\n3,1\n", "line 4: sample 3, but the data set has 0 to 2"),
        ("sample,client\n0,0\n", "partition.csv: 2 of 3 training samples are missing, the first is 1"),
        ("sample,client\n0,0\n1,1\n2,2\n", "partition.csv has 3 clients, not 2; run with --clients 3"),
        ("sample,client\n0,0\n1,0\n2,0\n", "partition.csv has 1 clients, not 2; run with --clients 1"),
        ("sample,client\n0,1\n1,1\n2,1\n", "partition.csv has no sample for client 0"),
        (f"sample,client\n0,0\n1,1\n2,{'9' * 18}\n", f"has {10**18} clients, not 2"),
    ],
)
def test_a_file_that_is_no_partition_of_the_data_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "partition.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read(path, 3, 2)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent.csv: cannot read the partition: .*No such file"):
        read(tmp_path / "absent.csv", 3, 2)
    (tmp_path / "binary.csv").write_bytes(b"sample,client\n\xff")
    with pytest.raises(DataError, match=r"binary.csv: cannot read the partition: "):
        read(tmp_path / "binary.csv", 3, 2)


def test_the_partition_of_sixty_thousand_samples_is_written_and_read_in_a_second(tmp_path: Path) -> None:
    import time

    written = partition(np.zeros(60_000, np.int64), iid.owners, 100, seed=0)
    start = time.process_time()
    partition_file.write(tmp_path / "partition.csv", written)
    assert np.array_equal(read(tmp_path / "partition.csv", 60_000, 100).order, written.order)
    assert time.process_time() - start < 1
