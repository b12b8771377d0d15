"""What every use of Ray Tune here shares: how it is set up, and whether a trial has room."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune

from actors.errors import UserError
from learner.commands.signals import EndedBySignal, stopping_on_signals
from tune_configs.trainable import placement

log = logging.getLogger("touchdown")


def run_config(directory: Path, callbacks: Sequence[Any]) -> tune.RunConfig:
    """Tune's own files under ``directory``/tune, its output silenced, lost processes tried again three times."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # a trial's run directory has its metrics already
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # of the two, the one that verbose=0 silences
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # see ending_trials
    return tune.RunConfig(
        name="tune",
        storage_path=str(directory.resolve()),
        failure_config=tune.FailureConfig(max_failures=3),
        callbacks=list(callbacks),
        verbose=0,
    )


@contextlib.contextmanager
def ending_trials() -> Iterator[list[int]]:
    """While Tune runs in the block, have a signal end all trials; gives the list of those that came.

    Raises:
        EndedBySignal: one came before Tune could heed it, or a second one.
    """
    numbers: list[int] = []

    def end(number: int) -> None:
        if not hasattr(signal, "SIGUSR1") or signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
            raise EndedBySignal(number)
        numbers.append(number)
        signal.raise_signal(signal.SIGUSR1)  # the one signal that Tune always heeds

    with stopping_on_signals(end):
        yield numbers


def gpu_share_of(asked: float | None, actors: int, trials: int) -> float:
    """The GPUs of one trial's learner: what is asked for, or a fair share of the cluster's."""
    if asked is not None:
        return asked
    gpus = float(ray.cluster_resources().get("GPU", 0))
    if gpus < 1:
        return 0.0
    at_once = max(1, min(trials, room_for(placement(actors, 0))))
    hundredths = 100 // math.ceil(at_once / gpus)  # no share lies on two GPUs
    return max(1, hundredths) / 100


def room_for(trial: tune.PlacementGroupFactory) -> int:
    """How many such trials the cluster carries at once, as it is now."""
    there = ray.cluster_resources()
    return min(int(there.get(name, 0) / amount) for name, amount in trial.required_resources.items())


def check_room(trial: tune.PlacementGroupFactory) -> None:
    """Refuse trials that would wait for ever.

    Raises:
        UserError: one trial needs more than there is. Of a cluster that is not ours, and may grow, it is only said.
    """
    needed = trial.required_resources
    there = ray.cluster_resources()
    short = [name for name, amount in needed.items() if amount > there.get(name, 0)]
    if not short:
        return
    words = " and ".join(f"{needed[name]:g} {name}s of {there.get(name, 0):g}" for name in short)
    if os.environ.get("RAY_ADDRESS", "local") == "local":
        raise UserError(f"one trial needs {words}: use fewer --actors or a smaller --gpu-share")
    log.warning("one trial needs %s: waiting until the cluster has them", words)
