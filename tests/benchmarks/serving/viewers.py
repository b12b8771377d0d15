"""``python -m tests.benchmarks.serving.viewers ADDRESS COUNT SECONDS``: watch flights, and count frames."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect


async def watch(address: str, start: float, seconds: float) -> list[float]:
    """Seconds between frames from ``start`` on, without the pause between two episodes."""
    gaps: list[float] = []
    before = None
    async with connect(f"{address.replace('http', 'ws', 1)}/watch", max_queue=None) as socket:
        while time.monotonic() < start + seconds:
            message = json.loads(await socket.recv())
            if message.get("type") != "frame":
                before = None
                continue
            now = time.monotonic()
            if before is not None and now >= start:
                gaps.append(now - before)
            before = now
    return gaps


async def main(address: str, count: int, seconds: float) -> None:
    """Watch with all at once."""
    start = time.monotonic() + 2.0 + 0.1 * count
    found = await asyncio.gather(*(watch(address, start, seconds) for _ in range(count)))
    rates = sorted(len(gaps) / sum(gaps) for gaps in found)
    every = sorted(gap for gaps in found for gap in gaps)
    figures = {
        "viewers": count,
        "slowest": rates[0],
        "fastest": rates[-1],
        "p99_gap_ms": every[int(0.99 * len(every))] * 1e3,
        "longest_gap_ms": every[-1] * 1e3,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
