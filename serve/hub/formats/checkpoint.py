"""A checkpoint as ``save_pretrained`` of transformers writes it: what it says of itself, and its tensors.

Nothing is unpickled: safetensors are read as they are, a pytorch_model.bin by torch's reader of weights alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.errors import UserError
from actors.files import read_json
from actors.spec import MOST_BYTES
from serve.hub.formats.tensors import read_torch

if TYPE_CHECKING:
    import torch

CONFIG, CARD = "config.json", "README.md"
ABOUT = (CONFIG, CARD)
"""Files that say what it is."""
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Files that hold all its tensors; the first that is there is read."""
INDICES = tuple(f"{name}.index.json" for name in WEIGHTS)
"""Files that say which shards hold them, where one file does not."""
MOST_OF_TEXT, MOST_OF_WEIGHTS = 2 * 1024**2, 2 * MOST_BYTES
"""Bytes of one of its texts, which have a few thousand, and of all its weights, of which a policy needs less."""
_SHARD = re.compile(r"[\w-][\w.-]{0,100}\.(?:safetensors|bin)")


def read_config(directory: Path) -> dict[str, Any]:
    """What config.json says.

    Raises:
        UserError: it is missing or damaged.
    """
    if not (directory / CONFIG).is_file():
        raise UserError(f"no checkpoint of transformers: it has no {CONFIG}")
    return _object(directory, CONFIG)


def read_card(directory: Path) -> str:
    """The text of its model card; empty if it has none."""
    return _text(directory, CARD).decode(errors="replace") if (directory / CARD).is_file() else ""


def weight_files(directory: Path, has: Callable[[str], bool] | None = None) -> list[str]:
    """The names of the files that hold its tensors.

    Args:
        directory: holds its index, if it has one.
        has: whether there is a file of that name; None: in the directory.

    Raises:
        UserError: there are none, or the index is damaged.
    """
    has = has or (lambda name: (directory / name).is_file())
    for whole, index in zip(WEIGHTS, INDICES, strict=True):
        if has(whole):
            return [whole]
        if has(index):
            return _shards(directory, index)
    raise UserError(f"no checkpoint of transformers: it has neither {' nor '.join(WEIGHTS)}, whole or in shards")


def read_tensors(directory: Path) -> dict[str, torch.Tensor]:
    """Its tensors by their names.

    Raises:
        UserError: a file is missing or damaged, or larger than it can be.
    """
    names = weight_files(directory)
    if missing := [name for name in names if not (directory / name).is_file()]:
        raise UserError(f"no {missing[0]}, which its index names: download it too")
    size = sum((directory / name).stat().st_size for name in names)
    if size > MOST_OF_WEIGHTS:
        raise UserError(f"its weights have {size:,} bytes, more than {MOST_OF_WEIGHTS:,}: this is no policy")
    tensors: dict[str, torch.Tensor] = {}
    for name in names:
        tensors |= _read(directory / name)
    return tensors


def _read(file: Path) -> dict[str, torch.Tensor]:
    import safetensors.torch  # here: a bad request is answered before torch is loaded

    try:
        content = file.read_bytes()
        if file.suffix == ".safetensors":
            return safetensors.torch.load(content)
        return read_torch(content, file.name, "policy")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {file.name}: {error.strerror}") from error
    except Exception as error:  # safetensors, torch, zipfile and zlib each have their own
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(f"{file.name} is damaged, or holds more than tensors: {line}") from error


def _shards(directory: Path, index: str) -> list[str]:
    named = _object(directory, index).get("weight_map")
    shards = sorted({*map(str, named.values())}) if isinstance(named, dict) else []
    if not shards or not all(_SHARD.fullmatch(name) for name in shards):
        raise UserError(f"{index} is damaged: its weight_map must name files")
    return shards


def _object(directory: Path, name: str) -> dict[str, Any]:
    data = read_json(_text(directory, name), name)
    if not isinstance(data, dict):
        raise UserError(f"{name} must hold a JSON object, not {type(data).__name__}")
    return data


def _text(directory: Path, name: str) -> bytes:
    try:
        with (directory / name).open("rb") as file:
            content = file.read(MOST_OF_TEXT + 1)
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}") from error
    if len(content) > MOST_OF_TEXT:
        raise UserError(f"{name} has more than {MOST_OF_TEXT:,} bytes, and it should have a few thousand")
    return content
