"""The page of a night: what struck when, how long it took to be well again, and what was seen meanwhile."""

from __future__ import annotations

import html
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2

from tests.cluster.soak.night import Event, Night

_WIDTH, _LEFT, _RIGHT = 1200, 320, 20
_ROW, _CHART = 20, 110
_POINTS = 600
"""Of a curve, at most."""

Points = Sequence[tuple[float, float]]


def page(night: Night) -> str:
    """A page of HTML that needs no other file."""
    end = max([60 * night.minutes, *(at for at, *_ in night.updates), *(event.healed for event in night.events)])
    memory: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
    for it in night.samples:
        memory[it.role][it.at] = max(memory[it.role][it.at], it.memory / 1e6)
    charts = {
        "updates in the log": {"": [(at, float(count)) for at, count, _ in night.updates]},
        "version served": {"": [(at, float(version)) for at, version in night.versions]},
        "actors": {"": [(at, float(actors)) for at, _, actors in night.updates]},
        "slowest request, s": {"": _slowest(night.latencies)},
        "largest of each kind, MB": {role: sorted(curve.items()) for role, curve in sorted(memory.items())},
        "processes that want a CPU": {"": night.loads},
    }
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(Path(__file__).with_name("page.html").read_text())
    return template.render(
        night=night,
        clock=_clock,
        well=sum(event.well is not None for event in night.events),
        timeline=jinja2.utils.markupsafe.Markup(timeline(night.events, end)),
        charts={
            name: jinja2.utils.markupsafe.Markup(chart(curves, night.events, end)) for name, curves in charts.items()
        },
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{int(seconds % 60):02d}"


def _x(at: float, end: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * at / end, 1)


def timeline(events: Sequence[Event], end: float) -> str:
    """An SVG with a line for each kind of fault: dark while it lasts, light until all is well, red if it never is."""
    kinds = sorted({fault for event in events for fault in event.faults})
    height = _ROW * (len(kinds) + 1)
    parts = []
    for row, kind in enumerate(kinds):
        y = _ROW * row
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{html.escape(kind)}</text>')
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y + _ROW}" y2="{y + _ROW}" class="grid"/>')
        for event in events:
            if kind not in event.faults:
                continue
            healed = event.healed or event.struck
            well = event.well if event.well is not None else end
            title = f"{_clock(event.struck)} {event.what}: well after {event.took:.0f} s of {event.bound:.0f}"
            spans = (("struck", event.struck, healed), ("lame" if event.well is None else "healing", healed, well))
            for name, since, until in spans:
                width = max(2.0, _x(min(until, end), end) - _x(since, end))
                parts.append(
                    f'<rect x="{_x(since, end)}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 6}" class="{name}">'
                    f"<title>{html.escape(title)}</title></rect>"
                )
    parts += _axis(end, height - 4)
    return _svg(height, parts)


def chart(curves: dict[str, Points], events: Sequence[Event], end: float) -> str:
    """An SVG of curves over the night, with a mark at each strike."""
    top = max((value for points in curves.values() for _, value in points), default=0.0) or 1.0
    floor = _CHART - 20
    parts = [
        f'<line x1="{_x(event.struck, end)}" x2="{_x(event.struck, end)}" y1="0" y2="{floor}" class="strike"/>'
        for event in events
    ]
    parts.append(f'<text x="{_LEFT - 8}" y="12" text-anchor="end">{top:,.4g}</text>')
    parts.append(f'<text x="{_LEFT - 8}" y="{floor}" text-anchor="end">0</text>')
    for index, (name, points) in enumerate(curves.items()):
        thinned = list(points)[:: max(1, len(points) // _POINTS)]
        path = " ".join(f"{_x(at, end)},{floor - (floor - 4) * value / top:.1f}" for at, value in thinned)
        parts.append(f'<polyline points="{path}" class="curve c{index}"/>')
        if name:
            parts.append(f'<text x="8" y="{14 + 13 * index}" class="k{index}">{html.escape(name)}</text>')
    parts += _axis(end, _CHART - 6)
    return _svg(_CHART, parts)


def _axis(end: float, y: float) -> list[str]:
    """Labels of time: some ten of them."""
    step = next((step for step in (30, 60, 300, 600, 1800) if end / step <= 13), 3600)
    return [
        f'<text x="{_x(at, end)}" y="{y}" text-anchor="middle" class="axis">{_clock(at)}</text>'
        for at in range(0, int(end) + 1, step)
    ]


def _svg(height: float, parts: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">{"".join(parts)}</svg>'


def _slowest(latencies: Points) -> list[tuple[float, float]]:
    """The longest request of each five seconds."""
    slowest: dict[int, float] = defaultdict(float)
    for at, seconds in latencies:
        slowest[int(at // 5)] = max(slowest[int(at // 5)], seconds)
    return [(5.0 * five, seconds) for five, seconds in sorted(slowest.items())]
