"""``python -m tests.benchmarks.serving.stock POLICY PORT``: plain.py's application on Ray Serve as it comes."""

from __future__ import annotations

import sys
import threading
from typing import Any

import fastapi
import ray
from ray import serve

from tests.benchmarks.serving.plain import make_app


class Stock:
    """A replica."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def __serve_build_asgi_app__(self) -> fastapi.FastAPI:
        return make_app(self._directory)


def main() -> None:
    """Command line."""
    policy, port = sys.argv[1:]
    ray.init(address="local", include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    deployment: Any = serve.deployment(serve.ingress()(Stock))
    serve.run(deployment.bind(policy))
    threading.Event().wait()


if __name__ == "__main__":
    main()
