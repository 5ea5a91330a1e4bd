"""shakespeare-mini: 100 roles of 32 plays in the repository, so that a first run needs no network.

Text in the public domain. A role is a natural client, a speech is a document, and a play is a label. The last fifth of
each role's speeches is the test. LEAF (Caldas et al. 2018, arXiv:1812.01097) splits Shakespeare by roles too.
"""

import json
from pathlib import Path

from fedsparse.partitions.corpus import Corpus, Document, read_corpus
from fedsparse.partitions.dataset import DataError, reason
from fedsparse.partitions.text import Text

PATH = Path(__file__).with_name("shakespeare-mini.json")


def load(data_dir: Path, tokenizer: str, seq_length: int) -> Text:
    """The embedded data set; a trained tokenizer is kept in `data_dir`.

    Raises:
        DataError: the file is damaged, or a role is shorter than a window.
    """
    try:
        roles = json.loads(PATH.read_text(encoding="utf-8"))["roles"]
        train, test = (
            [
                Document(speech, f"{role['role']} {number}", role["play"])
                for number, role in enumerate(roles)
                for speech in role[split]
            ]
            for split in ("train", "test")
        )
    except (OSError, KeyError, TypeError, ValueError) as error:
        why = f"{PATH} is damaged ({reason(error)}); restore it from the repository"
        raise DataError(f"shakespeare-mini: {why}") from error
    corpus = Corpus(train, test, "char", data_dir / "shakespeare-mini", (PATH,))
    return read_corpus(corpus, tokenizer, seq_length, data_dir)
