"""Fetching from a Hub and sending to it: the real client against a stand-in server on loopback."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, file_download

from emotion import remote
from emotion.__main__ import main
from emotion.errors import UserError
from emotion.remote import Repo
from tests.hub_server import READER, WRITER, Fault, Handler, Hub, connect, sha256

CONFIG, WEIGHTS, CARD = b'{"a": 1}', bytes(range(256)) * 200, b"# card\n"
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "README.md": CARD, "x.bin": b"x"}
NEEDED = ("config.json", "model.safetensors")
MINE = Repo("me/model")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's retries
    with Hub() as server:
        server.add("me/model", FILES)
        connect(monkeypatch, server.url, tmp_path / "home")
        yield server


def fetch(place: Repo = MINE, **options: object) -> dict[str, bytes]:
    folder = remote.fetch(place, NEEDED, ["README.md"], **options)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


WANTED = {name: FILES[name] for name in ("config.json", "model.safetensors", "README.md")}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("me/my-benet", Repo("me/my-benet")),
        ("me/my-benet@v2", Repo("me/my-benet", "v2")),
        ("hf://me/my-benet", Repo("me/my-benet")),
        ("hf://me/my.benet@refs/pr/3", Repo("me/my.benet", "refs/pr/3")),
        ("esr9.affectnet", None),
        ("./folder", None),
        ("../folder", None),
        ("/a/folder", None),
        ("folder/", None),
        ("runs/new/folder", None),
        ("C:\\models\\esr", None),
    ],
)
def test_names(name: str, place: Repo | None) -> None:
    assert remote.repo(name) == place
    if place is not None:
        assert remote.repo(name, "v9") == Repo(place.id, "v9")
        assert remote.repo(f"hf://{place}") == place


@pytest.mark.parametrize("name", ["hf://", "hf://me", "hf://datasets/me/my-benet", "hf://me/a b"])
def test_incomplete_addresses(name: str) -> None:
    with pytest.raises(UserError, match="write hf://OWNER/NAME"):
        remote.repo(name)


def test_only_what_is_needed_is_fetched_once_and_from_one_commit(hub: Hub) -> None:
    assert fetch() == WANTED
    assert not any("x.bin" in request for request in hub.seen)
    commit = hub.repos["model", "me/model"].refs["main"]
    assert all(commit in request for request in hub.seen if "/resolve/" in request)
    hub.seen.clear()
    assert fetch() == WANTED and hub.seen == ["GET /api/models/me/model"]
    hub.seen.clear()
    assert fetch(Repo("me/model", commit)) == WANTED and hub.seen == []


def test_revisions(hub: Hub) -> None:
    repository = hub.repos["model", "me/model"]
    repository.refs["v1"] = repository.refs["main"]
    repository.commit(FILES | {"config.json": b"{}"})
    assert fetch()["config.json"] == b"{}"
    assert fetch(Repo("me/model", "v1")) == WANTED
    with pytest.raises(UserError, match=r"cannot load me/model@v3 \(http.*it has no revision v3"):
        fetch(Repo("me/model", "v3"))
    with pytest.raises(UserError, match="it has no revision"):
        fetch(Repo("me/model", "0" * 40))


def test_a_download_that_breaks_off_goes_on_where_it_stopped(hub: Hub) -> None:
    hub.faults = [Fault("GET /storage", "cut", times=1)]
    assert fetch() == WANTED
    assert sum(request.startswith("GET /storage") for request in hub.seen) == 2


KILLED = """
import sys
from huggingface_hub import constants
from emotion import remote
constants.DOWNLOAD_CHUNK_SIZE = 1000
print(remote.fetch(remote.Repo("me/model"), ["config.json", "model.safetensors"]))
"""


def test_a_download_whose_process_was_killed_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    """What lies on the disk counts, not the process: after SIGKILL and a new start only the rest is fetched."""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "kill"), "NO_PROXY": "127.0.0.1,localhost"}
    hub.faults = [Fault("GET /storage", "stall", times=1)]
    run = subprocess.Popen([sys.executable, "-c", KILLED], env=os.environ | settings, stderr=subprocess.DEVNULL)
    try:
        blobs = tmp_path / "kill" / "hub" / "models--me--model" / "blobs"
        while run.poll() is None and sum(p.stat().st_size for p in blobs.glob("*.part")) < len(WEIGHTS) // 4:
            threading.Event().wait(0.05)
    finally:
        run.kill()
        run.wait()
    (partial,) = blobs.glob("*.part")
    assert WEIGHTS.startswith(partial.read_bytes())
    start = partial.stat().st_size
    again = subprocess.run(
        [sys.executable, "-c", KILLED], env=os.environ | settings, capture_output=True, text=True, check=True
    )
    assert hub.ranges == [f"bytes={start}-"] and start >= len(WEIGHTS) // 4
    assert (Path(again.stdout.strip()) / "model.safetensors").read_bytes() == WEIGHTS
    assert not list(blobs.glob("*.part"))


@pytest.mark.parametrize("left", [b"something else", WEIGHTS, WEIGHTS + b"more"])
def test_what_an_earlier_download_left_may_be_wrong(left: bytes, hub: Hub, tmp_path: Path) -> None:
    """At worst the next try begins anew."""
    blobs = tmp_path / "home" / "hub" / "models--me--model" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{sha256(WEIGHTS)}.part").write_bytes(left)
    if left != WEIGHTS:
        with pytest.raises(UserError, match="try again"):
            fetch()
    assert fetch() == WANTED


def test_a_slow_server(hub: Hub) -> None:
    hub.faults = [Fault("GET /storage", "slow")]
    assert fetch() == WANTED


def test_the_token_goes_to_the_hub_only(hub: Hub) -> None:
    hub.repos["model", "me/model"].private = True
    assert fetch(token=READER) == WANTED
    assert hub.authorised and not any("/storage/" in request for request in hub.authorised)


def test_the_token_is_not_sent_on(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the answer to HEAD says that a file lies elsewhere, nor where only that to GET does."""
    plain = Handler.resolve

    def elsewhere(self: Handler, kind: str | None, name: str, revision: str, path: str) -> None:
        if "localhost" in self.headers["Host"] or (self.command == "HEAD" and path == "README.md"):
            return plain(self, kind, name, revision, path)
        self.send(b"", {"Location": f"http://localhost:{self.hub.port}{self.path}"}, 302)

    monkeypatch.setattr(Handler, "resolve", elsewhere)
    assert fetch(token=READER) == WANTED
    away = [request for request in hub.authorised if "/resolve/" in request]
    assert sorted({request.split()[0] for request in away}) == ["GET", "HEAD"] and len(away) == 4
    assert sum(request.startswith("GET") for request in away) == 1  # the one that the Hub itself seemed to answer


def test_offline_and_unreachable(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch()
    hub.seen.clear()
    assert fetch(local_files_only=True) == WANTED and hub.seen == []
    with pytest.raises(UserError, match=r"not in the cache .* no other place was asked"):
        fetch(Repo("me/other"), local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch() == WANTED and hub.seen == []
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set and it is not in the cache"):
        fetch(Repo("me/model", "v2"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.faults = [Fault(".", 503)]
    assert fetch() == WANTED
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")  # nobody listens there
    assert fetch() == WANTED
    with pytest.raises(UserError, match=r"cannot load me/other \(http://127.0.0.1:1\): no connection .*HF_ENDPOINT"):
        fetch(Repo("me/other"))


def test_a_replaced_file_is_fetched_again_on_demand(hub: Hub) -> None:
    folder = remote.fetch(MINE, NEEDED)
    (folder / "config.json").resolve().write_bytes(b"damaged")
    assert fetch()["config.json"] == b"damaged"
    assert fetch(force_download=True) == WANTED


TROUBLE = {
    "missing": ([], {"place": Repo("me/nothing")}, "there is no such repository, or it is private: .*hf auth login"),
    "token unknown": ([], {"token": "stale"}, "the token is not accepted; log in"),
    "refused": ([Fault("GET /api", 403)], {}, "access is refused; log in"),
    "too many": ([Fault("GET /api/models/me/model/rev", 429)], {}, "too many requests; wait"),
    "server down": ([Fault(".", 500)], {}, r"a problem of its own \(HTTP 500\); try again later"),
    "storage down": ([Fault("GET /storage", 500)], {}, r"a problem of its own \(HTTP 500\); try again later"),
    "storage cleared": ([Fault("GET /storage", 410)], {}, "HTTP 410: made to fail"),
    "no resuming": (
        [Fault("GET /storage", "cut", times=1), Fault("GET /storage", 416)],
        {},
        "cannot go on with a download that broke off; try again",
    ),
    "cut for good": (
        [Fault("GET /storage", "cut", times=1), Fault("GET /storage", "page")],
        {},
        "the download broke off; try again",
    ),
    "login page": ([Fault(".", "page")], {}, "the answer is not that of a Hub; check HF_ENDPOINT"),
    "no name": ([], {"place": Repo("me/model--x")}, "no name of a repository; write OWNER/NAME"),
}


@pytest.mark.parametrize(("faults", "options", "message"), TROUBLE.values(), ids=TROUBLE.keys())
def test_trouble_is_told_in_one_line(faults: list[Fault], options: dict, message: str, hub: Hub) -> None:
    hub.faults = [Fault(f.pattern, f.what, f.times) for f in faults]
    with pytest.raises(UserError, match=message) as caught:
        fetch(**options)
    text = str(caught.value)
    assert "\n" not in text and str(options.get("place", "me/model")) in text and hub.url in text


def test_gated(hub: Hub) -> None:
    hub.repos["model", "me/model"].gated = True
    with pytest.raises(UserError, match="access must be asked for on its page; then log in"):
        fetch()
    assert fetch(token=READER) == WANTED


def test_foreign_and_oversized_repositories_are_refused_before_downloading(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("me/bert", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    with pytest.raises(UserError, match=r"me/bert holds no checkpoint .* it has no model\.safetensors"):
        fetch(Repo("me/bert"))
    monkeypatch.setattr(remote, "LIMIT", 10_000)
    with pytest.raises(UserError, match=r"model\.safetensors has 0\.1 MB, more than the 0 MB"):
        fetch()
    monkeypatch.undo()
    connect(monkeypatch, hub.url, tmp_path / "home")
    for name in ("config.json", "README.md"):
        hub.add("me/padded", WANTED | {name: b" " * 1_500_000})
        with pytest.raises(UserError, match=rf"its {re.escape(name)} has 1\.5 MB, more than the 1 MB"):
            fetch(Repo("me/padded"))
    assert not any("/resolve/" in request for request in hub.seen)


@pytest.mark.parametrize("told", [True, False], ids=["of a told size", "of no told size"])
@pytest.mark.parametrize("path", ["/resolve/.*config.json", "/resolve/.*README.md", "/storage"])
def test_a_file_without_end_is_not_kept(
    path: str, told: bool, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "LIMIT", 100_000)
    monkeypatch.setattr(remote, "SMALL", 1000)
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    if not told:
        hub.edit = siblings(lambda row: {"rfilename": row["rfilename"]})
    assert fetch() == WANTED
    shutil.rmtree(tmp_path / "home")
    hub.faults = [Fault(f"GET .*{path}", "long")]
    with pytest.raises(UserError, match=r"the download of .* was stopped: it has more than the \d+ bytes expected"):
        fetch()
    assert not list((tmp_path / "home").rglob("*.part"))


def siblings(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    """An answer about a repository, every file's row changed."""
    return lambda answer: answer | {"siblings": [change(row) for row in answer["siblings"]]}


def large(**changes: object) -> Callable[[Any], Any]:
    """Other facts about the file in large file storage; None leaves one out."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        kept = {k: v for k, v in (row.get("lfs", {}) | changes).items() if v is not None}
        return row | {"lfs": kept} if "lfs" in row else row

    return siblings(change)


NO_HUBS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda _: {},
    "list": lambda _: [],
    "null": lambda _: None,
    "text": lambda _: "hello",
    "number": lambda _: 3,
    "nested": lambda _: {"id": "me/model", "sha": {"a": [[[[]]]]}},
    "no commit": lambda answer: answer | {"sha": None},
    "commit a number": lambda answer: answer | {"sha": 7},
    "commit a path": lambda answer: answer | {"sha": "../../../outside"},
    "commit with a line end": lambda answer: answer | {"sha": answer["sha"] + "\n"},
    "no names": siblings(lambda _: {}),
    "files are text": siblings(lambda row: row["rfilename"]),
    "files are numbers": lambda answer: answer | {"siblings": 5},
    "names are lists": siblings(lambda row: row | {"rfilename": [row["rfilename"]]}),
    "size is text": siblings(lambda row: row | {"size": "big"}),
    "size is negative": siblings(lambda row: row | {"size": -1}),
    "size has no end": siblings(lambda row: row | {"size": float("inf")}),
    "size has 401 digits": siblings(lambda row: row | {"size": 10**400}),
    "storage is a list": siblings(lambda row: row | {"lfs": [1]}),
    "no checksum": large(sha256=None),
    "checksum a number": large(sha256=5),
    "checksum too short": large(sha256="ab"),
    "checksum a path": large(sha256="../" * 8 + "tmp/outside"),
}


@pytest.mark.parametrize("edit", NO_HUBS.values(), ids=NO_HUBS.keys())
def test_json_that_is_no_hubs_answer(edit: Callable[[Any], Any], hub: Hub) -> None:
    hub.edit = edit
    with pytest.raises(UserError, match=r"cannot load me/model \(http.*the answer is not that of a Hub") as caught:
        fetch()
    assert "\n" not in str(caught.value) and not any("/resolve/" in request for request in hub.seen)


def test_an_answer_nested_without_end(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handler, "info", lambda self, *_: self.send(b"[" * 100_000))
    with pytest.raises(UserError, match="the answer is not that of a Hub"):
        fetch()


def test_a_hostile_hub_reaches_nothing_outside_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it gives as commit, checksum, file name or ETag: files elsewhere are not made, changed or deleted."""
    victim = tmp_path / "outside" / "victim"
    victim.parent.mkdir()
    (tmp_path / "outside" / "victim.part").write_bytes(b"precious")
    up = "../" * 6
    evil: list[Callable[[Any], Any]] = [
        large(sha256=str(victim)),
        large(sha256=f"{up}outside/victim"),
        lambda answer: answer | {"sha": f"{up}outside"},
        siblings(lambda row: row | {"rfilename": f"../../{row['rfilename']}"}),
    ]
    for hub.edit in evil:
        with pytest.raises(UserError):
            fetch()
    hub.edit = lambda answer: answer
    plain = Handler.send
    for name in ("ETag", "X-Linked-ETag", "X-Repo-Commit"):
        changed = {name: f'"{up}outside/victim"'}
        monkeypatch.setattr(
            Handler,
            "send",
            lambda self, body, headers=None, status=200, c=changed: plain(self, body, (headers or {}) | c, status),
        )
        assert fetch(force_download=True) == WANTED
    assert {p.name: p.read_bytes() for p in victim.parent.iterdir()} == {"victim.part": b"precious"}
    assert {p.name for p in tmp_path.iterdir()} == {"home", "outside"}
    assert not [p for p in (tmp_path / "home").rglob("*") if ".." in os.path.relpath(p.resolve(), tmp_path / "home")]


def test_what_a_server_says_cannot_draw_on_the_terminal(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Handler, *_: object) -> None:
        self.send(b"", {"X-Error-Message": "\x1b[2J" + "long " * 1000}, 418)

    monkeypatch.setattr(Handler, "info", refuse)
    with pytest.raises(UserError, match="HTTP 418") as caught:
        fetch()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("revision", ["../../x", "/etc", "a b", "..", "a:b", ""])
def test_revisions_that_cannot_be(revision: str) -> None:
    with pytest.raises(UserError, match="is no branch, tag or commit of me/model"):
        Repo("me/model", revision)


def test_a_cache_without_links(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    assert fetch() == WANTED and fetch(local_files_only=True) == WANTED


def test_a_folder_of_the_cache_that_lacks_a_file_is_completed(hub: Hub) -> None:
    (remote.fetch(MINE, NEEDED, ["README.md"]) / "model.safetensors").unlink()
    with pytest.raises(UserError, match="it is not in the cache"):
        fetch(local_files_only=True)
    assert fetch() == WANTED


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(number: int, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(number, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(UserError, match="the disk is full; free some space, or set HF_HOME"):
        fetch()


def test_cache_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot load me/model .*HF_HOME chooses another folder"):
        fetch(cache_dir=tmp_path / "file")


def test_cached(hub: Hub) -> None:
    assert remote.cached_size(MINE, "model.safetensors") is None
    fetch()
    hub.seen.clear()
    assert remote.cached_size(MINE, "model.safetensors") == len(WEIGHTS)
    assert remote.cached_size(Repo("me/other"), "model.safetensors") is None
    assert hub.seen == []


def test_trusted_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EMOTION_HUB", raising=False)
    assert remote.trusted("esr9.affectnet") is None
    monkeypatch.setenv("EMOTION_HUB", "me")
    assert remote.trusted("esr9.affectnet") == Repo("me/esr9.affectnet")
    assert remote.trusted("esr9.affectnet", "v2") == Repo("me/esr9.affectnet", "v2")


@pytest.mark.parametrize("owner", ["https://huggingface.co/me", "me/", "me/models", "a b", "..", "me--you", "-me"])
def test_a_namespace_that_cannot_be(
    owner: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMOTION_HUB", owner)
    with pytest.raises(UserError, match=f"EMOTION_HUB must be a name on a Hub, .*not {re.escape(repr(owner))}"):
        remote.trusted("esr9.affectnet")
    assert main(["models", "--method", "esr"]) == 2
    assert "EMOTION_HUB must be a name" in capsys.readouterr().err


def test_push_then_fetch(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(FILES["model.safetensors"])
    files = {name: content for name, content in WANTED.items() if name != "model.safetensors"}
    files |= {"README.md": b"---\nlicense: mit\n---\n", "model.safetensors": tmp_path / "weights"}
    url = remote.push("hf://me/new", files, "First", private=True, token=WRITER)
    repository = hub.repos["model", "me/new"]
    assert repository.private and url.endswith(repository.refs["main"]) and len(repository.commits) == 2
    assert fetch(Repo("me/new"), token=READER) == WANTED | {"README.md": files["README.md"]}
    with pytest.raises(UserError, match="there is no such repository, or it is private"):
        fetch(Repo("me/new"), cache_dir=tmp_path / "elsewhere")
    remote.push("me/new", {"a.txt": b"a"}, "Second", token=WRITER)
    assert repository.files.keys() == {*files, "a.txt", ".gitattributes"}
    remote.push("me/new", {"a.txt": b"b"}, "Third", only=True, token=WRITER)
    assert repository.files.keys() == {"a.txt", ".gitattributes"} and repository.files["a.txt"] == b"b"


def test_push_of_a_space(hub: Hub) -> None:
    remote.push("me/page", {"README.md": b"---\nlicense: mit\n---\n"}, "Page", sdk="gradio", token=WRITER)
    assert hub.repos["space", "me/page"].sdk == "gradio"
    assert "README.md" in hub.repos["space", "me/page"].files


BAD_PUSH = {
    "no name": ("my folder", WRITER, {}, "'my folder' is no name of a repository; write OWNER/NAME"),
    "no owner": ("model", WRITER, {}, "write OWNER/NAME"),
    "not logged in": ("me/new", "", {}, r"cannot publish to me/new \(http.*log in with"),
    "may only read": ("me/new", READER, {}, "access is refused; log in .* a token that may do this"),
    "bad card": ("me/new", WRITER, {"README.md": b"---\nlicense: [\n---\n"}, "Invalid metadata in README.md"),
    "public already": ("me/model", WRITER, {}, "me/model exists and is public"),
}


@pytest.mark.parametrize(("name", "token", "files", "message"), BAD_PUSH.values(), ids=BAD_PUSH.keys())
def test_refused_push(name: str, token: str, files: dict[str, bytes], message: str, hub: Hub) -> None:
    with pytest.raises(UserError, match=message) as caught:
        remote.push(name, files or {"a": b"a"}, "Try", private=True, token=token or False)
    assert "\n" not in str(caught.value)
    assert hub.repos["model", "me/model"].files == FILES


def test_a_broken_upload_publishes_nothing(hub: Hub) -> None:
    hub.faults = [Fault("PUT", 500)]
    with pytest.raises(UserError, match=re.escape("a problem of its own (HTTP 500)")):
        remote.push("me/model", {"model.safetensors": b"new"}, "Try", token=WRITER)
    assert hub.repos["model", "me/model"].files == FILES
