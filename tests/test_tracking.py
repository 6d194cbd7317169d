"""Tracks: ids that stay with persons, whatever the detector's order, through losses up to the limit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion.faces import tracking
from emotion.outputs import Faces

STEP = 0.04  # seconds between frames
SIZE = (1000, 800)


def boxes_at(centres: np.ndarray, side: float = 80.0) -> Faces:
    centres = np.asarray(centres, np.float64).reshape(-1, 2)
    return Faces(np.concatenate([centres - side / 2, centres + side / 2], axis=1), np.ones(len(centres)))


def walkers(seed: int, people: int, frames: int) -> np.ndarray:
    """Centres [frames, people, 2] of people in lanes of their own who walk with a tremor."""
    rng = np.random.default_rng(seed)
    start = np.stack([rng.uniform(200, 800, people), 100 + 150 * np.arange(people)], axis=1)
    speed = np.stack([rng.uniform(-150, 150, people), np.zeros(people)], axis=1)
    times = STEP * np.arange(frames)[:, None, None]
    return start + speed * times + rng.normal(0, 1.0, (frames, people, 2))


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 5), st.data())
def test_ids_do_not_depend_on_the_order_of_detections(seed: int, people: int, data: st.DataObject) -> None:
    centres = walkers(seed, people, 6)
    plain, shuffled = tracking.Tracks.start(), tracking.Tracks.start()
    for k, frame in enumerate(centres):
        order = np.array(data.draw(st.permutations(range(people))))
        plain, expected = tracking.advance(plain, boxes_at(frame), k * STEP)
        shuffled, named = tracking.advance(shuffled, boxes_at(frame[order]), k * STEP)
        np.testing.assert_array_equal(named.track_ids, expected.track_ids[order])
        np.testing.assert_array_equal(named.boxes, expected.boxes[order])


@settings(max_examples=25)
@given(st.lists(st.lists(st.tuples(st.floats(0, 900), st.floats(0, 700), st.floats(1, 300)), max_size=6), max_size=8))
def test_ids_are_unique_in_a_frame_and_never_taken_anew(frames: list[list[tuple[float, float, float]]]) -> None:
    detections = [
        Faces(np.array([(x, y, x + s, y + s) for x, y, s in f]).reshape(-1, 4), np.ones(len(f))) for f in frames
    ]
    named = tracking.track(detections, STEP * np.arange(len(frames)))
    largest = 0
    for one, given_faces in zip(named, detections):
        assert len(set(one.track_ids)) == len(one) == len(given_faces)
        fresh = sorted(i for i in one.track_ids if i > largest)
        assert fresh == list(range(largest + 1, largest + 1 + len(fresh)))  # counted up, without gaps
        largest = max([largest, *one.track_ids])


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 8))
def test_everyone_keeps_one_id_through_a_brief_loss(seed: int, people: int, gap: int) -> None:
    centres = walkers(seed, people, 10 + gap)
    seen = [np.arange(int(5 <= k < 5 + gap), people) for k in range(len(centres))]
    detections = [boxes_at(frame[who]) for frame, who in zip(centres, seen)]
    named = tracking.track(detections, STEP * np.arange(len(centres)))
    first = dict(zip(seen[0], named[0].track_ids))
    for who, faces in zip(seen, named):
        assert dict(zip(who, faces.track_ids)) == {p: first[p] for p in who}


@pytest.mark.parametrize(("lost", "same"), [(0.96, True), (1.0, True), (1.04, False), (5.0, False)])
def test_patience_is_the_longest_loss(lost: float, same: bool) -> None:
    still = boxes_at([[300, 300]])
    first, *_, last = tracking.track([still, Faces.empty(), still], [0.0, 0.5, lost])
    assert (first.track_ids[0] == last.track_ids[0]) == same


def test_a_face_elsewhere_or_of_another_size_is_another_person() -> None:
    small, far, large = boxes_at([[300, 300]]), boxes_at([[500, 300]]), boxes_at([[300, 300]], side=200)
    assert [f.track_ids[0] for f in tracking.track([small, far], [0, 0.04])] == [1, 2]
    assert [f.track_ids[0] for f in tracking.track([small, large], [0, 0.04])] == [1, 2]


@pytest.mark.parametrize(("seconds", "same"), [(0.04, False), (0.2, False), (0.6, True)])
def test_the_longer_out_of_sight_the_farther_a_person_may_have_gone(seconds: float, same: bool) -> None:
    here, beside = boxes_at([[300, 300]]), boxes_at([[420, 300]])  # one and a half face sizes away
    first, last = tracking.track([here, beside], [0.0, seconds])
    assert (first.track_ids[0] == last.track_ids[0]) == same


def test_two_who_pass_each_other_keep_their_ids() -> None:
    times = STEP * np.arange(40)
    centres = np.stack([[(200 + 400 * t, 300), (800 - 400 * t, 330)] for t in times])
    named = tracking.track([boxes_at(c) for c in centres], times)
    assert all((f.track_ids == named[0].track_ids).all() for f in named)


def test_frames_far_apart_follow_by_distance() -> None:
    centres = [[(300 + 60 * k, 300)] for k in range(5)]  # barely overlapping
    named = tracking.track([boxes_at(c) for c in centres], 0.2 * np.arange(5))
    assert [f.track_ids[0] for f in named] == [1] * 5


def test_coasting_moves_boxes_and_landmarks_and_stays_inside() -> None:
    tracks = tracking.Tracks.start()
    points = np.full((1, 5, 2), 500, np.float32)
    for k in range(20):
        faces = boxes_at([[500 + 100 * k * STEP, 400]])
        faces = Faces(faces.boxes, faces.scores, points + np.float32([100 * k * STEP, 0]))
        tracks, last = tracking.advance(tracks, faces, k * STEP)
    moved = tracking.coast(tracks, 20 * STEP, SIZE)
    np.testing.assert_allclose(moved.boxes - last.boxes, [[4, 0, 4, 0]], atol=0.05)
    np.testing.assert_allclose(moved.landmarks - last.landmarks, np.broadcast_to([4, 0], (1, 5, 2)), atol=0.05)
    assert (moved.track_ids == last.track_ids).all()
    assert tracking.coast(tracks, 20 * STEP, (560, 800)).boxes[0, 2] == 560
    tracks, _ = tracking.advance(tracks, Faces.empty(), 20 * STEP)
    assert len(tracks.seen) == 1  # remembered,
    assert len(tracking.coast(tracks, 21 * STEP, SIZE)) == 0  # but not shown: the last search found nobody


def test_nobody() -> None:
    assert [len(f) for f in tracking.track([Faces.empty()] * 3, [0, 1, 2])] == [0, 0, 0]
    assert len(tracking.coast(tracking.Tracks.start(), 1.0, SIZE)) == 0


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_iou(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = np.sort(rng.integers(0, 20, (4, 2, 2)), axis=1).reshape(4, 4)
    b = np.sort(rng.integers(0, 20, (3, 2, 2)), axis=1).reshape(3, 4)
    got = tracking.iou(a.astype(float), b.astype(float))
    for i, j in np.ndindex(4, 3):
        grids = [np.zeros((20, 20), bool) for _ in range(2)]
        for grid, (x0, y0, x1, y1) in zip(grids, (a[i], b[j])):
            grid[y0:y1, x0:x1] = True
        union = (grids[0] | grids[1]).sum()
        assert got[i, j] == pytest.approx((grids[0] & grids[1]).sum() / union if union else 0)
