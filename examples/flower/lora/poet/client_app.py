"""The client."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from poet import task

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    config, node = context.run_config, context.node_config
    gpt = task.model(config["rank"])
    gpt.load_state_dict(message.content["arrays"].to_torch_state_dict(), strict=False)
    loss = task.train(gpt, node["partition-id"], node["num-partitions"], config["steps"], config["lr"])
    metrics = MetricRecord({"num-examples": 16 * config["steps"], "train-loss": loss})
    arrays = ArrayRecord({name: weight.detach() for name, weight in task.adapters(gpt).items()})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)
