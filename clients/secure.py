"""The client's side of secure aggregation: what it answers, and the secrets that it keeps until the round is over."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import PARTITION_ID_KEY

from fedsparse.clients.state_store import load_secrets, save_secrets, state_files
from fedsparse.clients.workbench import SparseModel, Workbench
from fedsparse.compression.wire import bind, binding, decode
from fedsparse.engine.records import payload_array, plain_array
from fedsparse.engine.state_files import SECRETS
from fedsparse.privacy import masked_payload
from fedsparse.privacy.secure_client import Client
from fedsparse.privacy.secure_sum import Session

Answer = Callable[[Client, bytes], bytes]


def answer_phases(app: ClientApp) -> None:
    """Let the app answer the phases of secure aggregation beside the training."""
    answers: dict[str, Answer] = {
        "secure_keys": lambda client, data: client.keys(),
        "secure_shares": Client.shares,
        "secure_reveal": Client.reveal,
    }
    for phase, answer in answers.items():
        app.query(phase)(_answering(answer))


def _answering(answer: Answer) -> Callable[[Message, Context], Message]:
    def handle(message: Message, context: Context) -> Message:
        with member(message, context) as client:
            reply = answer(client, _sent(message))
        return Message(RecordDict({"arrays": ArrayRecord({"secure": plain_array(reply)})}), reply_to=message)

    return handle


@contextmanager
def member(message: Message, context: Context) -> Iterator[Client]:
    """This client in the session of a message. Its memory is saved when the block ends, unless the block raises."""
    task: Any = message.content["task"]
    number = int(context.node_config[PARTITION_ID_KEY])
    files = state_files(task, number, SECRETS)
    client = Client(Session(task["session"], task["threshold"]), number, load_secrets(context, files))
    yield client
    save_secrets(context, files, client.memory)


def masked_array(
    bench: Workbench, context: Context, message: Message, payload: bytes, own: SparseModel, samples: int
) -> Array:
    """The masked upload of an update, whose ``payload`` ``codec_for`` has encoded."""
    layout, total, task = own.compact.layout, bench.fixed_sum, message.content.config_records["task"]
    words = total.words(decode(payload, layout), samples)
    with member(message, context) as client:
        client.mask(_sent(message), words)
    masked = masked_payload.encode(words, total.word_bits, layout, int(task["round"]))  # type: ignore[arg-type]
    return payload_array(bind(masked, binding(str(task["run"]), client.me)), layout)


def _sent(message: Message) -> bytes:
    record: Any = message.content.get("secure")
    return b"" if record is None else record["secure"].data
