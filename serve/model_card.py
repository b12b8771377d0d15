"""The README.md of a published policy: metadata that the Hub's tools read, and what a person wants to know."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import jinja2
from huggingface_hub import EvalResult, ModelCardData

from actors.files import write_text
from learner.run_directory import versions

if TYPE_CHECKING:
    from serve.package import Source

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,  # a line that only decides leaves no line behind: a blank one would end a table
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_OURS = ("Beresheet-v2",)
"""Environments that Gymnasium does not know before actors.environments is imported."""


def write_card(
    source: Source, results: dict[str, Any], repo_id: str | None, revision: str | None, directory: Path
) -> None:
    """Write README.md for a package whose other files are in ``directory`` already."""
    spec = source.policy.spec
    mean_reward = mean_and_std(results)
    data = ModelCardData(
        model_name=source.algorithm,
        library_name="touchdown",
        pipeline_tag="reinforcement-learning",
        tags=[spec.env_id, source.algorithm, "deep-reinforcement-learning", "reinforcement-learning", "onnx"],
        eval_results=[
            EvalResult(
                task_type="reinforcement-learning",
                task_name="reinforcement-learning",
                dataset_type=spec.env_id,
                dataset_name=spec.env_id,
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
        has={path.name for path in directory.iterdir()},
        made_by=source.made_by or {},
        versions=_versions(source),
        hyperparameters=_hyperparameters(source.config or {}),
        needs_ours=spec.env_id in _OURS,
        needs_box2d="box2d" in str(gymnasium.spec(spec.env_id).entry_point),
        module=spec.env_id.partition(":")[0] if ":" in spec.env_id else None,
        pull=shlex.join([*pull, "--to", "runs/theirs"]),
    )
    write_text(directory / "README.md", card)


def mean_and_std(results: dict[str, Any]) -> str:
    """As leaderboards write it: 270.27 +/- 20.40."""
    return f"{results['mean_reward']:.2f} +/- {results['std_reward']:.2f}"


def _versions(source: Source) -> dict[str, str]:
    """Those of the training where they are known, else those that the policy was evaluated with."""
    known = source.made_by or versions()
    return {name: str(known[name]) for name in versions() if name in known}


def _hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """Options by the name that the command line gives them; sections are flattened, as it does."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return {name: value for name, value in flat.items() if name != "actor_labels"}
