"""The card of a dataset: README.md, for a person who finds it, and for the Hub, which shows it."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np

from actors.environment_name import parse
from actors.errors import printable
from learner.dataset.dataset import Dataset
from learner.dataset.part import Source, public_name
from learner.keeping.storage import open_storage

CARD = "README.md"
_BINS = 12
_WIDEST = 40
"""Characters of the longest bar of the histogram."""
_PACKAGES = ("touchdown", "gymnasium", "envpool")


def card(dataset: Dataset, repo_id: str | None = None) -> str:
    """What a dataset holds, in Markdown: who flew, how far, how well, and how to read it.

    Args:
        dataset: what it is of.
        repo_id: user/name of where it is on the Hub; None: in its own directory.
    """
    fetch = f"python -m serve.pull datasets/{repo_id} --to datasets/{repo_id.split('/')[1]}" if repo_id else ""
    place = f"datasets/{repo_id.split('/')[1]}" if repo_id else _cell(public_name(dataset.location))
    fetched = f"```\n{fetch}\n```\n\n" if fetch else ""
    who = "\n".join(
        f"| {_cell(name_of(source))} | {mine.sum():,} | {dataset.lengths[mine].sum():,} | "
        f"{dataset.returns[mine].mean():.1f} ± {dataset.returns[mine].std():.1f} | {dataset.returns[mine].max():.1f} |"
        for source, mine in ((source, dataset.source == i) for i, source in enumerate(dataset.sources))
        if mine.any()
    )
    cut = int((~dataset.terminated).sum())
    versions = ", ".join(f"{name} {version}" for name in _PACKAGES if (version := _version(name)))
    lengths = np.percentile(dataset.lengths, [0, 25, 50, 75, 100]).round().astype(int)
    return f"""---
library_name: touchdown
tags:
- reinforcement-learning
- offline-reinforcement-learning
- touchdown
- {parse(dataset.env_id).slug}
task_categories:
- reinforcement-learning
---

# Episodes of {_cell(dataset.env_id)}

{dataset.num_episodes:,} whole episodes, {dataset.num_steps:,} steps: undiscounted returns
{dataset.returns.mean():.1f} ± {dataset.returns.std():.1f}, median {np.median(dataset.returns):.1f}, best
{dataset.returns.max():.1f}. {cut:,} episodes were cut by a time limit; the others came to an end of their own.
An observation is {_cell(dataset.observation.in_words())}; an action is {_cell(dataset.action.in_words())}.

| who flew | episodes | steps | returns | best |
| --- | --- | --- | --- | --- |
{who}

Returns, and how many episodes had them:

```
{histogram(dataset)}
```

Steps of an episode: {lengths[0]:,} to {lengths[4]:,}, half of them {lengths[1]:,} to {lengths[3]:,}, median
{lengths[2]:,}.

## How to load it

{fetched}```python
from learner.dataset.dataset import open_dataset

dataset = open_dataset("{place}")
dataset.returns       # of each episode; dataset.lengths, dataset.terminated, dataset.source, …
dataset.part(0)       # an EpisodeBatch: observations, actions, rewards, … of some of the episodes
```

`parts/` are safetensors, a column each; any reader of these has them. `python -m learner.dataset.minari out` makes a
Minari dataset of it.

Recorded with {versions}.
"""


def write_card(dataset: Dataset, repo_id: str | None = None) -> None:
    """Put the card of a dataset beside its parts; see ``card``.

    Raises:
        OSError: it cannot be written.
    """
    open_storage(dataset.location).write(CARD, card(dataset, repo_id).encode())


def name_of(source: Source) -> str:
    """Who flew, in words."""
    if source.get("person"):
        return "a person"
    words = str(source.get("policy", "somebody"))
    more = [f"version {source['version']}" if source.get("version") is not None else ""]
    more += [str(source["preset"]) if source.get("preset") else ""]
    more += [f"ε {source['epsilon']}" if source.get("epsilon") else ""]
    more += ["greedy" if source.get("deterministic") else ""]
    return ", ".join([words, *filter(None, more)])


def histogram(dataset: Dataset) -> str:
    """How many episodes had which returns, a line for each range of them."""
    counts, edges = np.histogram(dataset.returns, _BINS)
    longest = max(int(counts.max()), 1)
    width = max(len(f"{edge:.0f}") for edge in edges)
    return "\n".join(
        f"{low:{width}.0f} … {high:{width}.0f} {'#' * round(_WIDEST * int(count) / longest):{_WIDEST}} {count:,}"
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )


def _cell(text: Any) -> str:
    """Text from elsewhere in a cell of a table."""
    return printable(str(text)).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
