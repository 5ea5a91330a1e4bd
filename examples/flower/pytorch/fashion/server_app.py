"""The server."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fashion import task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = FedAvg(fraction_train=context.run_config["fraction-train"], fraction_evaluate=0.0)
    start = ArrayRecord(task.Net().state_dict())
    strategy.start(grid, start, num_rounds=context.run_config["rounds"], evaluate_fn=evaluate)


def evaluate(round: int, arrays: ArrayRecord) -> MetricRecord:
    net = task.Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    accuracy = task.test(net, *task.data(0, 1, "test"))
    print(f"round {round}: accuracy {accuracy:.4f}", flush=True)
    return MetricRecord({"accuracy": accuracy})
