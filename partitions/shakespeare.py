"""shakespeare-mini: 100 roles of 32 plays in the repository, so that a first run needs no network.

Text in the public domain. A role is a natural client, a speech is a document, and a play is a label. The last fifth of
each role's speeches is the test. LEAF (Caldas et al. 2018, arXiv:1812.01097) splits Shakespeare by roles too.
"""

import json
from pathlib import Path

from partitions.dataset import DataError, reason
from partitions.text import Document, Text, text_from
from partitions.tokenizer import Char

PATH = Path(__file__).with_name("shakespeare-mini.json")


def load(data_dir: Path, tokenizer: str, seq_length: int) -> Text:
    """The embedded data set; `data_dir` is not used.

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
    return text_from(train, test, Char(document.text for document in train), seq_length)
