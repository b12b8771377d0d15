"""The metrics of a training run, as Prometheus sees them, with their labels."""

from learner.run.telemetry import COUNTERS, GAUGES

TRAINING_METRICS = {f"ray_{name}": {"run"} for name in (*COUNTERS, *GAUGES)}
TRAINING_METRICS["ray_touchdown_steps_total"] = {"run", "actor"}

LATER = [f"ray_{name}" for name in COUNTERS if "restarts" in name or "dropped" in name or "failures" in name]
LATER.append("ray_touchdown_evaluation_return")
"""Not there before the first trouble, or the first evaluation."""
