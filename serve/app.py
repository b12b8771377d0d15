"""``python -m serve.app``: serve trained policies over HTTP, with a page on which one watches them fly.

python -m serve.app runs/first
python -m serve.app runs/first --follow
python -m serve.app --policy ppo=runs/a --policy aac=runs/b
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
import ray
import tyro
from rich.console import Console

from actors.errors import UserError
from learner.command_line import one_line_errors, parse
from learner.progress import log_to
from learner.ray_session import start_ray
from serve.fast_ingress import advice, start_own_ray
from serve.limits import HttpConfig, ReplicaConfig
from serve.policies import Policies
from serve.tokens import TOKEN_VARIABLE, digest, read_token

if TYPE_CHECKING:
    from ray.serve import Application

_PROG = "python -m serve.app"
_APP = "touchdown"


@dataclasses.dataclass(frozen=True)
class ServeCommand:
    """Serve trained policies at POST /act, and a page on which one watches them fly."""

    run: Annotated[Path | None, tyro.conf.Positional] = None
    """A run directory, or a directory with a policy."""
    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another one, as name=directory; as often as you like. Requests choose by name; the first is the default."""
    follow: bool = False
    """Serve newer versions as a training run writes them."""
    host: str = "127.0.0.1"
    """Address to listen on; any but this machine's own needs a token."""
    port: int = 8000
    """Port to listen on."""
    token_file: Path | None = None
    """A file with the bearer token that requests must bring; the variable TOUCHDOWN_TOKEN does as well."""
    replica: ReplicaConfig = ReplicaConfig()
    http: HttpConfig = HttpConfig()

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise UserError(f"port must lie between 1 and 65535, not {self.port}")


class BuildArguments(pydantic.BaseModel, extra="forbid"):
    """What ``serve run serve.app:build`` and a Serve config file take."""

    policy: str | dict[str, str]
    """A run directory, or several by name."""
    follow: bool = False
    token_file: str | None = None
    replica: ReplicaConfig = ReplicaConfig()
    http: HttpConfig = HttpConfig()


def build(arguments: dict[str, Any]) -> Application:
    """Ray's own way: ``serve run serve.app:build policy=runs/first``, or ``serve/config.yaml``.

    Args:
        arguments: of BuildArguments.

    Raises:
        UserError: an argument is wrong; a policy or the token is missing or damaged.
    """
    try:
        args = BuildArguments.model_validate(arguments)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    sources = {Path(args.policy).name: args.policy} if isinstance(args.policy, str) else args.policy
    token = read_token(Path(args.token_file) if args.token_file else None)
    return application(sources, token, args.follow, args.replica, args.http)


def application(
    sources: Mapping[str, str | Path], token: str | None, follow: bool, replica: ReplicaConfig, http: HttpConfig
) -> Application:
    """The Serve application.

    Raises:
        UserError: a policy is missing or damaged.
    """
    from ray import serve

    from serve.replica import Touchdown, enough_replicas

    paths = {name: str(Path(source).resolve()) for name, source in sources.items()}
    Policies(paths)
    scaled: dict[str, Any] = {"num_replicas": replica.replicas}
    if replica.max_replicas is not None:
        scaled = {
            "autoscaling_config": {
                "min_replicas": replica.replicas,
                "max_replicas": replica.max_replicas,
                "policy": {"policy_function": enough_replicas},
                "upscale_delay_s": 3.0,
                "downscale_delay_s": 30.0,
                "look_back_period_s": 5.0,
            }
        }
    deployment: Any = serve.deployment(Touchdown)
    deployment = deployment.options(
        ray_actor_options={"num_cpus": replica.cpus_per_replica},
        max_ongoing_requests=10_000,  # what may wait is bounded by the service itself, which says so at once
        user_config={},
        **scaled,
    )
    app: Application = deployment.bind(paths, http, digest(token) if token else None, follow)
    return app


def sources_of(command: ServeCommand) -> dict[str, Path]:
    """Policies by name.

    Raises:
        UserError: none is named, one is named twice, or not as name=directory.
    """
    named = [(command.run.resolve().name, command.run)] if command.run else []
    for text in command.policy:
        name, equals, directory = text.partition("=")
        if not (name and equals and directory):
            raise UserError(f"--policy takes name=directory, not {text!r}")
        named.append((name, Path(directory)))
    sources = dict(named)
    if len(sources) < len(named):
        raise UserError(f"two policies have one name: {', '.join(name for name, _ in named)}")
    return sources


def require_closed(host: str, token: str | None) -> None:
    """Without a token only this machine itself is answered.

    Raises:
        UserError: another address, and no token.
    """
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and token is None:
        raise UserError(f"--host {host} is open to others: it needs a token, by --token-file or {TOKEN_VARIABLE}")


def require_free_port(host: str, port: int) -> None:
    """Find out before anything starts.

    Raises:
        UserError: the address is in use or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from error


def serve_until_stopped(command: ServeCommand, console: Console) -> None:
    """Start, say where, and serve until Ctrl-C or SIGTERM.

    Raises:
        UserError: something cannot be served; nothing is left running then.
    """
    sources = sources_of(command)
    token = read_token(command.token_file)
    require_closed(command.host, token)
    policies = Policies(sources)
    joins = "RAY_ADDRESS" in os.environ
    if not joins:
        require_free_port(command.host, command.port)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with console.status("starting Ray Serve"):
        own = None if joins else start_own_ray()
        address = start_serving(command, sources, token, joins, console)
    for served in policies.values():
        console.print(
            f"[bold]{served.name}[/bold]: version {served.version} for {served.policy.spec.env_id}", highlight=False
        )
    console.print(f"watch it fly: [bold]{address}/[/bold]", highlight=False)
    console.print(f"POST {address}/act, documented at {address}/docs", highlight=False)
    if own:
        console.print(f"metrics: {own.metrics}\nlogs: {own.logs}", highlight=False)
    console.print("Ctrl-C stops")
    stopped.wait()
    with console.status("stopping"):
        stop_serving()


def start_serving(
    command: ServeCommand, sources: Mapping[str, Path], token: str | None, joins: bool, console: Console
) -> str:
    """Deploy; returns the address."""
    from ray import serve  # after the variables that start_own_ray sets

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    start_ray()
    if joins and (said := advice()):
        console.print(said, style="yellow", highlight=False, soft_wrap=True)
    needed = command.replica.replicas * command.replica.cpus_per_replica
    there = ray.cluster_resources().get("CPU", 0)
    if not joins and needed > there:
        raise UserError(f"{command.replica.replicas} replicas need {needed:g} CPUs of {there:g}: use fewer --replicas")
    app = application(sources, token, command.follow, command.replica, command.http)
    serve.start(http_options={"host": command.host, "port": command.port})
    serve.run(app, name=_APP, route_prefix="/")
    host = f"[{command.host}]" if ":" in command.host else command.host
    return f"http://{host}:{command.port}"


def stop_serving() -> None:
    """Take the application down, once what it answers now is answered, and leave Ray; one of our own ends with that."""
    from ray import serve

    serve.delete(_APP)
    ray.shutdown()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    console = Console()
    log_to(console)
    with one_line_errors(_PROG):
        command = parse(
            tyro.conf.OmitArgPrefixes[ServeCommand],
            sys.argv[1:] if arguments is None else arguments,
            None,
            _PROG,
            __doc__ or "",
        )
        serve_until_stopped(command, console)


if __name__ == "__main__":
    main()
