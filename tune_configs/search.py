"""``python -m tune_configs.search``: look for settings that learn better, and write them as a file that --config takes.

python -m tune_configs.search --preset ppo --env LunarLander-v3 --trials 40
python -m tune_configs.search --preset ppo --env LunarLander-v3 --trials 8 --scheduler pbt
python -m tune_configs.search --preset q_learning --steps 200000
"""

from __future__ import annotations

if __name__ == "__main__":  # here: what follows takes seconds
    from learner.commands.signals import run_command

    run_command("tune_configs.search")

import dataclasses
import json
import math
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, PopulationBasedTraining, TrialScheduler
from ray.tune.search.sample import Categorical
from rich.console import Console

from actors.environment_name import parse as parse_name
from actors.environments import describe
from actors.errors import NonFiniteError, UserError
from actors.files import write_text
from learner.commands.command_line import one_line_errors, parse
from learner.commands.signals import EndedBySignal
from learner.run.callback import Callback
from learner.run.config import TrainConfig, overlay
from learner.run.presets import preset
from learner.run.progress import log_to
from learner.run.ray_session import start_ray
from learner.run.run_directory import RunDirectory
from learner.run.spares import Spares
from learner.run.trainer import Trainer
from tune_configs.experiment import require_learnable
from tune_configs.ray_tune import check_room, ending_trials, gpu_share_of, run_config
from tune_configs.spaces import nested, population_space_of, space_of
from tune_configs.trainable import placement, with_resources

_PROG = "python -m tune_configs.search"
METRIC = "ep_rew_mean"
_FIRST = "first_mean_return"
EXPLODED = -1e9
"""Reported for settings that made numbers explode: worse than any return."""
_SPARES = Spares()


@dataclasses.dataclass(frozen=True)
class SearchCommand:
    """Search for a preset's settings: random and modelled draws, of which bad ones are stopped early."""

    preset: str = "ppo"
    """Where the settings that are not searched come from."""
    env: str | None = None
    """A Gymnasium id; None: the preset's own, LunarLander-v3 of most."""
    trials: int = 40
    """Settings tried; with pbt: the population."""
    steps: int = 400_000
    """Environment steps of a run that is not stopped early."""
    scheduler: Literal["asha", "pbt"] = "asha"
    """asha: Optuna's sampler draws, successive halving stops (Li et al. 2020); pbt: a population whose worst members
    copy its best and vary them (Jaderberg et al. 2017)."""
    seed: int = 0
    """Of the draws and the runs."""
    concurrent: int | None = None
    """Trials at once, at most; None: as many as the cluster has room for."""
    results: Path = Path("results/search")
    """Where searches are kept."""
    name: str | None = None
    """The search's directory under --results; None: <preset>-<env>-<time>."""
    out: Path | None = None
    """The preset file to write; None: best.json in the search's directory."""

    def __post_init__(self) -> None:
        for name in ("trials", "steps", "concurrent"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be 1 or more, not {value}")
        if self.scheduler == "pbt" and self.trials < 2:
            raise UserError(f"pbt needs a population: trials must be 2 or more, not {self.trials}")
        if self.results.parts[:1] and self.results.parts[0].endswith(":"):  # s3:
            raise UserError("searches are kept on a disk that all nodes share: --results must be a path")


class ReportToScheduler(Callback):
    """Tells Tune how a run does, twenty times in its course; with a checkpoint where the scheduler copies runs."""

    def __init__(self, interval: float, with_checkpoints: bool) -> None:
        self._interval, self._with_checkpoints = interval, with_checkpoints
        self._next = 0.0

    def on_update(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Report the mean return to Tune at intervals of steps, with a checkpoint where members are copied."""
        steps, mean = trainer.counters.total_timesteps, metrics["rollout/ep_rew_mean"]
        if steps < self._next or not math.isfinite(mean):
            return
        self._next = steps + self._interval
        report = {METRIC: mean, "total_timesteps": steps, "fps": metrics["time/fps"]}
        if self._with_checkpoints:
            trainer.save()
            tune.report(report, checkpoint=tune.Checkpoint.from_directory(str(trainer.directory.checkpoints)))
        else:
            tune.report(report)


def run_search_trial(point: dict[str, Any], search: dict[str, Any]) -> None:
    """Tune's function trainable: one run with the settings of a point, or on from a run that it copies."""
    config = overlay(overlay(TrainConfig(), search["config"], "search"), nested(point), "point")
    run_dir = Path(search["directory"]) / "runs" / tune.get_context().get_trial_id()
    shutil.rmtree(run_dir, ignore_errors=True)
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        RunDirectory(run_dir).create(config, search["preset"])
        checkpoint.to_directory(str(run_dir / "checkpoints"))
    reporter = ReportToScheduler(config.stop.total_timesteps / 20, search["with_checkpoints"])  # type: ignore[operator]
    trainer = Trainer(config, run_dir, search["preset"], checkpoint is not None, [reporter], _SPARES)
    try:
        result = trainer.run()
    except NonFiniteError:  # settings that make numbers explode are bad settings, not a failed search
        tune.report({METRIC: EXPLODED, "total_timesteps": config.stop.total_timesteps, "fps": 0.0})
        return
    if math.isfinite(result.mean_return):
        counters = result.counters
        final = {METRIC: result.mean_return, "total_timesteps": counters.total_timesteps, "fps": 0.0}
        first = counters.first_mean_return
        tune.report(final | {_FIRST: math.nan if first is None else first})


def mutations_of(space: dict[str, Any]) -> dict[str, Any]:
    """What population based training may change, and how: from a list it takes a neighbour, else it multiplies."""
    return {
        name: list(domain.categories) if isinstance(domain, Categorical) else domain for name, domain in space.items()
    }


def scheduler_of(command: SearchCommand, space: dict[str, Any]) -> TrialScheduler:
    """ASHA or PBT over environment steps."""
    if command.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr="total_timesteps",
            perturbation_interval=command.steps / 10,
            hyperparam_mutations=mutations_of(space),
            synch=False,
        )
    return ASHAScheduler(
        time_attr="total_timesteps",
        max_t=2 * command.steps,
        grace_period=max(1, command.steps // 8),
        reduction_factor=3,
    )


def search(command: SearchCommand, console: Console) -> Path:
    """Search, and write the best settings.

    Returns:
        The preset file.

    Raises:
        UserError: the search cannot be run, or nothing that it found is better than the rest.
        EndedBySignal: it was interrupted; the best so far is written.
    """
    base = preset(command.preset)
    if base.algorithm.is_offline:
        raise UserError(
            f"a search goes by what runs fly, and {command.preset} flies nothing: compare files of settings with "
            "python -m tune_configs.compare_losses --dataset DIRECTORY"
        )
    environment = describe(command.env or base.env)
    stop = {"total_timesteps": command.steps, "target_return": None}
    changes = {"env": command.env or base.env, "seed": command.seed, "stop": stop, "evaluation": {"eval_every": None}}
    base = overlay(base, changes, "search")
    require_learnable(command.preset, base, environment)
    name = command.name or f"{command.preset}-{parse_name(base.env).slug}-{time.strftime('%Y%m%d-%H%M%S')}"
    directory = command.results / name
    if directory.exists():
        raise UserError(f"{directory} already holds a search: choose another --name")
    start_ray()
    share = gpu_share_of(None, 1, command.trials)
    check_room(placement(1, share))
    is_population = command.scheduler == "pbt"
    space = population_space_of(base) if is_population else space_of(base)
    checkpoint = {"checkpoint_seconds": 3600.0, "checkpoint_memory": is_population}  # members copy each other's
    searching = overlay(base, {"fleet": {"actors": 1}, "checkpoint": checkpoint}, "search")
    settings = {
        "config": with_resources(searching, share).to_dict(),
        "directory": str(directory.resolve()),
        "preset": command.preset,
        "with_checkpoints": is_population,
    }
    trainable = tune.with_parameters(run_search_trial, search=settings)
    tuner = tune.Tuner(
        tune.with_resources(trainable, placement(1, share)),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            num_samples=command.trials,
            max_concurrent_trials=command.concurrent,
            scheduler=scheduler_of(command, space),
            search_alg=None if is_population else _sampler(command),
            reuse_actors=True,
        ),
        run_config=run_config(directory, [SearchLog(console, command.trials)]),
    )
    with ending_trials() as signals:
        results = tuner.fit()
    try:
        best = best_of(results, command.steps, population=is_population)
    except UserError as error:
        if not signals:
            raise
        shutil.rmtree(directory)
        raise EndedBySignal(signals[0], "no trial was ahead yet, and nothing is left") from error
    assert best.metrics is not None
    best_config = overlay(base, nested(best.config or {}), "best")
    out = command.out or directory / "best.json"
    found = {name: value for name, value in best_config.to_dict().items() if name not in ("seed", "checkpoint")}
    write_text(out, json.dumps(found, indent=2) + "\n")
    made_by = {
        "command": shlex.join(["python", "-m", "tune_configs.search", *sys.argv[1:]]),
        METRIC: best.metrics[METRIC],
    }
    write_text(directory / "made_by.json", json.dumps(made_by, indent=2) + "\n")
    console.print(
        f"best mean return {best.metrics[METRIC]:.1f}: {json.dumps(nested(best.config or {}))}", soft_wrap=True
    )
    console.print(f"written to {out}; train with: python -m learner.train --config {out}", soft_wrap=True)
    if signals:
        raise EndedBySignal(signals[0], f"the best so far is in {out}")
    return out


def best_of(results: tune.ResultGrid, steps: int, population: bool = False) -> tune.Result:
    """The trial with the best last mean return.

    Args:
        results: of the search.
        steps: of a trial at most, for what is said.
        population: trials copy each other, so that equal ones are a sign only if they began so, too.

    Raises:
        UserError: there is none, or all are equal, so that any of them could be called so.
    """
    trials = [results[i] for i in range(len(results))]
    means = _known((trial.metrics or {}).get(METRIC, math.nan) for trial in trials)
    if not means:
        raise UserError(f"no trial reported a finite mean return within {steps} steps: give more --steps")
    firsts = _known((trial.metrics or {}).get(_FIRST, math.nan) for trial in trials) if population else []
    seen = means + firsts
    if len(means) > 1 and min(seen) == max(seen):
        raise UserError(
            f"all {len(means)} trials ended at a mean return of {means[0]:g}, so that none is best and none is "
            "written: give more --steps, or search an environment whose rewards tell policies apart"
        )
    return results.get_best_result(filter_nan_and_inf=True)


def _sampler(command: SearchCommand) -> Any:
    from ray.tune.search.optuna import OptunaSearch

    return OptunaSearch(seed=command.seed)


class SearchLog(tune.Callback):
    """A line for each trial that ends, and the best so far."""

    def __init__(self, console: Console, trials: int) -> None:
        self._console, self._trials = console, trials
        self._ended, self._best = 0, -math.inf

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its callbacks down to restore them; we restore nothing

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """See ray.tune.Callback."""
        result = trial.last_result or {}
        self._ended += 1
        mean = result.get(METRIC, math.nan)
        self._best = max(self._best, mean if math.isfinite(mean) else -math.inf)
        self._console.print(
            f"{self._ended}/{self._trials}: mean return {mean:.1f} after {result.get('total_timesteps', 0):,} steps; "
            f"best {self._best:.1f}",
            highlight=False,
        )

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_info: Any) -> None:
        """See ray.tune.Callback."""
        self._ended += 1
        self._console.print(
            f"{self._ended}/{self._trials}: failed; see {trial.local_path}", style="red", soft_wrap=True
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    console = Console()
    log_to(console)
    with one_line_errors(_PROG):
        command = parse(SearchCommand, sys.argv[1:] if arguments is None else arguments, None, _PROG, __doc__ or "")
        search(command, console)
    ray.shutdown()


def _known(means: Iterable[float]) -> list[float]:
    return [mean for mean in means if math.isfinite(mean) and mean > EXPLODED]
