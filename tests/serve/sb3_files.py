"""Files that Stable-Baselines3 itself has saved, and files that were changed since."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sb3 = pytest.importorskip("stable_baselines3")


def saved(path: Path, algorithm: str, env_id: str, **kwargs: Any) -> Any:
    """A model with weights large enough that its actions differ, saved to ``path``."""
    model = getattr(sb3, algorithm)("MlpPolicy", env_id, device="cpu", seed=0, **kwargs)
    with torch.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save(path)
    return model


def rewrite(source: Path, target: Path, **members: Callable[[bytes], bytes]) -> Path:
    """A copy of a zip file in which some members are changed; ``data`` for data, ``policy`` for policy.pth."""
    names = {"data": "data", "policy.pth": "policy"}
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            change = members.get(names.get(name, name), bytes)
            new.writestr(name, change(old.read(name)))
    return target


def weights_changed(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[bytes], bytes]:
    def rewritten(content: bytes) -> bytes:
        buffer = io.BytesIO()
        torch.save(change(dict(torch.load(io.BytesIO(content), weights_only=True))), buffer)
        return buffer.getvalue()

    return rewritten


def data_changed(**changes: Any) -> Callable[[bytes], bytes]:
    """Entries of the data replaced, or left out where they are None."""

    def rewritten(content: bytes) -> bytes:
        data = json.loads(content) | changes
        return json.dumps({name: value for name, value in data.items() if value is not None}).encode()

    return rewritten
