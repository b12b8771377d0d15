"""``python -m tests.benchmarks.serving.plain POLICY PORT``: what one would write without us, FastAPI on uvicorn."""

from __future__ import annotations

import sys
from typing import Any

import fastapi
import numpy as np
import pydantic
import uvicorn

from actors.discrete import Categorical
from actors.policy import Policy


class Request(pydantic.BaseModel):
    """One observation, or many."""

    observation: list[float] | None = None
    observations: list[list[float]] | None = None


def make_app(directory: str) -> fastapi.FastAPI:
    """``POST /act`` with the policy in that directory."""
    app = fastapi.FastAPI()
    policy = Policy.load(directory)
    distribution = policy.distribution
    assert isinstance(distribution, Categorical)

    @app.post("/act")
    async def act(request: Request) -> dict[str, Any]:
        rows = request.observations or [request.observation or []]
        parameters = policy.forward(np.array(rows, np.float32))
        actions = distribution.sample(parameters, None).tolist()
        probabilities = distribution.probabilities(parameters).tolist()
        if request.observations:
            return {"actions": actions, "probabilities": probabilities}
        return {"action": actions[0], "probabilities": probabilities[0]}

    return app


def main() -> None:
    """Command line."""
    policy, port = sys.argv[1:]
    uvicorn.run(make_app(policy), port=int(port), access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
