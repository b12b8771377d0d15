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

from actors.environment_name import EnvironmentName, parse
from actors.errors import printable
from actors.files import write_text
from actors.parts import Parts, leaf_spaces
from actors.spaces import Space
from learner.run.run_directory import versions
from serve.hub.formats.onnx import inputs_of
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
_NOISE = {"categorical": "gumbel", "multi_categorical": "gumbel", "bernoulli": "logistic"}
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
        inputs=_inputs(spec.observation),
        has_parts=isinstance(spec.action, Parts),
        outputs=[name for name, _ in leaf_spaces(spec.action, "action")],
        taken=_taken(spec.action, itertools.count()),
        noise=_NOISE.get(spec.distribution, "standard_normal"),
        noises=len(source.policy.distribution.labels),
        pull=shlex.join([*pull, "--to", "runs/theirs"]),
    )
    write_text(directory / "README.md", card)


def _packages(name: EnvironmentName) -> list[str]:
    """What pip installs for an environment, Gymnasium apart."""
    if name.registrar:
        return _PACKAGES[name.registrar[1]]
    return ["box2d", "pygame"] if "box2d" in str(gymnasium.spec(name.id).entry_point) else []


def _inputs(space: Space) -> str:
    """The inputs of policy.onnx, of a variable ``observation``, as Python writes them."""
    arrays = []
    for name, path, part in inputs_of(space):
        variable = "observation" + "".join(f"[{key!r}]" for key in path)
        arrays.append(f"{name!r}: np.asarray({variable}, np.{part.dtype})[None]")
    return f"{{{', '.join(arrays)}}}"


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
