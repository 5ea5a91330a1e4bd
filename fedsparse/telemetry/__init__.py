"""What a run measured: TensorBoard, rounds.csv, JSON and the terminal, fed by one call a round."""
