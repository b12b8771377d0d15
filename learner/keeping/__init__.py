"""What is kept of a run: checkpoints, logs and policies, on a disk or in an object store."""
