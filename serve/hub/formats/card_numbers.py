"""Numbers that a model card tells in its text, which no file of the checkpoint has: statistics, scale and target.

They are found by the words before them, as in the cards of the Decision Transformers that Hugging Face published
(``mean = [1.35, -0.11, …]``) and in the code of their blog post (``state_mean = np.array(\n [1.35, …])``). Nothing of
a card is run.
"""

from __future__ import annotations

import dataclasses
import math
import re

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_MEAN = r"(?<!std and )(?<!deviation and )means?"
_STD = r"(?<!mean and )(?<!mean/)(?<!means and )(?:std|stds|stdev|std[_ ]?dev|standard[_ ]deviations?)"
"""What is of both, as in *mean and std are [1, 2] and [3, 4]*, is of neither for sure."""
_LIST = r"(?<![a-z]){word}(?![a-z])(?:(?!(?<![a-z])(?:mean|std|standard))[^\[\]]){{0,60}}\[([-+.,\s\de]+)\]"
"""A word, not much after it, and numbers in brackets, before another such word comes."""
_IS = r"[\s=:`*|\"']{1,8}"
_SCALE = re.compile(rf"(?i)(?<![a-z])scale{_IS}({_NUMBER})")
_TARGET = re.compile(rf"(?i)target[_ ]?return{_IS}({_NUMBER})(\s*/)?(.{{0,60}})")
_MOST, _LONG = 2**20, 64
"""Letters of a card that are looked through, and of one of its numbers."""


@dataclasses.dataclass(frozen=True)
class CardNumbers:
    """What a card says; None: nothing."""

    state_mean: tuple[float, ...] | None
    state_std: tuple[float, ...] | None
    scale: float | None
    """Returns are divided by it before the model is told of them."""
    target_return: float | None
    """In the environment's own units."""


def read_card_numbers(text: str, state_dim: int) -> CardNumbers:
    """What the text of a card says of a model that is told of ``state_dim`` numbers.

    Lists of another length are of something else. A target that is divided (``3600 / SCALE``) is in the environment's
    units, one beside which a word such as *normalized* stands is in those of the model.
    """
    text = text[:_MOST]
    found = _SCALE.search(text)
    scale = _positive(found[1]) if found else None
    target = None
    if found := _TARGET.search(text):
        target = float(found[1])
        if not found[2] and re.search("(?i)normali[sz]", found[3]):
            target = target * scale if scale else None
    target = None if target is None or not math.isfinite(target) else target
    return CardNumbers(_numbers(text, _MEAN, state_dim), _numbers(text, _STD, state_dim), scale, target)


def _numbers(text: str, word: str, count: int) -> tuple[float, ...] | None:
    """The first list of so many numbers that a word comes before."""
    for found in re.finditer(_LIST.format(word=word), text, re.IGNORECASE):
        parts = re.split(r"[,\s]+", found[1].strip(" \t\r\n,"))
        if len(parts) == count and all(len(part) < _LONG and re.fullmatch(_NUMBER, part) for part in parts):
            return tuple(map(float, parts))
    return None


def _positive(text: str) -> float | None:
    value = float(text)
    return value if 0 < value < math.inf else None
