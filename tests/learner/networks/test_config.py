"""The options of networks, where pictures are seen and where not."""

import pytest

from actors.parts import Parts
from actors.pictures import Picture
from actors.spaces import Box
from learner.networks.config import Critic, NetworkConfig
from learner.run.presets import PRESETS, preset


def test_pictures_get_convolutions_and_are_not_standardised() -> None:
    config = NetworkConfig(normalize_observations=True)
    assert config.of_policy(Box((3,)))["normalize_observations"]
    assert config.of_policy(Box((3,)))["trunk"] == ""
    for space in (Picture((30, 45)), Parts({"eye": Picture((30, 45)), "speed": Box((2,))})):
        own = config.of_policy(space)
        assert own["trunk"] == "16x8/4 32x4/2"
        assert not own["normalize_observations"]
        assert config.with_policys(own).of_policy(space) == own


def test_a_critic_shares_where_there_are_convolutions_unless_told_otherwise() -> None:
    assert NetworkConfig(critic_sizes=(5,)).critic(True) == Critic((5,), True)
    assert NetworkConfig().critic(False) == Critic(None, False)
    assert NetworkConfig(share_trunk=False).critic(True) == Critic(None, False)
    assert NetworkConfig(share_trunk=True).critic(False) == Critic(None, True)


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in ("q_learning", "sarsa", "expected_sarsa")])
def test_every_preset_but_tables_sees_pictures(name: str) -> None:
    from actors.environments import describe

    config = preset(name)
    environment = describe("CarRacing-v3" if name == "sac" else "CarRacing-v3(continuous=False)")
    own = config.network.of_policy(environment.observation)
    target = 0.0 if own["memory"] == "transformer" else None
    distribution = config.algorithm.distribution(environment.action)
    spec = environment.policy_spec(**own, distribution=distribution, target_return=target)
    config.algorithm.require_fit(spec)
    assert spec.network.trunk
