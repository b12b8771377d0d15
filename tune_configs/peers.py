"""Other libraries' PPO as trials of a comparison: the course's settings, our environments, budget and evaluation.

A peer has no checkpoints here: theirs are pickles, which we do not load. A run that was cut short starts again.
"""

from __future__ import annotations

import importlib.util
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from actors.environments import describe
from actors.errors import UserError
from actors.making import make_gymnasium
from actors.policy import Policy
from actors.seeds import derive
from learner.keeping.background_writer import PATIENCE, BackgroundWriter
from learner.keeping.metrics_log import MetricsLog
from learner.keeping.storage import Storage
from learner.run.config import TrainConfig
from learner.run.counters import Counters
from tune_configs import recipe

PEERS = {"rllib": "ray.rllib", "sb3": "stable_baselines3"}
"""Names, and the packages that they need."""

SB3_LAYERS = ("mlp_extractor.policy_net.0", "mlp_extractor.policy_net.2", "action_net")
RLLIB_LAYERS = ("encoder.actor_encoder.net.mlp.0", "encoder.actor_encoder.net.mlp.2", "pi.net.mlp.0")


def require_peer(name: str) -> None:
    """Refuse a peer that is not installed.

    Raises:
        UserError: it is not; says how to install it.
    """
    try:
        found = importlib.util.find_spec(PEERS[name])
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise UserError(f"peer {name!r} needs {PEERS[name]}, which is not installed: pip install 'touchdown[peers]'")


class PeerRun:
    """A peer's log and clock, in the form that our own runs have. ``close`` ends it.

    Args:
        config: its environment, seed and budget.
        storage: the run's directory, for metrics.jsonl and TensorBoard events.
        on_row: told of every row, as ``Callback.on_update`` is.
    """

    def __init__(
        self, config: TrainConfig, storage: Storage, on_row: Callable[[Counters, dict[str, float]], None]
    ) -> None:
        self.config = config
        self.counters = Counters()
        self._log = MetricsLog(storage, timesteps=-1)  # rows of a run that was cut short do not count
        self._writer = BackgroundWriter(
            str(storage)
        )  # as our own runs have: a peer's clock must not wait for the storage either
        self._on_row = on_row
        self._began = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        counters = self.counters
        return self.config.stop.progress(counters.total_timesteps, counters.episodes, counters.seconds) >= 1

    def start(self) -> None:
        """Begin to count: the next thing that happens is the first environment step."""
        self._began = time.monotonic()

    def record(self, steps: int, episodes: int, returns: Sequence[float], train: Mapping[str, float]) -> None:
        """Note one finished iteration: totals so far, returns of the last episodes at most, and training metrics."""
        counters, window = self.counters, self.config.stop.window
        counters.seconds = time.monotonic() - self._began
        counters.total_timesteps, counters.episodes = steps, episodes
        counters.recent_returns = [float(value) for value in returns][-window:]
        mean = float(np.mean(counters.recent_returns)) if counters.recent_returns else math.nan
        if len(counters.recent_returns) == window:
            counters.best_mean_return = max(counters.best_mean_return, mean)
        row = {
            "rollout/ep_rew_mean": mean,
            "rollout/best_ep_rew_mean": counters.best_mean_return,
            "time/total_timesteps": steps,
            "time/episodes": episodes,
            "time/time_elapsed": counters.seconds,
            "time/fps": steps / max(counters.seconds, 1e-9),
            **{f"train/{name}": float(value) for name, value in train.items()},
        }
        self._log.write(row)
        self._writer.submit("metrics", self._log.flush)
        self._on_row(counters, row)

    def finish(self) -> None:
        """Wait until all is written.

        Raises:
            OSError: the storage did not take it for minutes.
        """
        self._writer.flush(PATIENCE)

    def close(self) -> None:
        """End; what is not written stays unwritten."""
        self._writer.close()


def train_sb3(run: PeerRun) -> Policy:
    """Stable-Baselines3's PPO until the budget is used up."""
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    torch.set_num_threads(1)
    env_id = run.config.env

    class Count(BaseCallback):  # type: ignore[misc]  # Any to the type checker
        episodes = 0

        def _on_step(self) -> bool:
            self.episodes += sum("episode" in info for info in self.locals["infos"])
            return True

    # A callable, so that no render mode is set: with one, an unrendered episode gets slower and slower.
    envs = make_vec_env(lambda: make_gymnasium(env_id), n_envs=recipe.N_ENVS)
    model = sb3_model(envs, run.config.seed)
    count = Count()
    run.start()
    while not run.finished:  # a whole rollout and its update at a time, as every contestant does
        model.learn(recipe.N_ENVS * recipe.N_STEPS, callback=count, reset_num_timesteps=model.num_timesteps == 0)
        logged = model.logger.name_to_value
        train = {key.removeprefix("train/"): value for key, value in logged.items() if key.startswith("train/")}
        returns = [episode["r"] for episode in model.ep_info_buffer or ()]
        run.record(model.num_timesteps, count.episodes, returns, train)
    envs.close()
    return sb3_policy(model, env_id)


def peer_seed(seed: int) -> int:
    """What a peer counts up from for its environments, so that runs of neighbouring seeds share none."""
    return derive(seed, 1)[0]


def sb3_model(envs: Any, seed: int) -> Any:
    """PPO with the recipe; its environments are seeded too."""
    from stable_baselines3 import PPO

    return PPO(
        "MlpPolicy",
        envs,
        n_steps=recipe.N_STEPS,
        batch_size=recipe.BATCH_SIZE,
        n_epochs=recipe.N_EPOCHS,
        learning_rate=recipe.LEARNING_RATE,
        gamma=recipe.GAMMA,
        gae_lambda=recipe.GAE_LAMBDA,
        ent_coef=recipe.ENT_COEF,
        seed=peer_seed(seed),
        device="cpu",
    )


def sb3_policy(model: Any, env_id: str) -> Policy:
    """The actor as it is now."""
    state = {name: tensor.detach().numpy() for name, tensor in model.policy.state_dict().items()}
    return policy_from_layers(env_id, state, SB3_LAYERS)


def train_rllib(run: PeerRun) -> Policy:
    """RLlib's PPO until the budget is used up: a learner in this process and one environment runner beside it."""
    import torch
    from ray.tune.registry import register_env

    torch.set_num_threads(1)
    env_id = run.config.env
    register_env(env_id, lambda _context: make_gymnasium(env_id))
    config = rllib_config(env_id, run.config.seed).env_runners(
        num_env_runners=1,
        num_envs_per_env_runner=recipe.N_ENVS,
        num_cpus_per_env_runner=run.config.fleet.cpus_per_actor,
        sample_timeout_s=3600.0,  # by default a rollout that takes more than a minute is thrown away
    )
    algorithm = config.build_algo()
    run.start()
    while not run.finished:
        result = algorithm.train()
        sampled, learned = result["env_runners"], result["learners"]["default_policy"]
        episodes = int(sampled.get("num_episodes_lifetime", 0))
        mean = float(sampled.get("episode_return_mean", math.nan))  # of the last 100 episodes
        names = {"policy_loss": "policy_gradient_loss", "vf_loss": "value_loss"}
        train = {ours: float(learned[theirs]) for theirs, ours in names.items()}
        returns = [mean] * min(episodes, run.config.stop.window) if math.isfinite(mean) else []
        steps = int(sampled["num_env_steps_sampled_lifetime"])
        run.record(steps, episodes, returns, {**train, "entropy_loss": -float(learned["entropy"])})
    policy = rllib_policy(algorithm, env_id)
    algorithm.stop()
    return policy


def rllib_config(env_id: str, seed: int, minibatch_size: int = recipe.BATCH_SIZE) -> Any:
    """PPO with the recipe, on the new API stack; initial weights are as RLlib draws them."""
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

    return (
        PPOConfig()
        .environment(env_id)
        .learners(num_learners=0)
        .training(
            train_batch_size_per_learner=recipe.N_ENVS * recipe.N_STEPS,
            minibatch_size=minibatch_size,
            num_epochs=recipe.N_EPOCHS,
            lr=recipe.LEARNING_RATE,
            gamma=recipe.GAMMA,
            lambda_=recipe.GAE_LAMBDA,
            entropy_coeff=recipe.ENT_COEF,
            clip_param=recipe.CLIP_RANGE,
            vf_loss_coeff=recipe.VF_COEF,
            vf_clip_param=float("inf"),
            use_kl_loss=False,
            grad_clip=recipe.MAX_GRAD_NORM,
            grad_clip_by="global_norm",
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=list(recipe.HIDDEN_SIZES), fcnet_activation="tanh", vf_share_layers=False
            )
        )
        .debugging(seed=peer_seed(seed))
    )


def rllib_policy(algorithm: Any, env_id: str) -> Policy:
    """The actor as the learner has it now."""
    weights = algorithm.learner_group.get_weights()["default_policy"]
    return policy_from_layers(env_id, weights, RLLIB_LAYERS)


def policy_from_layers(env_id: str, state: Mapping[str, Any], prefixes: tuple[str, ...]) -> Policy:
    """A peer's policy for discrete actions: the linear layers under ``prefixes`` in its torch state dict."""
    spec = describe(env_id).policy_spec(hidden_sizes=recipe.HIDDEN_SIZES, activation="tanh")
    weights = {}
    for i, prefix in enumerate(prefixes):
        weights[f"w{i}"] = state[f"{prefix}.weight"].T.copy()
        weights[f"b{i}"] = state[f"{prefix}.bias"].copy()
    return Policy(spec, weights)


def train_peer(name: str, run: PeerRun) -> Policy:
    """Train that peer; returns its final policy. All rows are written then.

    Raises:
        OSError: the storage did not take them for minutes.
    """
    train = cast("Callable[[PeerRun], Policy]", {"rllib": train_rllib, "sb3": train_sb3}[name])
    try:
        policy = train(run)
        run.finish()
        return policy
    finally:
        run.close()
