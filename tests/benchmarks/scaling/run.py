"""``make bench-scaling``: what one learner can take.

A hundred simulated actors over eight Ray nodes on this machine, a learner that only looks, and the real driver between
them. Close what else runs.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import tyro

from actors.environments import describe
from actors.files import write_text
from learner.run.config import TrainConfig, overlay
from learner.run.presets import preset
from learner.run.run_directory import versions
from learner.run.spares import Spares
from tests.benchmarks.scaling.cluster import cluster
from tests.benchmarks.scaling.observed import broadcast, observe, simulation
from tests.benchmarks.scaling.report import markdown
from tests.benchmarks.scaling.simulated import bytes_of, premade_batch

RESULTS = Path(__file__).parents[1] / "results"
STEPS = 64 * 128
"""Of a rollout."""
SERIES_ROLLOUTS = 10
"""Rollouts per update where the number of actors is what changes."""
SERIES = (0.1, 0.3, 1.0)
"""Shares of the actors that it changes to."""
LARGE = [512, 512]
"""Hidden layers of a policy too large to travel inside a message: about a megabyte."""


@dataclasses.dataclass(frozen=True)
class BenchScaling:
    """Measure what one learner can take; writes tests/benchmarks/results/scaling.md and scaling.json."""

    seconds: float = 30.0
    """Of each measurement; memory is watched for twice as long."""
    actors: int = 100
    """Simulated actors, at most."""
    nodes: int = 8
    """Nodes for them."""
    batches_per_second: float = 75.0
    """That all actors together would bring if nothing held them up."""
    rounds: int = 3
    """Times that one real node and two are compared; the median counts."""


def configured(actors: int, rollouts_per_update: int, max_policy_lag: int, **network: Any) -> TrainConfig:
    """A run of rollouts of STEPS steps, on the nodes of ``cluster``."""
    changes = {
        "rollout": {"n_envs": 64, "n_steps": STEPS // 64},
        "fleet": {
            "actors": actors,
            "rollouts_per_update": rollouts_per_update,
            "max_policy_lag": max_policy_lag,
            "actor_labels": {"role": "actor"},
        },
        "network": network,
        "placement": {"learner_labels": {"role": "learner"}},
        "stop": {"total_timesteps": None, "max_seconds": 3600.0},
    }
    return overlay(preset("impala" if max_policy_lag > 1 else "ppo"), changes, "scaling benchmark")


def simulated(options: BenchScaling, work: Path) -> dict[str, dict[str, Any]]:
    """All that is measured with simulated actors, with one set of processes."""
    figures: dict[str, dict[str, Any]] = {}
    spares = Spares()

    def run(
        name: str, config: TrainConfig, think: float, slowness: float = 1.0, seconds: float = options.seconds
    ) -> None:
        actors = config.fleet.actors
        assert actors != "auto"
        some = Spares(spares.actors[:: options.actors // actors][:actors]) if spares.actors else spares
        with simulation(think, slowness):
            found, observer = observe(config, work / name, seconds, some)
        figures[name] = found | {"think_seconds": think}
        if slowness == 1.0:
            figures[name]["broadcast"] = broadcast(observer, think)
        print(f"{name}: {found['steps_per_second']:,.0f} steps/s", flush=True)

    # Two rollouts of each actor make a batch. With one of each, what is over when an actor is late or dead fills the
    # room that the bound on lag leaves, and the others wait for the update.
    per_update, think = 2 * options.actors, options.actors / options.batches_per_second
    everyone = configured(options.actors, per_update, 1)
    with cluster(options.nodes, math.ceil(options.actors / options.nodes)):
        run("all", everyone, think, seconds=2 * options.seconds)
        run("one slow", everyone, think, slowness=10.0)
        run("without it", configured(options.actors - 1, per_update, 1), think)
        run("large policy", configured(options.actors, per_update, 1, hidden_sizes=LARGE), think)
        for share in SERIES:
            actors = max(1, round(share * options.actors))
            # With so many more actors than an update takes rollouts, each is this much older when its turn comes.
            lag = 2 + math.ceil(1.5 * actors / SERIES_ROLLOUTS)
            run(f"{actors} actors", configured(actors, SERIES_ROLLOUTS, lag), actors / options.batches_per_second)
    return figures


def real(options: BenchScaling, work: Path) -> list[dict[str, float]]:
    """Steps a second of LunarLander on EnvPool from one node of one core and from two, round by round."""
    rounds = []
    spares = Spares()
    cores = sorted(os.sched_getaffinity(0))[:2]
    with cluster(2, 1, cores), simulation(0.0, real_actors=True):
        for index in range(options.rounds):
            found = {}
            for nodes in (2, 1):
                some = Spares(spares.actors[:nodes]) if spares.actors else spares
                figures, _ = observe(configured(nodes, 4, 1), work / f"{nodes}-{index}", options.seconds, some)
                found[f"nodes_{nodes}"] = figures["steps_per_second"]
            print(", ".join(f"{name}: {rate:,.0f} steps/s" for name, rate in found.items()), flush=True)
            rounds.append(found)
    return rounds


def main() -> None:
    """Command line."""
    options = tyro.cli(BenchScaling, prog="python -m tests.benchmarks.scaling.run", description=__doc__)
    batch = premade_batch(STEPS, 8, 4, 0)
    large = describe("LunarLander-v3").policy_spec(hidden_sizes=tuple(LARGE))
    figures: dict[str, Any] = {
        "machine": f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}",
        "versions": versions(),
        "options": dataclasses.asdict(options),
        "steps_per_batch": STEPS,
        "bytes_per_step": bytes_of(batch) / STEPS,
        "large_policy_bytes": 4 * sum(map(math.prod, large.weight_shapes().values())),
    }
    with tempfile.TemporaryDirectory() as work:
        figures["real"] = real(options, Path(work))
        figures["simulated"] = simulated(options, Path(work))
    command = " ".join(["python -m tests.benchmarks.scaling.run", *sys.argv[1:]])
    write_text(RESULTS / "scaling.json", json.dumps(figures, indent=1) + "\n")
    write_text(RESULTS / "scaling.md", markdown(figures, command))
    print((RESULTS / "scaling.md").read_text())


if __name__ == "__main__":
    main()
