"""The metrics of a training run, as Prometheus sees them, with their labels."""

_COUNTERS = (
    "steps",
    "episodes",
    "updates",
    "batch_bytes",
    "learner_wait_seconds",
    "learner_busy_seconds",
    "actor_restarts",
    "learner_restarts",
    "dropped_rollouts",
    "storage_failures",
)
_GAUGES = ("return", "best_return", "policy_lag", "actors", "unsaved_seconds")

TRAINING_METRICS = {
    **{f"ray_touchdown_{name}_total": {"run"} for name in _COUNTERS},
    **{f"ray_touchdown_{name}": {"run"} for name in _GAUGES},
}
TRAINING_METRICS["ray_touchdown_steps_total"] = {"run", "actor"}
