"""The process that forks the workers imports this: it reads the data set once, and all workers share the memory."""

import json
import os

import torch

from fedsparse.experiment import load_dataset

DATA = "FEDSPARSE_DATA"
"""The environment variable that names the data set: the arguments of ``load_dataset``, as JSON."""

if DATA in os.environ:
    torch.set_num_threads(1)  # a process with threads cannot be forked safely
    load_dataset(*json.loads(os.environ[DATA]))
