"""The Scene tab in a real browser, and its API."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("gradio")
import gradio as gr
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from emotion import hub
from emotion.models import benet_decode as decode
from emotion.models.benet import BENet, BENetConfig
from emotion.outputs import Faces, Result, Task
from emotion.predict.scenes import SceneMaps, ScenePredictor
from emotion.ui import person, scene
from emotion.ui.scene import EXAMPLE_ROWS
from tests import browser as web

CONFIG = BENetConfig(
    input=decode.SceneInput(size=128), width=4, stem=4, modules=(1, 1, 1), blocks=1, bottlenecks=1, heads=("det", "bu"),
    labels=("Happiness", "Fear", "Surprise"), affect=("valence", "arousal", "dominance"), thresholds=(0.2, 0.9, 0.5),
)  # fmt: skip
PEOPLE = range(2, 9)


def tame_model(picture: np.ndarray) -> BENet:
    """Random weights, with the detector's bias such that a few people are found in this picture."""
    torch.manual_seed(1)
    model = BENet(CONFIG).eval()
    with torch.no_grad():
        for part, cells in ((model.size.low, 8), (model.size.high, 16)):
            part[-1][-1].bias.fill_(cells)
        low, high = -20.0, 20.0
        for _ in range(40):
            middle = (low + high) / 2
            for part in (model.heatmap.low, model.heatmap.high):
                part[-1][-1].bias.fill_(middle)
            found = len(ScenePredictor(model).image(picture))
            if found in PEOPLE:
                return model
            low, high = (middle, high) if found < PEOPLE[0] else (low, middle)
    raise AssertionError("no bias gives a few people")


@pytest.fixture(scope="module")
def photo(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "street.png"
    Image.fromarray(web.side_by_side("officer.jpg", "astronaut.jpg")).save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory, photo) -> Path:
    folder = tmp_path_factory.mktemp("scene") / "model"
    model = tame_model(np.asarray(Image.open(photo)))
    hub.save(model, "benet", folder, hub.Card("benet_tame.random", "MIT", True), "card")
    return folder


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    ours = {row[0] for row in EXAMPLE_ROWS}
    with web.emptied(tmp_path_factory.mktemp("cache"), ours), web.served([folder]) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with web.chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium, address):
    problems: list[str] = []
    page = web.open_page(chromium, address, problems, "?tab=scene", viewport={"width": 1280, "height": 1000})
    page.wait_for_selector("#em-scene-examples button")
    yield page
    page.context.close()
    assert problems == []


def upload(page, path: Path) -> None:
    page.set_input_files("#em-scene-picture input[type=file]", path)
    page.wait_for_selector("#em-scene-details .em-big")


def test_people_and_maps_of_a_photo(page, photo) -> None:
    upload(page, photo)
    people = page.locator("#em-scene g[data-person]").count()
    assert people in PEOPLE and page.locator("#em-scene-people label").count() == people
    assert "Person 1 of" in page.inner_text("#em-scene-details")
    ticks = page.locator("#em-scene-details .em-emotions .em-tick")
    assert sorted(ticks.nth(k).get_attribute("style") for k in range(3)) == ["left:20.0%", "left:50.0%", "left:90.0%"]
    assert "dominance" in page.inner_text("#em-scene-details")

    page.locator(f"#em-scene g[data-person='{people - 1}'] rect").dispatch_event("click", {"bubbles": True})
    page.wait_for_function(f"document.querySelector('#em-scene-details').innerText.includes('Person {people} of')")
    page.wait_for_selector(f"#em-scene g.em-selected[data-person='{people - 1}']", state="attached")
    page.locator("#em-scene-people input").nth(0).focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('#em-scene-details').innerText.includes('Person 2 of')")


def test_a_map_is_laid_over_the_picture_without_the_server(page, photo) -> None:
    upload(page, photo)
    maps = page.locator("#em-scene .em-maps button")
    assert [maps.nth(k).inner_text().split("\n")[0] for k in range(3)] == ["People", "Happiness", "Fear"]
    layer = page.locator("#em-scene .em-map")
    assert not layer.is_visible()
    page.context.set_offline(True)
    maps.nth(1).click()
    assert layer.is_visible() and maps.nth(1).get_attribute("aria-pressed") == "true"
    first = layer.get_attribute("src")
    maps.nth(2).click()
    assert layer.get_attribute("src") != first and maps.nth(1).get_attribute("aria-pressed") == "false"
    page.locator("#em-scene input[type=range]").fill("20")
    assert layer.evaluate("e => getComputedStyle(e).opacity") == "0.2"
    maps.nth(2).click()
    assert not layer.is_visible()
    page.context.set_offline(False)


def test_only_the_chosen_emotions_are_shown(page, photo) -> None:
    upload(page, photo)
    page.locator("#em-scene-emotions button[title='Remove Fear'], #em-scene-emotions .token-remove").nth(1).click()
    page.wait_for_function("!document.querySelector('#em-scene .em-maps').innerText.includes('Fear')")
    assert "Fear" not in page.inner_text("#em-scene-details .em-emotions >> nth=0")
    assert "Happiness" in page.inner_text("#em-scene .em-maps")


def test_one_threshold_for_all_takes_the_place_of_the_calibrated_ones(page, photo) -> None:
    upload(page, photo)
    before = page.inner_text("#em-scene-details h2")
    ticks = page.locator("#em-scene-details .em-emotions .em-tick")
    page.uncheck("#em-scene-calibrated input")
    page.locator("#em-scene-threshold input[type=number]").fill("0")
    page.keyboard.press("Enter")
    page.wait_for_selector("#em-scene-details h2:has-text('Fear')")
    assert all(ticks.nth(k).get_attribute("style") == "left:0.0%" for k in range(3))
    assert " · " in page.inner_text("#em-scene-people label >> nth=0")
    page.wait_for_selector("#em-scene g[data-person='0'] title:has-text(' · ')", state="attached")
    with page.expect_download() as download:
        page.click("#em-scene-json")
    found = json.loads(Path(download.value.path()).read_text())["frames"][0]["faces"]
    assert all(one["emotions"]["present"] == list(CONFIG.labels) for one in found)
    page.check("#em-scene-calibrated input")
    page.wait_for_function("t => document.querySelector('#em-scene-details h2').innerText === t", arg=before)
    assert not page.locator("#em-scene-threshold").is_visible()


def test_a_damaged_picture_gives_a_message_and_the_page_goes_on(page, photo, tmp_path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    page.set_input_files("#em-scene-picture input[type=file]", broken)
    page.wait_for_selector("#em-scene-message .em-error")
    upload(page, photo)
    page.click("#em-scene-again")
    page.wait_for_selector("#em-scene-examples button", state="visible")
    assert page.inner_text("#em-scene-details") == ""


def test_results_can_be_saved(page, photo) -> None:
    upload(page, photo)
    for kind, name in (("json", "street.json"), ("maps", "street_maps.png")):
        with page.expect_download() as download:
            page.click(f"#em-scene-{kind}")
        assert download.value.suggested_filename == name


def test_the_api_gives_the_documented_json(address, photo) -> None:
    client = Client(address, verbose=False)
    result = client.predict(handle_file(str(photo)), api_name="/analyze_scene")
    people = result["frames"][0]["faces"]
    assert len(people) in PEOPLE and people[0]["emotions"].keys() >= {"present"}
    all_present = client.predict(handle_file(str(photo)), threshold=1e-9, api_name="/analyze_scene")["frames"][0]
    assert all(one["emotions"]["present"] == list(CONFIG.labels) for one in all_present["faces"])
    with pytest.raises(AppError, match="no model 'other'"):
        client.predict(handle_file(str(photo)), "other", api_name="/analyze_scene")


def test_a_readout_of_somebody_without_emotions_and_a_scene_without_people() -> None:
    values = np.array([[0.1, 0.2, 0.3]], np.float32)
    task = Task("multilabel", CONFIG.labels, values, thresholds=np.array(CONFIG.thresholds, np.float32))
    one = Result(
        "m", (100, 80), np.zeros(1), np.zeros(1), Faces(np.array([[1, 2, 30, 40.0]]), np.ones(1)), {"emotions": task}
    )
    assert "No emotion above its threshold" in person.readout(one, 0, CONFIG.labels)
    assert person.title(one, 0) == "1"
    nobody = replace(one, frame=np.zeros(0, int), faces=Faces.empty(), tasks={"emotions": task[:0]})
    maps = SceneMaps((100, 80), None, (), np.zeros((0, 80, 100)))
    stage = person.stage(np.zeros((80, 100, 3), np.uint8), nobody, maps, ())
    assert "no person" in stage and "<rect" not in stage


class Offered:
    """A page with one scene model that is never run."""

    def names(self, reads: str) -> list[str]:
        return ["m"]


def test_another_threshold_changes_readout_titles_and_files_and_can_be_taken_back(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    values = np.array([[0.1, 0.2, 0.3]], np.float32)
    task = Task("multilabel", CONFIG.labels, values, thresholds=np.array(CONFIG.thresholds, np.float32))
    seen = Faces(np.array([[1, 2, 30, 40.0]]), np.ones(1))
    one = Result("m", (100, 80), np.zeros(1), np.zeros(1), seen, {"emotions": task}, "a.png")
    maps = SceneMaps((100, 80), None, (), np.zeros((0, 80, 100)))
    first = scene.View(one, one, np.zeros((80, 100, 3), np.uint8), maps, "m")
    with gr.Blocks():
        tab = scene.SceneTab(Offered())

    def present(view: scene.View) -> list[str]:
        document, *_ = islice(scene._saved(view), 3)
        return json.loads(document[1])["frames"][0]["faces"][0]["emotions"]["present"]

    changed = tab.judge(first, 0, CONFIG.labels, False, 0.15)
    assert ">Surprise, Fear<" in changed[tab.details] and changed[tab.details].count("left:15.0%") == 3
    assert changed[tab.people].choices == [("1 · Surprise 30 %", 0)]
    assert present(first) == [] and present(changed[tab.view]) == ["Fear", "Surprise"]
    assert tab.files[0] in changed and tab.files[-1] not in changed, "maps know no thresholds"
    back = tab.judge(changed[tab.view], 0, CONFIG.labels, True, 0.15)
    assert present(back[tab.view]) == [] and back[tab.people].choices == [("1", 0)]
    assert [f"left:{100 * t:.1f}%" in back[tab.details] for t in CONFIG.thresholds] == [True] * 3
    assert set(tab.judge(None, None, [], False, 0.5)) == {tab.threshold}
