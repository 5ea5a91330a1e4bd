"""Records a run's measurements in TensorBoard, rounds.csv, JSON and the terminal, with one call a round."""
