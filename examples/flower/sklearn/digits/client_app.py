"""The client."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits import task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    model = task.model(context.run_config["hidden"], message.content["arrays"].to_numpy_ndarrays())
    x, y = task.data(context.node_config["partition-id"], context.node_config["num-partitions"])
    model.partial_fit(x, y)
    metrics = MetricRecord({"num-examples": len(x), "train-loss": float(model.loss_)})
    return Message(RecordDict({"arrays": ArrayRecord(task.arrays_of(model)), "metrics": metrics}), reply_to=message)
