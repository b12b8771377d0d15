"""Datasets on the Hub: published and fetched with their card, and checked part by part both times."""

from __future__ import annotations

import shutil
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.hf_api import RepoFile

from actors.errors import UserError
from learner.dataset.card import CARD, write_card
from learner.dataset.dataset import PARTS, Dataset, open_dataset
from learner.dataset.form import DATASET_FILE
from serve.hub.directories import whole_directory
from serve.hub.hub_api import hub_errors, upload
from serve.hub.privacy import refuse_secrets

PREFIX = "datasets/"
"""Before user/name it says, as in the Hub's own addresses, that a repository is of a dataset."""
_FILES = (CARD, DATASET_FILE, f"{PARTS}/*.safetensors")
_TEXT_LIMIT = 10_000_000
"""Bytes of a card or a dataset.json, which have a few thousand."""


def is_dataset(directory: Path) -> bool:
    """Whether a directory holds a dataset."""
    return (directory / DATASET_FILE).is_file()


def publish_dataset(directory: Path, repo_id: str, *, private: bool, revision: str | None, message: str | None) -> str:
    """Upload a dataset, with a card that says how to fetch it.

    Args:
        directory: of the dataset.
        repo_id: user/name, created if there is none.
        private: a new repository is private.
        revision: a branch, created if there is none; None: main.
        message: of the commit; None: how many episodes of what.

    Returns:
        The address of the repository.

    Raises:
        UserError: the dataset is damaged, would give a secret away, or the Hub refused.
        OSError: the Hub cannot be reached.
    """
    dataset = open_dataset(directory)
    _check(dataset)
    write_card(dataset, repo_id)
    refuse_secrets(directory, [directory / CARD, directory / DATASET_FILE])
    return upload(
        directory,
        repo_id,
        private=private,
        revision=revision,
        message=message or f"{dataset.num_episodes:,} episodes of {dataset.env_id}",
        names=(f"{PARTS}/*.safetensors",),
        repo_type="dataset",
        only=_FILES,
    )


def pull_dataset(repo_id: str, to: Path, revision: str | None = None) -> Dataset:
    """Fetch a dataset into ``to``, and check all of it.

    Args:
        repo_id: user/name.
        to: a directory that is made.
        revision: a branch, tag or commit; None: main.

    Raises:
        UserError: there is no such repository or no dataset in it, it is damaged, or ``to`` exists. Nothing is left in
            ``to`` then.
        OSError: the Hub cannot be reached.
    """
    with whole_directory(to) as directory:
        with hub_errors(repo_id):
            tree = HfApi().list_repo_tree(repo_id, recursive=True, revision=revision, repo_type="dataset")
            sizes = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
            if DATASET_FILE not in sizes:
                raise UserError(f"{repo_id} holds no dataset of Touchdown's: {DATASET_FILE} is missing")
            for name in (CARD, DATASET_FILE):
                if sizes.get(name, 0) > _TEXT_LIMIT:
                    raise UserError(f"{repo_id} has a {name} of {sizes[name] / 1e6:.0f} MB: it is not fetched")
            snapshot_download(
                repo_id, repo_type="dataset", revision=revision, local_dir=directory, allow_patterns=[*_FILES]
            )
        shutil.rmtree(directory / ".cache", ignore_errors=True)  # the client's own
        try:
            _check(open_dataset(directory))
        except UserError as error:
            raise UserError(f"{repo_id}: {str(error).replace(f'{directory}/', '')}") from error
    return open_dataset(to)


def _check(dataset: Dataset) -> None:
    """Read all parts, whose checksums say whether they are what was recorded."""
    for index in range(len(dataset.parts)):
        dataset.part(index)
