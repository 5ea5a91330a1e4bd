"""The client's side of ``fedsparse.flower.broadcast``: the arrays that the app of a plain server would get."""

import json

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict

from fedsparse.compression import decode
from fedsparse.compression.changes import WEIGHTS, follow, keep
from fedsparse.engine.client_store import load_state, save_state
from fedsparse.engine.records import STYPE
from fedsparse.engine.state_files import StateFiles
from fedsparse.flower.names import ARRAYS, HASH, WHOLE
from fedsparse.flower.plain_arrays import written
from fedsparse.flower.shared_arrays import Place, part_of

KIND = "-weights"  # of this client state


def restored(content: RecordDict, task: ConfigRecord, context: Context, files: StateFiles | None) -> RecordDict:
    """A message's content with whole arrays. The client keeps them, because the next message may bring their changes.

    Raises:
        PayloadError: a payload that cannot be trusted.
        MissedChange: the changes do not fit what the client holds; the server sends all arrays next time.
    """
    listed = [(record, key, *rest) for record, key, *rest in json.loads(str(task[ARRAYS]))]
    shared = {(record, key): rest for record, key, *rest in listed if rest}
    part = part_of({place: np.broadcast_to(np.float32(0), shape) for place, (_, shape) in shared.items()})
    sent = {n: a for record in content.array_records.values() for n, a in record.items() if a.stype == STYPE}
    state = load_state(context, files, KIND)
    if WHOLE in sent:
        update = decode(sent[WHOLE].data, part.layout)
        keep(state, update.to_dense(), update.round)
    else:
        follow(state, [array.data for array in sent.values()], task[HASH], part.layout)  # type: ignore[arg-type]
    save_state(context, files, state, KIND)
    weights = np.asarray(state.memory[WEIGHTS])
    values: dict[Place, Array] = {}
    for place, entry in zip(part.places, part.layout.entries, strict=True):
        values[place] = written(weights[entry.slice].reshape(entry.shape), shared[place][0])
    records = {name: ArrayRecord() for name in content.array_records}
    for record, key, *_ in listed:
        records[record][key] = values.get((record, key)) or content.array_records[record][key]
    return RecordDict({name: records.get(name, record) for name, record in content.items()})
