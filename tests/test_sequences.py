"""Faces of real videos and of live streams, from the file to the result: times, ids, states, sound, what is missing."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import emotion
from emotion import faces as cropping
from emotion import media
from emotion.draw import film
from emotion.errors import UserError
from emotion.media import sampling, video
from emotion.models import esr
from emotion.models.base import FaceInput
from emotion.models.emenet import EMENet, EMENetConfig
from emotion.models.fg2020 import FG2020, FG2020Config
from emotion.outputs import Faces
from emotion.predict import FacePredictor
from tests import films
from tests.test_importers import network

SMALL = FaceInput((32, 32), square=True)


def tiny_esr() -> esr.ESR:
    """An untrained ESR: what it says is arbitrary, differs between faces and is always the same."""
    blocks = (esr.Block(8, kernel=5, pool=True), esr.Block(8, pool=True))
    model = network(esr.ESRConfig(FaceInput((48, 48)), base=blocks, branch=(esr.Block(8),), branches=3, affect=True))
    for branch in model.branches:
        branch.fc.weight.data *= 40
    return model


def recurrent(kind: str) -> torch.nn.Module:
    """A small untrained model that reads faces in sequence."""
    torch.manual_seed(1)
    if kind == "fg2020_rnn":
        return FG2020(FG2020Config(SMALL, backbone="resnet18", frames=8, embedding=16)).eval()
    return EMENet(EMENetConfig(SMALL, hidden=16, time_axis=kind)).eval()


class Boxes:
    """A detector that finds the same places in every picture, and nothing in black ones; counts its pictures."""

    def __init__(self, *boxes: Sequence[float]) -> None:
        self.boxes, self.count = np.array(boxes, np.float32), 0

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Faces]:
        self.count += len(pictures)
        here = Faces(self.boxes, np.full(len(self.boxes), 0.9))
        return [here if picture.mean() > 5 else here[:0] for picture in pictures]


@pytest.fixture(scope="module")
def predictor() -> FacePredictor:
    return FacePredictor(tiny_esr())


FACE = (110, 60, 230, 210)  # in the talk


def test_every_face_of_every_processed_frame(predictor: FacePredictor) -> None:
    result = predictor.video(films.TWO, rate=5)
    np.testing.assert_allclose(result.timestamps, np.arange(15) / 5)
    assert result.size == (720, 288) and result.source == films.TWO.name and result.notes == ()
    assert np.bincount(result.frame).tolist() == [2] * 15
    middles = result.faces.boxes[:, [0, 2]].mean(axis=1)
    for track in (1, 2):
        mine = result.faces.track_ids == track
        assert mine.sum() == 15 and np.ptp(middles[mine]) < 60  # each stays with one person
    pictures = [picture for _, picture in video.decode(films.TWO, take=sampling.pace(5))]
    alone = predictor.images(pictures[3:4])[0]
    rows = np.flatnonzero(result.frame == 3)
    np.testing.assert_allclose(np.sort(result.faces.boxes[rows], 0), np.sort(alone.faces.boxes, 0), atol=0.5)
    order = [np.argmin(np.abs(alone.faces.boxes[:, 0] - x)) for x in result.faces.boxes[rows, 0]]
    values = result.tasks["expression"].values[rows]
    np.testing.assert_allclose(values, alone.tasks["expression"].values[order], atol=0.02)
    assert result.tasks["expression"].members.shape[:2] == (3, 30)


@pytest.mark.parametrize("make", [films.sideways, films.remuxed, films.with_cover, films.cut_off, films.damaged])
def test_variants_of_a_film_say_the_same(
    make: Callable[[Path], Path], predictor: FacePredictor, tmp_path: Path
) -> None:
    path = make(tmp_path / ("clip.ts" if make is films.remuxed else "clip.mp4"))
    result, plain = predictor.video(path, rate=2), predictor.video(films.TALK, rate=2)
    n = len(result.timestamps)
    assert 2 <= n <= 6 and (n == 6) == (make not in (films.cut_off,))
    np.testing.assert_allclose(result.timestamps, plain.timestamps[:n], atol=0.2)
    assert result.frame.tolist() == list(range(n)) and set(result.faces.track_ids) == {1}
    np.testing.assert_allclose(result.faces.boxes, plain.faces.boxes[:n], atol=12)
    told = [note for note in result.notes if "pictures end after 1.5 of 3.0 seconds" in note]
    assert len(told) == len(result.notes) == (make is films.cut_off)


def test_frames_without_a_face_are_rows(tmp_path: Path) -> None:
    path, times = tmp_path / "gap.mp4", [0.0, 0.1, 0.15, 0.5, 0.9]
    frames = [picture for _, picture in zip(times, (p for _, p in video.decode(films.TALK)))]
    with video.VideoWriter(path) as out:
        for i, (seconds, picture) in enumerate(zip(times, frames)):
            out.write(picture * (i not in (1, 2)), seconds)
    result = FacePredictor(tiny_esr(), Boxes(FACE)).video(path, rate="all")
    np.testing.assert_allclose(result.timestamps, times, atol=1e-4)
    assert result.frame.tolist() == [0, 3, 4] and result.faces.track_ids.tolist() == [1, 1, 1]
    rows = list(result.rows())
    assert [row["face"] for row in rows] == [1, None, None, 1, 1] and rows[1]["timestamp"] == pytest.approx(0.1)
    assert [len(f["faces"]) for f in result.to_dict()["frames"]] == [1, 0, 0, 1, 1]


def test_a_film_without_a_face(predictor: FacePredictor, tmp_path: Path) -> None:
    picture = media.read_image(films.MEDIA / "scene_no_person.jpg")
    with video.VideoWriter(tmp_path / "empty.mp4") as out:
        out.write(picture, 0.0)
        out.write(picture, 1.0)
    result = predictor.video(tmp_path / "empty.mp4")
    assert len(result) == 0 and len(result.timestamps) == 2 and result.faces.track_ids is not None
    assert result.notes == ("no face was found in this video",)
    assert len(result.to_csv().splitlines()) == 3


def test_sampling_by_name() -> None:
    predictor = FacePredictor(tiny_esr(), Boxes(FACE))
    counts = {
        rate: len(predictor.video(films.TALK, rate).timestamps) for rate in (None, 5, "5", "all", "5/30", "30/30")
    }
    assert counts == {None: 30, 5: 15, "5": 15, "all": 75, "5/30": 12, "30/30": 75}
    assert len(FacePredictor(recurrent("frames"), Boxes(FACE)).video(films.TALK).timestamps) == 75
    for wrong in ("often", "5/25", "31/30", 0, -1.0, float("nan")):
        with pytest.raises(UserError, match=r"per second|per 30"):
            predictor.video(films.TALK, wrong)
    with pytest.raises(UserError, match="no frame that this sampling takes"):
        predictor.video(films.TALK, lambda index, seconds: False)


def test_boxes_carried_on_between_searches() -> None:
    detector = Boxes(FACE)
    predictor = FacePredictor(tiny_esr(), detector)
    result = predictor.video(films.TALK, rate=10, detect_every=4)
    assert detector.count == 8 and len(result) == 30 and set(result.faces.track_ids) == {1}
    with pytest.raises(UserError, match="every 2nd"):
        predictor.video(films.TALK, detect_every=0)


def test_stopping_keeps_what_was_done() -> None:
    told = []

    def progress(done: float, total: float) -> bool:
        told.append((done, total))
        return done < 1

    result = FacePredictor(tiny_esr(), Boxes(FACE)).video(films.TALK, rate="all", progress=progress)
    assert [total for _, total in told] == [3.0, 3.0] and told[-1][0] == result.timestamps[-1] < 1.5
    assert len(result) == len(result.timestamps) == 32
    assert result.notes == ("stopped after 1.2 of 3.0 seconds",)


def test_pictures_in_memory_do_not_grow_with_the_film(tmp_path: Path) -> None:
    predictor, peaks = FacePredictor(tiny_esr(), Boxes(FACE)), []
    pictures = [picture for _, picture in video.decode(films.TALK)]
    for rounds in (1, 2):
        with video.VideoWriter(tmp_path / f"{rounds}.mp4") as out:
            for i, picture in enumerate(pictures * rounds):
                out.write(picture, i / 25)
        tracemalloc.start()
        assert len(predictor.video(tmp_path / f"{rounds}.mp4", "all")) == 75 * rounds
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > 16 * pictures[0].nbytes and peaks[1] - peaks[0] < 3 * pictures[0].nbytes  # of 75 more


@pytest.mark.parametrize("kind", ["frames", "lanes", "fg2020_rnn"])
def test_recurrent_models_follow_each_track(kind: str) -> None:
    model, other = recurrent(kind), (10, 40, 110, 160)
    result = FacePredictor(model, Boxes(FACE, other)).video(films.TALK)
    frames = [picture for _, picture in video.decode(films.TALK)]
    with torch.inference_mode():
        for track in (1, 2):
            mine = np.flatnonzero(result.faces.track_ids == track)
            crops = [cropping.crop(p, result.faces[[i]], SMALL)[0] for i, p in zip(mine, frames)]
            features = model.embed(SMALL.tensor(np.stack(crops)))
            known = 64 if kind == "lanes" else 75  # the rest of a clip continues other lanes than a stream's
            whole = model.decode(model.sequence(features))["expression"].values
            got = result.tasks["expression"].values[mine]
            np.testing.assert_allclose(got[:known], whole[:known], atol=1e-5)
            alone = model.decode(model(SMALL.tensor(np.stack(crops[:8]))))["expression"].values
            assert kind == "lanes" or np.abs(got[:8] - alone).max() > 1e-4  # the frames before matter


@pytest.mark.parametrize("kind", ["esr", "frames", "fg2020_rnn"])
def test_a_stream_keeps_its_own_state(kind: str) -> None:
    model = tiny_esr() if kind == "esr" else recurrent(kind)
    predictor = FacePredictor(model, Boxes(FACE))
    frames = [frame for _, frame in zip(range(6), video.decode(films.TALK))]
    noise = np.random.default_rng(0).integers(0, 255, frames[0][1].shape, np.uint8)

    def values(stream: object, picture: np.ndarray, seconds: float) -> np.ndarray:
        one = stream.read(picture, seconds)
        assert one.timestamps.tolist() == [seconds] and one.faces.track_ids.tolist() == [1]
        return one.tasks["expression"].values

    alone = predictor.stream()
    expected = [values(alone, picture, seconds) for seconds, picture in frames]
    one, two = predictor.stream(), predictor.stream()
    for (seconds, picture), right in zip(frames, expected):
        values(two, noise, seconds)
        np.testing.assert_array_equal(values(one, picture, seconds), right)
    if kind == "frames":  # causal: a stream says what the video says
        whole = predictor.video(films.TALK, rate="all").tasks["expression"].values
        np.testing.assert_allclose(np.concatenate(expected), whole[:6], atol=1e-5)


def test_a_stream_that_loses_the_face() -> None:
    stream = FacePredictor(tiny_esr(), Boxes(FACE)).stream(detect_every=2)
    _, picture = next(video.decode(films.TALK))
    assert [len(stream.read(picture * seen, t / 10)) for t, seen in enumerate((1, 0, 0, 1, 1, 1))] == [1, 1, 0, 0, 1, 1]


def test_models_that_hear(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = EMENet(EMENetConfig(SMALL, sound=True, hidden=16)).eval()
    predictor = FacePredictor(model, Boxes(FACE))
    heard, mute = predictor.video(films.TALK, rate=5), predictor.video(films.remuxed(tmp_path / "m.mp4", "v"), rate=5)
    assert heard.notes == () and mute.notes == ("the video has no sound; voices were taken for silent",)
    assert np.abs(heard.tasks["expression"].values - mute.tasks["expression"].values).max() > 1e-4
    two = FacePredictor(model, Boxes(FACE, (240, 60, 350, 210))).video(films.TALK, rate=1)
    assert two.notes == ("several people are in the picture; the sound was taken for the voice of each",)
    broadcast = predictor.video(films.remuxed(tmp_path / "m.ts"), rate=5)  # both tracks start later than 0
    shift = broadcast.timestamps[0]
    np.testing.assert_allclose(broadcast.timestamps, heard.timestamps + shift, atol=0.05)
    np.testing.assert_allclose(
        broadcast.tasks["expression"].values[0], heard.tasks["expression"].values[0], atol=5e-3
    )  # the same sound with the same frame


def test_analyze_tells_films_from_pictures_by_their_content(tmp_path: Path) -> None:
    model = tiny_esr()
    (tmp_path / "film.jpg").write_bytes(films.TALK.read_bytes())
    (tmp_path / "photo.mp4").write_bytes((films.MEDIA / "portrait_hopper.jpg").read_bytes())
    found = emotion.analyze(tmp_path / "film.jpg", model, rate=1)
    assert found.timestamps.tolist() == [0.0, 1.0, 2.0] and found.source == "film.jpg"
    assert emotion.analyze(films.TALK.read_bytes(), model, rate=1).timestamps.tolist() == [0.0, 1.0, 2.0]
    with films.TALK.open("rb") as file:
        assert emotion.analyze(file, model, rate=1).timestamps.tolist() == [0.0, 1.0, 2.0]
    photo = emotion.analyze(tmp_path / "photo.mp4", model)
    assert photo.faces.track_ids is None and len(photo) == 1


def test_a_film_that_cannot_be_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = video.decode

    def broken(*args: object) -> Iterator[video.Frame]:
        for frame in whole(*args):
            if frame[0] > 2:
                raise UserError("the disk went away")
            yield frame

    monkeypatch.setattr(video, "decode", broken)
    result = FacePredictor(tiny_esr(), Boxes(FACE)).video(films.TALK)
    assert len(result) == 21 and result.notes == ("broken off after 2.0 seconds: the disk went away",)
    assert film.annotate(films.TALK, result, tmp_path / "out.mp4")
    assert len(list(whole(tmp_path / "out.mp4"))) == 51


def test_what_is_no_film(predictor: FacePredictor, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        emotion.analyze(tmp_path / "clip.mp4", predictor.model)
    with pytest.raises(UserError, match="no moving pictures, only sound"):
        emotion.analyze(films.remuxed(tmp_path / "voice.mp4", "a"), predictor.model)
    (tmp_path / "half.mp4").write_bytes(films.TALK.read_bytes()[:9000])
    with pytest.raises(UserError, match=r"half\.mp4"):
        predictor.video(tmp_path / "half.mp4")
