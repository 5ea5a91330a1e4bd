"""The client."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fashion import task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    net, config = task.Net(), context.run_config
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    x, y = task.data(context.node_config["partition-id"], context.node_config["num-partitions"])
    loss = task.train(net, x, y, config["local-epochs"], config["lr"])
    metrics = MetricRecord({"num-examples": len(x), "train-loss": loss})
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)
