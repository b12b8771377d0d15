"""Datasets go to the Hub with their card, and come back as they were, by the real client against a local Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import serve.publish
import serve.pull
from learner.dataset.dataset import open_dataset
from tests.actors.examples import assert_same_batches
from tests.learner.dataset.recordings import FORMS, episodes, write
from tests.serve.hub_server import Hub, running_hub
from tests.serve.served import PATIENCE

TOKEN = "hf_" + "aLongSecretOfTwentyOrMore"
FORM = FORMS["pictures"]
REPO = "user/pong-episodes"

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running_hub({TOKEN: "user"}) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        for what in ("ETAG", "DOWNLOAD"):
            monkeypatch.setattr(huggingface_hub.constants, f"HF_HUB_{what}_TIMEOUT", int(PATIENCE))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.chdir(tmp_path)
        yield hub


@pytest.fixture
def call(hub: Hub, capfd: pytest.CaptureFixture[str]) -> Call:
    """A command's exit status and all that it says."""

    def called(command: Any, *words: str) -> tuple[int, str]:
        code = 0
        try:
            command.main([*words])
        except SystemExit as end:
            code = int(str(end.code))
        said = capfd.readouterr()
        return code, said.out + said.err

    return called


def test_publish_and_pull(hub: Hub, call: Call) -> None:
    batches = [episodes(FORM, [3, 2], seed) for seed in range(2)]
    write("mine", FORM, *batches, policy="runs/a", version=3)
    Path("mine", "notes.txt").write_text("not for others")
    code, said = call(serve.publish, "mine", "--repo-id", REPO)
    assert code == 0, said
    assert f"published: {hub.url}/datasets/{REPO}" in said
    files = hub.repositories[f"datasets/{REPO}"].files()
    assert {*files} == {
        ".gitattributes",
        "README.md",
        "dataset.json",
        *(f"parts/w-0000{i}.safetensors" for i in range(2)),
    }
    assert f"python -m serve.pull datasets/{REPO} --to datasets/pong-episodes" in files["README.md"].decode()
    assert hub.repositories[f"datasets/{REPO}"].messages()[-1] == "4 episodes of ALE/Pong-v5"
    code, said = call(serve.pull, f"datasets/{REPO}", "--to", "theirs")
    assert code == 0, said
    assert "4 episodes of ALE/Pong-v5: theirs" in said
    mine, theirs = open_dataset("mine"), open_dataset("theirs")
    assert theirs.sources == mine.sources
    for index in range(2):
        assert_same_batches(theirs.part(index), mine.part(index))
    assert sorted(path.name for path in Path("theirs").iterdir()) == ["README.md", "dataset.json", "parts"]


def test_one_that_has_fewer_parts_takes_its_place(hub: Hub, call: Call) -> None:
    write("mine", FORM, episodes(FORM, [3]), episodes(FORM, [2]))
    assert call(serve.publish, "mine", "--repo-id", REPO, "--private")[0] == 0
    assert hub.repositories[f"datasets/{REPO}"].private
    Path("mine", "parts", "w-00001.safetensors").unlink()
    assert call(serve.publish, "mine", "--repo-id", REPO)[0] == 0
    assert "parts/w-00001.safetensors" not in hub.repositories[f"datasets/{REPO}"].files()


@pytest.mark.parametrize("name", ["parts/w-00000.safetensors", "dataset.json"])
def test_a_damaged_one_leaves_nothing(name: str, hub: Hub, call: Call) -> None:
    write("mine", FORM, episodes(FORM, [3]))
    files = {
        path.relative_to("mine").as_posix(): path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()
    }
    hub.add(f"datasets/{REPO}", files | {name: files[name][:-9] + b"tampered!"})
    code, said = call(serve.pull, f"datasets/{REPO}", "--to", "theirs")
    assert code == 2
    assert f"{REPO}: {name} is damaged" in said
    assert not Path("theirs").exists()
    Path("mine", name).write_bytes(files[name][:-9] + b"tampered!")
    code, said = call(serve.publish, "mine", "--repo-id", "user/other")
    assert code == 2
    assert "is damaged" in said
    assert "datasets/user/other" not in hub.repositories


def test_mistakes_are_one_line(hub: Hub, call: Call) -> None:
    write("mine", FORM, episodes(FORM, [3]))
    hub.add("datasets/user/none", {"README.md": b""})
    for command, words, message in (
        (serve.publish, ["mine", "--to", "there"], "a dataset is a directory to copy already: give --repo-id"),
        (serve.publish, ["mine", "--repo-id", "other/name"], "may not write to other/name"),
        (
            serve.pull,
            ["datasets/user/none", "--to", "theirs"],
            "holds no dataset of Touchdown's: dataset.json is missing",
        ),
        (serve.pull, ["datasets/user/not-there", "--to", "theirs"], "no repository user/not-there that you may read"),
        (serve.pull, ["datasets/user", "--to", "theirs"], "give the user too"),
    ):
        code, said = call(command, *words)
        assert code == 2, said
        assert message in said
        assert len(said.splitlines()) == 1


def test_a_secret_is_not_published(hub: Hub, call: Call) -> None:
    write("mine", FORM, episodes(FORM, [3]), policy="hf_" + "x" * 20)
    code, said = call(serve.publish, "mine", "--repo-id", REPO)
    assert code == 2
    assert "would hold what looks like an access token: nothing was published" in said
