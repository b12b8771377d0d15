"""``serve.publish`` and ``serve.pull`` as a user runs them: processes, with the real client, against a local Hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import ray
from huggingface_hub import ModelCard

from actors.environments import describe
from actors.policy import Policy
from learner.keeping.policies import find_policy
from learner.run.evaluation import summarise
from learner.run.presets import preset
from learner.run.run_directory import RunDirectory
from serve.hub.package import write_package
from serve.hub.source import read_source
from serve.publish import main
from tests.serve.hub_server import Hub, running_hub
from tests.serve.served import PATIENCE

pytestmark = pytest.mark.usefixtures("ray_cluster")

TOKEN = "hf_" + "aLongSecretOfTwentyOrMore"
REPO = "user/ppo-CartPole-v1"
QUICK = ("--episodes", 2)
SCORE = summarise(np.array([9.0, 10.0]), None) | {
    "n_eval_episodes": 2,
    "first_seed": 0,
    "is_deterministic": True,
    "env_id": "CartPole-v1",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub({TOKEN: "user", "hf_another": "other"}) as hub:
        yield hub


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as a user makes one, with a secret on its command line that nothing should be published with."""
    run_dir = tmp_path_factory.mktemp("home") / "runs" / "first"
    short = ["--env", "CartPole-v1", "--n-envs", 8, "--n-steps", 64, "--total-timesteps", 2000, "--no-video"]
    done = run("learner.train", *short, "--evaluate-episodes", 5, "--run-dir", run_dir)
    assert done.returncode == 0, done.stderr
    made_by = json.loads((run_dir / "made_by.json").read_text())
    made_by["command"] += f" --api-key abc123 --note={TOKEN}"
    made_by["machine"] = "ada's laptop"
    (run_dir / "made_by.json").write_text(json.dumps(made_by))
    return run_dir


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Just a policy, whose episodes are short."""
    spec = describe("CartPole-v1").policy_spec()
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal(shape, np.float32) for name, shape in spec.weight_shapes().items()}
    Policy(spec, weights).save(tmp_path / "bare")
    return tmp_path / "bare"


def run(
    module: str, *arguments: object, hub: Hub | None = None, token: str | None = TOKEN, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """``python -m module``, or a script given as a file."""
    how = ["-m", module] if not module.endswith(".py") else [module]
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": os.getcwd()}
    env |= {f"HF_HUB_{what}_TIMEOUT": f"{PATIENCE:.0f}" for what in ("ETAG", "DOWNLOAD")}
    if ray.is_initialized():
        env["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address  # joined, not started anew for every command
    if hub:
        env["HF_ENDPOINT"] = hub.url
        env["HF_HUB_DISABLE_XET"] = "1"  # hf_xet uploads by a protocol of its own; without it the client speaks Git LFS
    env["HF_HOME"] = str((cwd or Path("/nonexistent")) / "hf")
    if token:
        env["HF_TOKEN"] = token
    command = [sys.executable, *how, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env, cwd=cwd)


Publish = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def publish(hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Publish:
    """``serve.publish`` in this process, which has Ray and the libraries at hand: seconds less than a new one."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)  # the client reads its environment at import
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)

    def called(*arguments: object, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("HF_TOKEN", token)
        code = 0
        try:
            main([*map(str, arguments)])
        except SystemExit as end:
            code = int(str(end.code))
        return subprocess.CompletedProcess([], code, *capfd.readouterr())

    return called


def same_actions(one: Policy, other: Policy) -> bool:
    observations = np.random.default_rng(0).standard_normal((1000, 4), np.float32)
    return np.array_equal(one.act(observations), other.act(observations))


def assert_one_line(result: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    lines = result.stderr.strip().splitlines()
    assert result.returncode == code, result.stderr
    assert len(lines) == 1, result.stderr
    for words in said:
        assert words in lines[0]


def test_publish_pull_and_publish_again(trained: Path, hub: Hub, tmp_path: Path) -> None:
    published = run("serve.publish", trained, "--repo-id", REPO, "--episodes", 5, hub=hub, cwd=tmp_path)
    assert published.returncode == 0, published.stderr
    assert f"published: {hub.url}/{REPO}" in published.stdout
    repository = hub.repositories[REPO]
    files = repository.files()
    assert not repository.private
    assert len(repository.commits) == 2
    logs = [name for name in files if name.startswith("logs/")]
    assert len(logs) == 1
    assert re.fullmatch(r"logs/events\.out\.tfevents\.\d+\.000", logs[0]), "the host's name is not published"
    assert set(files) - set(logs) == {
        *(".gitattributes", "README.md", "config.json", "made_by.json", "policy.json", "policy.onnx"),
        *("policy.safetensors", "replay.mp4", "results.json", "training_curve.png"),
    }

    results = json.loads(files["results.json"])
    assert (results["env_id"], results["n_eval_episodes"], results["is_deterministic"]) == ("CartPole-v1", 5, True)
    card = ModelCard(files["README.md"].decode())
    (score,) = card.data.eval_results
    assert (score.task_type, score.dataset_type, score.metric_type) == (
        *("reinforcement-learning", "CartPole-v1", "mean_reward"),
    )
    assert score.metric_value == f"{results['mean_reward']:.2f} +/- {results['std_reward']:.2f}"
    assert {"CartPole-v1", "ppo", "reinforcement-learning", "deep-reinforcement-learning"} <= set(card.data.tags)
    assert "python -m learner.train --env CartPole-v1 --n-envs 8" in card.text
    assert "--run-dir first --api-key REMOVED --note=REMOVED" in card.text
    assert "| learning_rate | `0.0046` |" in card.text
    assert "| algorithm | `ppo` |" in card.text
    assert not re.search(r"[^\n]```", card.text), "each block of code ends on a line of its own"

    sent = [*(body for _, _, body in hub.requests), *hub.stored.values()]
    for secret in (TOKEN, "abc123", "laptop", str(trained.parent)):
        assert not any(secret.encode() in part for part in sent), secret
    kept = [path.read_bytes() for path in (trained / "hub").rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in part for part in (*kept, published.stdout.encode(), published.stderr.encode()))

    theirs = tmp_path / "runs" / "theirs"
    pulled = run("serve.pull", REPO, "--to", "runs/theirs", hub=hub, token=None, cwd=tmp_path)
    assert pulled.returncode == 0, pulled.stderr
    assert same_actions(Policy.load(trained / "policy"), Policy.load(theirs / "policy"))
    assert sorted(path.name for path in theirs.iterdir()) == sorted(
        ["README.md", "config.json", "made_by.json", "policy", "replay.mp4", "results.json", "training_curve.png"]
    )
    assert not [path for path in theirs.parent.iterdir() if path.name.startswith(".")]
    assert_one_line(run("serve.pull", REPO, "--to", "runs/theirs", hub=hub, cwd=tmp_path), 2, "exists already")

    for i, code in enumerate(re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)):
        script = tmp_path / f"snippet{i}.py"
        script.write_text(code)
        flown = run(str(script), hub=hub, token=None, cwd=tmp_path)
        assert flown.returncode == 0, flown.stderr
        assert 5 < float(flown.stdout.split()[-1]) <= 500

    hub.requests.clear()
    again = run("serve.publish", theirs, "--repo-id", REPO, *QUICK, "--commit-message", "mine", hub=hub, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert repository.messages()[2:] == ["mine"]
    assert not hub.seen("PUT", "/storage/"), "what the Hub has is not sent again"
    assert not any(name.startswith("logs/") or name == "training_curve.png" for name in repository.files()), (
        "a pulled run has no training logs: those of the package before are gone"
    )
    assert "--run-dir first" in ModelCard(repository.files()["README.md"].decode()).text


def test_the_best_policy_of_a_run_is_told_of_as_the_run(bare: Path) -> None:
    policy = Policy.load(bare)
    run = bare.parent / "run"
    directory = RunDirectory(run)
    directory.create(preset("ppo"), "ppo", "python -m learner.train")
    directory.write_best(policy, {"mean_reward": 1.0})
    source = read_source(run / "best", policy)
    assert source == read_source(run, policy)
    assert source.made_by
    assert source.made_by["command"] == "python -m learner.train"
    assert source.made_by["resumed"] == []
    assert find_policy(run / "best").spec == policy.spec


def test_the_card_of_a_run_that_went_on_lists_its_commands(trained: Path, bare: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    made_by = json.loads((run / "made_by.json").read_text())
    more = f"python -m learner.train --resume /home/ada/first --total-timesteps 9000 --hub-token {TOKEN}"
    resumed = [{"command": more, "total_timesteps": 2000, "changed": {"actor_labels": ["ada", "bob"]}}, "x"] * 2
    (run / "made_by.json").write_text(json.dumps(made_by | {"resumed": resumed}))
    policy = Policy.load(bare)
    (tmp_path / "package").mkdir()
    write_package(read_source(run, policy), SCORE, None, None, tmp_path / "package")
    card = (tmp_path / "package" / "README.md").read_text()
    assert card.count("--resume first --total-timesteps 9000 --hub-token REMOVED\n") == 1
    kept = json.loads((tmp_path / "package" / "made_by.json").read_text())["resumed"]
    assert [sorted(time) for time in kept] == [["command"]] * 2


def test_a_private_repository_and_a_branch(bare: Path, hub: Hub, publish: Publish, tmp_path: Path) -> None:
    options = ("--repo-id", REPO, "--private", "--revision", "dev/one", *QUICK)
    published = publish(bare, *options)
    assert published.returncode == 0, published.stderr
    assert "no training curve" in published.stdout
    repository = hub.repositories[REPO]
    assert repository.private
    assert list(repository.files("main")) == [".gitattributes"]
    assert "--revision dev/one" in repository.files("dev/one")["README.md"].decode()

    strangers = run("serve.pull", REPO, "--to", "theirs", hub=hub, token=None, cwd=tmp_path)
    assert_one_line(strangers, 2, f"no repository {REPO} that you may read")
    elsewhere = run("serve.pull", REPO, "--to", "theirs", "--revision", "dve", hub=hub, cwd=tmp_path)
    assert_one_line(elsewhere, 2, "no such revision")
    assert not (tmp_path / "theirs").exists()
    hub.losses.append(("GET", "/storage/"))
    pulled = run("serve.pull", REPO, "--to", "theirs", "--revision", "dev/one", hub=hub, cwd=tmp_path)
    assert not hub.losses
    assert pulled.returncode == 0, pulled.stderr
    assert same_actions(Policy.load(bare), Policy.load(tmp_path / "theirs" / "policy"))

    repository.private = False
    exposed = publish(bare, *options)
    assert_one_line(exposed, 2, "exists and is public")  # before anything was flown


def test_a_lost_connection_loses_nothing(bare: Path, hub: Hub, publish: Publish) -> None:
    hub.losses += [("PUT", "/storage/"), ("POST", "/commit/")]  # the first is retried by the client, the second is not
    lost = publish(bare, "--repo-id", REPO, *QUICK)
    assert lost.returncode == 1
    assert not hub.losses
    assert f"the connection to {hub.url} failed" in lost.stderr.splitlines()[-1]
    assert f"the package is kept in {bare / 'hub'}" in lost.stderr.splitlines()[-1]
    assert "Traceback" not in lost.stderr
    assert Policy.load(bare / "hub").spec.env_id == "CartPole-v1"
    assert len(hub.repositories[REPO].commits) == 1

    sent = hub.seen("PUT", "/storage/")
    assert len(sent) == 3, "policy.safetensors, policy.onnx, replay.mp4"
    again = publish(bare, "--repo-id", REPO, *QUICK)
    assert again.returncode == 0, again.stderr
    assert hub.seen("PUT", "/storage/") == sent
    assert len(hub.repositories[REPO].commits) == 2


def test_who_may_not_publish_is_told_in_one_line(bare: Path, hub: Hub, publish: Publish, tmp_path: Path) -> None:
    wrong = run("serve.publish", bare, "--repo-id", REPO, hub=hub, token="hf_wrong", cwd=tmp_path)
    assert_one_line(wrong, 2, "does not accept the access token (401)", "hf auth login")
    assert "hf_wrong" not in wrong.stderr
    nobody = run("serve.publish", bare, "--repo-id", REPO, hub=hub, token=None, cwd=tmp_path)
    assert_one_line(nobody, 2, "no access token", "HF_TOKEN")
    assert not (bare / "hub").exists(), "found out before anything was flown"

    hub.add("user/mine", {})
    stranger = publish(bare, "--repo-id", "user/mine", *QUICK, token="hf_another")
    assert_one_line(stranger, 2, "may not write to user/mine (403", "the package is kept in")
    assert len(hub.repositories["user/mine"].commits) == 1


def test_a_package_without_a_hub(bare: Path, publish: Publish, hub: Hub, tmp_path: Path) -> None:
    made = publish(bare, "--to", tmp_path / "package", *QUICK)
    assert made.returncode == 0, made.stderr
    assert same_actions(Policy.load(bare), Policy.load(tmp_path / "package"))
    (tmp_path / "package" / "notes.txt").write_text("the user's own")
    again = publish(bare, "--to", tmp_path / "package")
    assert_one_line(again, 2, "package exists already")
    assert (tmp_path / "package" / "notes.txt").exists()
    assert not hub.requests


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say where to: --repo-id user/name on the Hub, or --to"),
        (["--to", "x", "--private"], "give --repo-id too"),
        (["--repo-id", "name"], "give the user too, as in user/name"),
        (["--repo-id", "user/a b"], "no name of a repository"),
    ],
)
def test_a_bad_request_is_one_line(arguments: list[str], said: str, publish: Publish) -> None:
    assert_one_line(publish("no/such/run", *arguments), 2, said)


def test_a_damaged_package_is_refused_and_nothing_is_left(trained: Path, hub: Hub, tmp_path: Path) -> None:
    weights = (trained / "policy" / "policy.safetensors").read_bytes()
    flipped = weights[:-3] + bytes([weights[-3] ^ 1]) + weights[-2:]
    results = json.dumps({"policy_sha256": hashlib.sha256(weights).hexdigest()}).encode()
    damaged = {
        "user/truncated": ({"policy.safetensors": weights[:-100]}, "policy.safetensors is damaged"),
        "user/tampered": (
            {"policy.safetensors": flipped, "results.json": results},
            "is not the one that was evaluated",
        ),
        "user/sb3": ({"ppo-CartPole-v1.zip": b"PK"}, "holds no policy of Touchdown's"),
    }
    for repo, (files, said) in damaged.items():
        hub.add(repo, {**files, "policy.pkl": b"never fetched"})
        assert_one_line(run("serve.pull", repo, "--to", "theirs", hub=hub, token=None, cwd=tmp_path), 2, said)
        assert {path.name for path in tmp_path.iterdir()} <= {"hf"}
    assert not hub.seen("GET", "policy.pkl")


def test_the_hub_cannot_be_reached(tmp_path: Path) -> None:
    gone = run("serve.pull", REPO, "--to", "theirs", hub=Hub({}, url="http://127.0.0.1:9"), token=None, cwd=tmp_path)
    assert_one_line(gone, 1, "the connection to http://127.0.0.1:9 failed")


def test_an_environment_of_a_users_module_is_published(publish: Publish, tmp_path: Path) -> None:
    env_id = "tests.actors.fake_environments:Filmed-v0"
    spec = describe(env_id).policy_spec(hidden_sizes=(), trained={"preset": "vpg"})
    policy = Policy(spec, {"w0": np.zeros((1, 2), np.float32), "b0": np.zeros(2, np.float32)})
    policy.save(tmp_path / "run")
    unnamed = publish(tmp_path / "run", "--to", tmp_path / "package", *QUICK)
    assert_one_line(unnamed, 2, "add --module tests.actors.fake_environments if you trust it")
    made = publish(tmp_path / "run", "--to", tmp_path / "package", *QUICK, "--module", "tests.actors.fake_environments")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "package" / "replay.mp4").stat().st_size > 0
    card = ModelCard((tmp_path / "package" / "README.md").read_text())
    assert "Filmed-v0" in card.data.tags
    assert card.data.eval_results[0].dataset_type == "Filmed-v0"
    assert f"gymnasium.make({env_id!r})" in card.text
    assert "--seed 10000 --module tests.actors.fake_environments" in card.text
    assert json.loads((tmp_path / "package" / "results.json").read_text())["env_id"] == env_id
