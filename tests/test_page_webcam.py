"""The Webcam tab in a real browser, whose camera is a film."""

from html import unescape

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")

from emotion import hub
from emotion.__main__ import main
from emotion.models.base import FaceInput
from emotion.models.emenet import EMENet, EMENetConfig
from emotion.ui import compare, image, webcam
from emotion.ui.image import EXAMPLE_ROWS
from emotion.ui.pieces import Models
from tests import browser as web

SHOWN = "#em-webcam-shown img[alt='The camera\\'s picture with {}']"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return web.random_model(tmp_path_factory.mktemp("webcam") / "model")


def two_faces():
    """A camera's picture, uint8 [480, 640, 3]."""
    pair = web.side_by_side("officer.jpg", "astronaut.jpg")
    canvas = np.full((480, 640, 3), 120, np.uint8)
    canvas[80 : 80 + pair.shape[0], : pair.shape[1]] = pair[:, :640]
    return canvas


def start(page):
    page.click("#em-webcam-camera button:has-text('Click to Access')")
    page.click("#em-webcam-camera button:has-text('Record')")


def test_two_visitors_stream_at_once_with_settings_of_their_own(folder, tmp_path):
    problems = []
    cache, options = tmp_path / "cache", web.camera(tmp_path, two_faces())
    with web.emptied(cache, set()), web.served([folder]) as address, web.chromium(*options) as browser:
        a, b = (web.open_page(browser, address, problems, "?tab=webcam", permissions=["camera"]) for _ in range(2))
        start(a)
        a.wait_for_selector(SHOWN.format("2 faces"))
        a.wait_for_selector("#em-webcam-shown:has-text('frames per second')")
        assert a.locator("#em-webcam-readout .em-rows li").count() == 8
        start(b)
        b.wait_for_selector(SHOWN.format("2 faces"))
        b.check("#em-webcam-closest input")
        b.wait_for_selector(SHOWN.format("1 face"))
        assert a.locator(SHOWN.format("2 faces")).count() == 1
        a.click("#em-webcam-camera button:has-text('Stop')")
        for page in (a, b):
            page.context.close()
    assert problems == []


def test_a_session_smooths_and_follows(folder):
    tab = webcam.WebcamTab.__new__(webcam.WebcamTab)
    tab.models, tab.detector = Models([folder]), webcam.MTCNN(longest_side=webcam.SEARCHED)
    picture = two_faces()
    loading, words, _ = tab.frame(picture, None, web.MODEL, False, 0.0)
    assert loading == web.MODEL and f"Loading {web.MODEL}" in words, "said with the first frame, done with the next"
    session, sharp, _ = tab.frame(picture, loading, web.MODEL, False, 0.0)
    again, _, readout = tab.frame(picture, session, web.MODEL, False, 0.3)
    assert again is session and session.smoother.seconds == 0.3 and "em-rows" in readout
    ids = session.stream.read(picture, 10.0).faces.track_ids
    assert set(ids) == {1, 2}, "the same persons as before"
    other, *_ = tab.frame(picture, session, web.MODEL, True, 0.3)
    assert other is not session, "another setting starts anew"
    assert tab.frame(picture, "none", "none", True, 0.3)[0] is None
    assert tab.frame(None, session, web.MODEL, True, 0.3) == (session, webcam.EMPTY, "")
    assert "2 faces" in sharp
    assert "No face" in tab.frame(np.zeros((48, 64, 3), np.uint8), None, web.MODEL, False, 0.0)[2]


def test_a_model_that_hears_says_where_it_is_given_silence(tmp_path, capsys):
    torch.manual_seed(0)
    model = EMENet(EMENetConfig(FaceInput((32, 32)), hidden=8, sound=True)).eval()
    hub.save(model, "emenet", tmp_path / "m", hub.Card("emenet_va.random", "MIT", True), "# Random weights\n")
    Image.fromarray(two_faces()).save(tmp_path / "two.png")
    models, picture = Models([tmp_path / "m"]), str(tmp_path / "two.png")
    *_, view = image.look(models, picture, "emenet_va.random")
    assert view.result.notes == ("a picture has no sound; voices were taken for silent",)
    assert view.result.notes[0] in image._notes(view.result)
    found = compare.Comparison((view.result,), view.picture)
    assert view.result.notes[0] in compare.columns(found, 0)
    tab = webcam.WebcamTab.__new__(webcam.WebcamTab)
    tab.models, tab.detector = models, webcam.MTCNN(longest_side=webcam.SEARCHED)
    _, shown, _ = tab.frame(two_faces(), None, "emenet_va.random", True, 0.0)
    assert "a camera's sound is not read; voices were taken for silent" in unescape(shown)
    assert main(["analyze", picture, "--model", str(tmp_path / "m")]) == 0
    assert view.result.notes[0] in capsys.readouterr().out
    *_, deaf = image.look(Models([web.random_model(tmp_path / "deaf")]), picture, web.MODEL)
    assert deaf.result.notes == ()


def test_a_snapshot_is_read_as_a_picture(folder, tmp_path):
    problems, options = [], web.camera(tmp_path, two_faces())
    ours = {row[0] for row in EXAMPLE_ROWS}
    with web.emptied(tmp_path / "cache", ours), web.served([folder]) as address, web.chromium(*options) as browser:
        page = web.open_page(browser, address, problems, permissions=["camera"])
        page.click("#em-picture button[aria-label='Capture from camera']")
        page.click("#em-picture button:has-text('Click to Access')")
        page.click("#em-picture button[aria-label='capture photo']")
        page.wait_for_selector("#em-details p:has-text('Face 1 of 2')")
        page.context.close()
    assert problems == []
