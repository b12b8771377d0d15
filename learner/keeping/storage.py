"""Where a run's files are kept: a directory of this machine, or of a shared object store that a URI names.

Whatever the place, a file is the old one or the new one, never half, and an error is an OSError.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

from actors.errors import UserError
from actors.files import replacing


class Storage(ABC):
    """A directory of files, by names relative to it with ``/`` between their parts."""

    @abstractmethod
    def __str__(self) -> str:
        """The path or URI, as a user would write it."""

    @abstractmethod
    def within(self, name: str) -> Storage:
        """A directory in this one, which need not exist yet."""

    @abstractmethod
    def names(self) -> list[str]:
        """The files and directories right here, sorted; none if there is no such directory."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file's contents; FileNotFoundError if there is none."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A file to read from at any place, so that a part of it need not bring the rest; FileNotFoundError if there is
        none."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Put a file in place of what had its name."""

    @abstractmethod
    def write_directory(self, name: str, files: dict[str, bytes]) -> None:
        """Put a directory in place of what had its name.

        A reader may find it without its last file, but never with half of one.
        """

    @abstractmethod
    def append(self, name: str, at: int, data: bytes) -> None:
        """Cut a file to ``at`` bytes and go on with ``data`` from there: said twice, it is done once."""

    @abstractmethod
    def read_grown(self, name: str) -> bytes:
        """What was appended to a file, whole; FileNotFoundError if there is none."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or a directory; one that is not there is no error."""


def open_storage(location: str | Path) -> Storage:
    """The storage at a path, or at a URI such as ``s3://bucket/runs/first`` or ``gs://bucket/runs/first``.

    Credentials, region and endpoint are found where the store's own tools look for them: AWS_PROFILE, AWS_ENDPOINT_URL,
    GOOGLE_APPLICATION_CREDENTIALS and so on.

    Raises:
        UserError: the URI names no store that is known.
    """
    uri = str(location)
    if "://" not in uri:
        return Disk(Path(location))
    if uri.startswith("file://"):
        return Disk(Path(uri.removeprefix("file://")))
    from pyarrow import ArrowInvalid, fs

    if "@" in uri.partition("://")[2].partition("/")[0]:
        raise UserError("no credentials in a URI: it is written to logs; give them as the store's own tools take them")
    try:
        filesystem, root = fs.FileSystem.from_uri(uri)
        if not root.strip("/"):
            raise UserError(f"{uri} names no bucket")
        if isinstance(filesystem, fs.S3FileSystem) and "?" not in uri:
            filesystem = fs.S3FileSystem(
                region=filesystem.region,  # the bucket's own, which from_uri has found out
                endpoint_override=os.environ.get("AWS_ENDPOINT_URL_S3", os.environ.get("AWS_ENDPOINT_URL")),
                allow_delayed_open=True,  # one request for a small file, not three
                retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),  # the writer tries again, and says so
                connect_timeout=5,
                request_timeout=5,
            )
        elif isinstance(filesystem, fs.GcsFileSystem) and "?" not in uri:
            filesystem = fs.GcsFileSystem(retry_time_limit=datetime.timedelta(seconds=15))  # not a quarter of an hour
    except (ArrowInvalid, NotImplementedError) as error:
        raise UserError(f"cannot use {uri}: {' '.join(str(error).split())}; give a path, s3://… or gs://…") from error
    return ObjectStore(filesystem, root.rstrip("/"), uri.partition("?")[0].rstrip("/"))


class Disk(Storage):
    """A directory of a file system, local or mounted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def within(self, name: str) -> Disk:
        """A directory in this one, which need not exist yet."""
        return Disk(self.path / name)

    def names(self) -> list[str]:
        """The files and directories right here, sorted; none if there is no such directory."""
        return sorted(path.name for path in self.path.iterdir()) if self.path.is_dir() else []

    def read(self, name: str) -> bytes:
        """A file's contents; FileNotFoundError if there is none."""
        return (self.path / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """A file to read from at any place; FileNotFoundError if there is none."""
        return (self.path / name).open("rb")

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place of what had its name, atomically."""
        with replacing(self.path / name) as temporary:
            temporary.write_bytes(data)

    def write_directory(self, name: str, files: dict[str, bytes]) -> None:
        """Put a directory in place of what had its name; it appears whole."""
        self.path.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=self.path, prefix=".writing-"))
        try:
            for file_name, data in files.items():
                with (temporary / file_name).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            temporary.chmod(0o755)
            self.remove(name)
            temporary.rename(self.path / name)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def append(self, name: str, at: int, data: bytes) -> None:
        """Cut a file to ``at`` bytes and go on with ``data`` from there: said twice, it is done once."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(at)
            file.seek(at)
            file.write(data)

    def read_grown(self, name: str) -> bytes:
        """What was appended to a file, whole; FileNotFoundError if there is none."""
        return self.read(name)

    def remove(self, name: str) -> None:
        """Remove a file or a directory; one that is not there is no error."""
        path = self.path / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


_PART_BYTES = 256 * 1024
"""Bytes after which a growing file goes on in another object of a store, so that what was sent is not sent again."""


@dataclasses.dataclass
class _Parts:
    """A file that grows, as objects: ``name``, ``name.0001``, …"""

    starts: list[int]
    """Where in the file each begins."""
    last: bytes
    """Contents of the last."""


class ObjectStore(Storage):
    """A prefix of an object store, by pyarrow's file systems.

    Objects cannot grow: of a file that is appended to the last part is sent again each time. TensorBoard reads the
    parts of its events as files that follow one another.
    """

    def __init__(self, filesystem: Any, root: str, uri: str) -> None:
        self._filesystem, self._root, self._uri = filesystem, root, uri
        self._growing: dict[str, _Parts] = {}

    def __str__(self) -> str:
        return self._uri

    def within(self, name: str) -> ObjectStore:
        """What lies under a longer prefix; nothing need be there yet."""
        return ObjectStore(self._filesystem, f"{self._root}/{name}", f"{self._uri}/{name}")

    def names(self) -> list[str]:
        """The names right under the prefix, sorted."""
        return sorted(self._sizes())

    def _sizes(self) -> dict[str, int]:
        """Bytes by name, right under the prefix."""
        from pyarrow.fs import FileSelector

        found = self._filesystem.get_file_info(FileSelector(self._root, allow_not_found=True))
        return {info.base_name: info.size or 0 for info in found}

    def read(self, name: str) -> bytes:
        """An object's contents; FileNotFoundError if there is none."""
        with self._filesystem.open_input_stream(f"{self._root}/{name}") as stream:
            return bytes(stream.read())

    def open(self, name: str) -> BinaryIO:
        """An object to read from at any place; FileNotFoundError if there is none."""
        file: BinaryIO = self._filesystem.open_input_file(f"{self._root}/{name}")
        return file

    def write(self, name: str, data: bytes) -> None:
        """Put an object in place of what had its name."""
        with self._filesystem.open_output_stream(f"{self._root}/{name}") as stream:
            stream.write(data)

    def write_directory(self, name: str, files: dict[str, bytes]) -> None:
        """Put objects in place of what was under a prefix: the last comes last, what was there lacks it meanwhile."""
        self.remove(f"{name}/{list(files)[-1]}")
        for file_name, data in files.items():
            self.write(f"{name}/{file_name}", data)

    def append(self, name: str, at: int, data: bytes) -> None:
        """Cut a file to ``at`` bytes and go on with ``data`` from there: said twice, it is done once."""
        parts = self._growing.pop(name, None) or self._find_parts(name)  # found again after an error
        cut = len(parts.starts) > 1 and parts.starts[-1] > at
        while len(parts.starts) > 1 and parts.starts[-1] > at:
            self.remove(_part(name, len(parts.starts) - 1))
            parts.starts.pop()
        if cut:
            parts.last = self.read(_part(name, len(parts.starts) - 1))
        parts.last = parts.last[: at - parts.starts[-1]]
        if len(parts.last) >= _PART_BYTES:
            parts.starts.append(at)
            parts.last = b""
        parts.last += data
        self.write(_part(name, len(parts.starts) - 1), parts.last)
        self._growing[name] = parts

    def _find_parts(self, name: str) -> _Parts:
        sizes = self._sizes()
        starts = [0]
        while _part(name, len(starts)) in sizes:
            starts.append(starts[-1] + sizes[_part(name, len(starts) - 1)])
        last = _part(name, len(starts) - 1)
        return _Parts(starts, self.read(last) if last in sizes else b"")

    def read_grown(self, name: str) -> bytes:
        """What was appended to a file, whole; FileNotFoundError if there is none."""
        names, contents = self.names(), [self.read(name)]
        while (part := _part(name, len(contents))) in names:
            contents.append(self.read(part))
        return b"".join(contents)

    def remove(self, name: str) -> None:
        """Remove an object, or all under a prefix; one that is not there is no error."""
        from pyarrow.fs import FileType

        path = f"{self._root}/{name}"
        kind = self._filesystem.get_file_info(path).type
        if kind == FileType.Directory:
            self._filesystem.delete_dir(path)
        elif kind == FileType.File:
            self._filesystem.delete_file(path)


def _part(name: str, number: int) -> str:
    return f"{name}.{number:04d}" if number else name
