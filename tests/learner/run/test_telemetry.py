"""What Ray's metrics endpoint says of a run."""

from __future__ import annotations

import contextlib
import math
import re
import urllib.request
from pathlib import Path

import pytest
import ray

from learner.keeping.metrics_log import read_metrics
from learner.run.callback import Callback
from learner.run.telemetry import Telemetry
from learner.run.trainer import Trainer
from tests.learner.run.short_runs import cartpole
from tests.serve.served import PATIENCE, wait_for


def figures() -> dict[tuple[str, str], float]:
    """By name and actor, those of the run, as Prometheus finds them at this process's node."""
    here = ray.get_runtime_context().get_node_id()  # nodes that other tests have ended may pass for alive for a while
    (port,) = (node["MetricsExportPort"] for node in ray.nodes() if node["NodeID"] == here)
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE).read().decode()
    found = {}
    for name, labels, value in re.findall(r"^ray_touchdown_(\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        tags = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if tags.get("run") == "the-run":
            found[name, tags.get("actor", "")] = float(value)
    return found


class BothFly(Callback):
    """Ends the run once both actors have flown, however long one takes to start, and a policy was evaluated."""

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        counters = trainer.counters
        known = math.isfinite(counters.best_mean_return) and math.isfinite(counters.best_evaluation)
        if trainer.fleet and len(trainer.fleet.flown) == 2 and known:
            trainer.stop("seen enough")


@pytest.mark.usefixtures("kept_processes")
def test_prometheus_sees_what_the_run_came_to(tmp_path: Path) -> None:
    config = cartpole(
        stop={"total_timesteps": 100_000_000},
        fleet={"actors": 2},
        evaluation={"eval_every": 5_000, "eval_episodes": 2},
    )
    trainer = Trainer(config, tmp_path / "the-run", callbacks=[Telemetry(), BothFly()])
    result = trainer.run()
    log = read_metrics(tmp_path / "the-run" / "metrics.jsonl")
    rows = [row for row in log if "train/n_updates" in row]
    assert trainer.fleet is not None
    flown = {("steps_total", str(actor)): steps for actor, steps in trainer.fleet.flown.items()}
    assert len(flown) == 2
    expected = flown | {
        ("episodes_total", ""): result.counters.episodes,
        ("updates_total", ""): result.policy.spec.version,
        ("batch_bytes_total", ""): sum(row["rollout/batch_bytes"] for row in rows),
        ("learner_wait_seconds_total", ""): sum(row["time/learner_wait"] for row in rows),
        ("learner_busy_seconds_total", ""): sum(row["time/learner_busy"] for row in rows),
        ("return", ""): rows[-1]["rollout/ep_rew_mean"],
        ("best_return", ""): result.counters.best_mean_return,
        ("evaluation_return", ""): [row["eval/mean_reward"] for row in log if "eval/mean_reward" in row][-1],
        ("policy_lag", ""): rows[-1]["rollout/policy_lag"],
        ("actors", ""): 2,
    }
    if dropped := rows[-1]["rollout/dropped"]:  # what one actor flew while another was waited for
        expected["dropped_rollouts_total", ""] = dropped
    # Ray passes them on every few seconds, and what is told at once not always together.
    unsaved, found = math.nan, dict[tuple[str, str], float]()

    def has_the_end() -> bool:
        nonlocal unsaved, found
        found = figures()
        unsaved = found.pop(("unsaved_seconds", ""), math.nan)
        return unsaved >= 0 and found == pytest.approx(expected)

    with contextlib.suppress(AssertionError):
        wait_for(has_the_end)
    assert found == pytest.approx(expected)
    assert unsaved >= 0
