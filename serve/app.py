"""``python -m serve.app``: serve trained policies over HTTP. What it does is in service/app_command.py."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from learner.commands.entry import begin
from serve.service.supervisor import Stop, supervise

if TYPE_CHECKING:
    from ray.serve import Application


def build(arguments: dict[str, Any]) -> Application:
    """Ray's own way: ``serve run serve.app:build policy=runs/first``, or ``serve/config.yaml``.

    Args:
        arguments: of BuildArguments.

    Raises:
        UserError: an argument is wrong; a policy or the token is missing or damaged.
    """
    from serve.service import deployment  # takes seconds, which a start can spare: signals are heeded first

    return deployment.build(arguments)


def command(stop: Stop) -> None:
    """Serve what the command line asks for, until told to stop."""
    from serve.service.app_command import main  # the same

    main(stop)


if __name__ == "__main__":
    begin("python -m serve.app")
    supervise(command)
