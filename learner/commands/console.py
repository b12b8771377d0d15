"""Lines for a person, of which a part may come from elsewhere."""

from __future__ import annotations

import math

from rich.console import Console

from actors.errors import printable


def say(console: Console, text: str) -> None:
    """Print one line as it is: without markup, colours or wrapping, and with escapes for what would not print."""
    console.print(printable(text), highlight=False, soft_wrap=True, markup=False)


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: 12:34, or 1:23:45 from an hour on; NaN is not known, and a question mark."""
    if math.isnan(seconds):
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
