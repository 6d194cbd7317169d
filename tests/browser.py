"""A page under test: a small model with random weights, the server, headless Chromium."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from emotion import hub, labels
from emotion.models.base import FaceInput
from emotion.models.esr import ESR, Block, ESRConfig
from emotion.ui import page as pages
from emotion.ui.pieces import EXAMPLES, Models

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MODEL = "esr_small.random"
TIMEOUT = 60_000  # milliseconds; never reached but on a machine that is busy with something else


def random_model(folder: Path) -> Path:
    """Write a checkpoint of four small branches with fixed random weights, decisive enough to look like a model."""
    block = (Block(12, kernel=5, pool=True), Block(16, pool=True))
    config = ESRConfig(
        input=FaceInput(size=(48, 48), channels="gray"), base=block[:1], branch=block[1:], branches=4,
        labels=labels.FERPLUS, affect=True,
    )  # fmt: skip
    torch.manual_seed(5)
    model = ESR(config)
    with torch.no_grad():
        for branch in model.branches:
            branch.fc.weight.mul_(40)
            branch.affect.weight.mul_(0.3)
    card = hub.Card(MODEL, "MIT", True, source="random weights, for tests")
    hub.save(model, "esr", folder, card, "# Random weights\n")
    return folder


@contextmanager
def served(folders: list[Path], mcp: bool = False) -> Iterator[str]:
    """The page's address, served by this process on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page, address = pages.launch(Models(folders), port=port, mcp=mcp)
    try:
        yield address
    finally:
        page.close(verbose=False)


@contextmanager
def emptied(folder: Path, ours: set[str]) -> Iterator[None]:
    """Lets gradio keep its files in a folder; afterwards none but the page's own examples may be left there."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRADIO_TEMP_DIR", str(folder))
        yield
    left = [file for file in folder.rglob("*") if file.is_file() and file.name not in ours]
    assert left == [], "nothing that was uploaded or made from it is kept"


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """The system's headless Chromium; without one the test is skipped, except on CI."""
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        reason = f"no browser found; install one of {', '.join(CHROMIUM)} (Debian: apt install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu", *options])
        yield browser
        browser.close()


def open_page(browser: Browser, address: str, problems: list[str], query: str = "", **context: object) -> Page:
    """A fresh session; errors of the page and requests that leave the machine are added to `problems`."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(TIMEOUT)
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("console", lambda m: problems.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("request", lambda r: None if _local(r.url, address) else problems.append(f"request: {r.url}"))
    page.goto(address + query)
    page.wait_for_function("window.emReady")
    return page


def camera(folder: Path, picture: np.ndarray) -> list[str]:
    """Options that make Chromium take moving copies of a picture for its camera, without asking anybody."""
    film = folder / "camera.mjpeg"
    with film.open("wb") as file:
        for shift in range(10):
            Image.fromarray(np.roll(picture, shift, axis=1)).save(file, "JPEG", quality=90)
    return [
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        f"--use-file-for-fake-video-capture={film}",
    ]


def _local(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


def side_by_side(*names: str) -> np.ndarray:
    """Examples of the page next to each other, 320 pixels high."""
    pictures = [Image.open(EXAMPLES / name).convert("RGB") for name in names]
    return np.concatenate([np.asarray(p.resize((320 * p.width // p.height, 320))) for p in pictures], axis=1)
