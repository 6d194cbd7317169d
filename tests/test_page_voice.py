"""The Voice & face tab in a real browser: films, voices alone, what carried the decision, the API."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("gradio")
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import Page

from emotion import hub
from emotion.models.avfusion import AVFusion, AVFusionConfig
from emotion.models.base import AudioInput, ClipInput, FaceInput
from emotion.outputs import Faces, Result, Task
from emotion.ui import modalities
from emotion.ui import voice as voice_tab
from tests import browser as web

MEDIA = Path(__file__).parent / "media"
MODEL = "avfusion_small.random"
WORDS = ("calm", "anger")


def random_model(folder: Path) -> Path:
    """Write a fusion checkpoint of fixed random weights."""
    torch.manual_seed(2)
    config = ClipInput(visual=FaceInput(size=(32, 32)), audio=AudioInput(coefficients=8, hop=1024), frames=4)
    model = AVFusion(AVFusionConfig(input=config, heads=2))
    model.fc.weight.data *= 5
    hub.save(model, "avfusion", folder, hub.Card(MODEL, "MIT", True, source="random weights, for tests"), "# Random\n")
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folders = [web.random_model(tmp_path_factory.mktemp("face") / "model"),
               random_model(tmp_path_factory.mktemp("clip") / "model")]  # fmt: skip
    with web.emptied(tmp_path_factory.mktemp("cache"), set()), web.served(folders) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with web.chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium: object, address: str) -> Iterator[Page]:
    problems: list[str] = []
    opened = web.open_page(chromium, address, problems, "?tab=voice", viewport={"width": 1280, "height": 1000})
    yield opened
    opened.context.close()
    assert problems == []


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of a rising tone."""
    path = tmp_path_factory.mktemp("sound") / "voice.wav"
    t = np.arange(6 * 16000) / 16000
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 60 * t) * t), 16000)
    return path


def save(page: Page, kind: str) -> str:
    with page.expect_download() as download:
        page.click(f"#em-voice-{kind}")
    return Path(download.value.path()).read_text("utf-8")


def test_a_film_shows_what_carried_the_decision(page: Page) -> None:
    page.set_input_files("#em-voice-film input[type=file]", MEDIA / "talk_man_1.mp4")
    page.wait_for_selector("#em-voice-readout .em-big")
    text = page.inner_text("#em-voice-readout")
    assert "without the voice" in text and "without the face" in text and "Attention" in text
    assert [h.inner_text() for h in page.locator(".em-modalities thead th").all()] == [
        "expression", "together", "voice alone", "face alone"]  # fmt: skip
    assert page.locator(".em-modalities tbody tr").count() == 8
    assert not page.locator("#em-voice-timeline h4").count(), "a single moment has no timeline"
    assert page.locator("#em-voice-player video").is_visible()
    document = json.loads(save(page, "json"))
    assert document["model"] == MODEL and "expression_face" in document["frames"][0]["faces"][0]
    page.click("#em-voice-again")
    page.wait_for_selector("#em-voice-message:has-text('Choose or record')")


def test_a_voice_alone_works(page: Page, voice: Path) -> None:
    page.set_input_files("#em-voice-sound input[type=file]", voice)
    page.wait_for_selector("#em-voice-readout .em-big")
    assert "voice alone" in page.inner_text("#em-voice-message")
    assert "without the face" not in page.inner_text("#em-voice-readout")
    assert page.locator("#em-voice-timeline h4").count() == 1
    assert len(list(csv.DictReader(save(page, "csv").splitlines()))) == 5


def test_what_cannot_be_read_is_told_in_place(page: Page, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes((MEDIA / "talk_man_1.mp4").read_bytes()[:300])
    page.set_input_files("#em-voice-film input[type=file]", tmp_path / "broken.mp4")
    page.wait_for_selector("#em-voice-message .em-error")
    assert "broken.mp4" in page.inner_text("#em-voice-message")


def test_the_api(address: str, voice: Path) -> None:
    client = Client(address, verbose=False)
    document = client.predict(handle_file(voice), api_name="/analyze_clip")
    assert document["model"] == MODEL and len(document["frames"]) == 5
    assert document["frames"][0]["faces"][0]["expression"]["label"]
    film = handle_file(MEDIA / "talk_man_1.mp4")
    document = client.predict(film, MODEL, 0, True, api_name="/analyze_clip")
    assert len(document["frames"]) == 1 and "contribution" in document["frames"][0]["faces"][0]
    with pytest.raises(AppError, match="no model 'other'"):
        client.predict(film, "other", api_name="/analyze_clip")


def result(whole: float, voice: float, face: float) -> Result:
    """One moment with these probabilities of the second class: together, voice alone, face alone."""

    def task(p: float) -> Task:
        return Task("categorical", WORDS, np.array([[1 - p, p]]))

    tasks = {"expression": task(whole), "expression_voice": task(voice), "expression_face": task(face)}
    tasks["contribution"] = Task("continuous", ("voice", "face"), np.array([[whole - face, whole - voice]]))
    tasks["attention"] = Task("continuous", ("voice", "face"), np.array([[0.3, 0.1]]))
    return Result("m", (4, 4), np.zeros(1), np.zeros(1), Faces([[0, 0, 1, 1]], [1.0]), tasks)


def test_the_timeline_shows_each_modality() -> None:
    one = result(0.9, 0.8, 0.2)
    tasks = {name: Task.concatenate([task, task]) for name, task in one.tasks.items()}
    two = replace(
        one, timestamps=np.arange(2.0), frame=np.arange(2), faces=Faces(np.ones((2, 4)), np.ones(2)), tasks=tasks
    )
    strips = re.findall("<h4>(.*?):", voice_tab.drawn(two, 4.0))
    assert strips == ["Together", "Voice alone", "Face alone"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((0.9, 0.8, 0.2), ("The voice carried it", "without the voice it falls to 20 %", "too picks")),
        ((0.9, 0.2, 0.95), ("The face carried it", "without the voice it rises to 95 %", "on the contrary")),
        ((0.9, 0.88, 0.9), ("Either would do", "without the voice it stays at 90 %")),
        ((0.9, 0.1, 0.2), ("It took both", "without the face it falls to 10 %")),
    ],
)
def test_words_follow_the_numbers(values: tuple[float, ...], words: tuple[str, ...]) -> None:
    text = modalities.carried(result(*values))
    assert all(word in text for word in words), text
