"""Every preset on the course work's task: Beresheet-v2, 6,000 episodes, best running mean over 100 episodes.

python -m tests.benchmarks.presets_learn --presets cpg aac ppo --seeds 3 --out presets.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from actors.files import write_text
from learner.run.config import overlay
from learner.run.presets import PRESETS, preset
from learner.run.trainer import Trainer

ENV_ID, EPISODES = "Beresheet-v2", 6000


def train(name: str, seed: int, episodes: int) -> dict[str, Any]:
    """One run of one preset; its best running mean, steps and seconds."""
    stop = {"max_episodes": episodes, "total_timesteps": None}
    config = overlay(preset(name), {"env": ENV_ID, "seed": seed, "stop": stop}, "benchmark")
    with tempfile.TemporaryDirectory() as folder:
        counters = Trainer(config, Path(folder) / "run", name).run().counters
    return {
        "seed": seed,
        "best_mean_return": counters.best_mean_return,
        "final_mean_return": statistics.fmean(counters.recent_returns),
        "steps": counters.total_timesteps,
        "episodes": counters.episodes,
        "seconds": counters.seconds,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train presets on Beresheet-v2 and report their best running means.")
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS), help="which")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each, with seeds from 0")
    parser.add_argument("--episodes", type=int, default=EPISODES, help="episodes a run")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {}
    for name in options.presets:
        runs[name] = [train(name, seed, options.episodes) for seed in range(options.seeds)]
        bests = ", ".join(f"{run['best_mean_return']:.1f}" for run in runs[name])
        print(f"{name:7} best running mean {bests} after {runs[name][0]['seconds']:.0f} s", flush=True)
    write_text(options.out, json.dumps({"env": ENV_ID, "window": 100, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
