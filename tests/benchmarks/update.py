"""The update alone, without Ray: samples a second, on the CPU or on a GPU, against plain eager PyTorch.

python -m tests.benchmarks.update --device auto --out update.json

The floor is what no implementation goes below: on the CPU the matrix products of one gradient, alone; on a GPU a CUDA
graph of as many empty kernels as the recorded step launches, since networks this small are launch-bound.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from actors.environments import describe
from actors.episode import EpisodeBatch
from actors.files import write_text
from learner.algorithms.ppo import PPO
from learner.optimisation.config import OptimisationConfig
from learner.run.learner import Learner, find_device

STEPS, SEGMENT, INPUTS, HIDDEN, ACTIONS = 16_384, 128, 8, 64, 4
EPOCHS = 4


def batch(seed: int) -> EpisodeBatch:
    """A batch of the course recipe's size, of random numbers."""
    rng = np.random.default_rng(seed)
    segments = STEPS // SEGMENT
    return EpisodeBatch(
        observations=rng.standard_normal((STEPS, INPUTS), dtype=np.float32),
        actions=rng.integers(ACTIONS, size=STEPS),
        rewards=rng.standard_normal(STEPS, dtype=np.float32),
        notes={"log_prob": np.full(STEPS, -np.log(ACTIONS), np.float32)},
        segment_lengths=np.full(segments, SEGMENT, np.int32),
        final_observations=rng.standard_normal((segments, INPUTS), dtype=np.float32),
        terminated=np.zeros(segments, bool),
        truncated=np.zeros(segments, bool),
        policy_version=np.zeros(segments, np.int64),
        episode_returns=np.zeros(0),
        episode_lengths=np.zeros(0, np.int64),
    )


def ours(batch_size: int, device: Literal["cpu", "cuda"], recorded: bool) -> Callable[[], object]:
    """One whole update of ours: upload, advantages, epochs, and the policy taken back."""
    algorithm = PPO(ent_coef=0.01, n_epochs=EPOCHS, batch_size=batch_size)
    spec = describe("LunarLander-v3").policy_spec()
    learner = Learner(spec, algorithm, OptimisationConfig(compile=recorded), device=device)
    data = batch(0)
    return lambda: learner.update(data)


def eager(batch_size: int, device: torch.device) -> Callable[[], object]:
    """The same update as one writes it in plain PyTorch: two nn.Sequential, autograd and torch.optim.Adam."""

    def network(outputs: int) -> nn.Sequential:
        layers = [nn.Linear(INPUTS, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(HIDDEN, outputs)).to(device)

    actor, critic = network(ACTIONS), network(1)
    parameters = [*actor.parameters(), *critic.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    data = batch(0)
    host = [
        torch.from_numpy(column) for column in (data.observations, data.actions, data.notes["log_prob"], data.rewards)
    ]

    def update() -> None:
        observations, actions, log_probs, rewards = (column.to(device) for column in host)
        advantages, returns = rewards, rewards
        for _ in range(EPOCHS):
            for index in torch.randperm(STEPS, device=device).split(batch_size):
                distribution = torch.distributions.Categorical(logits=actor(observations[index]))
                ratio = (distribution.log_prob(actions[index]) - log_probs[index]).exp()
                weights = advantages[index]
                weights = (weights - weights.mean()) / (weights.std() + 1e-8)
                policy_loss = -torch.minimum(ratio * weights, ratio.clamp(0.8, 1.2) * weights).mean()
                value_loss = (critic(observations[index]).squeeze(1) - returns[index]).square().mean()
                loss = policy_loss + 0.5 * value_loss - 0.01 * distribution.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, 0.5)
                optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return update


def cpu_floor(batch_size: int) -> Callable[[], object]:
    """The sixteen matrix products of a gradient of both networks, and nothing else."""
    x, h = torch.randn(batch_size, INPUTS), torch.randn(batch_size, HIDDEN)
    products: list[tuple[Tensor, Tensor]] = []
    for outputs in (ACTIONS, 1):
        w0, w1, w2 = torch.randn(INPUTS, HIDDEN), torch.randn(HIDDEN, HIDDEN), torch.randn(HIDDEN, outputs)
        y = torch.randn(batch_size, outputs)
        products += [(x, w0), (h, w1), (h, w2), (h.T, y), (y, w2.T), (h.T, h), (h, w1.T), (x.T, h)]

    def update() -> None:
        for _ in range(EPOCHS * STEPS // batch_size):
            for a, b in products:
                torch.mm(a, b)

    return update


def cuda_floor(batch_size: int, launches: int) -> Callable[[], object]:
    """CUDA graphs of as many one-element kernels as the recorded step launches."""
    element = torch.zeros(1, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(launches):
            element.add_(1)

    def update() -> None:
        for _ in range(EPOCHS * STEPS // batch_size):
            graph.replay()
        torch.cuda.synchronize()

    return update


def launches_per_step(batch_size: int) -> int:
    """Kernels that one minibatch step launches on the GPU, counted by the profiler in eager mode."""
    step = ours(batch_size, "cuda", recorded=False)
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    kernels: int = sum(event.count for event in profile.key_averages() if event.device_type.name == "CUDA")
    return kernels // (EPOCHS * STEPS // batch_size)


def seconds(update: Callable[[], object], repeats: int) -> float:
    """Median duration of one update, after two that warm up."""
    durations = []
    for i in range(repeats + 2):
        start = time.perf_counter()
        update()
        if i > 1:
            durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def measure(device: torch.device, batch_sizes: list[int], repeats: int) -> list[dict[str, Any]]:
    """A row for each minibatch size: samples a second of each contestant, and ours as a share of the floor."""
    rows = []
    where: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    for size in batch_sizes:
        contestants = {
            "recorded": ours(size, where, True),
            "not_recorded": ours(size, where, False),
            "eager_pytorch": eager(size, device),
            "floor": cuda_floor(size, launches_per_step(size)) if device.type == "cuda" else cpu_floor(size),
        }
        rates = {name: EPOCHS * STEPS / seconds(update, repeats) for name, update in contestants.items()}
        rows.append(
            {
                "batch_size": size,
                "samples_per_second": rates,
                "times_eager": rates["recorded"] / rates["eager_pytorch"],
                "share_of_floor": rates["recorded"] / rates["floor"],
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the update alone, against plain PyTorch.")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="where to compute")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 512, 2048], help="steps in a minibatch")
    parser.add_argument("--repeats", type=int, default=5, help="updates timed of each")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = find_device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU core"
    rows = measure(device, options.batch_sizes, options.repeats)
    result = {"device": name, "torch": torch.__version__, "steps": STEPS, "epochs": EPOCHS, "rows": rows}
    write_text(options.out, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
