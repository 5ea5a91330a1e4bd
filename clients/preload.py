"""The process that forks the workers imports this: it reads the data set once, and all workers share the memory."""

import json
import os
from contextlib import suppress

import torch
import torch._dynamo  # torch's optimizers import it in their first step, and it takes a second

from fedsparse.data import load_present
from fedsparse.engine.fork_server import DATA

if DATA in os.environ:
    torch.set_num_threads(1)  # a process with threads cannot be forked safely
    with suppress(Exception):  # the command reads the data too, and says what is wrong
        load_present(*json.loads(os.environ[DATA]))
