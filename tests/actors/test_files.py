import json
import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from actors.errors import UserError
from actors.files import json_text, read_json, replacing, write_text

FULL_DISK = """
import resource, sys
from actors.files import write_text
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_text(sys.argv[1], "new" * 1000)
except OSError as error:
    print(error.strerror)
"""


def test_what_is_written_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_raises_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("old")
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "File too large"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_temporary_file_has_the_same_suffix_and_folder(tmp_path: Path) -> None:
    with replacing(tmp_path / "film.mp4") as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == tmp_path


def test_folders_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "notes.txt", "new")
    assert (tmp_path / "a" / "b" / "notes.txt").read_text() == "new"


def test_others_may_read_the_file(tmp_path: Path) -> None:
    write_text(tmp_path / "notes.txt", "new")
    assert (tmp_path / "notes.txt").stat().st_mode & 0o777 == 0o644


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    texts = [letter * 1_000_000 for letter in "abcdefghij"]
    write_text(path, texts[0])

    def write() -> None:
        for text in texts:
            write_text(path, text)

    writer = threading.Thread(target=write)
    writer.start()
    seen = {path.read_text()}
    while writer.is_alive():
        seen.add(path.read_text())
    writer.join()
    assert seen <= set(texts)
    assert path.read_text() == texts[-1]


def test_json_has_no_numbers_that_json_does_not_know() -> None:
    data = {"high": (1.5, math.inf), "low": [[-math.inf]], "unknown": math.nan, "count": 3, "name": "ä"}
    read = json.loads(json_text(data), parse_constant=pytest.fail)
    assert read == {"high": [1.5, "Infinity"], "low": [["-Infinity"]], "unknown": None, "count": 3, "name": "ä"}


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff", b"9" * 5000])
def test_what_is_not_json_is_one_line_that_names_it(text: bytes) -> None:
    with pytest.raises(UserError, match=r"notes\.json is damaged or not JSON") as refused:
        read_json(text, "notes.json")
    assert "\n" not in str(refused.value)
