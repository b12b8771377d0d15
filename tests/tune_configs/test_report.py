"""The report: figures worked by hand from runs written by hand, and the page in a real browser."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from learner.keeping.storage import Disk
from tests.learner.dataset.tallies import TALLY, tallies, write_tallies
from tune_configs import figures, interactive, report
from tune_configs.compare_losses import result_table
from tune_configs.experiment import Experiment, Planned, Trial, configs_of, plan, trials_of
from tune_configs.summary import finished_runs, summarise
from tune_configs.view import RECORDED

EXPERIMENT = Experiment(losses=("cpg", "ppo"), seeds=2, env="CartPole-v1", episodes=400, threshold=50.0)
PLANNED = Planned(EXPERIMENT, configs_of(EXPERIMENT), "python -m tune_configs.compare_losses --losses cpg ppo")

chromium = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(chromium is None, reason="needs chromium: apt-get install chromium")


def write_run(trial: Trial, evaluation: list[float], means: list[float]) -> None:
    """A finished run of one update for each of ``means``: 100 episodes, 1,000 steps and 2 seconds each."""
    rows, best = [], -np.inf
    for i, mean in enumerate(means, start=1):
        best = max(best, mean)
        rows.append(
            {
                "rollout/ep_rew_mean": mean,
                "rollout/best_ep_rew_mean": best,
                "time/episodes": 100 * i,
                "time/total_timesteps": 1000 * i,
                "time/time_elapsed": 2.0 * i,
                "train/policy_gradient_loss": -0.1 * i,
                "train/mean_return_target": 0.1 * i,
                "train/entropy_loss": -1 + 0.1 * i,
            }
        )
    outcome = {
        "label": trial.label,
        "seed": trial.seed,
        "final_mean_return": means[-1],
        "best_mean_return": best,
        "episodes": 100 * len(means),
        "steps": 1000 * len(means),
        "seconds": 2.0 * len(means),
        "evaluation_returns": evaluation,
        "evaluation_lengths": [1] * len(evaluation),
    }
    directory = Path(trial.run_dir)
    directory.mkdir(parents=True)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (directory / "outcome.json").write_text(json.dumps(outcome))


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    """cpg-0 and cpg-1 and ppo-0 are finished, ppo-1 failed."""
    found = trials_of(PLANNED, Disk(tmp_path))
    write_run(found[0], [0.0, 10.0, 20.0, 30.0], [10.0, 60.0, 40.0])
    write_run(found[1], [40.0, 50.0, 60.0, 70.0], [10.0, 20.0, 30.0])
    write_run(found[2], [55.0] * 4, [70.0, 80.0, 90.0])
    Path(found[3].run_dir).mkdir(parents=True)
    (Path(found[3].run_dir) / "failure.txt").write_text("Traceback\nValueError: <b>no</b>\n")
    return found


def test_figures_by_hand(trials: list[Trial]) -> None:
    summary = summarise(EXPERIMENT, trials)
    cpg = summary["losses"]["cpg"]
    assert cpg["score_of_each_seed"] == [15, 55]
    assert (cpg["score_iqm"], cpg["evaluation_mean"]) == (35, 35)
    assert cpg["score_iqm_interval_95"] == [15, 55]  # both resamples of one seed alone are likelier than 2.5%
    assert (cpg["final_mean_return"], cpg["best_mean_return"]) == (35, 45)
    assert cpg["best_mean_return_of_each_seed"] == [60, 30]
    assert (cpg["seeds_over_threshold"], cpg["episodes_to_threshold"]) == (1, 200)
    assert (cpg["episodes"], cpg["steps"]) == (600, 6000)
    assert summary["times"]["cpg"] == {"seconds": 12, "steps_per_second": 500, "seconds_to_threshold": 4}
    ppo = summary["losses"]["ppo"]
    assert ppo["score_iqm_interval_95"] is None
    assert (ppo["seeds"], ppo["episodes_to_threshold"]) == (1, 100)
    chances = summary["probability_of_improvement"]  # cpg's seeds scored 15 and 55, ppo's 55: a loss and a tie
    assert chances["cpg"] == {"ppo": {"probability": 0.25, "interval_95": None}}  # of one run of ppo
    assert chances["ppo"] == {"cpg": {"probability": 0.75, "interval_95": None}}
    assert summary["unfinished"] == ["ppo-1"]
    assert "ValueError" in summary["failed"]["ppo-1"]


def test_crashes_are_not_trimmed_away(tmp_path: Path) -> None:
    """A loss that crashes in a fifth of its landings (mean 204) is not above one that never does (mean 260)."""
    experiment = Experiment(losses=("cpg", "ppo"), seeds=5, env="CartPole-v1", episodes=400)
    planned = Planned(experiment, configs_of(experiment), "python -m tune_configs.compare_losses")
    trials = trials_of(planned, Disk(tmp_path))
    for trial in trials:
        landings = [280.0] * 80 + [-100.0] * 20 if trial.label == "cpg" else [260.0] * 100
        write_run(trial, [value + trial.seed for value in landings], [10.0])
    summary = summarise(experiment, trials)
    assert [row[:2] for row in report.table(summary)] == [("ppo", "262.0"), ("cpg", "206.0")]
    assert summary["probability_of_improvement"]["ppo"]["cpg"] == {"probability": 1, "interval_95": [1, 1]}


def test_the_threshold_is_the_environments_own_where_none_is_given(trials: list[Trial]) -> None:
    experiment = Experiment(losses=("cpg", "ppo"), seeds=2, env="CartPole-v1", episodes=400)
    assert summarise(experiment, trials)["threshold"] == 475


def test_the_files_of_a_report(trials: list[Trial], tmp_path: Path) -> None:
    report.write(PLANNED, trials, Disk(tmp_path))
    text = (tmp_path / "summary.md").read_text()
    assert text.index("| ppo | 55.0 | – |") < text.index("| cpg | 35.0 | 15.0 to 55.0 | 35.0 ± 22.9 |")
    assert "A single run has no interval" in text
    assert "50% with 2 runs" in text
    assert PLANNED.command in text
    assert "1 of 2: 200 episodes, 4 s" in text
    assert "**ppo-1 failed**: ValueError" in text
    for path in tmp_path.glob("*.png"):
        assert f"]({path.name})" in text
    assert len(list(tmp_path.glob("*.png"))) == 6
    assert json.loads((tmp_path / "summary.json").read_text())["losses"]["cpg"]["score_iqm"] == 35


def finished(runs: int, tmp_path: Path) -> dict[str, Any]:
    """The summary of two losses with that many runs each."""
    experiment = Experiment(losses=("cpg", "ppo"), seeds=runs, env="CartPole-v1", episodes=400)
    trials = trials_of(Planned(experiment, configs_of(experiment), ""), Disk(tmp_path / str(runs)))
    for trial in trials:
        write_run(trial, [10.0 * trial.seed] * 2, [10.0])
    return summarise(experiment, trials)


def test_intervals_come_with_what_they_are_worth(tmp_path: Path) -> None:
    assert "75% with 3 runs" in report.caution(three := finished(3, tmp_path))
    assert "one in 10 pairs of equal losses" in report.caution_of_pairs(three)
    assert "one in 126 pairs" in report.caution_of_pairs(finished(5, tmp_path))
    one = finished(1, tmp_path)
    assert report.caution(one).startswith("A single run has no interval")
    assert "simulation" not in report.caution(one)
    assert report.caution_of_pairs(one) == ""
    ten = finished(10, tmp_path)
    assert report.caution(ten) == report.caution_of_pairs(ten) == ""


@pytest.mark.parametrize("label", ["ppo", "your_package.your_module_with_a_long_name:loss"])
def test_the_table_fits_into_a_terminal_of_80_columns(label: str, tmp_path: Path) -> None:
    """Every figure stands whole on its loss's line; only a long name is folded."""
    summary = finished(3, tmp_path)
    for section in ("losses", "times"):
        summary[section][label] = summary[section].pop("ppo")
    summary["losses"][label] |= {"score_iqm": -1000.0, "score_iqm_interval_95": [-1000.0, -1000.0]}
    summary["losses"][label] |= {"evaluation_mean": -1000.0, "evaluation_std": 1000.0, "best_mean_return": -1000.0}
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(result_table(summary))
    lines = console.export_text().splitlines()
    assert any("-1000.0   -1000.0 to -1000.0   -1000.0 ± 1000.0   -1000.0   " in line for line in lines), lines
    assert label in "".join(line[:40].split("-1000")[0].strip() for line in lines)


def test_a_report_of_nothing_finished_is_still_one(tmp_path: Path) -> None:
    trials = trials_of(PLANNED, Disk(tmp_path))
    summary = report.write(PLANNED, trials, Disk(tmp_path))
    assert len(summary["unfinished"]) == 4
    assert "cpg-0" in (tmp_path / "index.html").read_text()


def test_shares_are_drawn_where_all_returns_are_equal(tmp_path: Path) -> None:
    """As of CartPole's 500: a line at one, and its fall to zero beyond the return that all have."""
    experiment = Experiment(losses=("cpg", "ppo"), seeds=2, env="CartPole-v1", episodes=400)
    trials = trials_of(Planned(experiment, configs_of(experiment), ""), Disk(tmp_path))
    for trial in trials:
        write_run(trial, [500.0] * 10, [10.0, 20.0])
    figure = figures.shares(finished_runs(trials), {})
    (axis,) = figure.axes
    for line in axis.lines:
        x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
        assert x[0] < 500 < x[-1]
        assert (y[x <= 500] == 1).all()
        assert (y[x > 500] == 0).all()


def test_recordings_are_told_beside_what_learned_from_them(tmp_path: Path) -> None:
    """By evaluations, against updates: such runs fly nothing else."""
    experiment = Experiment(("bc", "dt"), dataset=str(write_tallies(tmp_path / "data", 50)), seeds=2, env=TALLY)
    planned = plan(experiment, "python -m something")
    assert planned.recorded is not None
    returns = tallies(50).episode_returns
    trials = trials_of(planned, Disk(tmp_path))
    for trial in trials:
        write_run(trial, [6.0, 8.0] if trial.label == "dt" else [3.0, 4.0], [1.0, 2.0])
        rows = [
            {"time/total_timesteps": 10 * i, "time/time_elapsed": 2.0 * i, "train/n_updates": i, "train/loss": 1 / i}
            | {"train/entropy_loss": -1 / i}
            for i in (1, 2, 3)
        ]
        for i, mean in ((1, 2.0), (3, 7.0)):
            rows.append({**rows[i - 1], "eval/mean_reward": mean, "eval/best_mean_reward": mean})
            rows[-1] |= {"eval/policy_version": i}
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (Path(trial.run_dir) / "metrics.jsonl").write_text(text)
    summary = report.write(
        planned._replace(experiment=dataclasses.replace(experiment, threshold=6.5)), trials, Disk(tmp_path)
    )
    assert summary["recorded"]["returns"] == {"least": returns.min(), "mean": returns.mean(), "most": returns.max()}
    assert summary["losses"]["dt"]["updates_to_threshold"] == 3
    text = (tmp_path / "summary.md").read_text()
    assert text.startswith(f"# {TALLY}: 2 losses on {tmp_path / 'data'}, 2 seeds each, 30 updates a run\n")
    said = f"50 episodes, mean return {returns.mean():.1f}, best {returns.max():.1f}"
    assert f"dt is above the mean of what it learned from: {said}." in text
    assert "2 of 2: 3 updates, 6 s" in text
    names = {"losses", "return_by_updates", "return_by_seconds", "share_of_episodes", "final_scores"}
    assert {path.stem for path in tmp_path.glob("*.png")} == names
    runs = finished_runs(trials)
    (axis,) = figures.returns_by(runs, RECORDED, "updates", figures.lines_of(planned.recorded)).axes
    curve = {line.get_label(): np.asarray(line.get_ydata()) for line in axis.lines}
    assert (curve["dt"][0], curve["dt"][-1]) == (2, 7)
    assert curve["recorded, mean"] == pytest.approx(returns.mean())
    assert curve["recorded, best"] == pytest.approx(returns.max())
    shown = interactive.figures(runs, planned.recorded)
    assert {"return by updates", "return by seconds", "scores"} <= set(shown)
    for name in ("return by updates", "scores"):
        assert [trace["name"] for trace in shown[name]["traces"]][-2:] == ["recorded, mean", "recorded, best"]
    assert 'value="updates" checked' in (tmp_path / "index.html").read_text()


@pytest.mark.slow
@needs_chromium
def test_the_page_shows_everything_without_a_server(trials: list[Trial], tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    report.write(PLANNED, trials, Disk(tmp_path))
    requests: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"], timeout=120_000)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.set_default_timeout(120_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "index.html").as_uri())
        assert page.locator(".verdict p").first.inner_text().startswith("ppo scores 55.0 against 35.0")
        shown = "() => [...document.querySelectorAll('.plot')].map((plot) => plot.dataset.figure)"
        assert page.evaluate(shown)[:3] == ["scores", "return by steps", "shares"]
        assert page.locator(".plot svg.main-svg").count() >= len(page.evaluate(shown)) == 6
        lines = "() => document.querySelectorAll('.plot')[1].querySelectorAll('.scatterlayer .trace').length"
        with_seeds = page.evaluate(lines)
        page.get_by_label("each seed's curve").uncheck()
        page.wait_for_function(f"({lines})() === {with_seeds - 3}")
        page.get_by_label("seconds").check()
        assert page.evaluate(shown)[1] == "return by seconds"
        dot = page.locator(".plot").first.locator(".scatterlayer .point").first
        dot.scroll_into_view_if_needed()
        dot.hover(force=True)
        page.wait_for_selector(".hoverlayer text:has-text('seed 0: 15')")
        assert page.locator("tbody tr").first.inner_text().split()[:2] == ["ppo", "55.0"]
        assert "<b>no</b>" in page.locator(".failed").inner_text(), "what a trial said is text, not markup"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a phone need not scroll sideways"
        browser.close()
    assert not errors
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
