"""What a video's result says over time: the moving average, the summary, subtitles and annotated films."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from emotion import timeline
from emotion.draw import film
from emotion.errors import UserError
from emotion.media import video
from emotion.outputs import Faces, Result, Task
from tests import films

LABELS = ("neutral", "happiness")


def made(rows: list[tuple[int, int, float]], timestamps: list[float], affect: bool = True) -> Result:
    """A result of faces: (frame, track, chance of happiness); valence is that chance, too."""
    frame, tracks, chance = (np.array(x) for x in zip(*rows))
    values = np.stack([1 - chance, chance], axis=1)
    boxes = np.array([[10.0 * t, 5, 10 * t + 8, 15] for t in tracks])
    tasks = {"expression": Task("categorical", LABELS, values, uncertainty={"total": np.float32(chance)})}
    if affect:
        pair = np.stack([chance, np.zeros(len(rows))], axis=1)
        tasks["valence_arousal"] = Task("continuous", ("valence", "arousal"), pair, bounds=(-1, 1), members=pair[None])
    faces = Faces(boxes, np.ones(len(rows)), track_ids=tracks)
    return Result("m", (100, 50), np.array(timestamps), frame, faces, tasks, "clip.mp4")


def test_the_moving_average_follows_its_formula() -> None:
    times, x = [0.0, 0.1, 0.4, 0.5], [0.0, 1.0, 1.0, 0.0]
    rows = [(i, 1, v) for i, v in enumerate(x)] + [(2, 2, 1.0)]
    result = made(sorted(rows), times)
    got = timeline.smooth(result, 0.3)
    y = [x[0]]
    for i in range(1, 4):
        a = np.exp(-(times[i] - times[i - 1]) / 0.3)
        y.append(a * y[-1] + (1 - a) * x[i])
    first = result.faces.track_ids == 1
    expression, affect = got.tasks["expression"], got.tasks["valence_arousal"]
    np.testing.assert_allclose(expression.values[first, 1], y, atol=1e-6)
    np.testing.assert_allclose(affect.values[first, 0], y, atol=1e-6)
    np.testing.assert_allclose(expression.uncertainty["total"][first], y, atol=1e-6)
    np.testing.assert_array_equal(expression.values[~first, 1], [1.0])  # tracks do not mix
    assert expression.names() == ["happiness" if v > 0.5 else "neutral" for v in expression.values[:, 1]]
    np.testing.assert_allclose(affect.members[0, first, 0], y, atol=1e-6)


def test_a_stream_is_smoothed_as_the_whole() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.2, 20))
    result = made([(f, t, rng.uniform()) for f in range(20) for t in (1, 2)], times.tolist())
    smoother = timeline.Smoother(0.2)
    parts = [smoother(result[result.frame == f]) for f in range(20)]
    whole = timeline.smooth(result, 0.2)
    values = np.concatenate([p.tasks["expression"].values for p in parts])
    np.testing.assert_array_equal(values, whole.tasks["expression"].values)
    assert timeline.smooth(result, 0) is result


def test_what_cannot_be_smoothed() -> None:
    result = made([(0, 1, 0.5)], [0.0])
    with pytest.raises(UserError, match="no tracks"):
        timeline.smooth(replace(result, faces=replace(result.faces, track_ids=None)))
    for seconds in (-1.0, np.nan, np.inf):
        with pytest.raises(UserError, match="time constant"):
            timeline.Smoother(seconds)


def test_summary_weighs_by_time(tmp_path: Path) -> None:
    result = made([(0, 1, 0.9), (1, 1, 0.2), (1, 2, 0.6), (3, 2, 0.4)], [0.0, 1.0, 1.5, 2.0])
    got = timeline.summary(result)
    assert json.loads(timeline.summary_json(result, tmp_path / "s.json")) == got
    assert (got["seconds"], got["frames"], got["frames_without_face"]) == (2.5, 4, 1)  # gaps 1, 0.5, 0.5; last 0.5
    all_of, (one, two) = got["everyone"], got["tracks"]
    assert (one["track"], one["first"], one["last"], one["seconds"]) == (1, 0.0, 1.0, 1.5)
    assert (two["track"], two["first"], two["last"], two["seconds"]) == (2, 1.0, 2.0, 1.0)
    assert one["expression"]["share"] == {"neutral": 0.3333, "happiness": 0.6667}
    assert all_of["expression"]["share"] == {"neutral": 0.4, "happiness": 0.6}
    assert all_of["seconds"] == 2.0
    assert one["valence_arousal"]["mean"]["valence"] == pytest.approx((0.9 + 0.2 * 0.5) / 1.5, abs=1e-4)
    assert all_of["expression"]["peaks"]["happiness"] == {"timestamp": 0.0, "value": 0.9}
    assert two["valence_arousal"]["lowest"]["valence"] == {"timestamp": 2.0, "value": 0.4}


def test_summary_of_action_units_counts_presence() -> None:
    result = made([(0, 1, 0.1), (1, 1, 0.7)], [0.0, 1.0])
    units = Task("multilabel", ("AU1",), np.array([[0.1], [0.7]]), thresholds=np.array([0.6]))
    got = timeline.summary(replace(result, tasks={"action_units": units}))["everyone"]["action_units"]
    assert got == {"share": {"AU1": 0.5}, "peaks": {"AU1": {"timestamp": 1.0, "value": 0.7}}}


def test_nothing_to_sum_up() -> None:
    result = made([(0, 1, 0.1)], [0.0, 0.5])[:0]
    got = timeline.summary(result)
    assert got["frames_without_face"] == 2 and got["everyone"] == {"seconds": 0.0} and got["tracks"] == []
    assert timeline.webvtt(result) == "WEBVTT\n"


def test_subtitles(tmp_path: Path) -> None:
    rows = [(0, 2, 0.9), (0, 1, 0.1), (1, 1, 0.2), (1, 2, 0.8), (3, 1, 0.9)]
    text = timeline.webvtt(made(rows, [0.0, 1.0, 3600.5, 3661.0]), tmp_path / "clip.vtt")
    cues = ("00:00:00.000 --> 01:00:00.500\n1 neutral\n2 happiness\n", "01:01:01.000 --> 01:02:01.500\n1 happiness\n")
    assert text == "\n".join(["WEBVTT\n", *cues])
    assert (tmp_path / "clip.vtt").read_text(encoding="utf-8") == text


def test_boxes_move_between_processed_frames() -> None:
    result = made([(0, 1, 0.9), (0, 3, 0.9), (1, 1, 0.2), (1, 2, 0.2)], [0.5, 1.5])
    result.faces.boxes[2] += 4
    assert len(film.at(result, 0.2)) == 0
    shown = film.at(result, 1.0)
    assert shown.faces.track_ids.tolist() == [1, 3] and shown.timestamps.tolist() == [1.0]
    np.testing.assert_allclose(shown.faces.boxes[0], result.faces.boxes[0] + 2)
    np.testing.assert_array_equal(shown.faces.boxes[1], result.faces.boxes[1])  # gone by the next
    assert film.at(result, 9.0).faces.track_ids.tolist() == [1, 2]
    assert film.at(result, 1.5).tasks["expression"].names() == ["neutral", "neutral"]


@pytest.mark.parametrize("until", [9.0, 0.5])
def test_an_annotated_film_has_all_frames_and_the_sound(until: float, tmp_path: Path) -> None:
    result = made([(0, 1, 0.9), (2, 1, 0.9)], [0.0, 0.4, 0.8])
    result = replace(result, size=(360, 288))
    result.faces.boxes[:] = [100, 100, 200, 220]
    assert film.annotate(films.TALK, result, tmp_path / "out.mp4", until=until)
    before, after = list(video.decode(films.TALK)), list(video.decode(tmp_path / "out.mp4"))
    last = 75 if until > 3 else 13
    np.testing.assert_allclose([s for s, _ in after], [s for s, _ in before[:last]], atol=1e-4)
    changed = [np.abs(a.astype(int) - b)[100:220, 98:104].mean() for (_, a), (_, b) in zip(after, before)]
    drawn = [s < 0.4 or s > 0.79 for s, _ in after]  # no face in the second processed frame: no box
    assert [c > 20 for c in changed] == drawn
    with av.open(str(tmp_path / "out.mp4")) as out:
        (sound,) = out.streams.audio
        assert float(sound.duration * sound.time_base) == pytest.approx(min(3, until), abs=0.1)


def test_a_film_that_is_stopped_is_complete_so_far(tmp_path: Path) -> None:
    result = replace(made([(0, 1, 0.9)], [0.0]), size=(360, 288))
    whole = film.annotate(films.TALK, result, tmp_path / "out.mp4", progress=lambda done, total: done < total / 2)
    assert not whole
    assert [s for s, _ in video.decode(tmp_path / "out.mp4")][-1] == pytest.approx(1.52, abs=0.03)
