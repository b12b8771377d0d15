"""What tests of the Hugging Face Hub share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from tests.serve.hub_server import Hub, running_hub
from tests.serve.served import PATIENCE


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub on this machine that the client asks, from an empty directory."""
    with running_hub({}) as hub:
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", hub.url
        )  # the client reads its environment at import
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        for what in ("ETAG", "DOWNLOAD"):
            monkeypatch.setattr(huggingface_hub.constants, f"HF_HUB_{what}_TIMEOUT", int(PATIENCE))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.chdir(tmp_path)
        yield hub
