"""Serve trained policies over HTTP, with a page on which one watches them fly.

python -m serve.app runs/first
python -m serve.app runs/first --follow
python -m serve.app --policy ppo=runs/a --policy aac=runs/b
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import resource
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import psutil
import ray
import tyro
from ray.exceptions import RayError
from rich.console import Console
from rich.markup import escape

from actors.errors import UserError
from learner.commands.command_line import one_line_errors, parse
from learner.run.progress import log_to
from learner.run.ray_session import ray_address, start_ray
from serve.service.deployment import application
from serve.service.fast_ingress import advice, start_own_ray
from serve.service.gate import is_loopback
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig, ReplicaConfig
from serve.service.supervisor import Stop
from serve.service.tokens import TOKEN_VARIABLE, read_token
from serve.watch.recording import Recorder

_PROG = "python -m serve.app"
_APP = "touchdown"
_FILES = 1024
"""That a process must be allowed to open: one for each connection, and some hundred of Ray's and HAProxy's own."""


@dataclasses.dataclass(frozen=True)
class ServeCommand:
    """Serve trained policies at POST /act, and a page on which one watches them fly."""

    run: Annotated[str | None, tyro.conf.Positional] = None
    """A run directory, or a directory with a policy: a path, or a URI such as s3://bucket/runs/first."""
    policy: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Another one, as name=directory; as often as you like. Requests choose by name; the first is the default."""
    module: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Import this module for policies whose environment is module:Id-v0, so that one can watch them; as often as you
    like. No module is imported because a policy's file names it."""
    follow: bool = False
    """Serve newer versions as a training run writes them."""
    record: str | None = None
    """Keep the episodes that people fly on the page, from their first step to their last, in this dataset: a path,
    s3://… or gs://…"""
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


def sources_of(command: ServeCommand) -> dict[str, str]:
    """Policies by name.

    Raises:
        UserError: none is named, one is named twice, or not as name=directory.
    """
    named = [(Path(command.run).resolve().name, command.run)] if command.run else []
    for text in command.policy:
        name, equals, directory = text.partition("=")
        if not (name and equals and directory):
            raise UserError(f"--policy takes name=directory, not {text!r}")
        named.append((name, directory))
    sources = dict(named)
    if len(sources) < len(named):
        raise UserError(f"two policies have one name: {', '.join(name for name, _ in named)}")
    return sources


def require_closed(host: str, token: str | None) -> None:
    """Without a token only this machine itself is answered.

    Raises:
        UserError: another address, and no token.
    """
    if token is None and not is_loopback(host):
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
            said = f"cannot listen on {host}:{port}: {error.strerror}{_by_whom(port)}; choose another --port"
            raise UserError(said) from error


def _by_whom(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    with contextlib.suppress(psutil.Error):
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
                return f" by {psutil.Process(one.pid).name()}, process {one.pid}"
    return ""


def require_files() -> None:
    """Let this process, and all that it starts, open as many files as the system allows, up to what they can use.

    Raises:
        UserError: that is not enough.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else hard
    if most < _FILES:
        raise UserError(f"a process may open {most} files here, and the service needs {_FILES:,}: ulimit -n {_FILES}")
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536), hard))


def serve_until_stopped(command: ServeCommand, console: Console, stop: Stop) -> None:
    """Start, say where, and serve until told to stop.

    Raises:
        UserError: something cannot be served; nothing is left running then.
    """
    sources = sources_of(command)
    token = read_token(command.token_file)
    require_closed(command.host, token)
    policies = Policies(sources, command.module)
    if command.record:
        Recorder(command.record, policies)
    joins = ray_address() is not None
    if joins:
        stop.gently()  # what is begun on a cluster is taken down from it
    else:
        require_free_port(command.host, command.port)
        require_files()
    with console.status("starting Ray Serve"):
        own = None if joins else start_own_ray(stop.directory)
        address = start_serving(command, sources, token, joins, console)
    stop.gently()
    for served in policies.values():
        console.print(
            f"[bold]{escape(served.name)}[/bold]: version {served.version} for {served.policy.spec.env_id}",
            highlight=False,
        )
    console.print(f"watch it fly: [bold]{address}/[/bold]", highlight=False)
    console.print(f"POST {address}/act, documented at {address}/docs", highlight=False)
    if own:
        console.print(f"metrics: {own.metrics}\nlogs: {own.logs}", highlight=False)
    if command.record:
        console.print(f"flights of yours are kept in {escape(command.record)}", highlight=False)
    console.print("Ctrl-C stops")
    stop.wait()
    with console.status("stopping"):
        stop_serving()


def start_serving(
    command: ServeCommand, sources: Mapping[str, str], token: str | None, joins: bool, console: Console
) -> str:
    """Deploy; returns the address.

    Raises:
        UserError: this machine is too small.
        OSError: Ray Serve did not start.
    """
    from ray import serve  # after the variables that start_own_ray sets

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    start_ray()
    if joins and (said := advice()):
        console.print(said, style="yellow", highlight=False, soft_wrap=True)
    needed = command.replica.replicas * command.replica.cpus_per_replica
    there = ray.cluster_resources().get("CPU", 0)
    if not joins and needed > there:
        raise UserError(f"{command.replica.replicas} replicas need {needed:g} CPUs of {there:g}: use fewer --replicas")
    app = application(sources, token, command.follow, command.replica, command.http, command.module, command.record)
    try:
        serve.start(http_options={"host": command.host, "port": command.port})
        serve.run(app, name=_APP, route_prefix="/")
    except (RayError, RuntimeError) as error:  # of Ray's processes, with their tracebacks
        raise OSError(f"Ray Serve did not start: {str(error).strip().splitlines()[-1]}") from error
    host = f"[{command.host}]" if ":" in command.host else command.host
    return f"http://{host}:{command.port}"


def stop_serving() -> None:
    """Take the application down, once what it answers now is answered, and leave Ray; one of our own ends with that."""
    from ray import serve

    serve.delete(_APP)
    ray.shutdown()


def main(stop: Stop, arguments: Sequence[str] | None = None) -> None:
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
        serve_until_stopped(command, console, stop)
