"""The configuration: read from files and dictionaries, checked where it is made."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from actors.errors import UserError
from learner.algorithms.advantages import ESTIMATORS
from learner.algorithms.dqn import DQN
from learner.algorithms.policy_gradient import PolicyGradient
from learner.algorithms.ppo import PPO
from learner.algorithms.registry import name_of
from learner.optimisation.config import OptimisationConfig
from learner.run.config import StopConfig, TrainConfig, overlay, read_config
from learner.run.placement import PlacementConfig
from learner.run.presets import PRESETS, preset


def said(changes: dict[str, Any]) -> str:
    """What is said of changes that cannot be."""
    with pytest.raises(UserError) as error:
        overlay(TrainConfig(), changes, "mine.json")
    message = str(error.value)
    assert message.startswith("mine.json: ")
    assert "\n" not in message
    return message.removeprefix("mine.json: ")


# ---- overlay


def test_overlay_changes_what_it_names_and_nothing_else() -> None:
    config = overlay(
        TrainConfig(),
        {"env": "CartPole-v1", "algorithm": {"gamma": 0.9}, "network": {"hidden_sizes": [32], "critic_sizes": []}},
        "test",
    )
    assert config == dataclasses.replace(
        TrainConfig(),
        env="CartPole-v1",
        algorithm=PPO(gamma=0.9),
        network=dataclasses.replace(TrainConfig().network, hidden_sizes=(32,), critic_sizes=()),
    )


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name: str) -> None:
    config = overlay(
        preset(name),
        {
            "seed": 3,
            "optimisation": {"max_grad_norm": math.inf},
            "algorithm": {"reward_scale": 0.02},
            "network": {"critic_sizes": [16, 8]},
            "fleet": {"actors": 2, "actor_labels": {"kind": "cpu"}},
            "stop": {"max_seconds": 1.5, "total_timesteps": None},
        },
        "test",
    )
    text = json.dumps(config.to_dict())
    assert overlay(TrainConfig(), json.loads(text), "test") == config
    assert overlay(preset("vpg"), json.loads(text), "test") == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": {}}, "unknown field 'networks'; did you mean network?"),
        ({"envs": "CartPole-v1"}, "unknown field 'envs'; did you mean env?"),
        ({"algorithm": {"gama": 0.9}}, "unknown field of algorithm 'gama'; did you mean gamma"),
        ({"optimisation": {"lr_rate": 0.1}}, "unknown field of optimisation 'lr_rate'; did you mean learning_rate"),
        ({"stop": {"xyz": 1}}, "unknown field of stop 'xyz'; known: max_episodes, max_seconds"),
        ({"algorithm": "ppo"}, "algorithm must be an object of fields, not 'ppo'"),
        ({"algorithm": None}, "algorithm must be an object of fields, not None"),
    ],
)
def test_fields_that_do_not_exist(changes: dict[str, Any], message: str) -> None:
    assert message in said(changes)


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"seed": "many"}, "seed", "'many'"),
        ({"env": 3}, "env", "3"),
        ({"seed": 1.5}, "seed", "1.5"),
        ({"seed": True}, "seed", "True"),
        ({"algorithm": {"n_epochs": "3"}}, "algorithm.n_epochs", "'3'"),
        ({"optimisation": {"compile": 1}}, "optimisation.compile", "1"),
        ({"algorithm": {"n_epochs": None}}, "algorithm.n_epochs", "None"),
        ({"algorithm": {"batch_size": [64]}}, "algorithm.batch_size", "[64]"),
        ({"optimisation": {"schedule": "cosine"}}, "optimisation.schedule", "'cosine'"),
        ({"algorithm": {"normalize_advantage": "perhaps"}}, "algorithm.normalize_advantage", "'perhaps'"),
        ({"network": {"hidden_sizes": 64}}, "network.hidden_sizes", "64"),
        ({"network": {"hidden_sizes": ["wide"]}}, "network.hidden_sizes", "'wide'"),
        ({"fleet": {"actor_labels": ["cpu"]}}, "fleet.actor_labels", "['cpu']"),
    ],
)
def test_values_of_the_wrong_type(changes: dict[str, Any], field: str, value: str) -> None:
    message = said(changes)
    assert message.startswith(f"{field}: ")
    assert message.endswith(f"not {value}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("rollout.n_envs", 0),
        ("rollout.n_steps", 0),
        ("rollout.episodes_per_env", 0),
        ("rollout.backend", "isaac"),
        ("fleet.actors", 0),
        ("fleet.actors", "many"),
        ("fleet.rollouts_per_update", 0),
        ("fleet.max_policy_lag", -1),
        ("fleet.cpus_per_actor", -0.5),
        ("fleet.cpus_per_actor", math.inf),
        ("fleet.max_failures", 0),
        ("network.hidden_sizes", [64, 0]),
        ("network.critic_sizes", [-1]),
        ("network.activation", "sigmoid"),
        ("algorithm.advantage", "gea"),
        ("algorithm.gamma", 1.1),
        ("algorithm.gamma", -0.1),
        ("algorithm.gamma", math.nan),
        ("algorithm.gae_lambda", 2.0),
        ("algorithm.gae_lambda", -1.0),
        ("algorithm.clip_range", 0.0),
        ("algorithm.ent_coef", -0.01),
        ("algorithm.ent_coef", math.inf),
        ("algorithm.vf_coef", -1.0),
        ("algorithm.reward_scale", 0.0),
        ("algorithm.reward_clip", 0.0),
        ("algorithm.reward_scale", math.inf),
        ("algorithm.n_epochs", 0),
        ("algorithm.batch_size", 1),
        ("optimisation.learning_rate", 0.0),
        ("optimisation.learning_rate", math.nan),
        ("optimisation.optimizer", "adamax"),
        ("optimisation.optimizer_eps", 0.0),
        ("optimisation.optimizer_eps", math.inf),
        ("optimisation.max_grad_norm", 0.0),
        ("optimisation.max_grad_norm", math.nan),
        ("algorithm.target_kl", 0.0),
        ("placement.device", "tpu"),
        ("placement.threads", 0),
        ("stop.window", 0),
        ("stop.target_return", math.nan),
        ("stop.total_timesteps", 0),
        ("stop.max_episodes", -1),
        ("stop.max_seconds", 0.0),
        ("stop.max_seconds", math.inf),
        ("checkpoint.checkpoint_seconds", -1.0),
        ("checkpoint.keep_checkpoints", 0),
    ],
)
def test_impossible_values(field: str, value: object) -> None:
    section, _, name = field.partition(".")
    changes: dict[str, Any] = {section: {name: value}} if name else {section: value}
    if name == "episodes_per_env":
        changes[section]["n_steps"] = None
    message = said(changes)
    assert (name or section) in message  # the field, and what was given
    assert str(value if not isinstance(value, list) else value[0]) in message


def test_the_nearest_of_a_choice_is_named() -> None:
    assert "did you mean gae?" in said({"algorithm": {"advantage": "gea"}})
    assert "known: elu, relu, tanh" in said({"network": {"activation": "sigmoid"}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rollout": {"n_steps": 8, "episodes_per_env": 1}}, "set either n_steps or episodes_per_env"),
        ({"rollout": {"n_steps": None}}, "set either n_steps or episodes_per_env"),
        (
            {"algorithm": {"advantage": "baseline"}},
            "'baseline' has no critic .*: set episodes_per_env",
        ),
        ({"algorithm": {"advantage": "reward_to_go"}}, "'reward_to_go' has no critic"),
        (
            {"fleet": {"max_policy_lag": 2}},
            "max_policy_lag 2 is more than the 1 .* corrects for any",
        ),
        ({"stop": {"total_timesteps": None}}, "a run needs an end: set target_return or one of total_timesteps"),
    ],
)
def test_values_that_do_not_go_together(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        overlay(TrainConfig(), changes, "mine.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"rollout": {"n_steps": None, "episodes_per_env": 2}, "algorithm": {"advantage": "baseline"}},
        {"fleet": {"max_policy_lag": 5}, "algorithm": {"advantage": "vtrace"}},
        {"fleet": {"max_policy_lag": 0}},
        {"stop": {"total_timesteps": None, "target_return": -100.0}},
        {"checkpoint": {"checkpoint_seconds": 0}},
        {"algorithm": {"batch_size": None}, "optimisation": {"max_grad_norm": math.inf}},
        {"algorithm": {"gamma": 1, "gae_lambda": 0, "ent_coef": 0}},
        {"fleet": {"actors": "auto", "cpus_per_actor": 0}},
    ],
)
def test_values_at_the_edge_of_the_possible(changes: dict[str, Any]) -> None:
    config = overlay(TrainConfig(), changes, "test")
    for section, fields in changes.items():
        for name, value in fields.items():
            assert getattr(getattr(config, section), name) == value


def test_a_config_made_in_python_is_checked_too() -> None:
    with pytest.raises(UserError, match=r"gamma must lie between 0 and 1, not 1.5"):
        PPO(gamma=1.5)


# ---- files


def test_a_file_is_put_over_the_base(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    path.write_text('{"seed": 7, "algorithm": {"gamma": 0.5}}')
    config = read_config(path, preset("vpg"))
    assert (config.seed, config.algorithm.gamma, config.algorithm.advantage) == (7, 0.5, "reward_to_go")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{'seed': 1}", "is damaged or not JSON"),
        ("", "is damaged or not JSON"),
        ("[1, 2]", "must hold a JSON object, not list"),
        ("null", "must hold a JSON object, not NoneType"),
        ('{"sed": 1}', r"unknown field 'sed'; did you mean seed\?"),
        ('{"seed": -1}', "seed must be zero or more and below"),
        ('{"seed": 2147483648}', "seed must be zero or more and below 2\\*\\*31, not 2147483648"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_config(path, TrainConfig())
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*absent.json: No such file or directory"):
        read_config(tmp_path / "absent.json", TrainConfig())
    with pytest.raises(UserError, match=r"cannot read .*: Is a directory"):
        read_config(tmp_path, TrainConfig())
    (tmp_path / "latin.json").write_bytes(b'{"env": "caf\xe9"}')
    with pytest.raises(UserError, match=r"latin.json is damaged or not JSON"):
        read_config(tmp_path / "latin.json", TrainConfig())


# ---- presets


def test_presets_of_policy_gradients_are_the_eight_losses() -> None:
    gradients = [name for name in PRESETS if isinstance(preset(name).algorithm, PolicyGradient)]
    gradients = [name for name in gradients if name not in ("doom", "atari")]  # which are ppo's, for pictures
    found = {name: (name_of(preset(name).algorithm), preset(name).algorithm.advantage) for name in gradients}
    assert found == {
        "vpg": ("policy_gradient", "reward_to_go"),
        "bpg": ("policy_gradient", "baseline"),
        "epg": ("policy_gradient", "reward_to_go"),
        "cpg": ("policy_gradient", "baseline"),
        "aac": ("policy_gradient", "critic"),
        "a2c": ("policy_gradient", "gae"),
        "ppo": ("ppo", "gae"),
        "impala": ("policy_gradient", "vtrace"),
    }
    bonus = {name for name in gradients if preset(name).algorithm.ent_coef > 0}
    assert {"epg", "cpg", "aac", "a2c"} <= bonus
    assert not bonus & {"vpg", "bpg"}
    assert all(preset(name).algorithm.normalize_entropy for name in ("epg", "cpg"))
    # Standardising subtracts the mean: it would make vpg bpg, and epg cpg.
    assert not any(preset(name).algorithm.normalize_advantage for name in ("vpg", "bpg", "epg", "cpg"))


def test_presets_by_value_add_one_thing_at_a_time() -> None:
    ladder = ("nature_dqn", "double_dqn", "dueling_dqn", "prioritized_dqn")
    options = ("double", "dueling", "prioritized")
    found = [[getattr(preset(name).algorithm, option) for option in options] for name in ladder]
    assert found == [[False] * 3, [True, False, False], [True, True, False], [True] * 3]
    targets = {name: preset(name).algorithm.target for name in ("q_learning", "sarsa", "expected_sarsa")}
    assert targets == {"q_learning": "max", "sarsa": "sarsa", "expected_sarsa": "expected"}


def test_an_unknown_preset() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'impla'; did you mean impala\?"):
        preset("impla")


@pytest.mark.parametrize("advantage", ESTIMATORS)
def test_which_advantages_have_a_critic(advantage: str) -> None:
    assert PPO(advantage=advantage).estimator.has_critic == (advantage in ("critic", "gae", "vtrace"))


# ---- algorithms


@dataclasses.dataclass(frozen=True)
class Penalised(PPO):
    """A user's, with an option of its own and another default."""

    penalty: float = 2.0
    gae_lambda: float = 0.5


class Forgetful(PPO):
    """Its author forgot the decorator."""

    penalty: float = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demanding(PPO):
    """Its option has no default."""

    penalty: float


@dataclasses.dataclass(frozen=True)
class Shadowing(PPO):
    """Its option has the name of a method."""

    policy_loss: float = 1.0


@dataclasses.dataclass(frozen=True)
class ShadowingFurther(DQN):
    """Its option has the name of a method that its base has from another class."""

    targets: float = 1.0  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Clashing(PPO):
    """Its option has the name of another section's."""

    learning_rate: float = 1.0


@dataclasses.dataclass(frozen=True)
class Mistyped(PPO):
    """Its default is of another type."""

    penalty: int = "much"  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Raising(PPO):
    """Its defaults are impossible."""

    def __post_init__(self) -> None:
        raise ZeroDivisionError("no penalty")


OWN = f"{__name__}:Penalised"


def test_an_algorithm_of_ones_own_keeps_what_it_shares_with_the_presets() -> None:
    config = overlay(preset("ppo"), {"algorithm": {"name": OWN, "penalty": 3}}, "mine.json")
    before = preset("ppo").algorithm
    assert config.algorithm == Penalised(**{**dataclasses.asdict(before), "penalty": 3.0, "gae_lambda": 0.5})
    assert overlay(TrainConfig(), config.to_dict(), "config.json") == config
    assert config.to_dict()["algorithm"]["name"] == OWN
    back = overlay(config, {"algorithm": {"name": "policy_gradient"}}, "mine.json").algorithm
    assert type(back) is PolicyGradient
    assert (back.gamma, back.n_epochs) == (before.gamma, before.n_epochs)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pp0", r"unknown algorithm 'pp0'; did you mean ppo\?"),
        ("a2c", "unknown algorithm 'a2c'; did you mean sac?"),
        (3, "algorithm.name: must be a name, not 3"),
        ("no_such_module:Own", "algorithm 'no_such_module:Own': No module named 'no_such_module'"),
        (f"{__name__}:Missing", "has no attribute 'Missing'"),
        (f"{__name__}:OWN", "is a str, not a function or class"),
        (f"{__name__}:said", "must be a class that extends Algorithm, PolicyGradient or PPO"),
        (f"{__name__}:Forgetful", r"has no option penalty: decorate it @dataclass\(frozen=True\)"),
        ("learner.algorithms.algorithm:Algorithm", "lacks the method loss"),
        (f"{__name__}:Demanding", "its option penalty needs a default"),
        (f"{__name__}:Shadowing", "an option cannot be called policy_loss, which is taken"),
        (f"{__name__}:ShadowingFurther", "an option cannot be called targets, which is taken"),
        (f"{__name__}:Clashing", "there is an option learning_rate already; call yours otherwise"),
        (f"{__name__}:Mistyped", "its defaults are no plain options: .*penalty"),
        (f"{__name__}:Raising", "its defaults are no plain options: no penalty"),
        ("tests.learner.broken_module:Own", "importing tests.learner.broken_module raised RuntimeError: not today"),
        ("my_module.Mine", "your own is my_module:Mine"),
        (":PPO", "unknown algorithm ':PPO'"),
    ],
)
def test_an_algorithm_that_is_none(name: object, words: str) -> None:
    assert re.search(words, said({"algorithm": {"name": name}}))


def test_an_option_of_another_algorithm() -> None:
    assert "unknown field of algorithm 'clip_range'" in said(
        {"algorithm": {"name": "policy_gradient", "clip_range": 0.1}}
    )


# ---- as older versions wrote them


def test_an_older_config_is_read() -> None:
    older = {
        "loss": {"loss": "policy_gradient", "advantage": "vtrace", "gamma": 0.9, "clip_range": 0.2},
        "update": {"n_epochs": 1, "batch_size": None, "learning_rate": 0.1, "device": "cpu", "threads": 2},
    }
    config = overlay(TrainConfig(), older, "config.json")
    assert config == dataclasses.replace(
        TrainConfig(),
        algorithm=PolicyGradient(advantage="vtrace", gamma=0.9, n_epochs=1, batch_size=None),
        optimisation=OptimisationConfig(learning_rate=0.1),
        placement=PlacementConfig(device="cpu", threads=2),
    )
    assert overlay(TrainConfig(), {"loss": {"clip_range": 0.1}}, "part.json").algorithm == PPO(clip_range=0.1)


def test_what_is_wrong_in_an_older_config_is_one_line() -> None:
    assert "loss 'my:loss': a loss of one's own is a method of an algorithm now" in said({"loss": {"loss": "my:loss"}})
    assert "unknown field of optimisation 'lr_rate'" in said({"update": {"lr_rate": 0.1}})
    assert "loss.loss: must be a name, not ['x']" in said({"loss": {"loss": ["x"]}})
    assert "unknown loss 'PPO'; known: bc, cql, dqn, dt, policy_gradient, ppo, pqn, sac, tabular" in said(
        {"loss": {"loss": "PPO"}}
    )
    assert "algorithm is of this one: give either" in said({"loss": {"gamma": 0.9}, "algorithm": {"gamma": 0.8}})
    assert "loss must be an object of fields, not 'ppo'" in said({"loss": "ppo"})


# ---- stopping


def test_progress_is_that_of_the_budget_nearest_its_end() -> None:
    stop = StopConfig(total_timesteps=1000, max_episodes=10, max_seconds=100)
    assert stop.progress(timesteps=500, episodes=1, seconds=20) == 0.5
    assert stop.progress(timesteps=500, episodes=8, seconds=20) == 0.8
    assert stop.progress(timesteps=500, episodes=8, seconds=90) == 0.9
    assert stop.progress(timesteps=2000, episodes=8, seconds=90) == 1
    assert StopConfig(target_return=1, total_timesteps=None).progress(10**9, 10**9, 1e9) == 0
