"""The verdict of a comparison: the answer first, and no surer than the runs allow."""

from __future__ import annotations

from typing import Any

import pytest

from tune_configs.verdict import verdict


def summary(runs: int, probability: float, ends: list[float] | None, **more: Any) -> dict[str, Any]:
    """Of two losses, the second of which is ahead."""
    scores = {"cpg": 100.0, "ppo": 150.0}
    losses = {
        label: {
            "seeds": runs,
            "score_iqm": score,
            "score_iqm_interval_95": ends and [score - 5, score + 5],
            "steps": 500_000,
        }
        for label, score in scores.items()
    }
    return {
        "losses": losses,
        "probability_of_improvement": {"ppo": {"cpg": {"probability": probability, "interval_95": ends}}},
        "times": {
            "cpg": {"seconds": 60.0, "steps_per_second": 8_000.0},
            "ppo": {"seconds": 240.0, "steps_per_second": 2_000.0},
        },
        "recorded": None,
        "failed": {},
        "unfinished": [],
        **more,
    }


@pytest.mark.parametrize(
    ("runs", "probability", "ends", "answer", "how"),
    [
        (
            10,
            1.0,
            [0.99, 1.0],
            "ppo is ahead: 150.0 (145.0 to 155.0) against 100.0",
            "100% (99% to 100%): as good as certain",
        ),
        (3, 1.0, [1.0, 1.0], "ppo is ahead", "likely, and with 3 runs each not sure"),
        (5, 0.8, [0.4, 1.0], "ppo is ahead", "likely, and with 5 runs each not sure"),
        (5, 0.6, [0.3, 0.9], "ppo and cpg are level", "60% (30% to 90%): no difference to build on"),
        (1, 1.0, None, "ppo scores 150.0 against 100.0 of cpg", "From a single run of either nothing is known"),
    ],
)
def test_it_is_no_surer_than_the_runs_allow(
    runs: int, probability: float, ends: list[float] | None, answer: str, how: str
) -> None:
    said = verdict(summary(runs, probability, ends))
    assert said[0].startswith(answer)
    assert how in said[1]
    assert said[2] == (
        f"{2 * runs} runs took 1,000,000 environment steps and 5 min of training; cpg flew the most in a second, 8,000."
    )


def test_what_is_not_in_it_is_counted_once() -> None:
    said = verdict(summary(3, 1.0, [1.0, 1.0], failed={"cpg-1": "no"}, unfinished=["cpg-1", "ppo-2"]))
    assert said[-1] == "2 more without an outcome: not in this."


def test_of_one_loss_and_of_none() -> None:
    one = summary(3, 1.0, [1.0, 1.0])
    one["losses"] = {"ppo": one["losses"]["ppo"]}
    one["times"] = {"ppo": one["times"]["ppo"]}
    assert verdict(one)[0] == "ppo scores 150.0 (145.0 to 155.0)."
    assert verdict(summary(3, 1.0, None) | {"losses": {}}) == []
