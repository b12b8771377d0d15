"""The report: figures worked by hand from runs written by hand, and the page in a real browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from learner.storage import Disk
from tune_configs import report
from tune_configs.experiment import Experiment, Planned, Trial, configs_of, trials_of
from tune_configs.summary import summarise

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
    assert cpg["evaluation_iqm"] == 35  # of 20, 30, 40, 50
    assert cpg["evaluation_mean"] == 35
    assert cpg["evaluation_iqm_interval_95"] == [15, 55]  # both resamples of one seed alone are likelier than 2.5%
    assert (cpg["final_mean_return"], cpg["best_mean_return"]) == (35, 45)
    assert cpg["best_mean_return_of_each_seed"] == [60, 30]
    assert (cpg["seeds_over_threshold"], cpg["episodes_to_threshold"]) == (1, 200)
    assert (cpg["episodes"], cpg["steps"]) == (600, 6000)
    assert summary["times"]["cpg"] == {"seconds": 12, "steps_per_second": 500, "seconds_to_threshold": 4}
    ppo = summary["losses"]["ppo"]
    assert ppo["evaluation_iqm_interval_95"] is None
    assert (ppo["seeds"], ppo["episodes_to_threshold"]) == (1, 100)
    chances = summary["probability_of_improvement"]  # cpg's seeds scored 15 and 55, ppo's 55: a loss and a tie
    assert chances == {"cpg": {"ppo": 0.25}, "ppo": {"cpg": 0.75}}
    assert summary["unfinished"] == ["ppo-1"]
    assert "ValueError" in summary["failed"]["ppo-1"]


def test_the_threshold_is_the_environments_own_where_none_is_given(trials: list[Trial]) -> None:
    experiment = Experiment(losses=("cpg", "ppo"), seeds=2, env="CartPole-v1", episodes=400)
    assert summarise(experiment, trials)["threshold"] == 475


def test_the_files_of_a_report(trials: list[Trial], tmp_path: Path) -> None:
    report.write(PLANNED, trials, Disk(tmp_path))
    text = (tmp_path / "summary.md").read_text()
    assert text.index("| ppo | 55.0 | – |") < text.index("| cpg | 35.0 | 15.0 to 55.0 | 35.0 ± 22.9 |")
    assert PLANNED.command in text
    assert "1 of 2: 200 episodes, 4 s" in text
    assert "**ppo-1 failed**: ValueError" in text
    for path in tmp_path.glob("*.png"):
        assert f"]({path.name})" in text
    assert len(list(tmp_path.glob("*.png"))) == len(report.CAPTIONS)
    assert json.loads((tmp_path / "summary.json").read_text())["losses"]["cpg"]["evaluation_iqm"] == 35


def test_a_report_of_nothing_finished_is_still_one(tmp_path: Path) -> None:
    trials = trials_of(PLANNED, Disk(tmp_path))
    summary = report.write(PLANNED, trials, Disk(tmp_path))
    assert len(summary["unfinished"]) == 4
    assert "cpg-0" in (tmp_path / "index.html").read_text()


@needs_chromium
def test_the_page_shows_everything_without_a_server(trials: list[Trial], tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    report.write(PLANNED, trials, Disk(tmp_path))
    requests: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "index.html").as_uri())
        images = page.locator("img").all()
        assert len(images) == len(report.CAPTIONS)
        for image in images:
            image.scroll_into_view_if_needed()
            assert image.is_visible()
            assert image.evaluate("image => image.naturalWidth") > 500
        assert page.locator("tbody tr").first.inner_text().split()[:2] == ["ppo", "55.0"]
        assert "<b>no</b>" in page.locator(".failed").inner_text(), "what a trial said is text, not markup"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, "a phone need not scroll sideways"
        browser.close()
    assert not errors
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
