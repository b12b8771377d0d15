"""A checkpoint of transformers, fetched from the Hugging Face Hub: only files that are read, and of a sensible size."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.hf_api import RepoFile

from actors.errors import UserError
from serve.hub.formats.checkpoint import ABOUT, INDICES, MOST_OF_TEXT, MOST_OF_WEIGHTS, WEIGHTS, weight_files
from serve.hub.hub_api import hub_errors


def fetch_checkpoint(repo_id: str, to: Path, revision: str | None = None) -> None:
    """Fetch what a checkpoint says of itself and its weights into a directory; of two forms of these, safetensors.

    Raises:
        UserError: there is no such repository or no checkpoint in it, or it is larger than a policy.
        OSError: the Hub cannot be reached.
    """
    with hub_errors(repo_id):
        sizes = _sizes(repo_id, [*ABOUT, *WEIGHTS, *INDICES], revision)
        texts = [name for name in (*ABOUT, *INDICES) if name in sizes]
        for name in texts:
            if sizes[name] > MOST_OF_TEXT:
                raise UserError(f"{repo_id} has a {name} of {sizes[name] / 1e6:.0f} MB: it is not fetched")
        if not set(WEIGHTS) & sizes.keys() and not set(INDICES) & sizes.keys():
            raise UserError(f"{repo_id} holds no weights of transformers: neither {' nor '.join(WEIGHTS)}")
        snapshot_download(repo_id, revision=revision, local_dir=to, allow_patterns=texts)
        names = weight_files(to, lambda name: name in sizes)
        weights = _sizes(repo_id, names, revision)
        if sum(weights.values()) > MOST_OF_WEIGHTS:
            raise UserError(f"{repo_id} has weights of {sum(weights.values()) / 1e9:.1f} GB: they are not fetched")
        snapshot_download(repo_id, revision=revision, local_dir=to, allow_patterns=names)


def _sizes(repo_id: str, names: list[str], revision: str | None) -> dict[str, int]:
    """Bytes of those of the files that are there."""
    found = HfApi().get_paths_info(repo_id, names, revision=revision)
    return {entry.path: entry.size for entry in found if isinstance(entry, RepoFile)}
