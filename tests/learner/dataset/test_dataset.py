"""What is written to a dataset is what is read from it, or one line says which file is not."""

from __future__ import annotations

import dataclasses
import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import learner.dataset.writer
from actors.episode import EpisodeBatch
from actors.errors import UserError
from actors.spaces import Box, Discrete
from actors.trees import leaves
from learner.dataset.dataset import open_dataset
from learner.dataset.form import Form, action_dtype
from learner.dataset.writer import DatasetWriter
from tests.actors.examples import assert_same_batches
from tests.learner.dataset.recordings import FORMS, LANDER, episodes, kept, write
from tests.learner.link import Link


@settings(derandomize=True, max_examples=40)
@given(
    form=st.sampled_from([*FORMS.values()]),
    parts=st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_what_is_read_is_what_was_written(form: Form, parts: list[list[int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        batches = [episodes(form, lengths, seed) for seed, lengths in enumerate(parts)]
        for number, batch in enumerate(batches):
            write(directory, form, batch, writer=f"w{number}", policy="runs/a", version=number)
        dataset = open_dataset(directory)
        assert dataset.form == form
        assert len(dataset.parts) == len(batches)
        for number, batch in enumerate(batches):
            assert_same_batches(dataset.part(number), kept(form, batch))
        assert dataset.lengths.tolist() == [length for lengths in parts for length in lengths]
        np.testing.assert_array_equal(dataset.returns, np.concatenate([batch.episode_returns for batch in batches]))
        np.testing.assert_array_equal(dataset.terminated, np.concatenate([batch.terminated for batch in batches]))
        assert dataset.num_steps == dataset.lengths.sum()
        assert [dataset.sources[i]["version"] for i in dataset.source] == dataset.in_part.tolist()
        for episode in range(dataset.num_episodes):
            part = dataset.part(dataset.in_part[episode])
            rewards = part.rewards[dataset.start[episode] :][: dataset.lengths[episode]]
            assert rewards.sum(dtype=np.float64) == dataset.returns[episode]
            assert part.segment_lengths[dataset.segment[episode]] == dataset.lengths[episode]


def test_types_of_actions() -> None:
    assert [action_dtype(FORMS[name].action).name for name in ("vectors", "one picture", "parts", "far actions")] == [
        *("uint8", "float32", "int16", "int16")
    ]


def test_a_step_of_the_lander_takes_37_bytes(tmp_path: Path) -> None:
    batch = episodes(LANDER, [100] * 20)
    write(tmp_path, LANDER, batch)
    (part,) = (tmp_path / "parts").iterdir()
    assert part.stat().st_size / batch.num_steps < 41


def test_columns_are_views_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, FORMS["parts"], episodes(FORMS["parts"], [3, 4]))
    batch = open_dataset(tmp_path).part(0)
    for name, leaf in leaves({name: column for name, column in vars(batch).items() if name != "episode_lengths"}):
        assert not leaf.flags.writeable, name
        assert not leaf.flags.owndata, name
        assert leaf.ctypes.data % leaf.itemsize == 0, name


def test_a_dataset_goes_to_another_process_without_its_steps(tmp_path: Path) -> None:
    write(tmp_path, LANDER, episodes(LANDER, [100] * 20))
    dataset = open_dataset(tmp_path)
    batch = dataset.part(0)
    assert dataset.part(0) is batch
    data = pickle.dumps(dataset)
    assert len(data) < 10_000
    assert_same_batches(pickle.loads(data).part(0), batch)


def test_large_batches_become_several_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner.dataset.writer, "_PART_BYTES", 2_000)
    writer = DatasetWriter(tmp_path, LANDER.env_id, LANDER.observation, LANDER.action, "w")
    batch = episodes(LANDER, [7, 12, 90, 30, 1, 1, 8, 22, 5])
    for _ in range(3):
        writer.add(batch, {"policy": "runs/a"})
    before = open_dataset(tmp_path).num_episodes
    assert 0 < before < 27
    writer.close()
    writer.close()  # nothing waits: nothing is written
    dataset = open_dataset(tmp_path)
    assert 3 < len(dataset.parts) < 27
    together = EpisodeBatch.concatenate([dataset.part(i) for i in range(len(dataset.parts))])
    assert_same_batches(together, EpisodeBatch.concatenate([kept(LANDER, batch)] * 3))
    assert dataset.sources == [{"policy": "runs/a"}]


def test_two_write_at_once(tmp_path: Path) -> None:
    batches = [episodes(LANDER, [3, 4], seed) for seed in range(4)]
    first, second = (
        DatasetWriter(tmp_path, LANDER.env_id, LANDER.observation, LANDER.action, name) for name in ("a", "b")
    )
    for number, batch in enumerate(batches):
        writer = (first, second)[number % 2]
        writer.add(batch, {"policy": "runs/a", "version": number})
        writer.flush()
    dataset = open_dataset(tmp_path)
    assert dataset.parts == [f"{writer}-0000{number}.safetensors" for writer in "ab" for number in range(2)]
    assert [source["version"] for source in dataset.sources] == [0, 2, 1, 3]
    with pytest.raises(UserError, match="has episodes of a writer 'a' already: give this one another name"):
        DatasetWriter(tmp_path, LANDER.env_id, LANDER.observation, LANDER.action, "a")


def test_what_a_writer_that_was_killed_leaves_is_whole(tmp_path: Path) -> None:
    batch = episodes(LANDER, [3, 4])
    write(tmp_path, LANDER, batch)
    (tmp_path / "parts" / ".w-00001-0123.safetensors").write_bytes(b"half")
    assert_same_batches(open_dataset(tmp_path).part(0), kept(LANDER, batch))


@pytest.mark.parametrize("name", ["vectors", "parts"])
def test_a_part_cut_anywhere_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, FORMS[name], episodes(FORMS[name], [3]), episodes(FORMS[name], [2]))
    path = tmp_path / "parts" / "w-00001.safetensors"
    data = path.read_bytes()
    for size in range(0, len(data), 7):
        path.write_bytes(data[:size])
        with pytest.raises(UserError, match=rf"^{path} is damaged: .*; record again, or remove that file: the others"):
            open_dataset(tmp_path)
    path.write_bytes(data + b"\0")
    with pytest.raises(UserError, match=rf"^{path} is damaged: it has"):
        open_dataset(tmp_path)
    path.unlink()
    assert open_dataset(tmp_path).num_episodes == 1


@settings(derandomize=True, max_examples=300)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_byte_changed_anywhere_is_noticed(place: float, flip: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        write(directory, LANDER, episodes(LANDER, [2, 3]))
        path = Path(directory) / "parts" / "w-00000.safetensors"
        data = bytearray(path.read_bytes())
        data[int(place * len(data))] ^= flip
        path.write_bytes(data)
        with pytest.raises(UserError, match="is damaged: ") as error:
            open_dataset(directory).part(0)
        assert str(path) in str(error.value)


def test_a_missing_part_is_named_and_its_place_filled(tmp_path: Path) -> None:
    write(tmp_path, LANDER, *(episodes(LANDER, [length]) for length in (3, 4, 5)))
    parts = tmp_path / "parts"
    (parts / "w-00001.safetensors").unlink()
    with pytest.raises(UserError) as error:
        open_dataset(tmp_path)
    assert str(error.value) == (
        f"{parts}/w-00001.safetensors is missing: record again, or move w-00002.safetensors there, the last of its "
        f"writer: the others are whole"
    )
    (parts / "w-00002.safetensors").rename(parts / "w-00001.safetensors")
    assert open_dataset(tmp_path).lengths.tolist() == [3, 5]
    (parts / "mine.safetensors").touch()
    with pytest.raises(UserError, match=r"mine\.safetensors has not the name of a part"):
        open_dataset(tmp_path)


def test_a_part_of_another_dataset_is_named(tmp_path: Path) -> None:
    write(tmp_path, LANDER, episodes(LANDER, [3]))
    for name, other in (
        ("columns", FORMS["parts"]),
        ("shape", dataclasses.replace(LANDER, observation=Box((6,)))),
        ("type", dataclasses.replace(LANDER, observation=Box((8,), "float64"))),
        ("action", dataclasses.replace(LANDER, action=Discrete(9))),
    ):
        write(tmp_path / name, other, episodes(other, [3] * 9))
        (tmp_path / name / "parts" / "w-00000.safetensors").rename(tmp_path / "parts" / "w-00001.safetensors")
        with pytest.raises(UserError, match=r"w-00001\.safetensors is damaged: it (is of another dataset|has actions)"):
            open_dataset(tmp_path).part(1)


def test_headers_of_others_are_refused(tmp_path: Path) -> None:
    write(tmp_path, LANDER, episodes(LANDER, [3]))
    path = tmp_path / "parts" / "w-00000.safetensors"
    columns = safetensors.numpy.load(path.read_bytes())
    for metadata in (
        *(None, {}, {"touchdown": "["}, {"touchdown": "[]"}, {"touchdown": '{"sha256": "", "sources": []}'}),
        {"touchdown": json.dumps({"sha256": "0" * 64, "sources": []})},
        {"touchdown": json.dumps({"sha256": "0" * 64, "sources": [1]})},
    ):
        path.write_bytes(safetensors.numpy.save(columns, metadata))
        with pytest.raises(UserError, match=r"w-00000\.safetensors is damaged: it"):
            open_dataset(tmp_path)
    for header in (b"{}", b"[]", b'{"a":1}', b'{"__metadata__":1}', b"[" * 5000):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(UserError, match=r"w-00000\.safetensors is damaged: it"):
            open_dataset(tmp_path)
    path.write_bytes((2**60).to_bytes(8, "little") + bytes(2**21))
    with pytest.raises(UserError, match="its header would take"):
        open_dataset(tmp_path)


def test_no_dataset(tmp_path: Path) -> None:
    for damage, message in (
        (None, r"^no dataset in .*: dataset\.json is missing$"),
        (b"{", "damaged or not JSON"),
        (b"[]", "is damaged: it does not say its format"),
        (b'{"format": 7}', "is a dataset of format 7, and this version of Touchdown reads 1: "),
        (b'{"format": 1}', r"dataset\.json is damaged: it must have the fields "),
        (LANDER.json().replace(b'"n": 4', b'"n": 4.0'), r"dataset\.json is damaged: .*int"),
        (LANDER.json().replace(b"LunarLander", b"Lunar Lander"), r"dataset\.json is damaged: "),
        (LANDER.json(), "is empty: it has no parts; record some episodes to it"),
    ):
        if damage is not None:
            (tmp_path / "dataset.json").write_bytes(damage)
        with pytest.raises(UserError, match=message):
            open_dataset(tmp_path)


def test_other_spaces_are_not_appended(tmp_path: Path) -> None:
    write(tmp_path, LANDER, episodes(LANDER, [3]))
    for other, message in (
        (
            dataclasses.replace(LANDER, env_id="LunarLander-v2"),
            "holds episodes of LunarLander-v3, not of LunarLander-v2",
        ),
        (
            dataclasses.replace(LANDER, observation=Box((9,))),
            "whose observation is 8 numbers, not 9 numbers: give another",
        ),
        (dataclasses.replace(LANDER, action=Box((2,))), "whose action is a whole number from 0 to 3, not 2 numbers"),
    ):
        with pytest.raises(UserError, match=message):
            write(tmp_path, other, episodes(other, [3]), writer="other")


def test_observations_of_another_precision_are_appended(tmp_path: Path) -> None:
    write(tmp_path, LANDER, episodes(LANDER, [3]))
    exact = dataclasses.replace(LANDER, observation=Box((8,), "float64"))
    write(tmp_path, exact, episodes(exact, [4]), writer="other")
    assert [open_dataset(tmp_path).part(i).observations.dtype.name for i in range(2)] == ["float32"] * 2


def test_what_cannot_be_recorded(tmp_path: Path) -> None:
    form = FORMS["far actions"]
    writer = DatasetWriter(tmp_path, form.env_id, form.observation, form.action, "w")
    batch = episodes(form, [3])
    with pytest.raises(ValueError, match="must be as tests:Far-v0 takes them: a whole number from -300 to -299"):
        writer.add(dataclasses.replace(batch, actions=batch.actions + 300), {})
    none = np.zeros(1, bool)
    cut = dataclasses.replace(
        batch, terminated=none, truncated=none, episode_returns=none[:0], episode_lengths=none[:0]
    )
    with pytest.raises(ValueError, match="only whole episodes"):
        writer.add(cut, {})
    with pytest.raises(UserError, match="a writer's name must be of letters"):
        DatasetWriter(tmp_path, form.env_id, form.observation, form.action, "../w")


def test_an_object_store(s3: Link) -> None:
    location = "s3://bucket/datasets/lander"
    with pytest.raises(UserError, match="no dataset in s3://bucket/datasets/lander"):
        open_dataset(location)
    batches = [episodes(FORMS["pictures"], [3, 2], seed) for seed in range(2)]
    write(location, FORMS["pictures"], *batches)
    dataset = open_dataset(location)
    for number, batch in enumerate(batches):
        assert_same_batches(dataset.part(number), kept(FORMS["pictures"], batch))
