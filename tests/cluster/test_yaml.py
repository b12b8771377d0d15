"""The files for ``ray up``, as Ray checks them and against what they must agree with; no credentials."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ray._private.services import GCS_SERVER_EXECUTABLE
from ray.autoscaler._private.util import prepare_config, validate_config

from actors.errors import UserError
from learner.run.config import TrainConfig, overlay
from learner.run.presets import preset
from learner.train import read_command
from tests.cluster.laptop import QUICK_TO_NOTICE
from tests.serve.served import wait_for

REPOSITORY = Path(__file__).parents[2]
CLOUDS = ["gpu.yaml", "gcp.yaml"]
ALL = [*CLOUDS, "onprem.yaml"]
SPOT = {
    "gpu.yaml": {"InstanceMarketOptions": {"MarketType": "spot"}},
    "gcp.yaml": {"scheduling": {"provisioningModel": "SPOT", "instanceTerminationAction": "DELETE"}},
}


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / "cluster" / name).read_text())


def training() -> TrainConfig:
    return overlay(preset("ppo"), json.loads((REPOSITORY / "cluster/train.json").read_text()), "cluster/train.json")


@pytest.mark.parametrize(
    ("arguments", "actor", "learner"),
    [
        ([], {"role": "actor"}, {"role": "learner"}),
        (["--learner-labels", "role", "actor"], {"role": "actor"}, {"role": "actor"}),
        (["--actor-labels", "kind", "cpu", "zone", "a"], {"kind": "cpu", "zone": "a"}, {"role": "learner"}),
        (["--actor-labels"], {}, {"role": "learner"}),
    ],
)
def test_labels_of_the_file_and_of_the_command_line(
    arguments: list[str], actor: dict[str, str], learner: dict[str, str]
) -> None:
    options = read_command(["--config", str(REPOSITORY / "cluster/train.json"), *arguments]).options
    assert options.fleet.actor_labels == actor
    assert options.placement.learner_labels == learner


def test_a_label_without_a_value_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match="actor-labels: takes names and values in turn"):
        read_command(["--actor-labels", "role"])


@pytest.mark.parametrize("name", ALL)
def test_ray_takes_it_and_adds_no_commands_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    written = read(name)
    config = prepare_config(read(name))
    validate_config(config)
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert config[commands] == written[commands]
    # Ray's defaults would install a nightly build, and an old boto3.
    assert config["head_setup_commands"] == config["worker_setup_commands"] == written["setup_commands"]


@pytest.mark.parametrize("name", ALL)
def test_machines_get_this_project_and_its_version_of_ray(name: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    [version] = [
        re.fullmatch(r"ray\[.*\]==(.+)", line) for line in project["project"]["dependencies"] if "ray[" in line
    ]
    install = read(name)["setup_commands"][-1].split()
    assert f"ray=={version[1]}" in install
    assert install[install.index("-c") : install.index("-c") + 2] == ["-c", "constraints.txt"]
    mounts = read(name)["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token", "one token for all"
    exported = "export RAY_AUTH_MODE=token RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor"
    assert any(exported in command for command in read(name)["setup_commands"])
    assert all((REPOSITORY / here).exists() and there == f"~/touchdown/{here}" for there, here in mounts.items())
    packages = {package.removesuffix("*") for package in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    named = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml", "constraints.txt"}
    assert packages | named | {"cluster"} == set(mounts.values())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("card", "has_driver", "torch", "done"),
    [
        (False, False, "", ["install -q torch=="]),
        (True, True, "", []),
        (True, True, "torch-2.13.0+cpu.dist-info", ["uninstall -qy torch"]),
        (True, False, "", []),
    ],
)
def test_torch_is_chosen_once_the_driver_is_there_and_a_wrong_one_makes_way(
    name: str, tmp_path: Path, card: bool, has_driver: bool, torch: str, done: list[str]
) -> None:
    """The commands as they are, but for where the cards are seen, with programs that only note what they are told."""
    (tmp_path / "touchdown").mkdir()
    (tmp_path / "touchdown/constraints.txt").write_text("torch==2.13.0\n")
    (tmp_path / "cards/0").mkdir(parents=True)
    (tmp_path / "cards/0/vendor").write_text("0x10de\n" if card else "0x8086\n")
    (tmp_path / "venv/lib/python3.12/site-packages" / torch).mkdir(parents=True)
    programs = tmp_path / "bin"
    programs.mkdir()
    drivers = {
        "pip": f'echo "$*" >> {tmp_path}/pip.log',
        "sleep": f"touch {tmp_path}/slept",
        "nvidia-smi": f"[ {int(has_driver)} = 1 ] && [ -e {tmp_path}/slept ]",  # comes while it is waited for
        "timeout": 'shift; [ -n "$GIVE_UP" ] && exit 124; exec "$@"',
    }
    for program, text in drivers.items():
        (programs / program).write_text(f"#!/bin/sh\n{text}\n")
        (programs / program).chmod(0o755)
    env = {"HOME": str(tmp_path), "PATH": f"{programs}:/usr/bin:/bin"} | ({} if has_driver else {"GIVE_UP": "1"})
    wait, choose = read(name)["setup_commands"][-3:-1]
    waited = subprocess.run(
        ["bash", "-c", wait.replace("/sys/bus/pci/devices", f"{tmp_path}/cards")],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (waited.returncode == 0) == (has_driver or not card)
    if waited.returncode:
        assert "no NVIDIA driver after 15 minutes" in waited.stdout
        return
    subprocess.run(["bash", "-c", choose], env=env, check=True)
    log = tmp_path / "pip.log"
    said = log.read_text().splitlines() if log.exists() else []
    assert [line.startswith(word) for line, word in zip(said, done, strict=True)] == [True] * len(done)


@pytest.mark.parametrize("name", ALL)
def test_ray_starts_with_serves_variables_and_many_files(name: str) -> None:
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        stop, start, *_ = read(name)[commands]
        assert stop == "ray stop"
        before, _, arguments = start.partition("ray start")
        assert int(re.findall(r"ulimit -n (\d+);", before)[0]) >= 65536
        assert 'eval "$(python -m serve.fast_ingress)";' in before
        assert "--metrics-export-port=8080" in arguments
    head = read(name)["head_start_ray_commands"][1]
    assert "--dashboard-host=127.0.0.1" in head
    assert f"export {' '.join(f'{key}={value}' for key, value in QUICK_TO_NOTICE.items())};" in head


def test_ray_knows_the_variables_that_make_a_head_quick_to_notice() -> None:
    program = Path(GCS_SERVER_EXECUTABLE).read_bytes()
    assert [name for name in QUICK_TO_NOTICE if name.encode() not in program] == []


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_pass_a_notice_on_one_program_each(name: str, tmp_path: Path) -> None:
    """However often the commands are run, as by each ``ray up``; they do not wait for it."""
    notice = read(name)["worker_start_ray_commands"][-1]
    cloud = {"gpu.yaml": "aws", "gcp.yaml": "gcp"}[name]
    assert f"python cluster/spot_notice.py {cloud} $RAY_HEAD_IP:6379 " in notice
    (tmp_path / "touchdown").mkdir()
    (tmp_path / "python").write_text('#!/bin/bash\necho "$$ $*" >> ~/said; exec sleep 600\n')
    (tmp_path / "python").chmod(0o755)
    variables = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin", "RAY_HEAD_IP": "10.0.0.1"}
    said = tmp_path / "said"
    for time in (1, 2):
        subprocess.run(["bash", "-c", notice], env=variables, check=True, timeout=60, capture_output=True)
        wait_for(lambda time=time: said.exists() and len(said.read_text().splitlines()) == time, "it runs")  # type: ignore[misc]
    first, second = (int(line.split()[0]) for line in said.read_text().splitlines())
    wait_for(lambda: not psutil.pid_exists(first), "the first has ended")
    psutil.Process(second).kill()
    assert said.read_text().count(f"cluster/spot_notice.py {cloud} 10.0.0.1:6379\n") == 2


@pytest.mark.parametrize("name", CLOUDS)
def test_types_of_machines_suit_what_runs_on_them(name: str) -> None:
    config = read(name)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}, "the head runs no rollouts"
    assert head["labels"] == {"role": "head"}
    [learner] = [
        kind for kind in types.values() if training().placement.learner_labels.items() <= kind["labels"].items()
    ]
    [actor] = [kind for kind in types.values() if training().fleet.actor_labels.items() <= kind["labels"].items()]
    assert learner["resources"]["GPU"] == learner["min_workers"] == learner["max_workers"] == 1
    assert "GPU" not in actor["resources"]
    assert actor["min_workers"] == 0
    assert actor["max_workers"] + learner["max_workers"] == config["max_workers"]
    spot = SPOT[name]
    assert spot.items() <= actor["node_config"].items()
    assert not [kind for kind in (head, learner) if spot.items() <= kind["node_config"].items()]
    assert config["provider"]["cache_stopped_nodes"] is False
    disks = {
        kind: sum(int(size) for size in re.findall(r"(?:VolumeSize|diskSizeGb)': (\d+)", str(its["node_config"])))
        for kind, its in (("learner", learner), ("actor", actor))
    }
    assert disks["learner"] >= 150 > disks["actor"]
    size = head["node_config"].get("InstanceType") or head["node_config"]["machineType"]
    assert size in ("m7i.xlarge", "e2-standard-4"), "four cores, as docs/scaling.md asks"
    if name == "gpu.yaml":
        assert all(kind["node_config"]["ImageId"].startswith("ami-") for kind in (head, learner, actor))


def test_on_machines_of_ones_own_start_commands_give_the_labels() -> None:
    config = read("onprem.yaml")
    head, worker = config["head_start_ray_commands"][1], config["worker_start_ray_commands"][1]
    assert "--num-cpus=0" in head
    assert "--labels=role=head" in head
    learner, actor = training().placement.learner_labels["role"], training().fleet.actor_labels["role"]
    assert f"--labels=role=$(nvidia-smi -L > /dev/null 2>&1 && echo {learner} || echo {actor})" in worker
