"""The README.md of a published policy: metadata that the Hub's tools read, and what a person wants to know."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import jinja2
from huggingface_hub import EvalResult, ModelCardData

from actors.discrete import BEYOND_VALUES, Bernoulli, Categorical, EpsilonGreedy, MultiCategorical
from actors.distribution import Distribution
from actors.environment_name import EnvironmentName, parse
from actors.errors import printable
from actors.files import write_text
from actors.joint import Joint
from actors.parts import Parts, leaf_spaces
from actors.policy import Policy
from actors.spaces import Space
from learner.run.run_directory import versions
from serve.hub.formats.onnx import inputs_of
from serve.hub.formats.onnx_heads import takes_noise
from serve.hub.source import Source

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,  # a line that only decides leaves no line behind: a blank one would end a table
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_TEMPLATES.filters["printable"] = lambda value: printable(str(value))
_TEMPLATES.filters["repr"] = repr
_OURS = ("Beresheet-v2", "Catch-v0")
"""Environments that Gymnasium does not know before actors.environments is imported."""
_NOISE = {Categorical: "gumbel", MultiCategorical: "gumbel", Bernoulli: "logistic"}
"""What numpy calls the noise of distributions; of the others it is normal."""
_PACKAGES = {"doom": ["vizdoom"], "atari": ["ale-py", "opencv-python-headless"]}
"""What extras of ours bring that environments need."""


def write_card(
    source: Source, results: dict[str, Any], repo_id: str | None, revision: str | None, directory: Path
) -> None:
    """Write README.md for a package whose other files are in ``directory`` already."""
    spec, has = source.policy.spec, {path.name for path in directory.iterdir()}
    name = parse(spec.env_id)
    mean_reward = mean_and_std(results)
    data = ModelCardData(
        model_name=source.algorithm,
        library_name="touchdown",
        pipeline_tag="reinforcement-learning",
        tags=[name.id, source.algorithm, "deep-reinforcement-learning", "reinforcement-learning"]
        + ["onnx"] * ("policy.onnx" in has),
        eval_results=[
            EvalResult(
                task_type="reinforcement-learning",
                task_name="reinforcement-learning",
                dataset_type=name.id,
                dataset_name=str(name),
                metric_type="mean_reward",
                metric_name="mean_reward",
                metric_value=mean_reward,
                verified=False,
            )
        ],
    )
    pull = ["python", "-m", "serve.pull", repo_id or "", *(["--revision", revision] if revision else [])]
    card = _TEMPLATES.get_template("model_card.md.jinja").render(
        card_data=data.to_yaml(),
        algorithm=source.algorithm,
        spec=spec,
        mean_reward=mean_reward,
        results=results,
        repo_id=repo_id,
        revision=revision,
        has=has,
        made_by=source.made_by or {},
        resumed=_resumed(source.made_by or {}),
        versions=_versions(source),
        hyperparameters=_hyperparameters(source.config or {}),
        remembers=sum(rows.size for rows in source.policy.start(1).values()),
        needs_ours=name.id in _OURS,
        our_wrappers=[wrapper.name for wrapper in name.wrappers if wrapper.module == "actors.wrappers"],
        packages=_packages(name),
        modules=name.modules,
        make=name.code(),
        inputs=_inputs(source.policy),
        has_parts=isinstance(spec.action, Parts),
        outputs=[name for name, _ in leaf_spaces(spec.action, "action")],
        taken=_taken(spec.action, itertools.count()),
        noise=_noise(source.policy.distribution) if takes_noise(spec) else "",
        noises=len(source.policy.distribution.labels),
        pull=shlex.join([*pull, "--to", "runs/theirs"]),
    )
    write_text(directory / "README.md", card)


def _packages(name: EnvironmentName) -> list[str]:
    """What pip installs for an environment, Gymnasium apart."""
    if name.registrar:
        return _PACKAGES[name.registrar[1]]
    return ["box2d", "pygame"] if "box2d" in str(gymnasium.spec(name.id).entry_point) else []


def _inputs(policy: Policy) -> str:
    """The inputs of policy.onnx, of variables ``observation``, ``memory``, ``to_come`` and ``noise``, as Python writes
    them."""
    arrays = []
    for name, path, part in inputs_of(policy.spec.observation):
        variable = "observation" + "".join(f"[{key!r}]" for key in path)
        arrays.append(f"{name!r}: np.asarray({variable}, np.{part.dtype})[None]")
    if policy.start(1):
        arrays.append("'memory': memory")
    if policy.spec.target_return is not None:
        arrays.append("'return_to_come': np.array([to_come], np.float32)")
    if takes_noise(policy.spec):
        arrays.append("'noise': noise.astype(np.float32)")
    return f"{{{', '.join(arrays)}}}"


def _noise(distribution: Distribution) -> str:
    """``Distribution.noise`` of one action, of a variable ``rng``, as Python writes it."""
    if isinstance(distribution, Joint):
        return f"np.concatenate([{', '.join(_noise(part) for _, part in distribution.parts)}], axis=1)"
    size = f"(1, {len(distribution.labels)})"
    if isinstance(distribution, EpsilonGreedy):
        return f"{BEYOND_VALUES:g} * (rng.random() < {distribution.epsilon:g}) * rng.random({size})"
    return f"rng.{_NOISE.get(type(distribution), 'standard_normal')}(size={size})"


def _taken(space: Space, places: Iterator[int]) -> str:
    """An action as an environment takes it, of a variable ``actions`` with what policy.onnx gives, as Python writes it.

    ``places`` are those of parts that are still to come.
    """
    if not isinstance(space, Parts):
        return f"actions[{next(places)}][0]"
    parts = {name: _taken(part, places) for name, part in space.spaces.items()}
    if space.is_tuple:
        return f"({', '.join(parts.values())},)"
    return f"{{{', '.join(f'{name!r}: {taken}' for name, taken in parts.items())}}}"


def mean_and_std(results: dict[str, Any]) -> str:
    """The score as leaderboards write it: 270.27 +/- 20.40."""
    return f"{results['mean_reward']:.2f} +/- {results['std_reward']:.2f}"


def _resumed(made_by: dict[str, Any]) -> list[str]:
    """The commands that the run went on by, each once: a job that is started again and again has one."""
    commands = dict.fromkeys(time["command"] for time in made_by.get("resumed", []) if time["command"])
    return [command for command in commands if command != made_by.get("command")]


def _versions(source: Source) -> dict[str, str]:
    """Those of the training where they are known, else those that the policy was evaluated with."""
    known = source.made_by or versions()
    return {name: str(known[name]) for name in versions() if name in known}


def _hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """Options by the name that the command line gives them; sections are flattened, as it does.

    An algorithm's name is there the option that its section is called after.
    """
    flat: dict[str, Any] = {}
    for section, value in config.items():
        options = value if isinstance(value, dict) else {section: value}
        flat |= {section if name == "name" else name: option for name, option in options.items()}
    return {name: value for name, value in flat.items() if name != "actor_labels"}
