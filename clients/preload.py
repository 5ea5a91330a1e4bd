"""Imported where workers are forked from: the data set is read once there, and all workers share its memory."""

import json
import os

import torch

from fedsparse.experiment import load_dataset

DATA = "FEDSPARSE_DATA"
"""The environment variable that names the data set: the arguments of ``load_dataset``, as JSON."""

if DATA in os.environ:
    torch.set_num_threads(1)  # a process with threads cannot be forked safely
    load_dataset(*json.loads(os.environ[DATA]))
