"""The server."""

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from poet import task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    gpt = task.model(context.run_config["rank"])
    strategy = FedAvg(fraction_train=0.4, fraction_evaluate=0.0)

    def evaluate(round: int, arrays: ArrayRecord) -> MetricRecord:
        gpt.load_state_dict(arrays.to_torch_state_dict(), strict=False)
        loss = task.loss(gpt)
        print(f"round {round}: loss {loss:.4f}", flush=True)
        return MetricRecord({"loss": loss})

    start = ArrayRecord({name: weight.detach() for name, weight in task.adapters(gpt).items()})
    strategy.start(grid, start, num_rounds=context.run_config["rounds"], evaluate_fn=evaluate)
