"""The Spaces as visitors get them: put together, installed into a fresh environment, started, used in a browser.

Takes minutes and needs a package index:  pytest -m slow -s tests/test_spaces_live.py
"""

from __future__ import annotations

import http.server
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from emotion.ui.pieces import EXAMPLES
from tests import browser as web

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def assemble(space: str, folder: Path) -> float:
    """Write the Space's files as the script does; returns their size in MB."""
    spec = importlib.util.spec_from_file_location("deploy", ROOT / "spaces" / "deploy.py")
    deploy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(deploy)
    assert deploy.main([space, "-o", str(folder)]) == 0
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def install(requirements: Path, folder: Path) -> Path:
    """A new environment with the requirements; returns its interpreter. `uv` does it where installed, else pip."""
    python = folder / "bin" / "python"
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), "-r", str(requirements)], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-r", str(requirements)], check=True)
    return python


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, float]]:
    """The running Space's address, and when it was started (by the clock of `time.monotonic`)."""
    folder = tmp_path_factory.mktemp("space")
    size = assemble("demo", folder / "files")
    python = install(folder / "files" / "requirements.txt", folder / "environment")
    port = free_port()
    address = f"http://127.0.0.1:{port}/"
    settings = {"PORT": str(port), "HOME": str(folder / "home"), "SYSTEM": "spaces", "SPACE_ID": "me/emotion"}
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR")}
    with (folder / "log").open("wb") as log:
        started = time.monotonic()
        run = subprocess.Popen(
            [str(python), "app.py"], cwd=folder / "files", env=kept | settings, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while not answers(address):
                assert run.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
            print(f"\nSpace: {size:.1f} MB; the page answers after {time.monotonic() - started:.1f} s")
            yield address, started
        finally:
            run.terminate()
            run.wait()
            shutil.rmtree(folder / "environment")


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def test_demo_in_a_browser(demo: tuple[str, float]) -> None:
    address, started = demo
    problems: list[str] = []
    with web.chromium() as chromium:
        page = web.open_page(chromium, address, problems)
        page.set_default_timeout(600_000)
        page.set_input_files("#em-picture input[type=file]", EXAMPLES / "officer.jpg")
        page.wait_for_selector("#em-details .em-big")
        print(f"First prediction after {time.monotonic() - started:.1f} s, browser included")
        for tab in page.locator("#em-tabs button[role=tab]").all():
            tab.click()
        page.context.close()
    assert [p for p in problems if p.startswith("error")] == []  # on a Space gradio itself asks for fonts and a badge


def test_leaderboard_in_a_browser(tmp_path: Path) -> None:
    """A static Space is a folder behind a web server."""
    size = assemble("leaderboard", tmp_path / "files")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "files")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    problems: list[str] = []
    try:
        with web.chromium() as chromium:
            page = chromium.new_page()
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", lambda r: None if "127.0.0.1" in r.url else problems.append(r.url))
            page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
            rows = page.locator("table tr").count()
            assert page.title() and rows > 10
            print(f"\nLeaderboard: {size:.2f} MB, {rows} rows")
    finally:
        server.shutdown()
        server.server_close()
    assert problems == []
