"""What can be read of a Stable-Baselines3 file without unpickling: tensors, and plain JSON values."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from actors.episode import Array
from actors.errors import UserError

_LIMIT = 256 * 1024**2
"""Bytes that a member of the file may unpack to: a thousand times what an MlpPolicy of the usual sizes needs."""
_VERSION = "_stable_baselines3_version"


def read_sb3(file: Path) -> tuple[dict[str, Any], dict[str, Array], str | None]:
    """Read the zip file that ``model.save`` writes.

    Returns:
        Its data, in which what is no plain value is a description of a pickle that stays closed; the policy's weights
        by their names, float32; and the version of Stable-Baselines3.

    Raises:
        UserError: the file is missing or damaged, or larger than it can be.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            for name in ("policy.pth", "data"):
                if name not in names:
                    raise UserError(f"{file} was not saved by Stable-Baselines3: there is no {name} in it")
            data = json.loads(_member(archive, "data"))
            state = _tensors(_member(archive, "policy.pth"))
            version = _member(archive, _VERSION).decode().strip()[:20] if _VERSION in names else None
    except UserError:
        raise
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except Exception as error:  # zipfile, zlib, json and torch each have their own for a file that is not what it says
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{file} is damaged, or no zip file of Stable-Baselines3: {line}") from error
    if not isinstance(data, dict):
        raise UserError(f"{file} is damaged: its data are no JSON object")
    return data, state, version


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member's bytes; one that would unpack to more than a policy ever has is not unpacked."""
    with archive.open(name) as member:
        content = member.read(_LIMIT + 1)
    if len(content) > _LIMIT:
        raise UserError(f"{name} unpacks to more than {_LIMIT // 1024**2} MiB: this is no MlpPolicy")
    return content


def _tensors(content: bytes) -> dict[str, Array]:
    """The tensors of a state dictionary. torch's own restricted reader makes nothing but tensors and containers."""
    import torch  # here: a bad request is answered before torch is loaded

    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # torch's format since 1.6 is a zip file too
        if sum(entry.file_size for entry in archive.infolist()) > _LIMIT:
            raise UserError(f"policy.pth unpacks to more than {_LIMIT // 1024**2} MiB: this is no MlpPolicy")
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError("policy.pth holds something other than a dictionary of tensors")
    if sum(value.numel() for value in state.values()) * 4 > _LIMIT:  # a view can be larger than what it is a view of
        raise UserError(f"policy.pth has tensors of more than {_LIMIT // 1024**2} MiB: this is no MlpPolicy")
    return {str(name): value.detach().to(torch.float32).numpy().copy() for name, value in state.items()}
