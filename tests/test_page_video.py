"""The Video tab in a real browser, and its API."""

import base64
import csv
import io
import json
import threading
import time
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("gradio")
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from emotion import hub
from emotion.faces import cropped
from emotion.labels import ABAW1_ACTION_UNITS
from emotion.media import video
from emotion.outputs import Faces, Result, Task
from emotion.ui import curves
from emotion.ui.video import EXAMPLE_ROWS
from emotion.ui.work import watched
from tests import browser as web
from tests.films import TWO
from tests.tiny import tiny_fg2020

UNITS = "fg2020_tiny.random"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = web.random_model(tmp_path_factory.mktemp("video") / "model")
    with_units = folder.parent / "units"
    hub.save(tiny_fg2020(), "fg2020", with_units, hub.Card(UNITS, "MIT", True), "# Random weights\n")
    with (
        web.emptied(tmp_path_factory.mktemp("cache"), {row[0] for row in EXAMPLE_ROWS}),
        web.served([folder, with_units]) as address,
    ):
        yield address


@pytest.fixture(scope="module")
def chromium():
    with web.chromium() as browser:
        yield browser


@pytest.fixture
def page(chromium, address):
    problems = []
    page = web.open_page(chromium, address, problems, "?tab=video", viewport={"width": 1280, "height": 1000})
    yield page
    page.context.close()
    assert problems == []


def analyse(page, file):
    page.set_input_files("#em-video-source input[type=file]", file)
    page.wait_for_selector("#em-video-start:enabled")
    page.click("#em-video-start")


def save(page, kind):
    with page.expect_download() as download:
        page.click(f"#em-video-{kind}")
    return Path(download.value.path())


def test_a_video_gives_a_film_a_timeline_that_moves_it_and_tables(page):
    page.locator("#em-video-rate input").click()
    page.click("[role=option]:has-text('5 frames per second')")
    analyse(page, TWO)
    page.wait_for_selector("#em-video-timeline .em-strip")
    assert page.locator("#em-video-timeline .em-strip").count() == 2
    assert page.locator("#em-video-summary .em-means tbody tr").count() == 2
    page.wait_for_function("document.querySelector('#em-video-player video').readyState > 0")
    lane = page.locator("#em-video-timeline .em-lane").nth(2)
    lane.click(position={"x": lane.bounding_box()["width"] / 2, "y": 20})
    seconds = page.evaluate("document.querySelector('#em-video-player video').currentTime")
    assert seconds == pytest.approx(float(page.locator(".em-time").get_attribute("data-length")) / 2, abs=0.02)
    assert page.inner_text(".em-said").startswith(f"{seconds:.2f} s") and "Face 2: " in page.inner_text(".em-said")
    page.locator("#em-video-timeline input").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('#em-video-player video').currentTime") > seconds
    rows = list(csv.DictReader(save(page, "csv").open()))
    assert {row["track"] for row in rows} == {"1", "2"} and rows[0]["source"] == TWO.name
    assert len(json.loads(save(page, "json").read_text())["frames"]) == 15
    assert len(pd.read_parquet(save(page, "parquet"))) == len(rows) == 30
    assert save(page, "vtt").read_text().startswith("WEBVTT")
    film = video.probe(save(page, "mp4"))
    assert film.sound and film.seconds == pytest.approx(3, abs=0.1)


def choose(page, form):
    """A kind of file, from the list of further ones."""
    page.locator("#em-video-more input").click()
    page.click(f"[role=option]:has-text('{form}')")


def face_pictures(folder, count):
    """Crops of the first speaker's face, as numbered files."""
    out = []
    for n, (_, picture) in zip(range(count), video.decode(TWO)):
        out.append(folder / f"face_{n + 1}.png")
        Image.fromarray(picture[88:254, 125:249]).save(out[-1])
    return out


def test_other_systems_files_and_the_demo_film_are_made_when_chosen(page):
    analyse(page, TWO)
    page.wait_for_selector("#em-video-timeline .em-strip")
    page.locator("#em-video-more input").click()
    offered = page.locator("[role=option]").all_inner_texts()
    assert [text.strip("\u2713 \n") for text in offered] == [
        "More files…", "Challenge files (ABAW)", "ESR table", "Plot over time", "Demo film, 1920 x 1080"
    ]  # fmt: skip
    page.click("[role=option]:has-text('ESR table')")
    page.wait_for_selector("#em-video-form:has-text('Save CSV'):enabled")
    assert save(page, "form").read_text().startswith("Timestamp(sec),Ensemble_Emotion")
    choose(page, "Demo film")
    page.wait_for_selector("#em-video-form:has-text('Save MP4'):enabled")
    film = video.probe(demo := save(page, "form"))
    assert film.sound and next(video.decode(demo))[1].shape == (1080, 1920, 3)
    choose(page, "Challenge files")
    page.wait_for_selector("#em-video-form:has-text('Save ZIP'):enabled")
    with zipfile.ZipFile(save(page, "form")) as archive:
        names = {f"abaw/{who}/{task}/{TWO.stem}.txt" for who in ("merged", "0") for task in ("EXPR_Set", "VA_Set")}
        assert names <= set(archive.namelist())
    page.click("#em-video-again")
    page.wait_for_selector("#em-video-more", state="hidden")
    assert page.locator("#em-video-form").is_hidden()


def test_a_film_that_does_not_tell_its_length(page, tmp_path):
    """As browsers record them: the header has no length."""
    live = tmp_path / "live.webm"
    with av.open(str(live), "w", format="webm", options={"live": "1"}) as out:
        stream = out.add_stream("libvpx", rate=25, options={"deadline": "realtime", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 360, 144, "yuv420p"
        for n, (_, picture) in zip(range(50), video.decode(TWO)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[::2, ::2]), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    assert video.probe(live).seconds == 0
    analyse(page, live)
    page.wait_for_selector("#em-video-timeline .em-strip")
    assert video.probe(save(page, "mp4")).seconds == pytest.approx(2, abs=0.1)
    assert float(page.locator(".em-time").get_attribute("data-length")) > 1.8


def test_face_pictures_are_read_in_the_order_of_their_numbers(page, tmp_path):
    files = face_pictures(tmp_path, 12)
    with page.expect_file_chooser() as chooser:
        page.click("#em-video-crops")
    chooser.value.set_files(files[::-1])
    page.wait_for_selector("#em-video-timeline .em-strip")
    assert page.locator("#em-video-timeline .em-strip").count() == 1
    assert len(json.loads(save(page, "json").read_text())["frames"]) == 12
    assert video.probe(save(page, "mp4")).seconds == pytest.approx(12 / 30, abs=0.04)


def test_face_pictures_by_the_api(address, tmp_path):
    files = face_pictures(tmp_path, 12)
    client = Client(address, verbose=False)
    found = client.predict([handle_file(f) for f in files[::-1]], UNITS, 10, api_name="/analyze_crops")
    direct = cropped.analyze_crops(files, tiny_fg2020(), fps=10).to_dict()["frames"]
    assert [f["faces"][0]["action_units"] for f in found["frames"]] == [f["faces"][0]["action_units"] for f in direct]
    assert found["frames"][3]["timestamp"] == pytest.approx(0.3)
    with pytest.raises(AppError, match="choose pictures"):
        client.predict([], UNITS, 10, api_name="/analyze_crops")


def test_stopping_keeps_what_is_done(page, tmp_path):
    long = tmp_path / "long.mp4"
    with video.VideoWriter(long, 25) as out:
        for n in range(12):
            for seconds, picture in video.decode(TWO):
                out.write(picture[::2, ::2], 3 * n + seconds)
    analyse(page, long)
    page.wait_for_selector("#em-video-message progress")
    page.click("#em-video-stop")
    page.wait_for_selector("#em-video-message:has-text('stopped after')")
    page.wait_for_selector("#em-video-timeline .em-strip")
    frames = json.loads(save(page, "json").read_text())["frames"]
    film = video.probe(save(page, "mp4"))
    assert 0 < len(frames) < 360 and film.seconds == pytest.approx(frames[-1]["timestamp"], abs=0.2)
    page.click("#em-video-again")
    page.wait_for_selector("#em-video-examples button")
    assert not page.locator("#em-video-timeline .em-strip").count()


def test_what_is_no_video_gives_a_message_in_place(page, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(TWO.read_bytes()[:3000])
    analyse(page, broken)
    page.wait_for_selector("#em-video-message .em-error")
    assert "broken.mp4" in page.inner_text("#em-video-message")


def test_the_api_gives_summary_and_rows(address, tmp_path):
    client = Client(address, verbose=False)
    found = client.predict(handle_file(TWO), web.MODEL, 5, api_name="/analyze_video")
    assert found["result"]["schema"] == "emotion/1" and len(found["result"]["frames"]) == 15
    assert [track["track"] for track in found["summary"]["tracks"]] == [1, 2]
    brief = client.predict(handle_file(TWO), web.MODEL, 5, True, api_name="/analyze_video")
    assert brief == {"summary": found["summary"]}
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    with pytest.raises(AppError, match=r"text\.mp4"):
        client.predict(handle_file(text), api_name="/analyze_video")


def test_many_samples_are_averaged_and_absences_interrupt_the_drawing():
    n = 5000
    times = np.linspace(0, 90, n) + 10 * (np.arange(n) >= n // 2)  # nobody to be seen for ten seconds in the middle
    values = np.tile(np.float32([0.25, 0.75]), (n, 1))
    faces = Faces(np.tile([0, 0, 9, 9], (n, 1)), np.ones(n), track_ids=np.ones(n, np.int64))
    tasks = {"expression": Task("categorical", ("neutral", "fear"), values)}
    result = Result("m", (9, 9), times, np.arange(n), faces, tasks)
    lane = curves.timeline(result, 100.0, "player").split("em-areas")[1]
    polygons = [[tuple(map(float, p.split(","))) for p in x.split('"')[0].split()] for x in lane.split('points="')[1:]]
    assert len(polygons) == 2 * 2
    assert max(map(len, polygons)) <= curves.COLUMNS
    assert {y for _, y in polygons[0]} == {75.0, 100.0} and {y for _, y in polygons[1]} == {0.0, 75.0}
    assert max(x for x, _ in polygons[0]) == pytest.approx(450, abs=1)
    assert min(x for x, _ in polygons[2]) == pytest.approx(550, abs=1)


def test_action_units_have_a_row_each(page):
    page.locator("#em-model input").click()
    page.click(f"[role=option]:has-text('{UNITS}')")
    page.click("#em-video-examples button[data-file='two_people.mp4']")
    page.wait_for_selector("#em-video-timeline .em-unit-rows")
    rows = page.locator("#em-video-timeline .em-unit-rows")
    assert rows.count() == 2 and tuple(rows.first.inner_text().split()) == ABAW1_ACTION_UNITS
    rows.first.click(position={"x": rows.first.bounding_box()["width"] / 3, "y": 30})
    length = float(page.locator(".em-time").get_attribute("data-length"))
    assert page.evaluate("document.querySelector('#em-video-player video').currentTime") == pytest.approx(
        length / 3, abs=0.02
    )
    assert "AU" in page.inner_text(".em-said") or "no action unit" in page.inner_text(".em-said")


def test_the_colour_of_a_unit_follows_its_probability():
    times = np.array([0.0, 0.5, 1.0, 1.5, 8.0])
    values = np.float32([[1, 0], [1, 0], [1, 0.4], [0, 0], [0, 1]])
    faces = Faces(np.tile([0, 0, 9, 9], (5, 1)), np.ones(5), track_ids=np.ones(5, np.int64))
    task = Task("multilabel", ("AU1", "AU12"), values, thresholds=np.float32([0.5, 0.3]))
    result = Result("m", (9, 9), times, np.arange(5), faces, {"action_units": task})
    drawn = curves._unit_rows(task, times, 10.0, "Face 1")
    png = base64.b64decode(drawn.split("base64,")[1].split(")")[0])
    mask = np.asarray(Image.open(io.BytesIO(png)).getchannel("A"))[:, :: curves.COLUMNS // 20]  # every half second
    assert mask[0].tolist() == [255, 255, 255, 0, *[0] * 16]
    assert mask[1].tolist() == [0, 0, 102, 0, *[0] * 12, 255, 0, 0, 0]
    told = json.loads(
        curves.timeline(result, 10.0, "p").split('data-samples="')[1].split('"')[0].replace("&quot;", '"')
    )
    assert [words for _, words in told] == ["AU1", "AU1", "AU1 AU12", "no action unit", "AU12"]


def test_closing_the_page_ends_the_work():
    told = []

    def work(tell):
        while tell(len(told), 0):
            told.append(1)
            time.sleep(0.01)

    running = watched(work, threading.Event())
    next(running)
    running.close()
    count = len(told)
    time.sleep(0.05)
    assert len(told) == count
