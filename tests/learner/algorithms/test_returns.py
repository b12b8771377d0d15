"""Returns and advantages against arithmetic by hand and plain loops."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.returns import Trajectories, discounted_returns, gae, lambda_returns, reverse_scan, vtrace
from tests.learner import property_test


def make_steps(
    rewards: Sequence[float],
    lengths: Sequence[int],
    terminated: Sequence[bool],
    values: Sequence[float] | None = None,
    final_values: Sequence[float] | None = None,
    ratios: Sequence[float] | None = None,
) -> Trajectories:
    def tensor(numbers: Sequence[float] | None, count: int) -> Tensor:
        return torch.tensor([0.0] * count if numbers is None else numbers, dtype=torch.float64)

    return Trajectories(
        rewards=tensor(rewards, len(rewards)),
        ends=torch.tensor(np.cumsum(lengths) - 1),
        terminated=torch.tensor(terminated).double(),
        longest=max(lengths),
        values=tensor(values, len(rewards)),
        final_values=tensor(final_values, len(lengths)),
        log_ratios=tensor([1.0] * len(rewards) if ratios is None else ratios, len(rewards)).log(),
    )


@dataclasses.dataclass(frozen=True)
class Segments:
    """Random experience: columns as plain lists."""

    lengths: list[int]
    rewards: list[float]
    values: list[float]
    ratios: list[float]
    terminated: list[bool]
    final_values: list[float]
    gamma: float
    gae_lambda: float

    def steps(self, on_policy: bool = False) -> Trajectories:
        return make_steps(
            self.rewards,
            self.lengths,
            self.terminated,
            self.values,
            self.final_values,
            None if on_policy else self.ratios,
        )


@st.composite
def segments(draw: st.DrawFn) -> Segments:
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    total, count = sum(lengths), len(lengths)
    return Segments(
        lengths=lengths,
        rewards=rng.normal(size=total).tolist(),
        values=rng.normal(size=total).tolist(),
        ratios=np.exp(rng.normal(size=total)).tolist(),
        terminated=(rng.random(count) < 0.5).tolist(),
        final_values=rng.normal(size=count).tolist(),
        gamma=draw(st.sampled_from([0.0, 0.5, 0.99, 1.0])),
        gae_lambda=draw(st.sampled_from([0.0, 0.5, 0.95, 1.0])),
    )


def test_reverse_scan_by_hand() -> None:
    # x_2 = 3; x_1 = 2 + 0.25 · 3 = 2.75; x_0 = 1 + 0.5 · 2.75 = 2.375; then a segment of its own: 5, 4 + 1 · 5 = 9
    x = reverse_scan(torch.tensor([1.0, 2, 3, 4, 5]), torch.tensor([0.5, 0.25, 0, 1, 0]))
    assert x.tolist() == [2.375, 2.75, 3, 9, 5]


def test_reverse_scan_leaves_its_inputs_alone() -> None:
    deltas, decays = torch.tensor([1.0, 2, 3]), torch.tensor([0.5, 0.5, 0])
    reverse_scan(deltas, decays)
    assert deltas.tolist() == [1, 2, 3]
    assert decays.tolist() == [0.5, 0.5, 0]


@property_test
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 2**32 - 1))
def test_reverse_scan_is_the_loop(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    deltas, decays = rng.normal(size=sum(lengths)), rng.uniform(0, 1, sum(lengths))
    decays[np.cumsum(lengths) - 1] = 0
    expected, following = np.zeros_like(deltas), 0.0
    for t in reversed(range(len(deltas))):
        expected[t] = following = deltas[t] + decays[t] * following
    for longest in (None, max(lengths)):
        x = reverse_scan(torch.from_numpy(deltas), torch.from_numpy(decays), longest)
        np.testing.assert_allclose(x, expected, rtol=1e-12, atol=1e-12)


# Rewards 1, 2, 3; values 0.5, 1, 1.5; γ = λ = 0.5; a last observation worth 4.
@pytest.mark.parametrize(
    ("terminated", "returns", "advantages"),
    [
        # q: 3; 2 + 1.5; 1 + 1.75.  δ: 1 + 0.5 − 0.5; 2 + 0.75 − 1; 3 − 1.5.  A: 1.5; 1.75 + 0.375; 1 + 0.53125.
        pytest.param(True, [2.75, 3.5, 3.0], [1.53125, 2.125, 1.5], id="terminated"),
        # q: 3 + 2; 2 + 2.5; 1 + 2.25.  The last δ: 3 + 2 − 1.5.  A: 3.5; 1.75 + 0.875; 1 + 0.65625.
        pytest.param(False, [3.25, 4.5, 5.0], [1.65625, 2.625, 3.5], id="truncated"),
    ],
)
def test_three_steps_by_hand(terminated: bool, returns: list[float], advantages: list[float]) -> None:
    steps = make_steps([1, 2, 3], [3], [terminated], [0.5, 1, 1.5], [4])
    assert discounted_returns(steps, 0.5).tolist() == returns
    assert gae(steps, 0.5, 0.5).tolist() == advantages
    assert lambda_returns(steps, 0.5, 0.5).tolist() == [a + v for a, v in zip(advantages, [0.5, 1, 1.5], strict=True)]


def test_an_episode_cut_into_fragments() -> None:
    # Steps 1, 2 | 3 of the episode above: the cut bootstraps from v of the third observation, 1.5.
    steps = make_steps([1, 2, 3], [2, 1], [False, True], [0.5, 1, 1.5], [1.5, 4])
    assert discounted_returns(steps, 0.5).tolist() == [1 + 0.5 * 2.75, 2 + 0.5 * 1.5, 3]
    # δ as for the whole episode, 1, 1.75, 1.5; the sum of the first two ends at the cut.
    assert gae(steps, 0.5, 0.5).tolist() == [1 + 0.25 * 1.75, 1.75, 1.5]


def test_cuts_change_nothing_where_the_values_are_exact() -> None:
    rewards = [1.0, -2, 3, 0.5, 4]
    whole = discounted_returns(make_steps(rewards, [5], [True]), 0.9)
    values = whole.tolist()
    cut = make_steps(rewards, [2, 2, 1], [False, False, True], values, [values[2], values[4], 7])
    torch.testing.assert_close(discounted_returns(cut, 0.9), whole)
    torch.testing.assert_close(gae(cut, 0.9, 0.95), torch.zeros(5).double())


@property_test
@given(data=segments())
def test_gae_is_the_loop(data: Segments) -> None:
    expected: list[float] = []
    t = 0
    for length, terminated, final_value in zip(data.lengths, data.terminated, data.final_values, strict=True):
        values = [*data.values[t : t + length], 0.0 if terminated else final_value]
        following, advantages = 0.0, [0.0] * length
        for k in reversed(range(length)):
            delta = data.rewards[t + k] + data.gamma * values[k + 1] - values[k]
            following = advantages[k] = delta + data.gamma * data.gae_lambda * following
        expected += advantages
        t += length
    np.testing.assert_allclose(gae(data.steps(), data.gamma, data.gae_lambda), expected, atol=1e-12)


@property_test
@given(data=segments())
def test_lambda_returns_lie_between_their_limits(data: Segments) -> None:
    steps = data.steps()
    torch.testing.assert_close(lambda_returns(steps, data.gamma, 1.0), discounted_returns(steps, data.gamma))
    following = [*data.values[1:], 0.0]
    for end, terminated, value in zip(steps.ends.tolist(), data.terminated, data.final_values, strict=True):
        following[end] = 0.0 if terminated else value
    td_targets = [r + data.gamma * v for r, v in zip(data.rewards, following, strict=True)]
    np.testing.assert_allclose(lambda_returns(steps, data.gamma, 0.0), td_targets, atol=1e-12)


@property_test
@given(data=segments())
def test_vtrace_on_policy_gives_lambda_returns(data: Segments) -> None:
    steps = data.steps(on_policy=True)
    advantages, targets = vtrace(steps, data.gamma)
    torch.testing.assert_close(targets, lambda_returns(steps, data.gamma, 1.0))
    torch.testing.assert_close(advantages, targets - steps.values)
    _, targets = vtrace(steps, data.gamma, data.gae_lambda)
    torch.testing.assert_close(targets, lambda_returns(steps, data.gamma, data.gae_lambda))


def paper_vtrace(data: Segments, clip_rho: float) -> tuple[list[float], list[float]]:
    """Espeholt et al. 2018, eq. 1, sums and products written out: v_s = V(x_s) + Σ_t γ^{t−s} (Π_{i<t} c_i) δ_t V."""
    advantages: list[float] = []
    targets: list[float] = []
    start = 0
    for length, terminated, final_value in zip(data.lengths, data.terminated, data.final_values, strict=True):
        rewards, ratios = data.rewards[start : start + length], data.ratios[start : start + length]
        values = [*data.values[start : start + length], 0.0 if terminated else final_value]
        rho = [min(clip_rho, ratio) for ratio in ratios]
        c = [data.gae_lambda * min(1.0, ratio) for ratio in ratios]
        v = [
            values[s]
            + sum(
                data.gamma ** (t - s)
                * math.prod(c[s:t])
                * rho[t]
                * (rewards[t] + data.gamma * values[t + 1] - values[t])
                for t in range(s, length)
            )
            for s in range(length)
        ]
        targets += v
        v.append(values[length])
        advantages += [rho[s] * (rewards[s] + data.gamma * v[s + 1] - values[s]) for s in range(length)]
        start += length
    return advantages, targets


@property_test
@given(data=segments(), clip_rho=st.sampled_from([0.7, 1.0, 2.0]))
def test_vtrace_off_policy_is_the_papers(data: Segments, clip_rho: float) -> None:
    advantages, targets = vtrace(data.steps(), data.gamma, data.gae_lambda, clip_rho)
    expected_advantages, expected_targets = paper_vtrace(data, clip_rho)
    np.testing.assert_allclose(targets, expected_targets, atol=1e-10)
    np.testing.assert_allclose(advantages, expected_advantages, atol=1e-10)


def test_vtrace_two_steps_by_hand() -> None:
    # γ = 0.5, ratios 2 (clipped to 1) and 0.5, values 1 and 2, rewards 1 and 3, terminated.
    # δ_1 = 0.5 (3 − 2) = 0.5, v_1 = 2.5; δ_0 = 1 (1 + 1 − 1) = 1, v_0 = 1 + 1 + 0.5 · 1 · 0.5 = 2.25.
    # A_0 = 1 (1 + 0.5 · 2.5 − 1) = 1.25, A_1 = 0.5 (3 − 2) = 0.5.
    advantages, targets = vtrace(make_steps([1, 3], [2], [True], [1, 2], [9], [2, 0.5]), 0.5)
    assert targets.tolist() == pytest.approx([2.25, 2.5])
    assert advantages.tolist() == pytest.approx([1.25, 0.5])


@property_test
@given(first=segments(), second=segments())
def test_nothing_crosses_the_end_of_a_segment(first: Segments, second: Segments) -> None:
    """Experience laid end to end gives what its parts give alone."""
    gamma, gae_lambda = first.gamma, first.gae_lambda
    names = ("lengths", "rewards", "values", "ratios", "terminated", "final_values")
    both = dataclasses.replace(first, **{name: getattr(first, name) + getattr(second, name) for name in names})

    def estimates(data: Segments) -> Tensor:
        steps = data.steps()
        return torch.stack(
            [discounted_returns(steps, gamma), gae(steps, gamma, gae_lambda), *vtrace(steps, gamma, gae_lambda)]
        )

    torch.testing.assert_close(estimates(both), torch.cat([estimates(first), estimates(second)], dim=1))
