"""docker-compose.yml and the Dockerfile without Docker: against their schema and linter, and the services' own commands
as processes in namespaces."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from learner.keeping.metrics_log import read_metrics
from serve.service.fast_ingress import VARIABLES
from tests.cluster.containers import ROOT, Stack, compose, image_environment
from tests.cluster.dashboard import QUERIES, Query
from tests.cluster.machines import Machine, needs_machines
from tests.cluster.training_metrics import LATER
from tests.serve.served import LANDER, wait_for

pytestmark = pytest.mark.timeout(1800)

FILES = [ROOT / "docker-compose.yml", ROOT / "docker-compose.gpu.yml"]
BIN = Path(sys.executable).parent


def succeeds(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr


def merged(base: Any, over: Any) -> Any:
    """As Docker merges two compose files, for what ours have: mappings by key, anything else replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        return {key: merged(base.get(key), over.get(key, base.get(key))) for key in base | over}
    return over


def test_the_files_are_of_the_compose_schema(tmp_path: Path) -> None:
    both = tmp_path / "merged.yml"
    both.write_text(yaml.safe_dump(merged(*(yaml.safe_load(file.read_text()) for file in FILES))))
    succeeds(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", *FILES, both)


def test_the_gpu_goes_to_the_learner_and_nowhere_else() -> None:
    plain, over = (yaml.safe_load(file.read_text())["services"] for file in FILES)
    assert over.keys() == {"learner"}
    learner = merged(plain, over)["learner"]
    (device,) = learner["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert learner["build"]["target"] == "cuda"
    assert learner["entrypoint"] == plain["head"]["entrypoint"]


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_variables_are_those_that_the_file_explains() -> None:
    text = FILES[0].read_text()
    explained, services = text.split("x-touchdown:", 1)
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", services))
    for name, default in used.items():
        assert re.search(rf"\b{name}\b", explained), name
        assert default in explained, name


def test_every_service_that_runs_on_has_a_health_check() -> None:
    services = compose()["services"]
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"train"}


def test_the_dockerfile_is_clean() -> None:
    succeeds(BIN / "hadolint", ROOT / "Dockerfile")


def test_the_image_sets_serves_variables() -> None:
    ours = {name: value for name, value in image_environment().items() if name in VARIABLES}
    image = {
        "RAY_SERVE_HAPROXY_MAXCONN": "16384",
        "RAY_SERVE_HAPROXY_BINARY_PATH": "/usr/local/bin/touchdown-haproxy",  # where pip puts it
    }
    assert ours == VARIABLES | image
    files = compose()["services"]["serve"]["ulimits"]["nofile"]
    assert files > 2.52 * int(ours["RAY_SERVE_HAPROXY_MAXCONN"]), "or HAProxy does not start"


def test_the_image_gets_all_that_is_copied() -> None:
    copied = re.findall(r"^COPY (?!--)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    wanted = {source for line in copied for source in line.split()}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == wanted
    assert all((ROOT / source).exists() for source in wanted)


def test_the_image_is_of_the_python_that_runs_the_tests_and_brings_no_cuda_to_cpus() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=3\.1[123]$", text, re.MULTILINE)
    assert "ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu" in text


on_machines = needs_machines("wget", "prometheus", "dnsmasq")


def ask(machine: Machine, url: str, *options: str) -> Any:
    """What a service answers, in the end: on a busy machine it can fail to in time."""

    def answer() -> str | None:
        done = machine.run(["wget", "-q", "-t", "1", "-T", "10", "-O", "-", *options, url], check=False)
        return done.stdout if done.returncode == 0 else None

    return json.loads(wait_for(answer, f"{url} answers", 120, every=0.5))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything but Grafana, with two workers, up and training."""
    services = compose()["services"]
    del services["grafana"]
    options = "--env tests.paced_environment:Paced-v0 --n-envs 8 --n-steps 8 --total-timesteps 100000000"
    options += " --target-return 10000 --evaluate-episodes 1 --no-video"  # it learns until it is stopped
    services["train"]["environment"]["TRAIN_ARGS"] = options
    directory = tmp_path_factory.mktemp("compose")
    with contextlib.closing(Stack(services, {"worker": 2}, directory)) as up:
        for name in ("head", "learner", "worker-1", "worker-2", "train", "tensorboard", "serve"):
            up.await_dependencies(name)
            up.start(name)
        up.start("prometheus", "prometheus")
        yield up


@on_machines
def test_the_stack_comes_up_trains_serves_and_is_watched(stack: Stack) -> None:
    stack.await_healthy("serve")
    stack.await_healthy("tensorboard")
    stack.await_healthy("prometheus")

    token = (stack.runs / ".token").read_text().strip()
    told = ["--header", f"Authorization: Bearer {token}", "--header", "Content-Type: application/json"]
    body = json.dumps({"observation": LANDER[:4]})
    first = ask(stack.machines["worker-1"], "http://serve:8000/act", *told, f"--post-data={body}")
    assert first["policy"] == "first"
    wait_for(
        lambda: (
            ask(stack.machines["worker-1"], "http://serve:8000/act", *told, f"--post-data={body}")["version"]
            > first["version"]
        ),
        "a newer policy is served",
        240,
        every=0.2,
    )

    url = "http://localhost:8265/api/v0"
    assert stack.machines["head"].run(["wget", "-q", f"{url}/nodes"], check=False).returncode == 6, (
        "Ray asks for a token"
    )
    bearer = f"Authorization: Bearer {(stack.runs / '.ray_token').read_text().strip()}"

    def alive(kind: str) -> list[dict[str, Any]]:
        answer = ask(stack.machines["head"], f"{url}/{kind}?detail=1", "--header", bearer)
        return [it for it in answer["data"]["result"]["result"] if it["state"] == "ALIVE"]

    def placed() -> tuple[list[str], list[tuple[str, str | None]]]:
        nodes = {node["node_id"]: node["labels"]["role"] for node in alive("nodes")}
        classes = ("RolloutActor", "LearnerActor")
        actors = [(it["class_name"], nodes.get(it["node_id"])) for it in alive("actors") if it["class_name"] in classes]
        return sorted(nodes.values()), sorted(actors)

    wanted = (
        ["actor", "actor", "head", "learner"],
        [("LearnerActor", "learner"), ("RolloutActor", "actor"), ("RolloutActor", "actor")],
    )
    wait_for(lambda: placed() == wanted, "nodes and actors are where they belong", 240, every=0.5)


@on_machines
def test_prometheus_finds_what_the_dashboard_shows(stack: Stack) -> None:
    machine = stack.machines["prometheus"]

    def targets() -> list[str]:
        found = ask(machine, "http://localhost:9090/api/v1/targets")["data"]["activeTargets"]
        return [target["labels"]["instance"] for target in found if target["health"] == "up"]

    wait_for(lambda: len(targets()) == 5, "head, learner, two workers and serve are scraped", 240, every=0.5)

    elsewhere = re.compile("|".join([*LATER, "ray_node_gpus_utilization", "ray_node_gram_used"]))
    asked = [query for query in QUERIES if not elsewhere.search(query.expression)]
    assert len(asked) > 10

    def data(query: Query) -> Any:
        return ask(machine, f"http://localhost:9090/api/v1/query?query={quote(query.filled)}")["data"]["result"]

    for query in asked:  # each for itself: a scrape that takes too long leaves a gap
        wait_for(partial(data, query), f"{query.panel} has data: {query.expression}", 120, every=0.5)


@on_machines
def test_a_stopped_job_has_a_checkpoint_and_the_next_goes_on_to_its_end(stack: Stack) -> None:
    stack.terminate("train", 240)
    log = stack.log("train")
    wait_for(lambda: "SIGTERM received" in log.read_text(), "the job tells of its signal", 120)  # Ray brings it later

    def steps() -> int:
        return int(read_metrics(stack.runs / "first" / "metrics.jsonl")[-1]["time/total_timesteps"])

    before = steps()
    assert before > 0
    options = stack.services["train"]["environment"]["TRAIN_ARGS"].replace("100000000", str(before + 2_000))
    stack.start("train", TRAIN_ARGS=options)
    assert stack.processes["train"].wait(600) == 0, log.read_text()
    assert before < before + 2_000 <= steps()
    assert (stack.runs / "first" / "evaluation.json").is_file()
