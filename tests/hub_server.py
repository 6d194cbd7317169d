"""A Hub on this machine: the part of the HTTP API with which `huggingface_hub` reads, lists and writes repositories.

Kept in memory and served on loopback, one thread per connection. Large files are kept apart and served, after a
redirect, by another host name without authorisation, as the real one does. `Fault`s make it misbehave.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

LARGE = (".safetensors", ".png", ".jpg")  # what .gitattributes sends to large file storage
READER, WRITER = "token-reader", "token-writer"


@dataclass
class Repository:
    """Commits are whole trees, path -> content; `refs` maps branches and tags to commits."""

    private: bool = False
    gated: bool = False
    sdk: str | None = None
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Make `files` the tree of a new commit; returns its id."""
        seed = f"{len(self.commits)}{sorted((k, git_id(v)) for k, v in files.items())}"
        oid = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
        self.commits[oid] = dict(files)
        self.refs[branch] = oid
        return oid

    @property
    def files(self) -> dict[str, bytes]:
        """The tree of the branch main."""
        return self.commits[self.refs["main"]]


@dataclass
class Fault:
    """What goes wrong, for requests whose "METHOD path" matches `pattern`, `times` times.

    `what` is a status code, "cut" (half of the body, then the connection ends), "stall" (half of the body, then
    nothing), "slow", "long" (the body again and again), "wrong" (a changed byte), or "page" (a login page instead of
    an answer).
    """

    pattern: str
    what: int | str
    times: int = 1_000


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Hub:
    """The server; a context manager. `seen` lists the requests as "METHOD path"."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.faults: list[Fault] = []
        self.seen: list[str] = []
        self.authorised: list[str] = []  # requests that carried a token
        self.edit: Callable[[Any], Any] = lambda answer: answer  # applied to what is told about a repository
        self.ranges: list[str] = []  # what was asked for by requests for a part of a file
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, files: dict[str, bytes], kind: str = "model", **settings: bool) -> Repository:
        """A new repository with one commit."""
        made = self.repos[kind, name] = Repository(**settings)
        made.commit(files)
        return made

    def fault(self, method: str, path: str) -> int | str | None:
        for fault in self.faults:
            if fault.times and re.search(fault.pattern, f"{method} {path}"):
                fault.times -= 1
                return fault.what
        return None


def connect(patch: pytest.MonkeyPatch, url: str, home: Path, token: str = "") -> None:
    """Point the client of this process at a Hub; it reads its settings when it is imported."""
    from huggingface_hub import constants

    patch.setattr(constants, "ENDPOINT", url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its client would need a server of its own
    patch.setenv("HF_TOKEN", token)
    patch.delenv("EMOTION_HUB", raising=False)
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")


class Refusal(Exception):
    """An answer that is an error, as the Hub words it."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    """One request; `hub` is set by `Hub`."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    ROUTES = (
        ("GET", r"/api/(model|space)s/([^/]+/[^/]+)(?:/revision/([^/]+))?", "info"),
        ("GET", r"/api/(model|space)s/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
        ("GET", r"/(spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
        ("GET", r"/storage/([0-9a-f]{64})", "storage"),
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/(model|space)s/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/(spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/storage/([0-9a-f]{64})", "store"),
        ("POST", r"/api/(model|space)s/([^/]+/[^/]+)/branch/([^/]+)", "branch"),
        ("POST", r"/api/(model|space)s/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
    )

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.content = self.rfile.read(length)
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        self.hub.seen.append(f"{self.command} {parts.path}")
        self.token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.token:
            self.hub.authorised.append(self.hub.seen[-1])
        self.trouble = self.hub.fault(self.command, parts.path)
        try:
            if isinstance(self.trouble, int):
                raise Refusal(self.trouble, message="made to fail")
            if self.trouble == "page":
                return self.send(b"<html>Please log in to this network</html>", {"Content-Type": "text/html"})
            method = "GET" if self.command == "HEAD" else self.command
            for verb, pattern, name in self.ROUTES:
                if verb == method and (match := re.fullmatch(pattern, parts.path)):
                    return getattr(self, name)(*(unquote(g) if g else g for g in match.groups()))
            raise Refusal(404)
        except Refusal as no:
            headers = {"X-Error-Code": no.code, "X-Error-Message": no.message}
            self.send(b"", {k: v for k, v in headers.items() if v}, no.status)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def send(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        if self.trouble == "wrong" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.trouble == "long":
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.trouble == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif self.trouble == "stall":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.recv(1)  # until the other side is gone
            self.close_connection = True
        elif self.trouble == "long":
            with suppress(OSError):  # until the other side is gone
                while True:
                    self.wfile.write(body)
        elif self.trouble == "slow":
            for i in range(0, len(body), max(1, len(body) // 4)):
                self.wfile.write(body[i : i + max(1, len(body) // 4)])
                time.sleep(0.02)
        else:
            self.wfile.write(body)

    def send_json(self, value: object, status: int = 200) -> None:
        self.send(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

    def send_file(self, content: bytes, headers: dict[str, str]) -> None:
        """The whole file, or the rest of it from where a broken download stopped."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not match:
            return self.send(content, headers)
        start = int(match[1])
        self.hub.ranges.append(match[0])
        if start >= len(content):
            raise Refusal(416)
        headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self.send(content[start:], headers, 206)

    def opened(self, kind: str | None, name: str, write: bool = False) -> Repository:
        """The repository, if the request's token may read (or write) it."""
        kind = "space" if kind in ("space", "spaces/") else "model"
        if self.token not in ("", READER, WRITER):
            raise Refusal(401, message="Invalid credentials in Authorization header")
        found = self.hub.repos.get((kind, name))
        if found is None or (found.private and not self.token):
            raise Refusal(404 if self.token else 401, "RepoNotFound", "Repository not found")
        if write and self.token != WRITER:
            raise Refusal(403 if self.token else 401, message="You don't have the rights to write")
        return found

    def revision(self, repository: Repository, revision: str | None) -> tuple[str, dict[str, bytes]]:
        oid = repository.refs.get(revision or "main", revision)
        if oid not in repository.commits:
            raise Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid, repository.commits[oid]

    def info(self, kind: str, name: str, revision: str | None) -> None:
        repository = self.opened(kind, name)
        oid, files = self.revision(repository, revision)
        sized = "blobs" in self.query
        siblings = [{"rfilename": path} | (self.sizes(path, c) if sized else {}) for path, c in files.items()]
        told = {"id": name, "sha": oid, "private": repository.private, "siblings": siblings}
        self.send_json(self.hub.edit(told))

    def tree(self, kind: str, name: str, revision: str) -> None:
        rows = []
        for path, content in self.revision(self.opened(kind, name), revision)[1].items():
            row = {"type": "file", "path": path, "oid": git_id(content), **self.sizes(path, content)}
            if "lfs" in row:
                row["lfs"]["oid"] = row["lfs"].pop("sha256")
            rows.append(row)
        self.send_json(rows)

    @staticmethod
    def sizes(path: str, content: bytes) -> dict[str, Any]:
        """Size of a file, and checksum of one in large file storage."""
        lfs = {"lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 134}}
        return {"size": len(content)} | (lfs if path.endswith(LARGE) else {})

    def resolve(self, kind: str | None, name: str, revision: str, path: str) -> None:
        repository = self.opened(kind, name)
        if repository.gated and not self.token:
            raise Refusal(401, "GatedRepo", "Access to this model is restricted")
        oid, files = self.revision(repository, revision)
        if path not in files:
            raise Refusal(404, "EntryNotFound", "Entry not found")
        content = files[path]
        if not path.endswith(LARGE):
            return self.send_file(content, {"ETag": f'"{git_id(content)}"', "X-Repo-Commit": oid})
        self.hub.large[sha256(content)] = content
        linked = {"X-Linked-ETag": f'"{sha256(content)}"', "X-Linked-Size": str(len(content)), "X-Repo-Commit": oid}
        elsewhere = f"http://localhost:{self.hub.port}/storage/{sha256(content)}"
        self.send(b"", linked | {"Location": elsewhere}, 302)

    def storage(self, oid: str) -> None:
        if oid not in self.hub.large:
            raise Refusal(404)
        self.send_file(self.hub.large[oid], {"ETag": f'"{oid}"'})

    def create(self) -> None:
        asked = json.loads(self.content)
        name, kind = f"{asked['organization']}/{asked['name']}", asked.get("type") or "model"
        if self.token != WRITER:
            raise Refusal(403 if self.token == READER else 401, message="Invalid credentials in Authorization header")
        url = f"{self.hub.url}/{'spaces/' if kind == 'space' else ''}{name}"
        if (kind, name) in self.hub.repos:
            return self.send_json({"error": "You already created this repo", "url": url}, 409)
        made = self.hub.repos[kind, name] = Repository(asked.get("visibility") == "private", sdk=asked.get("sdk"))
        made.commit({".gitattributes": "".join(f"*{end} filter=lfs\n" for end in LARGE).encode()})
        self.send_json({"url": url})

    def validate(self) -> None:
        text = json.loads(self.content)["content"]
        try:
            head = yaml.safe_load(text.split("---")[1])
            errors = [] if isinstance(head.get("license"), str) else [{"message": "license must be a string"}]
        except (yaml.YAMLError, IndexError, AttributeError) as error:
            errors = [{"message": str(error)}]
        self.send_json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, kind: str, name: str, revision: str) -> None:
        files = self.revision(self.opened(kind, name, write=True), revision)[1]
        modes = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": git_id(files[f["path"]]) if f["path"] in files else None,
            }
            for f in json.loads(self.content)["files"]
        ]
        self.send_json({"files": modes})

    def batch(self, kind: str | None, name: str) -> None:
        self.opened(kind, name, write=True)
        objects = []
        for wanted in json.loads(self.content)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/storage/{wanted['oid']}"}}
            objects.append(wanted if wanted["oid"] in self.hub.large else wanted | {"actions": upload})
        self.send_json({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if sha256(self.content) != oid:
            raise Refusal(400, message="the content is not what its name says")
        self.hub.large[oid] = self.content
        self.send(b"")

    def branch(self, kind: str, name: str, branch: str) -> None:
        repository = self.opened(kind, name, write=True)
        if branch in repository.refs:
            raise Refusal(409, message="Reference already exists")
        repository.refs[branch] = repository.refs["main"]
        self.send_json({})

    def commit(self, kind: str, name: str, revision: str) -> None:
        repository = self.opened(kind, name, write=True)
        files = dict(self.revision(repository, revision)[1])
        for line in map(json.loads, self.content.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        request = f"refs/pr/{len(repository.commits)}" if "create_pr" in self.query else None
        oid = repository.commit(files, request or revision)
        repository.messages[oid] = json.loads(self.content.splitlines()[0])["value"]["summary"]
        place = f"{self.hub.url}/{'spaces/' if kind == 'space' else ''}{name}"
        told = {"success": True, "commitOid": oid, "commitUrl": f"{place}/commit/{oid}"}
        opened = {"pullRequestUrl": f"{place}/discussions/{request.split('/')[-1]}"} if request else {}
        self.send_json(told | opened)
