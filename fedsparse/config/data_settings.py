"""Data, and who holds it."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from fedsparse.catalogue import DATASETS, PARTITIONERS
from fedsparse.config.settings import OneOf, Settings

FILES = {".npz": "an .npz file", ".txt": "a .txt file", ".jsonl": "a .jsonl file"}


def _tokenizer(name: str) -> str:
    if not re.fullmatch(r"auto|char|byte|gpt2|word(:\d+)?|bpe:\d+|.*[/.].*", name):
        raise ValueError("should be auto, char, byte, word, word:N, bpe:N, gpt2, or a path such as ./tokenizer.json")
    return name


class DataSettings(Settings):
    """Data, and who holds it."""

    dataset: Annotated[str, OneOf(DATASETS, suffixes=FILES, folders=True)] = "fashion-mnist-mini"
    """The data set. fashion-mnist-mini and shakespeare-mini are embedded; a folder holds train/CLASS/*.png and
    test/CLASS/*.png, or text as CLIENT.txt; a line of a .jsonl file has text, and perhaps client and label."""
    data_dir: str = Field("data", min_length=1)
    """Folder that data sets are read from, and downloaded into when absent."""
    tokenizer: Annotated[str, AfterValidator(_tokenizer)] = "auto"
    """How text becomes tokens: char, byte, word or word:N (the N most frequent, 10,000 by default), bpe:N (trained on
    the text), gpt2, or the path of a tokenizer.json or of a folder with one. auto: word for ptb, bpe:8000 for wikitext
    and openwebtext, else char."""
    seq_length: int = Field(128, ge=1, le=2**20)
    """Tokens of a window of text, which is one sample."""
    distribution: Annotated[str, OneOf(PARTITIONERS, suffixes={".csv": "a .csv file"})] = "iid"
    """How samples are spread over clients. dirichlet: each class by shares of its own; dirichlet-per-client: each
    client's classes, at equal sizes (Hsu et al. 2019, SSFL); dirichlet-self-balancing: as dirichlet, but clients stop
    at the mean size (NIID-Bench, FedRTS). natural: as the data set says; a file: as `main.py partition` writes it."""
    beta: float = Field(0.1, gt=0)
    """Concentration of a Dirichlet distribution; smaller is more heterogeneous. The same beta is other data in each of
    the three."""
    classes_per_client: int = Field(2, ge=1)
    """Shards a client receives under `shards` (McMahan's pathological split)."""
    min_samples: int = Field(2, ge=1)
    """Fewest samples a client may hold; the few moved to keep it are reported (dirichlet-self-balancing draws again, as
    its authors' code does with 10)."""
    augment: bool = False
    """While training, random crops and flips of images, as usual for the data set; a window of text begins up to a
    window earlier, at random, inside the text that its client trains on."""
