"""A stand-in for the Hugging Face hub: a real server with the part of its API that fetching a model takes.

Written from huggingface_hub's own code, for the hub itself cannot be reached from where tests run: `model_info`, the tree of a
revision, and `resolve` with ETag, X-Repo-Commit, ranges, and large files behind a redirect (X-Linked-Etag, X-Linked-Size).
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit


def point_at(url: str, cache: str) -> None:
    """Have huggingface_hub take a stand-in for the hub, with a cache of its own: what it read of the environment is too old."""
    from huggingface_hub import constants

    constants.ENDPOINT, constants.HF_HUB_CACHE = url, cache
    constants.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"


LARGE = (".safetensors", ".onnx")  # as the hub keeps them: apart from the repository
TOKEN = "hf_allowed"


@dataclass
class Repository:
    """A model on the stand-in.

    Attributes:
        revisions: the files of each branch or tag, by path.
        private: only those with the token see it.
        gated: those without access are told so.
    """

    revisions: dict[str, dict[str, bytes]]
    private: bool = False
    gated: bool = False

    @property
    def by_commit(self) -> dict[str, dict[str, bytes]]:
        return {commit_of(files): files for files in self.revisions.values()}


@dataclass
class Hub:
    """What is on the stand-in, what it does wrong, and what it was asked.

    Attributes:
        repositories: by OWNER/NAME.
        cuts: how often the bytes of a file end in the middle, by path.
        status: answered to everything, in place of the right answer.
        asked: requests, such as "GET /api/models/anna/photos/revision/main".
        sent: bytes of each file that were sent, by path.
        ranges: that were asked for, by path.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    cuts: Counter[str] = field(default_factory=Counter)
    status: int | None = None
    asked: list[str] = field(default_factory=list)
    sent: Counter[str] = field(default_factory=Counter)
    ranges: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.elsewhere = self.url.replace("127.0.0.1", "localhost")  # another host, as that of the hub's large files is
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the server; once is enough."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def add(self, name: str, folder: Path, *, revision: str = "main", **more: Any) -> str:
        """Put the files of a folder there, as `hf upload` does; return the commit."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        repository = self.repositories.setdefault(name, Repository({}, **more))
        repository.revisions[revision] = files
        return commit_of(files)


def commit_of(files: Mapping[str, bytes]) -> str:
    """Return 40 hexadecimal digits that depend on the files."""
    digest = hashlib.sha1()
    for path, content in sorted(files.items()):
        digest.update(path.encode() + content)
    return digest.hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Answers as https://huggingface.co does."""

    hub: Hub
    protocol_version = "HTTP/1.1"  # but a connection for each request: after `stop` there is no answer

    def log_message(self, *words: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.status is not None:
            self._error(self.hub.status)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/(.+)", path):
            self._api(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*found.groups())
        elif found := re.fullmatch(r"/cdn/(\w+)/(.+)", path):
            self._bytes(found[2], self._large(found[1]), {"ETag": f'"{found[1]}"'})
        else:
            self._error(404)

    def _api(self, name: str, what: str, revision: str) -> None:
        found = self._files(name, revision)
        if found is None:
            return
        commit, files = found
        if what == "revision":
            siblings = [{"rfilename": path} for path in files]
            self._json({"_id": "1", "id": name, "modelId": name, "sha": commit, "private": False, "siblings": siblings})
        else:
            self._json([self._entry(path, content) for path, content in files.items()])

    @staticmethod
    def _entry(path: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        if path.endswith(LARGE):
            large = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            return entry | {"lfs": large}
        return entry

    def _files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return a commit and its files, or answer why there are none."""
        repository = self.hub.repositories.get(name)
        token = self.headers.get("Authorization")
        is_known = token == f"Bearer {TOKEN}"
        if token is not None and not is_known:
            self._error(401, message="Invalid credentials in Authorization header")
        elif repository is None or (repository.private and not is_known):
            # Without a token the hub does not tell whether a repository is private or not there.
            self._error(404, "RepoNotFound") if is_known else self._error(401, message="Invalid username or password.")
        elif repository.gated and not is_known:
            self._error(403, "GatedRepo")
        elif revision in repository.by_commit:
            return revision, repository.by_commit[revision]
        elif revision in repository.revisions:
            files = repository.revisions[revision]
            return commit_of(files), files
        else:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return None

    def _resolve(self, name: str, revision: str, path: str) -> None:
        found = self._files(name, revision)
        if found is None:
            return
        commit, files = found
        if path not in files:
            self._error(404, "EntryNotFound")
            return
        content, headers = files[path], {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            headers |= {"Location": f"{self.hub.elsewhere}/cdn/{digest}/{path}", "Content-Length": "0"}
            self._send(302, headers)
        else:
            self._bytes(path, content, headers | {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    def _large(self, digest: str) -> bytes:
        every = (content for one in self.hub.repositories.values() for files in one.revisions.values() for content in files.values())  # fmt: skip
        return next(content for content in every if hashlib.sha256(content).hexdigest() == digest)

    def _bytes(self, path: str, content: bytes, headers: dict[str, str]) -> None:
        status, begin = 200, 0
        if found := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            self.hub.ranges[path] = found[0]
            status, begin = 206, int(found[1])
            headers = headers | {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"}
        self._send(status, headers | {"Content-Length": str(len(content) - begin)})
        if self.command == "HEAD":
            return
        part = content[begin:]
        if self.hub.cuts[path] > 0:
            self.hub.cuts[path] -= 1
            part = part[: len(part) // 2]
        self.wfile.write(part)
        self.hub.sent[path] += len(part)

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self._send(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        if self.command == "GET":
            self.wfile.write(body)

    def _error(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"Content-Length": "0", "X-Error-Code": code, "X-Error-Message": message}
        self._send(status, {name: value for name, value in headers.items() if value})

    def _send(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status, HTTPStatus(status).phrase)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
