"""Ray, joined or started: once a process, and never by accident."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any

import grpc
import ray
from ray._private import utils
from ray._private.grpc_utils import init_grpc_channel
from ray._private.services import canonicalize_bootstrap_address
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
    except grpc.FutureTimeoutError:
        raise UserError(f"{words}: it did not answer within {_JOIN_SECONDS:g} s; {remedy}") from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"{words}: {' '.join(str(error).split())}; {remedy}") from error
    except AuthenticationError as error:
        raise UserError(f"{words}: {error.message}; copy the token of its head, ~/.ray/auth_token, to here") from None


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
            with _signals_left_alone():
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
