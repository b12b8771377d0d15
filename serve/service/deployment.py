"""The Serve application: what a deployment is made of, from the command line or from Ray's own configuration files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic

from actors.errors import UserError
from serve.service.policies import Policies
from serve.service.request_limits import HttpConfig, ReplicaConfig
from serve.service.tokens import digest, read_token
from serve.watch.recording import Recorder

if TYPE_CHECKING:
    from ray.serve import Application


class BuildArguments(pydantic.BaseModel, extra="forbid"):
    """What ``serve run serve.app:build`` and a Serve config file take."""

    policy: str | dict[str, str]
    """A run directory, or several by name: paths, or URIs of an object store."""
    modules: tuple[str, ...] = ()
    """Modules that may be imported for policies whose environment is module:Id-v0."""
    follow: bool = False
    record: str | None = None
    """The dataset that keeps what people fly on the page."""
    token_file: str | None = None
    replica: ReplicaConfig = ReplicaConfig()
    http: HttpConfig = HttpConfig()


def build(arguments: dict[str, Any]) -> Application:
    """The application that ``arguments``, of BuildArguments, describe.

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
    return application(sources, token, args.follow, args.replica, args.http, args.modules, args.record)


def application(
    sources: Mapping[str, str | Path],
    token: str | None,
    follow: bool,
    replica: ReplicaConfig,
    http: HttpConfig,
    modules: tuple[str, ...] = (),
    record: str | None = None,
) -> Application:
    """The Serve application.

    Raises:
        UserError: a policy is missing or damaged, or what people fly cannot be kept in one dataset.
        OSError: the dataset cannot be written.
    """
    from ray import serve

    from serve.service.replica import Touchdown, enough_replicas

    paths = {name: _wherever(str(source)) for name, source in sources.items()}
    policies, record = Policies(paths, modules), record and _wherever(record)
    if record:
        Recorder(record, policies)
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
    app: Application = deployment.bind(paths, http, digest(token) if token else None, follow, modules, record)
    return app


def _wherever(place: str) -> str:
    """A path or URI as it is from any directory."""
    return place if "://" in place else str(Path(place).resolve())
