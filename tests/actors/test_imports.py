"""Ray is imported by who starts and drives actors alone, and torch by nothing that flies."""

from tests.actors.programs import run_python

IMPORT_ALL = """
import importlib, pkgutil, sys
import actors
names = [module.name for module in pkgutil.iter_modules(actors.__path__)]
for name in sorted(names, key=lambda name: name in ("actor_pool", "fleet", "room")):
    importlib.import_module(f"actors.{name}")
    print(name, *[package for package in ("ray", "torch") if package in sys.modules])
"""
COLLECT = """
import sys
from actors.actor import RolloutActor
from actors.rollout import RolloutConfig
from tests.actors.examples import policy_for
actor = RolloutActor()
actor.prepare("CartPole-v1", RolloutConfig(n_envs=2, n_steps=4), seed=0)
actor.collect(policy_for("CartPole-v1"))
print("torch" in sys.modules)
"""


def test_only_the_fleet_imports_ray_and_nothing_torch() -> None:
    *others, pool, fleet, room = run_python(IMPORT_ALL).splitlines()
    assert "actor" in others
    assert [line for line in others if " " in line] == []
    assert [pool, fleet, room] == ["actor_pool ray", "fleet ray", "room ray"]


def test_an_actor_that_flies_never_imports_torch() -> None:
    assert run_python(COLLECT) == "False"
