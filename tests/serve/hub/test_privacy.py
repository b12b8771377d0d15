"""What must not be published."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.errors import UserError
from serve.hub.privacy import public_command, refuse_secrets

TOKEN = "hf_" + "aLongSecretOfTwentyOrMore"


def test_a_command_is_published_without_secrets_and_places() -> None:
    secret = "ghp_" + "x" * 36
    command = (
        f"/home/ada/.venv/bin/python3 -m learner.train --config ../ada/best.json --run-dir=/home/ada/a --x {secret}"
    )
    assert public_command(command) == "python -m learner.train --config best.json --run-dir=a --x REMOVED"
    assert public_command("WANDB_API_KEY=1 python t.py --password p --seed 3") == (
        "WANDB_API_KEY=REMOVED python t.py --password REMOVED --seed 3"
    )
    assert public_command("python 'unbalanced") is None


@pytest.mark.parametrize("leak", [f'{{"a": "{TOKEN}"}}', f'"{Path.home()}/x"', "https://ada:hunter22@example.org"])
def test_a_file_with_a_secret_stops_everything(leak: str, tmp_path: Path) -> None:
    (tmp_path / "policy.json").write_text(leak)
    with pytest.raises(UserError, match=r"policy\.json would hold"):
        refuse_secrets(tmp_path, [tmp_path / "policy.json"])
