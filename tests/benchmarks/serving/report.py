"""The figures of ``make bench-serve`` as a page to read."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.report import table

NAMES = {
    "plain": "uvicorn and FastAPI, no Ray",
    "serve_as_it_comes": "Ray Serve as it comes",
    "ours": "Touchdown",
}


def markdown(figures: dict[str, Any], command: str) -> str:
    """The whole page."""
    speed, overload, churn, watched = (figures[name] for name in ("speed", "overload", "churn", "viewers"))
    plain, stock, ours = speed["plain"], speed["serve_as_it_comes"], speed["ours"]
    rows = [
        (
            NAMES[name],
            f"{found['requests_per_second_8']:,.0f}",
            f"{found['requests_per_second_64']:,.0f}",
            f"{found['p99_ms_64']:.1f}",
            f"{found['p50_ms_1']:.2f}",
            f"{found['actions_per_second_batched']:,.0f}",
            f"{found['failed']:,.0f}",
        )
        for name, found in speed.items()
    ]
    ratio_plain = ours["requests_per_second_64"] / plain["requests_per_second_64"]
    ratio_stock = ours["requests_per_second_64"] / max(stock["requests_per_second_8"], stock["requests_per_second_64"])
    bars = [
        ("requests/s at 64 clients, against plain FastAPI", f"{ratio_plain:.2f} ×", f"{2500 / 5200:.2f} ×"),
        ("… against Ray Serve as it comes, at its best of the two", f"{ratio_stock:.0f} ×", "10 ×"),
        ("p50 at one client, against plain FastAPI", f"{ours['p50_ms_1'] / plain['p50_ms_1']:.2f} ×", "at most 3 ×"),
        ("actions/s in batches of 1,000", f"{ours['actions_per_second_batched']:,.0f}", "100,000"),
        (
            f"{churn['requests']:,.0f} requests through {churn['reloads']} reloads, a killed replica, scaling",
            f"{churn['refused'] + churn['socket_errors']:,.0f} failed",
            "those in flight on the replica",
        ),
        (f"… {churn['asked']:,} of a client meanwhile", f"{churn['noticed']} failed", "0"),
        (f"{watched['viewers']} viewers, the slowest", f"{watched['slowest']:.1f} frames/s", "50"),
    ]
    memory = ", ".join(
        f"{name} {overload['megabytes_before'][name]:.0f} MB before and {overload['megabytes_after'][name]:.0f} after"
        for name in overload["megabytes_before"]
    )
    installed = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    return f"""# Serving

    {command}

on {figures["machine"]}; {installed}. One replica; the load generator (wrk) shares the cores.

{table(("", "requests/s, 8 clients", "64 clients", "p99, ms", "p50 of one client, ms", "actions/s, batches of 1,000", "failed"), rows)}
{table(("", "measured", "asked"), bars)}
- Overload: {overload["clients"]:,} clients for {overload["seconds"]} s: {overload["answered_per_second"]:,.0f} answers/s
  and {overload["refused"]:,.0f} times 503, {overload["socket_errors"]:,.0f} socket errors. The median answer took
  {overload["p50_ms"]:.0f} ms, 99% came within {overload["p99_ms"]:,.0f} ms; the next request after it took
  {overload["recovery_seconds"] * 1e3:.0f} ms. Memory: {memory}.
- Viewers: {watched["slowest"]:.1f} to {watched["fastest"]:.1f} frames a second while an episode lasts; 99% of frames
  came within {watched["p99_gap_ms"]:.0f} ms of the one before, all within {watched["longest_gap_ms"]:.0f} ms.
"""
