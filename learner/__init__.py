"""Learning: networks, returns, losses, the update, checkpoints, and the training run."""
