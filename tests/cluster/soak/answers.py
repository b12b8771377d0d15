"""Whether what a service answers is what the policy of that version says."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from actors.episode import Array
from actors.policy import Policy
from serve.answers import Action

_TOLERANCE = 1e-4
"""Of probabilities, which travel as text."""


@dataclass(frozen=True)
class Answer:
    """What was asked, and what came back."""

    at: float
    observations: Array
    """[n, *obs]"""
    action: Action


@dataclass
class Answers:
    """Judges answers by the policies that the run has shown; a version may be there twice, after a run went back."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    unknown: list[Answer] = field(default_factory=list)
    """Of versions that nobody has seen yet."""
    _policies: dict[int, list[Policy]] = field(default_factory=lambda: defaultdict(list))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def know(self, policy: Policy) -> None:
        """A policy that the run has shown."""
        with self._lock:
            self._policies[policy.spec.version].append(policy)

    def judge(self, answer: Answer) -> None:
        """Count an answer, now or when its version is known."""
        with self._lock:
            policies = self._policies.get(answer.action.version)
            if not policies:
                self.unknown.append(answer)
            elif any(_agrees(policy, answer) for policy in policies):
                self.right += 1
            else:
                self.wrong.append(f"version {answer.action.version} answered {answer.action} to {answer.observations}")

    def judge_unknown(self) -> None:
        """Look again at those whose version was not known."""
        with self._lock:
            waiting, self.unknown = self.unknown, []
        for answer in waiting:
            self.judge(answer)


def _agrees(policy: Policy, answer: Answer) -> bool:
    """Whether this policy could have said so; of equal probabilities any action is right."""
    logits = policy.forward(answer.observations).astype(np.float64)
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    said = answer.action.probabilities
    if said is None or not np.allclose(np.atleast_2d(said), expected, atol=_TOLERANCE):
        return False
    taken = expected[np.arange(len(expected)), np.atleast_1d(answer.action.action)]
    return bool((taken >= expected.max(axis=1) - _TOLERANCE).all())
