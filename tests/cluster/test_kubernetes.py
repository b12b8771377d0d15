"""cluster/kuberay.yaml: what the operator, Kubernetes, Ray, Serve and our own commands will make of it."""

from __future__ import annotations

import copy
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.scripts.scripts import start
from ray.serve.schema import ServeDeploySchema

from learner.train import read_command
from serve.service.deployment import BuildArguments

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "cluster" / "kuberay.yaml").read_text()
MANIFESTS = list(yaml.safe_load_all(TEXT))
ALL_OPTIONS = list(yaml.safe_load_all(re.sub(r"^( *)#~ ", r"\1", TEXT, flags=re.MULTILINE)))
"""With every option that is a mark away."""
SCHEMA = json.loads((Path(__file__).parent / "schemas" / "kuberay.json").read_text())
JOB, SERVICE = (next(it for it in MANIFESTS if it["kind"] == kind) for kind in ("RayJob", "RayService"))
CLUSTERS = {"RayJob": JOB["spec"]["rayClusterSpec"], "RayService": SERVICE["spec"]["rayClusterConfig"]}


def groups(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield cluster["headGroupSpec"]
    yield from cluster["workerGroupSpecs"]


GROUPS = [
    pytest.param(group, id=f"{kind}-{group['labels']['role']}")
    for kind, cluster in CLUSTERS.items()
    for group in groups(cluster)
]


def check(manifest: dict[str, Any]) -> None:
    """Against the schemas; fields that they do not know are errors."""
    if manifest["kind"] in SCHEMA["$defs"]:
        jsonschema.validate(manifest, {**SCHEMA, "$ref": f"#/$defs/{manifest['kind']}"})
    if manifest["apiVersion"] == "ray.io/v1":
        spec = manifest["spec"]
        for group in groups(spec.get("rayClusterSpec") or spec["rayClusterConfig"]):
            check({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": group["template"]})
    elif manifest["kind"] not in SCHEMA["$defs"]:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("manifests", [MANIFESTS, ALL_OPTIONS], ids=["as it is", "with all options"])
def test_kubernetes_and_the_operator_take_it(manifests: list[dict[str, Any]]) -> None:
    for manifest in manifests:
        check(manifest)


def test_all_options_are_there_once_their_mark_is_gone() -> None:
    job = next(it for it in ALL_OPTIONS if it["kind"] == "RayJob")["spec"]
    assert job["activeDeadlineSeconds"] > 0
    assert job["rayClusterSpec"]["gcsFaultToleranceOptions"]["redisAddress"]
    assert job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["serviceAccountName"]
    kinds = [it["kind"] for it in ALL_OPTIONS]
    assert kinds == [*(it["kind"] for it in MANIFESTS), "PodDisruptionBudget", "PodMonitor"]
    assert "#~" not in yaml.safe_dump_all(ALL_OPTIONS)


@pytest.mark.parametrize("kind", CLUSTERS)
def test_pods_ask_for_a_token(kind: str) -> None:
    assert CLUSTERS[kind]["authOptions"] == {"mode": "token"}


def init_container(kind: str) -> dict[str, Any]:
    (container,) = CLUSTERS[kind]["headGroupSpec"]["template"]["spec"]["initContainers"]
    return container


def init_command(kind: str, runs: Path) -> list[str]:
    return [word.replace("/srv/runs", str(runs)) for word in init_container(kind)["command"]]


def test_the_service_waits_for_the_runs_first_policy(tmp_path: Path) -> None:
    run = next(iter(yaml.safe_load(SERVICE["spec"]["serveConfigV2"])["applications"][0]["args"]["policy"].values()))
    policy = tmp_path / Path(run).relative_to("/srv/runs") / "policy"
    process = subprocess.Popen(init_command("RayService", tmp_path))
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    policy.mkdir(parents=True)
    (policy / "policy.json").touch()
    assert process.wait(60) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_a_new_volume_is_given_to_the_user_of_the_image(tmp_path: Path) -> None:
    subprocess.run(init_command("RayJob", tmp_path), check=True)
    assert tmp_path.stat().st_uid == tmp_path.stat().st_gid == 1000
    assert init_container("RayJob")["securityContext"]["runAsUser"] == 0


@pytest.mark.parametrize(
    "where",
    [
        ["spec"],
        ["spec", "rayClusterSpec"],
        ["spec", "rayClusterSpec", "autoscalerOptions"],
        ["spec", "rayClusterSpec", "workerGroupSpecs", 0],
        ["spec", "rayClusterSpec", "headGroupSpec", "template", "spec"],
        ["spec", "rayClusterSpec", "workerGroupSpecs", 1, "template", "spec", "containers", 0, "resources"],
    ],
    ids=lambda where: ".".join(map(str, where)),
)
def test_a_slip_of_the_pen_is_found(where: list[Any]) -> None:
    manifest = copy.deepcopy(JOB)
    part = manifest
    for key in where:
        part = part[key]
    part["idelTimeout"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError), match="idelTimeout"):
        check(manifest)


@pytest.mark.parametrize("group", GROUPS)
def test_ray_start_takes_the_parameters(group: dict[str, Any]) -> None:
    options = {option for parameter in start.params for option in parameter.opts}
    assert {f"--{name}" for name in group["rayStartParams"]} <= options


@pytest.mark.parametrize("kind", CLUSTERS)
def test_ray_is_the_version_in_the_image(kind: str) -> None:
    assert CLUSTERS[kind]["rayVersion"] == importlib.metadata.version("ray")


@pytest.mark.parametrize("kind", CLUSTERS)
def test_the_head_runs_neither_rollouts_nor_replicas(kind: str) -> None:
    assert CLUSTERS[kind]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("group", GROUPS)
def test_pods_can_mount_what_they_name_and_are_not_root(group: dict[str, Any]) -> None:
    pod = group["template"]["spec"]
    containers = [*pod.get("initContainers", []), *pod["containers"]]
    mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", [])}
    assert mounted == {volume["name"] for volume in pod.get("volumes", [])}
    assert pod["securityContext"]["runAsNonRoot"]
    users = re.findall(r"^USER (\d+):", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert {str(pod["securityContext"]["runAsUser"])} == set(users)


def test_labels_are_those_that_training_asks_for() -> None:
    asked = json.loads((ROOT / "cluster" / "train.json").read_text())
    there = [group["labels"] for group in JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"]]
    assert there == [asked["placement"]["learner_labels"], asked["fleet"]["actor_labels"]]


def test_pods_fit_on_the_nodes_that_they_are_meant_for() -> None:
    """A node of four CPUs has some 3.9 free, and 16 GiB are 13.3 (GKE's reservations)."""
    head, learner, actors = groups(CLUSTERS["RayJob"])
    for group in (head, learner):
        asked = group["template"]["spec"]["containers"][0]["resources"]["requests"]
        assert float(asked["cpu"]) <= 3.5
        assert float(asked["memory"].removesuffix("Gi")) <= 13
    assert actors["rayStartParams"]["num-cpus"] == "4"


def test_the_run_is_one_that_the_command_takes_and_the_actors_fit() -> None:
    python, flag, module, *options = shlex.split(JOB["spec"]["entrypoint"])
    assert (python, flag, module) == ("python", "-m", "learner.train")
    config = read_command([option.replace("/srv/touchdown", str(ROOT)) for option in options]).options
    actors = next(it for it in JOB["spec"]["rayClusterSpec"]["workerGroupSpecs"] if it["groupName"] == "actors")
    assert isinstance(config.fleet.actors, int)
    assert config.fleet.actors <= config.fleet.max_outstanding, "more would never fly"
    assert config.fleet.actors == actors["maxReplicas"] * int(actors["rayStartParams"]["num-cpus"])
    assert actors["minReplicas"] == 0


def test_the_service_is_that_of_serve_config_yaml_but_open_with_a_token() -> None:
    ours = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
    ServeDeploySchema.model_validate(ours)
    arguments = BuildArguments.model_validate(ours["applications"][0]["args"])
    mounts = CLUSTERS["RayService"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    paths = [mount["mountPath"] for mount in mounts]
    assert str(Path(arguments.token_file or "").parent) in paths
    assert isinstance(arguments.policy, dict)
    assert all(str(Path(policy).parent) in paths for policy in arguments.policy.values())

    theirs = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    for config in (ours, theirs):
        config["http_options"].pop("host")
        config["applications"][0]["args"].pop("policy")
        config["applications"][0]["args"].pop("token_file", None)
    assert ours == theirs
