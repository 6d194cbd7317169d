"""The Compare tab in a real browser, and its API."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from emotion import hub
from emotion.errors import UserError
from emotion.outputs import Faces, Result, Task
from emotion.ui import compare
from emotion.ui.compare import Comparison, overview, verdict
from emotion.ui.image import EXAMPLE_ROWS
from tests import browser as web

OTHER = "esr_other.random"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The random model, and the same under another name."""
    base = tmp_path_factory.mktemp("compare")
    first, second = web.random_model(base / "first"), web.random_model(base / "second")
    document = json.loads((second / hub.CONFIG).read_text())
    document["card"]["name"] = OTHER
    (second / hub.CONFIG).write_text(json.dumps(document))
    return [first, second]


def test_models_read_the_same_faces_side_by_side(folders, tmp_path):
    problems, photo = [], tmp_path / "two.png"
    Image.fromarray(web.side_by_side("officer.jpg", "astronaut.jpg")).save(photo)
    ours = {row[0] for row in EXAMPLE_ROWS}
    with web.emptied(tmp_path / "cache", ours), web.served(folders) as address, web.chromium() as browser:
        page = web.open_page(browser, address, problems, "?tab=compare", viewport={"width": 1280, "height": 1000})
        page.click("#em-compare-models label:has-text('ferplus')")
        page.set_input_files("#em-compare-picture input[type=file]", photo)
        page.wait_for_selector("#em-compare-details .em-card")
        assert page.locator("#em-compare-details .em-card > h3").all_inner_texts() == [web.MODEL, OTHER]
        assert page.inner_text("#em-compare-details h2").startswith("Face 1. Both models say ")
        assert page.locator("#em-compare-table tbody tr").count() == 2
        assert "100 % of the faces" in page.inner_text("#em-compare-table")
        page.click("#em-compare-hero img", position={"x": 10, "y": 200})
        page.locator(".em-many label:has(input)").nth(1).click()
        page.wait_for_selector("#em-compare-details h2:has-text('Face 2')")
        page.click(f"#em-compare-models label:has-text('{OTHER}')")
        page.wait_for_selector("#em-compare-message:has-text('One model is chosen')")
        page.click(f"#em-compare-models label:has-text('{web.MODEL}')")
        page.wait_for_selector("#em-compare-message .em-error:has-text('no model of faces is chosen')")
        client = Client(address, verbose=False)
        found = client.predict(handle_file(photo), [web.MODEL, OTHER], api_name="/compare")
        assert found["agreement"] == 1 and [r["model"] for r in found["results"]] == [web.MODEL, OTHER]
        assert len(found["expressions"]) == 2 and set(found["expressions"][0]) == {web.MODEL, OTHER}
        with pytest.raises(AppError):
            client.predict(handle_file(photo), ["none"], api_name="/compare")
        page.context.close()
    assert problems == []


def test_a_picture_stays_when_models_are_chosen_just_before_it(folders, tmp_path, monkeypatch):
    problems, photo, free, read = [], tmp_path / "two.png", threading.Event(), compare.read

    def busy(*inputs):
        free.wait()
        yield from read(*inputs)

    Image.fromarray(web.side_by_side("officer.jpg", "astronaut.jpg")).save(photo)
    monkeypatch.setattr(compare, "read", busy)
    with web.served(folders) as address, web.chromium() as browser:
        page = web.open_page(browser, address, problems, "?tab=compare", viewport={"width": 1280, "height": 1000})
        someone = Client(address, verbose=False).submit(handle_file(photo), [web.MODEL], api_name="/compare")
        page.click("#em-compare-models label:has-text('ferplus')")  # waits for its turn, as does the picture
        page.set_input_files("#em-compare-picture input[type=file]", photo)
        page.wait_for_selector("#em-compare-picture img")
        free.set()
        page.wait_for_selector("#em-compare-details .em-card")
        page.click(f"#em-compare-models label:has-text('{OTHER}')")
        page.wait_for_selector("#em-compare-message:has-text('One model is chosen')")
        someone.result()
        page.context.close()
    assert problems == []


def test_agreement_counts_pairs_of_models():
    faces = Faces(np.tile([0, 0, 9, 9], (2, 1)), np.ones(2))

    def said(model, *labels):
        vocabulary = ("neutral", "fear")
        values = np.float32([[label == v for v in vocabulary] for label in labels])
        return Result(
            model, (9, 9), np.zeros(1), np.zeros(2), faces, {"expression": Task("categorical", vocabulary, values)}
        )

    silent = Result("va", (9, 9), np.zeros(1), np.zeros(2), faces, {})
    found = Comparison(
        (said("a", "fear", "fear"), said("b", "fear", "neutral"), said("<c>", "fear", "neutral"), silent),
        np.zeros((9, 9, 3), np.uint8),
    )
    assert found.agreement == pytest.approx((3 + 1) / 6)
    assert [found.agree(n) for n in range(2)] == [True, False]
    assert verdict(found, 0) == "All 3 models say fear."
    assert verdict(found, 1) == "The models disagree: neutral (2), fear (1)."
    assert "67 % of the faces" in overview(found) and "2 ≠" in overview(found) and "<c>" not in overview(found)
    assert Comparison((silent,), found.picture).agreement is None


def test_a_face_belongs_to_the_smallest_person_around_it():
    faces = np.array([[10, 10, 20, 20], [60, 10, 70, 20], [200, 10, 210, 20]], np.float32)
    people = np.array([[0, 0, 100, 100], [5, 5, 30, 90], [300, 0, 310, 100]], np.float32)
    assert compare.around(faces, people).tolist() == [1, 0, -1]
    assert compare.around(faces, people[:0]).tolist() == [-1, -1, -1]
    assert compare.around(faces[:0], people).tolist() == []


class Offered:
    """A page with a face model that finds two faces and a scene model that finds one person, around the second."""

    def names(self, reads="FaceInput"):
        return {"FaceInput": ["faces"], "SceneInput": ["scenes"]}[reads]

    def predictor(self, name, reads="FaceInput"):
        assert name in self.names(reads)
        self.reads = reads
        return self

    def detect(self, pictures):
        return [Faces(np.array([[0, 0, 9, 9], [20, 0, 29, 9]]), np.ones(2))]

    def image(self, picture, source, faces=None):
        if self.reads == "SceneInput":
            task = Task("multilabel", ("Joy", "Rage"), np.array([[0.8, 0.1]]))
            return Result(
                "scenes", (40, 40), np.zeros(1), np.zeros(1), Faces([[15, 0, 35, 39]], [1]), {"emotions": task}
            )
        task = Task("categorical", ("neutral", "fear"), np.eye(2))
        return Result("faces", (40, 40), np.zeros(1), np.zeros(2), faces, {"expression": task})


def test_a_scene_model_s_person_stands_beside_the_face(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    *words, found = compare.read(Offered(), str(tmp_path / "a.png"), ["scenes", "faces"])
    assert "scenes reads the scene…" in words and found.agreement is None
    table = overview(found)
    assert table.index(">faces<") < table.index(">scenes<") and "<td>nobody</td>" in table and "<td>Joy</td>" in table
    assert "No person found around this face" in compare.columns(found, 0)
    beside = compare.columns(found, 1)
    assert "fear" in beside and ">Joy<" in beside and "80 %" in beside
    with pytest.raises(UserError, match="no model of faces is chosen"):
        list(compare.read(Offered(), str(tmp_path / "a.png"), ["scenes"]))
