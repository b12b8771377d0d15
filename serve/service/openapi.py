"""``/act`` in the OpenAPI document: it is answered outside FastAPI, so that FastAPI must be told of it."""

from __future__ import annotations

from typing import Any

import fastapi
from fastapi.openapi.utils import get_openapi

from serve.service.protocol import MOST_OBSERVATIONS, MOST_REWARD

_LANDER = [0.0, 1.4, 0.1, -0.4, 0.0, 0.0, 0.0, 0.0]
_OBSERVATION = {
    "description": "A value of the environment's observation space: a number, nested lists of them where it has "
    "dimensions, an object where it is a Dict. A picture is nested lists of whole numbers from 0 to 255, in the shape "
    "of its space, or the base64 of its bytes in C order.",
    "anyOf": [
        {"type": "array", "items": {}},
        {"type": "number"},
        {"type": "string", "contentEncoding": "base64"},
        {"type": "object"},
    ],
}
_OPTIONS = {
    "deterministic": {
        "anyOf": [{"type": "boolean"}, {"type": "null"}],
        "description": "Take the most likely or most valued action; otherwise sample. Without it, only policies that "
        "act for a return are sampled.",
    },
    "seed": {
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": 2**63 - 1}, {"type": "null"}],
        "description": "Makes a sampled answer repeatable.",
    },
    "policy": {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "description": "A name from GET /policies; without it, the first.",
    },
}
_MEMORY = {
    "anyOf": [{"type": "string", "contentEncoding": "base64"}, {"type": "null"}],
    "description": "What the policy remembers, from the answer to the episode's step before: the base64 of float32 "
    "numbers. Without it, the episode begins.",
}
_NUMBER = {"anyOf": [{"type": "number", "minimum": -MOST_REWARD, "maximum": MOST_REWARD}, {"type": "null"}]}
_REWARD = {
    **_NUMBER,
    "description": "Of a policy that acts for a return, with the memory: what the environment gave since.",
}
_TARGET = {
    **_NUMBER,
    "description": "The return that a policy of this kind is to act for, where an episode begins. Without it, its own: "
    "see GET /policies.",
}


def _one_each(kind: dict[str, Any], description: str) -> dict[str, Any]:
    return {"anyOf": [{"type": "array", "items": kind}, {"type": "null"}], "description": description}


_REQUEST = {
    "oneOf": [
        {
            "title": "One",
            "type": "object",
            "additionalProperties": False,
            "required": ["observation"],
            "properties": {
                "observation": _OBSERVATION,
                "memory": _MEMORY,
                "reward": _REWARD,
                "target_return": _TARGET,
                **_OPTIONS,
            },
        },
        {
            "title": "Many",
            "type": "object",
            "additionalProperties": False,
            "required": ["observations"],
            "properties": {
                "observations": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MOST_OBSERVATIONS,
                    "items": _OBSERVATION,
                },
                "memories": _one_each(_MEMORY, "One for each observation. Without them, all episodes begin."),
                "rewards": _one_each(_REWARD, "One for each observation; null where an episode begins."),
                "target_returns": _one_each(_TARGET, "One for each observation; null where its memory has it."),
                **_OPTIONS,
            },
        },
    ]
}
_NUMBERS = {"type": "array", "items": {}}
_OF_PARTS = {"anyOf": [_NUMBERS, {"type": "object"}]}
"""Schema of what is shown of actions: numbers, or of those that are a Dict or a Tuple an object, by part."""
_ANSWER = {
    "type": "object",
    "required": ["policy", "version"],
    "properties": {
        "policy": {"type": "string"},
        "version": {"type": "integer", "description": "How many updates made the policy."},
        "action": {
            "description": "For one observation: an action as the environment takes it, a number or nested lists; an "
            "object of its parts where it is a Dict, or a Tuple, whose parts are called 0, 1, …"
        },
        "actions": {**_NUMBERS, "description": "For many: one for each observation."},
        "probabilities": {
            **_OF_PARTS,
            "description": "Of each discrete action; of several choices one after another; of switches, to be on.",
        },
        "q_values": {
            **_NUMBERS,
            "description": "Of each discrete action, where a policy goes by them in place of probabilities: the return "
            "that is expected, discounted and in the units of the rewards that were learned from; -1e30 where a mask "
            "forbids it.",
        },
        "mean": {**_OF_PARTS, "description": "Of each component of a continuous action."},
        "std": {
            **_OF_PARTS,
            "description": "Standard deviations of the components; for many, of each if they differ. A policy that "
            "squashes its actions between the bounds has none to show.",
        },
        "memory": {
            "type": "string",
            "contentEncoding": "base64",
            "description": "For one observation, of a policy that remembers: to send with the episode's next one.",
        },
        "memories": {"type": "array", "items": {"type": "string"}, "description": "For many: one for each."},
    },
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was wrong and what would be right."},
        "field": {"type": "string", "description": "Where in the request, such as observations[3]."},
    },
}
_PROBLEMS = {
    "400": "The body is not JSON.",
    "401": "A bearer token is needed.",
    "405": "Only POST.",
    "408": "The body did not arrive in time.",
    "413": "The body is too long.",
    "415": "Not application/json.",
    "422": "A field is unknown, of a wrong type or shape, or out of range.",
    "503": "Too many requests at once; see Retry-After.",
}


def _json(schema: dict[str, Any], examples: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"schema": schema, **({"examples": examples} if examples else {})}


def _act() -> dict[str, Any]:
    examples = {
        "one": {"summary": "One observation", "value": {"observation": _LANDER}},
        "many": {"summary": "Two at once", "value": {"observations": [_LANDER, _LANDER]}},
        "sampled": {"summary": "Sampled", "value": {"observation": _LANDER, "deterministic": False, "seed": 7}},
    }
    answer = {"action": 2, "probabilities": [0.01, 0.02, 0.96, 0.01], "policy": "ppo", "version": 153}
    valued = {"action": 2, "q_values": [41.2, 38.7, 44.9, 40.3], "policy": "dqn", "version": 980}
    responses: dict[str, Any] = {
        "200": {
            "description": "An action, and what the policy goes by: probabilities, q-values, or mean and deviation.",
            "content": {"application/json": _json(_ANSWER, {"one": {"value": answer}, "by value": {"value": valued}})},
        }
    }
    for status, description in _PROBLEMS.items():
        responses[status] = {
            "description": description,
            "content": {"application/problem+json": _json({"$ref": "#/components/schemas/Problem"})},
        }
    return {
        "post": {
            "tags": ["act"],
            "summary": "What a policy does, given what it observes",
            "operationId": "act",
            "requestBody": {"required": True, "content": {"application/json": _json(_REQUEST, examples)}},
            "responses": responses,
        }
    }


def describe_act(app: fastapi.FastAPI) -> None:
    """Put ``/act`` into the app's document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes, tags=app.openapi_tags
            )
            document["paths"] = {"/act": _act(), **document["paths"]}
            document.setdefault("components", {}).setdefault("schemas", {})["Problem"] = _PROBLEM
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
