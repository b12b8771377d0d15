"""A small Hugging Face Hub on this machine, for the real client: repositories, branches, commits, LFS, downloads.

It answers as huggingface.co does where huggingface_hub can tell the difference (status codes, error headers, ETags, the
redirect of large files), remembers every request, and can lose a connection on demand.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_LFS = re.compile(r"\.(safetensors|onnx|mp4|png)$|tfevents")


@dataclasses.dataclass
class Commit:
    message: str
    files: dict[str, bytes]


@dataclasses.dataclass
class Repository:
    private: bool
    commits: dict[str, Commit] = dataclasses.field(default_factory=dict)
    branches: dict[str, str] = dataclasses.field(default_factory=dict)

    def commit(self, branch: str, message: str, files: dict[str, bytes]) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {branch} {message}".encode()).hexdigest()
        self.commits[oid] = Commit(message, files)
        self.branches[branch] = oid
        return oid

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches[branch]].files

    def messages(self) -> list[str]:
        return [commit.message for commit in self.commits.values()]


@dataclasses.dataclass
class Hub:
    users: dict[str, str]
    """Names by access token."""
    url: str = ""
    storage: str = ""
    """Where large files are: by another name, as it is another company's machine."""
    repositories: dict[str, Repository] = dataclasses.field(default_factory=dict)
    stored: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """Large files by their SHA-256."""
    requests: list[tuple[str, str, bytes]] = dataclasses.field(default_factory=list)
    """Method, path and body of every request."""
    losses: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    """Methods and parts of paths; the next request like that loses its connection half way through its body."""
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    """Of requests that come together only one is the next."""

    def seen(self, method: str, part: str) -> list[str]:
        return [path for how, path, _ in self.requests if how == method and part in path]

    def add(self, repo_id: str, files: dict[str, bytes]) -> None:
        self.repositories[repo_id] = Repository(private=False)
        self.repositories[repo_id].commit("main", "made by hand", files)


class _Refusal(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.headers = status, {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})


@contextlib.contextmanager
def running_hub(users: dict[str, str]) -> Iterator[Hub]:
    """A Hub that answers at ``hub.url`` until the block ends."""
    hub = Hub(users)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url, hub.storage = (f"http://{host}:{server.server_address[1]}" for host in ("127.0.0.1", "localhost"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        with self.hub.lock:
            loss = next((one for one in self.hub.losses if one[0] == self.command and one[1] in path), None)
            if loss:
                self.hub.losses.remove(loss)
        if loss:
            self.rfile.read(int(self.headers.get("Content-Length", 0)) // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.body = self._read_body()
        self.hub.requests.append((self.command, path, self.body))
        try:
            for method, pattern, answer in _ROUTES:
                match = re.fullmatch(pattern, path.replace("/api/datasets/", "/api/models/datasets/"))
                if match and method == self.command.replace("HEAD", "GET"):
                    return answer(self, **match.groupdict())
            raise _Refusal(404, f"no such page: {path}")
        except _Refusal as refusal:
            self._send(refusal.status, json.dumps({"error": str(refusal)}).encode(), **refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_json(self, data: Any, status: int = 200) -> None:
        self._send(status, json.dumps(data).encode(), **{"Content-Type": "application/json"})

    def _user(self) -> str | None:
        given = self.headers.get("Authorization")
        if given is None:
            return None
        user = self.hub.users.get(given.removeprefix("Bearer "))
        if user is None:
            raise _Refusal(401, "Invalid credentials in Authorization header")
        return user

    def _readable(self, repo: str) -> Repository:
        found, user = self.hub.repositories.get(repo), self._user()
        if found is None or (found.private and user != repo.split("/")[-2]):
            raise _Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        return found

    def _writable(self, repo: str) -> Repository:
        found = self._readable(repo)
        if self._user() != repo.split("/")[-2]:
            raise _Refusal(403, "You have read access but not the required permissions for this operation")
        return found

    def _commit_of(self, repository: Repository, revision: str | None) -> str:
        revision = revision or "main"
        oid = repository.branches.get(revision, revision)
        if oid not in repository.commits:
            raise _Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid

    def whoami(self) -> None:
        user = self._user()
        if user is None:
            raise _Refusal(401, "Invalid username or password.")
        self._send_json({"type": "user", "name": user, "orgs": []})

    def create(self) -> None:
        asked, user = json.loads(self.body), self._user()
        kind = "datasets/" if asked.get("type") == "dataset" else ""
        repo = f"{kind}{asked['organization'] or user}/{asked['name']}"
        if user != repo.split("/")[-2]:
            raise _Refusal(
                403, f"You don't have the rights to create a model under the namespace {repo.split('/')[0]!r}"
            )
        exists = repo in self.hub.repositories
        if not exists:
            self.hub.repositories[repo] = Repository(asked.get("visibility") == "private")
            self.hub.repositories[repo].commit("main", "initial commit", {".gitattributes": b"*.onnx filter=lfs\n"})
        self._send_json(
            {"url": f"{self.hub.url}/{repo}", "error": "You already created this model repo"}, 409 if exists else 200
        )

    def validate_yaml(self) -> None:
        self._send_json({"errors": [], "warnings": []})

    def info(self, repo: str, revision: str | None = None) -> None:
        repository = self._readable(repo)
        oid = self._commit_of(repository, revision)
        self._send_json(
            {"id": repo, "modelId": repo, "sha": oid, "private": repository.private, "siblings": [], "tags": []}
        )

    def branch(self, repo: str, revision: str) -> None:
        repository = self._writable(repo)
        if revision in repository.branches:
            raise _Refusal(409, "Reference already exists")
        repository.branches[revision] = repository.branches["main"]
        self._send(200)

    def preupload(self, repo: str, revision: str) -> None:
        repository = self._writable(repo)
        there = repository.commits[self._commit_of(repository, revision)].files
        answers = []
        for file in json.loads(self.body)["files"]:
            name, large = file["path"], bool(_LFS.search(file["path"]))
            oid = None if name not in there else _sha256(there[name]) if large else _git_oid(there[name])
            mode = "lfs" if large else "regular"
            answers.append({"path": name, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._send_json({"files": answers})

    def lfs_batch(self, repo: str) -> None:
        self._writable(repo)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.stored:
                answer["actions"] = {"upload": {"href": f"{self.hub.storage}/storage/{wanted['oid']}"}}
            objects.append(answer)
        self._send_json({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        self._require_no_token()
        if _sha256(self.body) != oid:
            raise _Refusal(400, "the content is not what its hash says")
        self.hub.stored[oid] = self.body
        self._send(200)

    def commit(self, repo: str, revision: str) -> None:
        repository = self._writable(repo)
        files = dict(repository.commits[self._commit_of(repository, revision)].files)
        message = ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.stored:
                    raise _Refusal(400, f"{value['path']} was not uploaded")
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(revision, message, files)
        self._send_json({"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid, "success": True})

    def _entries(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        entries = []
        for path, content in files.items():
            entry = {"type": "file", "path": path, "size": len(content), "oid": _git_oid(content)}
            if _LFS.search(path):
                entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
            entries.append(entry)
        return entries

    def tree(self, repo: str, revision: str) -> None:
        repository = self._readable(repo)
        self._send_json(self._entries(repository.commits[self._commit_of(repository, revision)].files))

    def paths_info(self, repo: str, revision: str) -> None:
        repository = self._readable(repo)
        wanted = parse_qs(self.body.decode())["paths"]
        files = repository.commits[self._commit_of(repository, revision)].files
        self._send_json(self._entries({path: content for path, content in files.items() if path in wanted}))

    def resolve(self, repo: str, revision: str, path: str) -> None:
        repository = self._readable(repo)
        oid = self._commit_of(repository, revision)
        content = repository.commits[oid].files.get(path)
        if content is None:
            raise _Refusal(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": oid}
        if not _LFS.search(path):
            return self._send(200, content, ETag=f'"{_git_oid(content)}"', **headers)
        digest = _sha256(content)
        self.hub.stored[digest] = content
        linked = {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        self._send(302, b"", Location=f"{self.hub.storage}/storage/{digest}", **headers, **linked)

    def _require_no_token(self) -> None:
        if self.headers.get("Authorization"):
            raise _Refusal(400, "the storage is another company's: it must not see the token")

    def fetch(self, oid: str) -> None:
        self._require_no_token()
        self._send(200, self.hub.stored[oid], ETag=f'"{oid}"')


_REPO = r"(?P<repo>(?:datasets/)?[\w.-]+/[\w.-]+)"
"""A dataset's repository is kept by its name with ``datasets/`` before it."""
_REVISION = r"(?P<revision>.+)"
_ROUTES = (
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate_yaml),
    ("GET", f"/api/models/{_REPO}", _Handler.info),
    ("GET", f"/api/models/{_REPO}/revision/{_REVISION}", _Handler.info),
    ("GET", f"/api/models/{_REPO}/tree/{_REVISION}", _Handler.tree),
    ("POST", f"/api/models/{_REPO}/branch/{_REVISION}", _Handler.branch),
    ("POST", f"/api/models/{_REPO}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", f"/api/models/{_REPO}/commit/{_REVISION}", _Handler.commit),
    ("POST", f"/api/models/{_REPO}/paths-info/{_REVISION}", _Handler.paths_info),
    ("POST", rf"/{_REPO}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", "/storage/(?P<oid>[0-9a-f]{64})", _Handler.store),
    ("GET", "/storage/(?P<oid>[0-9a-f]{64})", _Handler.fetch),
    ("GET", f"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
