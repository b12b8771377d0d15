"""What can be read of a Stable-Baselines3 file without unpickling: tensors, and plain JSON values."""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.episode import Array
from actors.errors import UserError, printable
from actors.files import read_json
from actors.spec import MOST_BYTES
from serve.hub.formats.tensors import as_weights, read_torch

_MIB = 1024**2
_LIMITS = {"data": 8 * _MIB, "policy.pth": MOST_BYTES, "_stable_baselines3_version": 1024}
"""Bytes that a member of the file may unpack to: some hundred times what an MlpPolicy of the usual sizes needs."""
_FILE_LIMIT = 4 * MOST_BYTES
_VERSION = "_stable_baselines3_version"


def read_data(file: Path) -> tuple[dict[str, Any], str | None]:
    """Read what ``model.save`` says of the model, but for its weights.

    Returns:
        Its data, in which what is no plain value is a description of a pickle that stays closed; and the version of
        Stable-Baselines3.

    Raises:
        UserError: the file is missing or damaged, or larger than it can be.
    """
    with _opened(file) as archive:
        data = read_json(_member(archive, "data"), "its data")
        if not isinstance(data, dict):
            raise UserError("its data are no JSON object")
        known = _VERSION in archive.namelist()
        return data, printable(_member(archive, _VERSION).decode().strip())[:20] if known else None


def read_weights(file: Path) -> dict[str, Array]:
    """Read the policy's weights by their names, float32.

    Raises:
        UserError: the file is missing or damaged, or larger than it can be.
    """
    with _opened(file) as archive:
        state = read_torch(_member(archive, "policy.pth"), "policy.pth", "MlpPolicy")
        return as_weights(state, "policy.pth", "MlpPolicy")


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    """The zip file, whatever is wrong with which is one line."""
    try:
        if file.stat().st_size > _FILE_LIMIT:
            raise UserError(f"it has more than {_FILE_LIMIT:,} bytes: this is no MlpPolicy")
        with zipfile.ZipFile(file) as archive:
            for name in ("policy.pth", "data"):
                if name not in archive.namelist():
                    raise UserError(f"it was not saved by Stable-Baselines3: there is no {name} in it")
            yield archive
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except Exception as error:  # zipfile, zlib and torch each have their own for a file that is not what it says
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{file} is damaged, or no zip file of Stable-Baselines3: {line}") from error


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member's bytes; one that says, or turns out, to unpack to more than a policy ever has is not unpacked."""
    limit = _LIMITS[name]
    content = b""
    if (declared := archive.getinfo(name).file_size) <= limit:
        with archive.open(name) as member:
            content = member.read(limit + 1)
    if max(declared, len(content)) > limit:
        raise UserError(f"{name} unpacks to more than {limit:,} bytes: this is no MlpPolicy")
    return content
