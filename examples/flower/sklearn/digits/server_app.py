"""The server."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits import task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    hidden = context.run_config["hidden"]
    strategy = FedAvg(fraction_evaluate=0.0)
    start = ArrayRecord(task.arrays_of(task.model(hidden)))
    result = strategy.start(grid, start, num_rounds=context.run_config["rounds"])
    trained = task.model(hidden, result.arrays.to_numpy_ndarrays())
    print(f"accuracy {task.accuracy(trained):.4f}", flush=True)
