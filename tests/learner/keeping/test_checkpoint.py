"""Checkpoints: complete or absent, and their damage noticed."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.episode import Array
from actors.errors import UserError
from learner.keeping.checkpoint import load_checkpoint, save_checkpoint
from learner.keeping.storage import Disk
from learner.optimisation.config import OPTIMIZERS
from tests.learner import largest_file, make_batch, make_spec, property_test
from tests.learner.learners import make_learner


def contents(number: int) -> tuple[dict[str, Array], dict[str, Any]]:
    return {"parameters": np.full(100, number, np.float32)}, {"total_timesteps": number}


def save(root: Path, number: int, keep: int = 3) -> Path:
    arrays, counters = contents(number)
    save_checkpoint(Disk(root), number, arrays, counters, keep)
    return root / f"{number:08d}"


def assert_loads(root: Path, number: int) -> None:
    found, counters = load_checkpoint(Disk(root))
    arrays, expected = contents(number)
    assert counters == expected
    np.testing.assert_array_equal(found["parameters"], arrays["parameters"])


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    arrays: dict[str, Array] = {
        "version": np.array(7),
        "parameters": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "generator": np.arange(256, dtype=np.uint8),
        "empty": np.zeros((0, 2)),
    }
    counters = {"total_timesteps": 3, "best": -math.inf, "recent": [1.5, -2.25], "name": "é"}
    storage = Disk(tmp_path / "deep" / "down")
    save_checkpoint(storage, 12, arrays, counters, keep=1)
    found, found_counters = load_checkpoint(storage)
    assert found_counters == counters
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_learner_goes_on_from_its_checkpoint_bit_for_bit(tmp_path: Path, optimizer: Any) -> None:
    update = {"n_epochs": 2, "batch_size": 16, "optimizer": optimizer}
    spec = make_spec(normalize_observations=True)
    first, second = (make_learner(spec, **update, seed=seed) for seed in (1, 2))
    first.update(make_batch(first.policy(), [20, 7], seed=1))
    save_checkpoint(Disk(tmp_path), first.version, first.state(), {}, keep=3)
    second.load_state(load_checkpoint(Disk(tmp_path))[0])
    for learner in (first, second):
        learner.update(make_batch(learner.policy(), [20, 7], seed=2))
    for name, array in first.state().items():
        np.testing.assert_array_equal(second.state()[name], array, err_msg=name)


def test_the_newest_is_loaded(tmp_path: Path) -> None:
    for number in (9, 10, 100):
        save(tmp_path, number)
    assert_loads(tmp_path, 100)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    for number in (1, 5, 12, 100, 101):
        save(tmp_path, number, keep)
    assert names(tmp_path) == ["00000012", "00000100", "00000101"][-keep:]
    assert_loads(tmp_path, 101)


def test_a_number_can_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 5)
    save_checkpoint(Disk(tmp_path), 5, contents(6)[0], contents(6)[1], keep=3)
    assert_loads(tmp_path, 6)
    assert names(tmp_path) == ["00000005"]


def test_others_may_read_it(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert path.stat().st_mode & 0o555 == 0o555


# ---- damage


def truncate(path: Path) -> None:
    state = path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-10])


def flip_last_byte(path: Path) -> None:
    state = path / "state.safetensors"
    data = bytearray(state.read_bytes())
    data[-1] ^= 1
    state.write_bytes(data)


def lose_state(path: Path) -> None:
    (path / "state.safetensors").unlink()


def lose_checksum(path: Path) -> None:
    (path / "state.safetensors.sha256").unlink()


def lose_everything(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def fill_with_zeros(path: Path) -> None:
    """As some file systems leave a file after a power cut."""
    for file in path.iterdir():
        file.write_bytes(bytes(file.stat().st_size))


def fill_with_garbage(path: Path) -> None:
    for file in path.iterdir():
        file.write_bytes(np.random.default_rng(0).bytes(500))


def garbage_with_its_checksum(path: Path) -> None:
    (path / "state.safetensors").write_bytes(b"garbage that is whole")
    (path / "state.safetensors.sha256").write_text(hashlib.sha256(b"garbage that is whole").hexdigest())


def nothing_with_its_checksum(path: Path) -> None:
    (path / "state.safetensors").write_bytes(b"")
    (path / "state.safetensors.sha256").write_text(hashlib.sha256(b"").hexdigest())


def directory_for_a_file(path: Path) -> None:
    lose_state(path)
    (path / "state.safetensors").mkdir()


DAMAGE = [
    truncate,
    flip_last_byte,
    lose_state,
    lose_checksum,
    lose_everything,
    fill_with_zeros,
    fill_with_garbage,
    garbage_with_its_checksum,
    nothing_with_its_checksum,
    directory_for_a_file,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda function: function.__name__)
def test_a_damaged_checkpoint_is_passed_over_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    save(tmp_path, 1)
    damage(save(tmp_path, 2))
    with caplog.at_level(logging.WARNING, "touchdown"):
        assert_loads(tmp_path, 1)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"checkpoint {tmp_path / '00000002'} is damaged (")
    assert message.endswith("); trying the one before")


@property_test
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_goes_unnoticed(position: float, bit: int) -> None:
    with TemporaryDirectory() as directory:
        root = Path(directory)
        save(root, 1)
        state = save(root, 2) / "state.safetensors"
        data = bytearray(state.read_bytes())
        data[int(position * len(data))] ^= 1 << bit
        state.write_bytes(data)
        assert_loads(root, 1)


def test_several_damaged_ones_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, 1)
    truncate(save(tmp_path, 2))
    lose_checksum(save(tmp_path, 3))
    with caplog.at_level(logging.WARNING, "touchdown"):
        assert_loads(tmp_path, 1)
    assert len(caplog.records) == 2


def test_all_damaged(tmp_path: Path) -> None:
    for number in (1, 2):
        truncate(save(tmp_path, number))
    with pytest.raises(UserError, match=f"no readable checkpoint under {tmp_path}: all 2 are damaged"):
        load_checkpoint(Disk(tmp_path))


@pytest.mark.parametrize("exists", [True, False])
def test_none_at_all(tmp_path: Path, exists: bool) -> None:
    root = tmp_path if exists else tmp_path / "absent"
    with pytest.raises(UserError, match=f"no readable checkpoint under {root}: there is none"):
        load_checkpoint(Disk(root))


def test_the_next_save_mends_a_damaged_one(tmp_path: Path) -> None:
    save(tmp_path, 1)
    truncate(save(tmp_path, 2))
    save(tmp_path, 2)
    assert_loads(tmp_path, 2)


def test_what_is_saved_stays_though_a_damaged_one_has_a_higher_number(tmp_path: Path) -> None:
    """A run that went back to 1 past a damaged 9, and has since come to 5."""
    save(tmp_path, 1, keep=1)
    shutil.copytree(tmp_path / "00000001", tmp_path / "00000009")
    truncate(tmp_path / "00000009")
    assert save(tmp_path, 5, keep=1).is_dir()
    assert_loads(tmp_path, 5)


def test_a_storage_that_does_not_answer_is_not_damage(tmp_path: Path) -> None:
    """Who passed over a good checkpoint would remove it at the next save."""

    class Silent(Disk):
        def read(self, name: str) -> bytes:
            raise TimeoutError("no answer")

    save(tmp_path, 1)
    with pytest.raises(TimeoutError, match="no answer"):
        load_checkpoint(Silent(tmp_path))


# ---- interrupted writes


def test_leftovers_of_a_crash_are_not_checkpoints(tmp_path: Path) -> None:
    save(tmp_path, 1).rename(tmp_path / ".writing-abc123")
    with pytest.raises(UserError, match="there is none"):
        load_checkpoint(Disk(tmp_path))
    save(tmp_path, 1)
    assert_loads(tmp_path, 1)
    save(tmp_path, 2, keep=2)
    save(tmp_path, 3, keep=2)
    assert [name for name in names(tmp_path) if not name.startswith(".")] == ["00000002", "00000003"]


@pytest.mark.parametrize("size", [0, 100], ids=["before the first byte", "half-way"])
def test_a_write_that_fails_leaves_the_earlier_ones(tmp_path: Path, size: int) -> None:
    for number in (1, 2):
        save(tmp_path, number, keep=2)
    with largest_file(size), pytest.raises(OSError, match="File too large"):
        save(tmp_path, 3, keep=2)
    assert names(tmp_path) == ["00000001", "00000002"]
    assert_loads(tmp_path, 2)
    save(tmp_path, 3, keep=2)
    assert_loads(tmp_path, 3)


def test_a_write_that_fails_leaves_the_one_of_the_same_number(tmp_path: Path) -> None:
    save(tmp_path, 1)
    with largest_file(100), pytest.raises(OSError, match="File too large"):
        save(tmp_path, 1)
    assert_loads(tmp_path, 1)


def test_a_write_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    save(tmp_path, 1)
    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 2)
    assert names(tmp_path) == ["00000001"]
    assert_loads(tmp_path, 1)
