"""Every name that a setting may have, and the object that the name stands for: ``package.module:attribute``.

A setting may also be a user's own ``module:attribute`` or ``path/to/file.py:attribute``; ``fedsparse.plugins`` loads
both. Adding an object to the package takes its file and a line here.
"""

COMPRESSORS = {
    "none": "fedsparse.compression.none:NoSelection",
    "topk": "fedsparse.compression.topk:TopK",
    "hggtopk": "fedsparse.compression.hggtopk:HGGTopK",
    "dgc": "fedsparse.compression.dgc:DGC",
    "randomk": "fedsparse.compression.randomk:RandomK",
    "threshold": "fedsparse.compression.threshold:Threshold",
    "gaussian": "fedsparse.compression.gaussian:Gaussian",
    "redsync": "fedsparse.compression.redsync:RedSync",
    "lowrank": "fedsparse.compression.lowrank:LowRank",
    "powersgd": "fedsparse.compression.powersgd:PowerSGD",
}
"""They select the coordinates of an update that travel, or factor its layers. ``fedsparse.config.presets`` combines
them with a value coding to further published methods."""

VALUES = {
    "f32": "fedsparse.compression.values:F32",
    "f16": "fedsparse.compression.values:F16",
    "bf16": "fedsparse.compression.values:BF16",
    "int8": "fedsparse.compression.levels:Int8",
    "int4": "fedsparse.compression.levels:Int4",
    "int2": "fedsparse.compression.int2:Int2",
    "ternary": "fedsparse.compression.levels:Ternary",
    "power-of-two": "fedsparse.compression.natural:PowerOfTwo",
    "two-means": "fedsparse.compression.onebit:TwoMeans",
    "sign": "fedsparse.compression.values:Sign",
    "eden": "fedsparse.compression.eden:Eden",
}
"""Value codings. A user's own cannot be named here, because each coding has a number in the wire format."""

IMAGE_MODELS = {
    "mlp": "fedsparse.models.mlp:mlp",
    "mlp-small": "fedsparse.models.mlp:mlp_small",
    "cnn": "fedsparse.models.cnn:cnn",
    "cnn-small": "fedsparse.models.cnn:cnn_small",
    "lenet5": "fedsparse.models.cnn:lenet5",
    "resnet18": "fedsparse.models.torchvision_models:resnet18",
    "resnet50": "fedsparse.models.torchvision_models:resnet50",
    "vgg11": "fedsparse.models.torchvision_models:vgg11",
    "vgg16": "fedsparse.models.torchvision_models:vgg16",
    "mobilenet_v2": "fedsparse.models.torchvision_models:mobilenet_v2",
}

TEXT_MODELS = {
    "lstm": "fedsparse.models.lstm:lstm",
    "lstm-small": "fedsparse.models.lstm:lstm_small",
    "lstm-medium": "fedsparse.models.lstm:lstm_medium",
    "lstm-large": "fedsparse.models.lstm:lstm_large",
    "gpt2-nano": "fedsparse.models.gpt2:gpt2_nano",
    "gpt2-small": "fedsparse.models.gpt2:gpt2_small",
    "gpt2-medium": "fedsparse.models.gpt2:gpt2_medium",
}

MODELS = {**IMAGE_MODELS, **TEXT_MODELS}

MODELS_OF = {"images": IMAGE_MODELS, "text": TEXT_MODELS}
"""The models that fit each kind of data set."""

USUAL_MODEL = {"images": "cnn-small", "text": "gpt2-nano"}
"""The model that ``auto`` means for each kind of data set."""

TEXTS = {
    "shakespeare-mini": "fedsparse.partitions.shakespeare:load",
    "ptb": "fedsparse.partitions.corpora:ptb",
    "wikitext2": "fedsparse.partitions.corpora:wikitext2",
    "wikitext103": "fedsparse.partitions.corpora:wikitext103",
    "openwebtext": "fedsparse.partitions.corpora:openwebtext",
}
"""Data sets of text."""

DATASETS = {
    "fashion-mnist-mini": "fedsparse.partitions.embedded:load",
    "mnist": "fedsparse.partitions.torchvision_sets:mnist",
    "fashion-mnist": "fedsparse.partitions.torchvision_sets:fashion_mnist",
    "cifar10": "fedsparse.partitions.torchvision_sets:cifar10",
    "cifar100": "fedsparse.partitions.torchvision_sets:cifar100",
    **TEXTS,
}

PARTITIONERS = {
    "iid": "fedsparse.partitions.iid:owners",
    "dirichlet": "fedsparse.partitions.dirichlet:owners",
    "dirichlet-per-client": "fedsparse.partitions.dirichlet_per_client:owners",
    "dirichlet-self-balancing": "fedsparse.partitions.dirichlet_self_balancing:owners",
    "shards": "fedsparse.partitions.shards:owners",
    "natural": "fedsparse.partitions.natural_clients:owners",
}

STRATEGIES = {
    "fedavg": "fedsparse.strategies.server_optimizer:ServerOptimizer",
    "fedavgm": "fedsparse.strategies.fedavgm:FedAvgM",
    "fedadam": "fedsparse.strategies.fedadam:FedAdam",
    # The proximal term of fedprox is the clients': see training.local_step.
    "fedprox": "fedsparse.strategies.server_optimizer:ServerOptimizer",
}

AGGREGATORS = {
    "mean": "fedsparse.aggregation.mean:Mean",
    "median": "fedsparse.aggregation.median:Median",
    "trimmed-mean": "fedsparse.aggregation.trimmed_mean:TrimmedMean",
    "norm-clip": "fedsparse.aggregation.norm_clip:NormClip",
    "krum": "fedsparse.aggregation.krum:Krum",
    "multi-krum": "fedsparse.aggregation.krum:MultiKrum",
    "safesparse": "fedsparse.aggregation.safesparse:SafeSparse",
}

TOPOLOGIES = {
    "dense": "fedsparse.sparsity.static:Dense",
    "static": "fedsparse.sparsity.static:Static",
    "set": "fedsparse.sparsity.set:Set",
    "rigl": "fedsparse.sparsity.rigl:RigL",
    "feddst": "fedsparse.sparsity.feddst:FedDST",
    "prunefl": "fedsparse.sparsity.prunefl:PruneFL",
    "ssfl": "fedsparse.sparsity.ssfl:SSFL",
    "sparsyfed": "fedsparse.sparsity.sparsyfed:SparsyFed",
    "magnitude": "fedsparse.sparsity.magnitude:Magnitude",
    "small-dense": "fedsparse.sparsity.small_dense:SmallDense",
}

OPTIMIZERS = {"sgd": "torch.optim:SGD", "adamw": "fedsparse.training.adamw:adamw"}
"""Optimizers of a client's local training."""

LOWRANK_FORMS = {"svd": "fedsparse.lowrank.svd:LowRank", "fedpara": "fedsparse.lowrank.fedpara:FedPara"}
"""Layers that are small in themselves."""

TRACKERS = {
    "tensorboard": "fedsparse.telemetry.trackers.board:Board",
    "mlflow": "fedsparse.telemetry.trackers.mlflow_run:MLflow",
    "wandb": "fedsparse.telemetry.trackers.wandb_run:Wandb",
    "trackio": "fedsparse.telemetry.trackers.trackio_run:Trackio",
}
"""Where measurements go; a name is that of the package which has to be installed."""
