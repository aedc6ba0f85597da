"""A Hub for tests: a real HTTP server on this machine that answers huggingface_hub as huggingface.co does.

    with HubServer() as hub:
        commit = hub.add("org/model", folder)              # a commit on main, with the content the folder has now
        hub.add("org/model", changed, tags=("v2",))        # main moves on; the first commit stays
        ... HF_ENDPOINT=hub.endpoint ...
        assert hub.files_sent() == ["config.json"]

It offers plain HTTP downloads with ranges, commits of small files by whoever has one of `tokens`, and no Xet. A data
set is the repository `datasets/org/name`. Every request is recorded, secrets apart.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE_FILE_ENDINGS = (".safetensors", ".bin", ".pt", ".model")  # what the Hub keeps in LFS
SECRET_HEADERS = ("authorization", "cookie", "proxy-authorization")
PAGE_SIZE = 50
USER = "tester"  # whose the tokens are


@dataclass(frozen=True)
class Request:
    """One request as the server saw it. `sent` counts the bytes of the body that went out."""

    method: str
    path: str
    query: str
    status: int
    sent: int
    range: str | None
    authorized: bool
    headers: dict[str, str]


@dataclass
class _Repo:
    id: str
    gated: bool
    private: bool
    readers: set[str]
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        """A branch, a tag, a commit, or the beginning of one."""
        if revision in self.refs:
            return self.refs[revision]
        found = [c for c in self.commits if c.startswith(revision)] if re.fullmatch("[0-9a-f]{5,40}", revision) else []
        return found[0] if len(found) == 1 else None


@dataclass
class _Fault:
    """What goes wrong with the next `times` requests whose path ends with `path`."""

    path: str
    times: int
    status: int | None = None
    cut_after: int | None = None


@dataclass(eq=False)
class HubServer:
    """The server. `tokens` are accepted without a right to any repository; the `readers` of a repository are too."""

    tokens: Collection[str] = ()
    takes_ranges: bool = True
    requests: list[Request] = field(default_factory=list, repr=False)
    repos: dict[str, _Repo] = field(default_factory=dict, repr=False)
    _faults: list[_Fault] = field(default_factory=list, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _server: _Server | None = field(default=None, repr=False)
    _port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> HubServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; after a stop, at the port of before."""
        self._server = _Server(("127.0.0.1", self._port), _Answer)
        self._server.hub = self
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Close the port and every connection that a client still holds open."""
        if self._server is not None:
            self._server.shutdown()
            self._server.close_connections()
            self._server.server_close()
            self._server = None

    def add(
        self,
        repo_id: str,
        folder: Path | str,
        *,
        branch: str = "main",
        tags: Sequence[str] = (),
        gated: bool = False,
        private: bool = False,
        readers: Collection[str] = (),
    ) -> str:
        """Commit the folder's present content to a branch and return the commit hash.

        Args:
            gated: everyone sees the repository and its file names, and only `readers` get files.
            private: nobody but `readers` sees it.
            readers: the tokens that may read it.
        """
        root = Path(folder)
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        repo = self.repos.setdefault(repo_id, _Repo(repo_id, gated, private, set(readers)))
        repo.gated, repo.private = gated, private
        repo.readers |= set(readers)
        digest = hashlib.sha1(f"{repo_id} {branch} {len(repo.commits)}".encode())
        for name in sorted(files):
            digest.update(name.encode() + b"\0" + hashlib.sha1(files[name]).digest())
        commit = digest.hexdigest()
        repo.commits[commit] = files
        for ref in (branch, *tags):
            repo.refs[ref] = commit
        return commit

    def cut(self, path: str, *, after: int, times: int = 1) -> None:
        """Break off the next bodies of GET requests for paths with this ending, after so many bytes."""
        self._faults.append(_Fault(path, times, cut_after=after))

    def fail(self, status: int, *, path: str = "", times: int = 1) -> None:
        """Answer the next requests for paths with this ending with this status."""
        self._faults.append(_Fault(path, times, status=status))

    def files(self, repo_id: str) -> dict[str, bytes]:
        """What a repository's main branch holds."""
        repo = self.repos[repo_id]
        return repo.commits[repo.refs["main"]]

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self.requests.clear()

    def files_sent(self) -> list[str]:
        """The names of the files of which anything was sent, sorted, one mention per request."""
        sent = [request for request in self.requests if request.method == "GET" and "/resolve/" in request.path]
        return sorted(request.path.partition("/resolve/")[2].partition("/")[2] for request in sent if request.sent)

    def bytes_sent(self, path: str = "") -> int:
        """The bytes of all bodies for paths with this ending."""
        return sum(request.sent for request in self.requests if request.path.endswith(path))

    def known(self, token: str) -> bool:
        return token in self.tokens or any(token in repo.readers for repo in self.repos.values())

    def take_fault(self, path: str, *, cuts: bool) -> _Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.times > 0 and path.endswith(fault.path) and (fault.cut_after is not None) == cuts:
                    fault.times -= 1
                    return fault
        return None

    def record(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)


class _RefusalError(Exception):
    """An answer with an error status, in the words of the Hub."""

    def __init__(
        self, status: int, message: str, *, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}


class _Server(ThreadingHTTPServer):
    hub: HubServer
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], answer: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[socket.socket] = set()
        self._open_lock = threading.Lock()
        super().__init__(address, answer)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._open_lock:
            connections = list(self._open)
        for connection in connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:  # the client was faster
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or a connection we cut, is nothing to print."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as with the Hub
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """The record takes the place of the log."""

    def do_GET(self) -> None:
        try:
            self._route()
        except _RefusalError as refusal:
            headers = {"X-Error-Message": refusal.message, "Content-Type": "application/json"} | refusal.headers
            if refusal.code is not None:
                headers["X-Error-Code"] = refusal.code
            self._send(refusal.status, json.dumps({"error": refusal.message}).encode(), headers)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def _route(self) -> None:
        path = urlsplit(self.path).path
        fault = self.server.hub.take_fault(unquote(path), cuts=False)
        if fault is not None and fault.status is not None:
            raise _RefusalError(fault.status, "a fault of the test")
        if self._token and not self.server.hub.known(self._token):
            raise _RefusalError(401, "Invalid credentials in Authorization header")
        if self.command == "POST":
            self._write(path, self.rfile.read(int(self.headers.get("Content-Length", 0))))
        elif path == "/api/whoami-v2":
            self._require_writer()
            self._json({"type": "user", "name": USER, "orgs": []})
        elif match := re.fullmatch(r"/api/models/([^/]+(?:/[^/]+)??)(?:/(revision|tree)/([^/]+)(?:/.*)?)?", path):
            repo = self._repo(match[1])
            commit = _commit(repo, unquote(match[3] or "main"))
            if match[2] == "tree":
                self._tree(repo.commits[commit])
            else:
                self._info(repo, commit)
        elif match := re.fullmatch(r"/((?:datasets/)?[^/]+(?:/[^/]+)??)/resolve/([^/]+)/(.+)", path):
            self._file(self._repo(match[1]), unquote(match[2]), unquote(match[3]))
        else:
            raise _RefusalError(404, "no such page")

    def _write(self, path: str, body: bytes) -> None:
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
            return
        self._require_writer()
        if path == "/api/repos/create":
            asked = json.loads(body)
            prefix = "datasets/" if asked.get("type") == "dataset" else ""
            repo_id = f"{prefix}{asked.get('organization') or USER}/{asked['name']}"
            url = f"{self.server.hub.endpoint}/{repo_id}"
            if repo_id in self.server.hub.repos:
                self._json({"error": "You already created this dataset repo", "url": url}, status=409)
                return
            # Newer versions of huggingface_hub say `visibility`.
            private = bool(asked.get("private")) or asked.get("visibility") == "private"
            repo = _Repo(repo_id, False, private, set(self.server.hub.tokens))
            self.server.hub.repos[repo_id] = repo
            repo.commits["0" * 40] = {}
            repo.refs["main"] = "0" * 40
            self._json({"url": url})
        elif match := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit)/main", path):
            repo = self._repo(match[2] if match[1] == "models" else f"datasets/{match[2]}")
            if match[3] == "preupload":
                files = [{"path": f["path"], "uploadMode": "regular"} for f in json.loads(body)["files"]]
                self._json({"files": [f | {"shouldIgnore": False, "oid": None} for f in files]})
            else:
                self._add_commit(repo, body)
        else:
            raise _RefusalError(404, "no such page")

    def _add_commit(self, repo: _Repo, body: bytes) -> None:
        """A commit of files, which stand in the lines of the body."""
        files = dict(repo.commits[repo.refs["main"]])
        for entry in map(json.loads, body.splitlines()):
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        commit = hashlib.sha1(f"{repo.id} {len(repo.commits)}".encode() + body).hexdigest()
        repo.commits[commit] = files
        repo.refs["main"] = commit
        url = f"{self.server.hub.endpoint}/{repo.id}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _require_writer(self) -> None:
        if self._token not in self.server.hub.tokens:
            raise _RefusalError(401, "Invalid username or password.")

    def _json(self, answer: dict[str, Any], *, status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    @property
    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").strip()

    def _repo(self, repo_id: str) -> _Repo:
        """The repository, where this client may know of it."""
        repo = self.server.hub.repos.get(repo_id)
        if repo is None or (repo.private and self._token not in repo.readers):
            # The Hub does not say which of the two it is, and asks strangers to log in.
            raise _RefusalError(404 if self._token else 401, "Repository not found", code="RepoNotFound")
        return repo

    def _info(self, repo: _Repo, commit: str) -> None:
        info = {
            "id": repo.id,
            "modelId": repo.id,
            "sha": commit,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "tags": [],
            "siblings": [{"rfilename": name} for name in sorted(repo.commits[commit])],
        }
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _tree(self, files: dict[str, bytes]) -> None:
        """The files, page by page, always with those of subfolders."""
        parts = urlsplit(self.path)
        start = int(parse_qs(parts.query).get("cursor", ["0"])[0])
        names = sorted(files)
        page = [_tree_entry(name, files[name]) for name in names[start : start + PAGE_SIZE]]
        headers = {"Content-Type": "application/json"}
        if start + PAGE_SIZE < len(names):
            query = f"recursive=True&cursor={start + PAGE_SIZE}"
            headers["Link"] = f'<{self.server.hub.endpoint}{parts.path}?{query}>; rel="next"'
        self._send(200, json.dumps(page).encode(), headers)

    def _file(self, repo: _Repo, revision: str, name: str) -> None:
        commit = _commit(repo, revision)
        if repo.gated and self._token not in repo.readers:
            message = f"Access to model {repo.id} is restricted. You must have access to it and be authenticated."
            raise _RefusalError(403 if self._token else 401, message, code="GatedRepo")
        content = repo.commits[commit].get(name)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if content is None:
            raise _RefusalError(404, "Entry not found", code="EntryNotFound", headers=headers)
        headers |= {"ETag": f'"{_etag(name, content)}"', "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not self.server.hub.takes_ranges:
            self._send(200, content, headers)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)) + 1, len(content))
        if start >= len(content):
            self._send(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._send(206, content[start:end], headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        fault = self.server.hub.take_fault(path, cuts=True) if self.command == "GET" and status < 400 else None
        sent = b"" if self.command == "HEAD" else body if fault is None else body[: fault.cut_after]
        # Recorded before it is sent: when the client has its answer, the record is complete.
        self.server.hub.record(
            Request(
                method=self.command,
                path=path,
                query=parts.query,
                status=status,
                sent=len(sent),
                range=self.headers.get("Range"),
                authorized="Authorization" in self.headers,
                headers={
                    name.lower(): "***" if name.lower() in SECRET_HEADERS else value
                    for name, value in self.headers.items()
                },
            )
        )
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(sent)
        if fault is not None:
            self.wfile.flush()
            self.close_connection = True


def _commit(repo: _Repo, revision: str) -> str:
    commit = repo.commit_of(revision)
    if commit is None:
        raise _RefusalError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
    return commit


def _etag(name: str, content: bytes) -> str:
    """SHA-256 for what is in LFS, else the hash of the git blob."""
    if name.endswith(LARGE_FILE_ENDINGS):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _tree_entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
    entry["oid"] = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    if name.endswith(LARGE_FILE_ENDINGS):
        entry["lfs"] = {"oid": _etag(name, content), "size": len(content), "pointerSize": 134}
    return entry
