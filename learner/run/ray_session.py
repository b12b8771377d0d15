"""Ray, joined or started: once a process, and never by accident."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import grpc
import ray
from ray._private import parameter, ray_constants, utils
from ray._private.grpc_utils import init_grpc_channel
from ray._private.node import Node
from ray._private.services import canonicalize_bootstrap_address
from ray._private.worker import global_worker
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest  # type: ignore[attr-defined]
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import AuthenticationError

from actors.errors import UserError

log = logging.getLogger("touchdown")

_JOIN_SECONDS = 30.0
"""That a cluster has to answer; Ray itself would try for five minutes."""
_STARTS = 3
"""Tries to start a Ray of one's own: on a busy machine its processes can take longer than it waits for them."""

_NOBODY = b"http://127.0.0.1:9"
"""The port that RFC 863 gives to what is to be discarded."""


def ray_address() -> str | None:
    """The cluster to join, as RAY_ADDRESS names it; None: start one of this process."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", "local") else address


def start_ray(**own: Any) -> None:
    """Join the cluster that RAY_ADDRESS names ("auto": the one on this machine), or start one of this process; once.

    Not ``ray.init()``'s own rule, which joins whatever cluster another process has left on this machine. Whether a
    token is shown is the cluster's to say, not RAY_AUTH_MODE's: a file that an earlier run left decides nothing.

    Args:
        own: more arguments of ``ray.init`` for a cluster of this process's own.

    Raises:
        UserError: the cluster does not answer or wants another token, or none can be started here.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: a second thread costs more than it brings
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of a failed rollout we read the report, not the batch
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # 3.11.7 and 3.11.9 have the same pickles and bytecode, and machines get their patches at different times.
    os.environ.setdefault("RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL", "minor")
    address = ray_address()
    if address is None:
        _start({"include_dashboard": False, **own})
    else:
        _join(address)


def _join(address: str) -> None:
    words = f"cannot join the Ray cluster that the variable RAY_ADDRESS names, {address}"
    remedy = "correct it, or unset it to start Ray here"
    try:
        if "://" not in address:
            _show_token_if_asked(canonicalize_bootstrap_address(address) or address)
        with _signals_left_alone():
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
        worker: Any = global_worker
        if hasattr(worker, "gcs_error_subscriber"):  # who comes by ray:// has none
            worker.gcs_error_subscriber = Unhurried(worker.gcs_error_subscriber)
    except grpc.FutureTimeoutError:
        raise UserError(f"{words}: it did not answer within {_JOIN_SECONDS:g} s; {remedy}") from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"{words}: {' '.join(str(error).split())}; {remedy}") from error
    except AuthenticationError as error:
        raise UserError(f"{words}: {error.message}; copy the token of its head, ~/.ray/auth_token, to here") from None


class Unhurried:
    """A subscriber to a cluster's messages that is asked once a second where it answers at once that there are none.

    Ray asks its own again without a pause, and that answers so once the head was lost, also when there is a new one:
    for the rest of the run a thread of the driver would take a core.
    """

    def __init__(self, subscriber: Any) -> None:
        self._subscriber = subscriber

    def poll(self, timeout: float | None = None) -> tuple[Any, Any]:
        """The next message, awaited; what and whose it is, or None and None."""
        begun = time.monotonic()
        answer: tuple[Any, Any] = self._subscriber.poll(timeout)
        if answer[1] is None:
            time.sleep(max(0.0, begun + 1.0 - time.monotonic()))
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscriber, name)


def _show_token_if_asked(gcs: str) -> None:
    """Put this process into the cluster's mode of authentication, which it keeps.

    Raises:
        AuthenticationError: it wants a token that is not this process's.
        FutureTimeoutError: it did not answer.
    """
    _set_token_mode("disabled")
    if _welcomes(gcs):
        return
    if not AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        raise AuthenticationError("it asks for a token, and there is none here")
    _set_token_mode("token")
    if not _welcomes(gcs):
        where = "~/.ray/auth_token, or RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH where set"
        raise AuthenticationError(f"it asks for another token than the one here ({where})")


def _set_token_mode(mode: str) -> None:
    os.environ["RAY_AUTH_MODE"] = mode
    Config.initialize("")  # what Ray read of the environment as it was imported


def _welcomes(gcs: str) -> bool:
    """Whether the cluster takes what this process shows, or does not show, of a token."""
    with contextlib.closing(init_grpc_channel(gcs)) as channel:
        grpc.channel_ready_future(channel).result(timeout=_JOIN_SECONDS)
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=_JOIN_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAUTHENTICATED:
                return False
            if error.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise grpc.FutureTimeoutError from error
            raise ConnectionError(f"{error.code().name}: {error.details()}") from error
    return True


def _start(options: dict[str, Any]) -> None:
    for attempt in range(1, _STARTS + 1):
        try:
            with _signals_left_alone(), small_head():
                ray.init("local", logging_level=logging.ERROR, log_to_driver=False, **options)
            return
        except OSError as error:
            if "AF_UNIX" not in str(error):
                raise
            raise UserError(
                "the directory of temporary files has too long a path for Ray's sockets: set TMPDIR, or RAY_TMPDIR, "
                "to a shorter one, such as /tmp"
            ) from error
        except AuthenticationError as error:
            raise UserError(f"Ray cannot start here: {error.message}") from None
        except Exception as error:  # Ray's own, when its node does not come up in time
            if "timed out" not in str(error):
                raise
            ray.shutdown()
            if attempt == _STARTS:
                said = " ".join(str(error).split())
                raise UserError(f"Ray did not start, tried {_STARTS} times: {said}") from error
            log.warning("Ray did not start in time; trying again")


@contextlib.contextmanager
def small_head() -> Iterator[None]:
    """A head that starts here comes without three processes that one machine has no use for, one of them waited for.

    They are the autoscaler, the monitor that brings workers' logs to a driver, which ours does not show, and the
    dashboard's server, which without a dashboard has Ray's usage statistics alone to send. ``ray.init`` has no option
    for any of them; together they take as long as all the rest.
    """

    def name_nobody(node: Any, **_: Any) -> None:
        node._webui_url = ""
        # Or Ray's agent would look for it every second, and log each time that there is none.
        where = ray_constants.KV_NAMESPACE_DASHBOARD
        node.get_gcs_client().internal_kv_put(ray_constants.DASHBOARD_ADDRESS.encode(), _NOBODY, True, where)

    module: Any = parameter
    node_class: Any = Node
    before = module.RayParams, node_class.start_api_server
    module.RayParams = functools.partial(module.RayParams, no_monitor=True, include_log_monitor=False)
    node_class.start_api_server = name_nobody
    try:
        yield
    finally:
        module.RayParams, node_class.start_api_server = before


def metric_tag(text: str) -> str:
    """A name as the value of a tag of Ray's metrics, which takes ASCII alone: other letters are there by number."""
    return text.encode("ascii", "backslashreplace").decode()


@contextlib.contextmanager
def _signals_left_alone() -> Iterator[None]:
    """Ray would put handlers of SIGTERM in place of ours, which end the process without a word or a checkpoint.

    What it starts meanwhile is deaf to SIGHUP, as it is to Ctrl-C: when a terminal closes, a run still needs it.
    """
    before, utils.set_sigterm_handler = utils.set_sigterm_handler, lambda _handler: None
    deaf = {signal.SIGHUP} if hasattr(signal, "SIGHUP") else set()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, deaf) if deaf else set()
    try:
        yield
    finally:
        utils.set_sigterm_handler = before
        if deaf:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
