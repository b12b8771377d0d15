"""Tells the cluster when this machine will be taken: a spot machine has a notice of it, two minutes or half a minute.

python cluster/spot_notice.py aws HEAD:6379

Ray then starts nothing more here, and fleets let their actors go before the machine does. Run it on every worker after
``ray start``; a machine that is never taken only asks its own metadata, every few seconds.
"""

from __future__ import annotations

import argparse
import datetime
import http.client
import json
import sys
import time
import urllib.request
from collections.abc import Callable

from ray._private.services import get_node_ip_address
from ray._raylet import GcsClient
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION
from ray.core.generated.gcs_pb2 import GcsNodeInfo

_METADATA = "http://169.254.169.254"
_EVERY = 5.0
"""Seconds between two questions: what AWS advises."""
_GOOGLE_SECONDS = 30.0
"""Between Google Cloud's notice and the end."""


def _ask(path: str, method: str = "GET", **headers: str) -> str | None:
    """What the machine's metadata say; None: there is no such thing, or nobody answers."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"{_METADATA}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(answer.read().decode())
    except (OSError, http.client.HTTPException):  # a 404 among them, which is the answer while there is no notice
        return None


def aws() -> float | None:
    """When EC2 takes the machine, in seconds since the epoch; None: it has no notice."""
    token = _ask("/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="60")
    if token is None:
        return None
    notice = _ask("/latest/meta-data/spot/instance-action", X_aws_ec2_metadata_token=token)
    return datetime.datetime.fromisoformat(json.loads(notice)["time"]).timestamp() if notice else None


def gcp() -> float | None:
    """When Compute Engine takes it."""
    notice = _ask("/computeMetadata/v1/instance/preempted", Metadata_Flavor="Google")
    return time.time() + _GOOGLE_SECONDS if notice == "TRUE" else None


CLOUDS: dict[str, Callable[[], float | None]] = {"aws": aws, "gcp": gcp}


def drain(address: str, end: float) -> str:
    """Tell the cluster that this machine ends then; why it would not hear of it, or nothing.

    Raises:
        Exception: Ray's own, where the cluster does not answer.
    """
    gcs, here = GcsClient(address=address), get_node_ip_address(address)
    alive = gcs.get_all_node_info(timeout=10, state_filter=GcsNodeInfo.GcsNodeState.ALIVE)
    for node_id, node in alive.items():
        if node.node_manager_address == here:
            accepted, refusal = gcs.drain_node(
                node_id.hex(), DRAIN_NODE_REASON_PREEMPTION, "spot notice", int(1000 * end)
            )
            return "" if accepted else str(refusal)
    return f"no node at {here} is up"


def main() -> None:
    """Wait for a notice, pass it on, and end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cloud", choices=CLOUDS, help="whose metadata to ask")
    parser.add_argument("address", help="the head's, such as 10.0.0.1:6379")
    arguments = parser.parse_args()
    while (end := CLOUDS[arguments.cloud]()) is None:
        time.sleep(_EVERY)
    while (said := _said(arguments.address, end)) and time.time() < end:
        print(f"cannot drain this node: {said}; trying again", file=sys.stderr, flush=True)
        time.sleep(1)
    print(f"this machine ends in {end - time.time():.0f} s; its node is {'not drained' if said else 'draining'}")


def _said(address: str, end: float) -> str:
    try:
        return drain(address, end)
    except Exception as error:  # of whatever kind, until the machine is gone there is nothing better to do
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main()
