"""Every command on one page: its function, its help, its flags, and the settings that it takes."""

from fedsparse.commands.command_line import Command
from fedsparse.report.options import FLAGS, SWITCHES

REPORT = MENU = frozenset({"logdir"})
RERUN = frozenset({"data-dir", "device", "workers"})
"""Of a run that is run again; another machine may need others than the run had."""
APP = frozenset({"threads", "seed", "client-timeout", "logdir", "name", "resume"})
"""Of somebody's Flower app."""
TUNE = APP - {"resume"}

NO_COHORT = {"clients-per-round": 1}
"""What a command gives that samples no clients, so that any number of clients will do."""

AN_APPS = {
    "run-config": "'key=1 other=\"text\"' or a TOML file, in place of what the app's pyproject.toml has",
    "num-supernodes": "nodes of the federation [what the app or Flower's configuration says, or else 10]",
    "workers": "processes that call clients; with 1, clients run in this process [1]",
}
"""Flags of every command that runs somebody's Flower app."""

CHECKPOINT = "model.pt of a run; the settings are in the config.yaml beside it"
JOBS = "runs at once; auto is one a core, or one on a GPU [auto]"

COMMANDS = {
    "run": Command("fedsparse.commands.run:run", "train a federation; the command that needs no name"),
    "menu": Command(
        "fedsparse.commands.menu:menu",
        "ask what to do, then do it",
        takes=MENU,
        has_all=False,
    ),
    "partition": Command(
        "fedsparse.commands.partition:partition",
        "show which client holds which classes",
        given=NO_COHORT,
    ),
    "bench-compressors": Command(
        "fedsparse.commands.bench_compressors:bench_compressors",
        "compare all compressors on updates of a short run",
        own={
            "size": "so many random numbers instead of updates of a run",
            "budgets": "how many times less than dense a payload should take [10,30,100,300]",
        },
        has_all=False,
        given=NO_COHORT,
    ),
    "sweep": Command(
        "fedsparse.commands.sweep:sweep",
        "run a grid of settings and seeds; a table and a plot at the end",
        files="FILE",
        own={"jobs": JOBS},
        has_all=False,
    ),
    "compare-all": Command(
        "fedsparse.commands.compare_all:compare_all",
        "run every compressor, or --compressor A,B,C, at equal density and at equal bytes; a page at the end",
        own={
            "seeds": "how many seeds each [1]",
            "jobs": JOBS,
        },
        has_all=False,
    ),
    "report": Command(
        "fedsparse.commands.report:report",
        "compare runs: tables, curves and a page; of finished, killed and running ones",
        files="RUN_FOLDER...",
        own=FLAGS,
        switches=SWITCHES,
        takes=REPORT,
        has_all=False,
    ),
    "verify": Command(
        "fedsparse.commands.verify:verify",
        "run the first rounds of a run again, and compare the bits",
        files="RUN_FOLDER",
        own={"rounds": "how many of its rounds [3]"},
        takes=RERUN,
        has_all=False,
    ),
    "run-app": Command(
        "fedsparse.commands.run_app:act",
        "run somebody's Flower app, on one machine, without Ray, repeatable",
        files="PATH",
        own={
            **AN_APPS,
            "journal-gb": "disk that the replies may take, which --resume needs; 0 for none [10]",
        },
        takes=APP,
        has_all=False,
        resumes=True,
    ),
    "tune": Command(
        "fedsparse.commands.tune:act",
        "find the two lines that make a Flower app's uplink meet a budget",
        files="PATH",
        own={
            "times": "how many times less uplink than whole updates take, such as 100",
            "uplink": "of the training replies of all --rounds, such as 1MB",
            "rounds": "of the run that you have in mind",
            "short": "rounds of the short runs; the last ones have twice as many [5]",
            **AN_APPS,
        },
        takes=TUNE,
        has_all=False,
    ),
    "train-central": Command(
        "fedsparse.commands.train_central:train_central",
        "train the same model on the pooled data; a round is --epochs passes",
        given=NO_COHORT,
    ),
    "distill": Command(
        "fedsparse.commands.distill:distill",
        "train a small network with a trained one as its teacher; otherwise as train-central",
        own={
            "teacher": "model.pt of a run; its settings are in the config.yaml beside it",
            "temperature": "scores are divided by it [4]",
            "mix": "weight of the teacher in the loss, 0 to 1; the rest is of the labels [0.9]",
        },
        given=NO_COHORT,
        has_all=False,
    ),
    "prune": Command(
        "fedsparse.commands.prune:prune",
        "prune a trained model in one shot, with accuracy or perplexity before and after",
        own={
            "checkpoint": CHECKPOINT,
            "method": "sparsegpt or magnitude [sparsegpt]",
            "sparsity": "of the pruned layers (of the whole network when training)",
            "nm": "N:M, such as 2:4, instead of a sparsity",
            "samples": "training samples to calibrate on [512]",
        },
        given=NO_COHORT,
        has_all=False,
    ),
    "quantise": Command(
        "fedsparse.commands.quantise:quantise",
        "quantise a trained model, with accuracy or perplexity before and after, and its size",
        own={
            "checkpoint": CHECKPOINT,
            "bits": "of the weights: 8, 4, 2 or 1 [8]",
            "inputs": "bits of what the layers get: off, 8, 4 or 2 [8]",
            "samples": "training samples that the ranges of the inputs are observed on [512]",
        },
        given=NO_COHORT,
        has_all=False,
    ),
    "pack": Command(
        "fedsparse.commands.pack:pack",
        "write a trained model into one small file: pruned, its weights clustered and coded",
        own={
            "checkpoint": CHECKPOINT,
            "sparsity": "prune the layers that are not in dense-layers to it [the zeros that are there]",
            "clusters": "values of each layer, up to 256; auto: 256 of a convolution, 32 of a linear layer [auto]",
            "tune": "passes over the training data after pruning and after clustering [2]",
        },
        given=NO_COHORT,
        has_all=False,
    ),
    "unpack": Command(
        "fedsparse.commands.pack:unpack",
        "write the state dict of a file that pack wrote",
        files="FILE",
        own={"out": "where to write it [model.pt beside the file]"},
        has_all=False,
        takes=(),
    ),
}
