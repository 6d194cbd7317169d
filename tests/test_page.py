"""The page in a real browser, its API, and that nothing leaves the machine."""

import base64
import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio")
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

import app
from emotion import draw, registry
from emotion.errors import UserError
from emotion.outputs import Faces, Result
from emotion.ui import page as pages
from emotion.ui import theme
from emotion.ui.image import EXAMPLE_ROWS, face_at
from emotion.ui.pieces import EXAMPLES, Models
from tests import browser as web


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return web.random_model(tmp_path_factory.mktemp("page") / "model")


@pytest.fixture(scope="module")
def address(folder, tmp_path_factory):
    with (
        web.emptied(tmp_path_factory.mktemp("cache"), {row[0] for row in EXAMPLE_ROWS}),
        web.served([folder]) as address,
    ):
        yield address


@pytest.fixture(scope="module")
def chromium():
    with web.chromium() as browser:
        yield browser


@pytest.fixture
def open_page(chromium, address):
    """Opens sessions; fails the test if one of them had an error or asked for anything outside this machine."""
    problems, opened = [], []

    def open_one(query="", **context):
        size = {"width": 1280, "height": 1000}
        opened.append(web.open_page(chromium, address, problems, query, viewport=size, **context))
        return opened[-1]

    yield open_one
    for page in opened:
        page.context.close()
    assert problems == []


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files to upload: two faces, three faces, no face, no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    arrays = {
        "two": web.side_by_side("officer.jpg", "astronaut.jpg"),
        "three": web.side_by_side("synthetic.png", "officer.jpg", "astronaut.jpg"),
        "none": np.full((120, 160, 3), 128, np.uint8),
    }
    files = {name: folder / f"{name}.png" for name in arrays}
    for name, array in arrays.items():
        Image.fromarray(array).save(files[name])
    files["broken"] = folder / "broken.jpg"
    files["broken"].write_bytes((EXAMPLES / "officer.jpg").read_bytes()[:700])
    return files


def upload(page, file):
    page.set_input_files("#em-picture input[type=file]", file)


# Put a PNG file, given as base64, into the clipboard.
COPY = """text => navigator.clipboard.write([new ClipboardItem({'image/png':
    new Blob([Uint8Array.from(atob(text), c => c.charCodeAt(0))], { type: 'image/png' })})])"""


def heading(page):
    """Waits for the readout of a face and returns which one it is of how many."""
    page.wait_for_selector("#em-details .em-big")
    return page.inner_text("#em-details p.em-text").split(",")[0]


def expect_heading(page, text):
    page.wait_for_function(f"document.querySelector('#em-details p.em-text')?.innerText.startsWith({text!r})")


def save(page, kind):
    with page.expect_download() as download:
        page.click(f"#em-{kind}")
    return Path(download.value.path())


def click_face(page, box):
    """Click the middle of a box given in pixels of the picture, wherever the page shows it."""
    picture = page.locator("#em-hero img")
    natural = picture.evaluate("e => [e.naturalWidth, e.naturalHeight]")
    shown = picture.bounding_box()
    scale = min(shown["width"] / natural[0], shown["height"] / natural[1])
    middle = [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]
    margins = [(shown[side] - scale * n) / 2 for side, n in zip(("width", "height"), natural)]
    picture.click(position=dict(zip("xy", (m + scale * c for m, c in zip(margins, middle)))))


def test_a_photo_gives_faces_and_a_click_or_a_key_gives_details(open_page, pictures):
    page = open_page()
    upload(page, pictures["two"])
    assert heading(page) == "Face 1 of 2"
    page.wait_for_selector("#em-faces label:has(input)")
    assert page.locator("#em-faces input").count() == 2
    first = page.inner_html("#em-details")
    faces = json.loads(save(page, "json").read_text("utf-8"))["frames"][0]["faces"]
    click_face(page, faces[1]["box"])
    expect_heading(page, "Face 2 of 2")
    assert page.inner_html("#em-details") != first
    click_face(page, faces[0]["box"])
    expect_heading(page, "Face 1 of 2")
    page.locator("#em-faces input").nth(0).focus()
    page.keyboard.press("Tab")  # Gradio gives every radio button a name of its own: arrows do not move between them
    page.keyboard.press("Space")
    expect_heading(page, "Face 2 of 2")


@pytest.mark.parametrize("way", ["button", "keys"])
def test_a_picture_can_be_pasted(open_page, pictures, way):
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(COPY, base64.b64encode(pictures["two"].read_bytes()).decode())
    if way == "keys":
        page.keyboard.press("Control+v")
    else:
        page.click("#em-picture button[aria-label='Paste from clipboard']")
    assert heading(page) == "Face 1 of 2"


def test_the_readout_names_every_class_and_shows_where_each_branch_looked(open_page, pictures):
    page = open_page()
    upload(page, pictures["two"])
    heading(page)
    rows = page.locator("#em-details .em-rows").first.inner_text().split()
    assert [w for w in rows if w.isalpha()] == list(draw.PALETTE)[:8]
    assert page.locator(".em-cam-branches figure").count() == 4
    assert page.locator(".em-circumplex svg").get_attribute("aria-label").startswith("valence ")
    page.locator(".em-cam input").fill("0")
    assert page.locator(".em-cam-main .em-map").evaluate("e => getComputedStyle(e).opacity") == "0"
    page.locator("#em-details summary").click()
    assert page.locator(".em-table tbody tr").count() == 4


def test_results_can_be_saved(open_page, pictures):
    page = open_page()
    upload(page, pictures["two"])
    heading(page)
    saved = {kind: save(page, kind) for kind in ("json", "csv", "png")}
    document = json.loads(saved["json"].read_text("utf-8"))
    assert document["source"] == "two.png" and len(document["frames"][0]["faces"]) == 2
    assert len(list(csv.DictReader(saved["csv"].open()))) == 2
    original = np.asarray(Image.open(pictures["two"]))
    drawn = np.asarray(Image.open(saved["png"]))
    assert drawn.shape == original.shape and (drawn != original).any()


def test_a_damaged_file_gives_a_message_in_place_and_the_page_goes_on(open_page, pictures):
    page = open_page()
    upload(page, pictures["broken"])
    page.wait_for_selector("#em-message .em-error")
    assert "broken.jpg" in page.inner_text("#em-message")
    assert not page.locator("#em-details .em-big").count()
    upload(page, pictures["two"])
    assert heading(page) == "Face 1 of 2"
    assert not page.locator("#em-message .em-error").is_visible()


def test_no_face_is_a_calm_result_and_an_example_can_follow(open_page, pictures):
    page = open_page()
    upload(page, pictures["none"])
    page.wait_for_selector("#em-message:has-text('No face found')")
    assert not page.locator(".em-error").count()
    assert page.locator("#em-hero img").is_visible()
    page.click("#em-again")
    page.wait_for_selector("#em-message:has-text('Choose a picture')")
    page.wait_for_selector("#em-picture input[type=file]", state="attached")
    page.click("#em-examples button[data-file='synthetic.png']")
    assert heading(page) == "Face 1 of 1"
    assert not page.locator("#em-faces").is_visible()


def test_two_sessions_do_not_mix(open_page, pictures):
    a, b = open_page(), open_page()
    upload(a, pictures["two"])
    upload(b, pictures["three"])
    assert heading(a) == "Face 1 of 2"
    assert heading(b) == "Face 1 of 3"
    b.locator("#em-faces label:has(input)").nth(2).click()
    a.locator("#em-faces label:has(input)").nth(1).click()
    expect_heading(b, "Face 3 of 3")
    expect_heading(a, "Face 2 of 2")


def test_the_address_carries_the_tab_and_every_known_model_has_a_card(open_page):
    page = open_page("?tab=models")
    page.wait_for_selector("#em-models .em-card")
    assert page.locator("#em-models .em-card").count() == len({web.MODEL, *registry.entries()})
    assert not page.locator("#em-model").is_visible(), "the list of cards does not follow the chosen model"
    page.click("[role=tab][data-tab-id=image]")
    page.wait_for_function(f"location.search == '?tab=image&model={web.MODEL}'")
    assert page.locator("#em-model").is_visible()
    assert page.locator("#em-examples button").count() == len(EXAMPLE_ROWS)


def test_everything_has_a_name_for_those_who_cannot_see_it(open_page, pictures):
    page = open_page()
    upload(page, pictures["two"])
    heading(page)
    assert page.locator("img:not([alt])").count() == 0
    assert "2 faces" in page.locator("#em-hero img").get_attribute("alt")
    nameless = page.evaluate("""() => [...document.querySelectorAll('button, input:not([type=file]), [role=tab]')]
        .filter(e => e.checkVisibility() && !(e.ariaLabel || e.innerText || e.title || e.labels?.length
            || e.querySelector('img[alt]')))
        .map(e => e.outerHTML)""")
    assert nameless == []


def test_the_api_gives_the_documented_json(address, pictures):
    client = Client(address, verbose=False)
    names = set(client.view_api(return_format="dict")["named_endpoints"])
    always = {"/analyze_image", "/analyze_video", "/analyze_crops", "/compare", "/leaderboard"}
    assert always <= names <= always | {"/analyze_scene", "/analyze_clip"}
    document = client.predict(handle_file(pictures["two"]), api_name="/analyze_image")
    assert document["schema"] == "emotion/1" and document["model"] == web.MODEL
    assert document["source"] == "two.png"
    faces = document["frames"][0]["faces"]
    assert len(faces) == 2 and set(faces[0]) >= {"box", "score", "expression", "valence_arousal"}
    with pytest.raises(AppError, match=r"broken\.jpg"):
        client.predict(handle_file(pictures["broken"]), api_name="/analyze_image")
    with pytest.raises(AppError, match="no model 'other'"):
        client.predict(handle_file(pictures["two"]), "other", api_name="/analyze_image")


def test_text_contrast_in_light_and_dark():
    colours = theme.theme()
    for dark in ("", "_dark"):
        grounds = [getattr(colours, name + dark) for name in ("body_background_fill", "background_fill_secondary")]
        texts = [getattr(colours, name + dark) for name in ("body_text_color", "body_text_color_subdued")]
        for ground in grounds:
            for text in (*texts, theme.ACCENT.c400 if dark else theme.ACCENT.c500):
                assert draw.contrast(text, ground) >= 4.5, (text, ground)


def test_a_click_picks_the_smallest_box_around_it_or_the_nearest():
    boxes = [[0, 0, 100, 100], [40, 40, 60, 60], [150, 0, 190, 40]]
    result = Result("m", (400, 200), np.zeros(1), np.zeros(3, np.int64), Faces(boxes, np.ones(3)), {})
    half = np.zeros((100, 200, 3), np.uint8)
    assert [face_at(result, half, x, y) for x, y in ((25, 25), (5, 5), (199, 99))] == [1, 0, 2]


def test_bad_options_end_with_one_message(capsys, tmp_path, folder, monkeypatch):
    assert app.main(["--model", str(tmp_path / "missing")]) == 2
    assert "missing" in capsys.readouterr().err
    monkeypatch.setattr(pages.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="mcp"):
        pages.launch(Models([folder]), mcp=True)


def test_the_library_does_not_import_the_page():
    code = "import emotion, emotion.registry, sys; sys.exit('gradio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
