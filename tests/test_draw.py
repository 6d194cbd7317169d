"""Overlays and heat maps, and the palette they share."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emotion import draw
from emotion.labels import AFFECTNET, FERPLUS, RAVDESS
from emotion.outputs import Faces, Result, Task


def result(boxes, size, values=None, total=None, track_ids=None, labels=FERPLUS):
    n = len(boxes)
    values = np.full((n, len(labels)), 1 / len(labels)) if values is None else np.asarray(values)
    uncertainty = {"total": np.full(n, 0.2, np.float32) if total is None else np.asarray(total, np.float32)}
    task = Task("categorical", labels, values, uncertainty=uncertainty)
    faces = Faces(boxes, np.ones(n), track_ids=track_ids)
    return Result("m", size, np.zeros(1), np.zeros(n, np.int64), faces, {"expression": task})


def test_every_expression_has_its_own_colour_and_readable_ink():
    used = [draw.colour(name) for name in {*AFFECTNET, *RAVDESS}]
    assert len(set(used)) == len(used) == len(draw.PALETTE)
    for rgb in (*used, draw.UNLABELLED):
        assert draw.contrast(draw.ink(rgb), rgb) >= 4.5


def test_contrast_is_the_standard_ratio():
    assert draw.contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert draw.contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)


@st.composite
def crowds(draw_value):
    width, height = draw_value(st.integers(20, 1500)), draw_value(st.integers(20, 1500))
    corners = draw_value(hnp.arrays(np.float64, (draw_value(st.integers(0, 25)), 4), elements=st.floats(0, 1)))
    corners = corners * [width, height, width, height]
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    first = draw_value(st.none() | st.integers(0, max(0, len(boxes) - 1)))
    return (width, height), boxes, draw_value(st.integers(8, 40)), draw_value(st.integers(0, 6)), first


@settings(max_examples=150, deadline=None)
@given(crowds())
def test_chips_stay_inside_and_cover_no_face_and_no_chip(crowd):
    (width, height), boxes, font_size, gap, first = crowd
    texts = [[f"{n + 1} happiness 93%", f"{n + 1} happiness", str(n + 1)] for n in range(len(boxes))]
    chips = draw.layout((width, height), boxes, texts, font_size, gap, first)
    assert len(chips) == len(boxes)
    placed = [c for c in chips if c is not None]
    for n, chip in enumerate(placed):
        x0, y0, x1, y1 = chip.box
        assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
        for other in (*boxes, *(c.box for c in placed[:n])):
            shared = np.minimum(other[2:], (x1, y1)) - np.maximum(other[:2], (x0, y0))
            assert min(shared) <= 0, f"{chip} covers {other}"


def test_a_face_with_room_keeps_its_whole_text_and_a_full_picture_has_none():
    texts = [["1 happiness 93%", "1 happiness", "1"]]
    (chip,) = draw.layout((600, 600), [[200, 200, 400, 400]], texts, 14)
    assert chip.text == "1 happiness 93%" and chip.font_size == 14
    assert chip.box[3] <= 200  # above the box comes first
    assert draw.layout((600, 600), [[0, 0, 600, 600]], texts, 14) == [None]


def test_crowded_faces_get_shorter_chips_instead_of_none():
    boxes = [[x, y, x + 60, y + 60] for y in (40, 130) for x in range(20, 580, 80)]
    texts = [["1 happiness 93%", "1 happiness", "1"]] * len(boxes)
    chips = draw.layout((600, 220), boxes, texts, 24)
    assert all(chips)
    assert any(len(c.text) < len(texts[0][0]) for c in chips)


def test_overlay_draws_in_the_class_colour_and_leaves_the_input_alone():
    picture = np.full((300, 400, 3), 200, np.uint8)
    values = np.eye(8)[[1]]
    drawn = draw.overlay(picture, result([[100, 100, 200, 220]], (400, 300), values))
    assert (picture == 200).all() and drawn.shape == picture.shape and drawn.dtype == np.uint8
    assert tuple(drawn[160, 100]) == (0xE6, 0x9F, 0x00)  # left edge, happiness
    assert (drawn[110:210, 110:190] == 200).all()  # the face itself stays untouched
    assert (drawn[:90] != 200).any()  # chip above


def test_overlay_scales_boxes_to_the_picture_given():
    small = draw.overlay(np.zeros((150, 200, 3), np.uint8), result([[100, 100, 200, 220]], (400, 300)))
    columns = np.flatnonzero(small[60:100, :60].any((0, 2)))
    assert columns.min() in (49, 50)


def test_very_uncertain_faces_are_dashed():
    def painted(total):
        drawn = draw.overlay(
            np.zeros((400, 400, 3), np.uint8), result([[100, 100, 300, 300]], (400, 400), total=[total])
        )
        return (drawn[200 - 60 : 200 + 60, 100].any(-1)).mean()

    assert painted(0.74) == 1.0
    assert 0.3 < painted(0.75) < 0.9


def test_the_selected_face_is_thicker_and_the_others_dimmed():
    boxes, picture = [[40, 100, 140, 200], [240, 100, 340, 200]], np.zeros((300, 400, 3), np.uint8)
    plain = draw.overlay(picture, result(boxes, (400, 300)))
    chosen = draw.overlay(picture, result(boxes, (400, 300)), selected=0)
    assert chosen[150, 40:60].any(-1).sum() > plain[150, 40:60].any(-1).sum()
    assert 0 < chosen[150, 240].max() < plain[150, 240].max()


def test_faces_of_other_frames_and_no_faces_leave_the_picture_as_it_is():
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    assert (draw.overlay(picture, result([[10, 10, 40, 40]], (80, 60)), frame=1) == picture).all()
    assert (draw.overlay(picture, result(np.zeros((0, 4)), (80, 60))) == picture).all()


def test_tracks_keep_their_id_and_models_without_expressions_are_drawn_too():
    picture = np.zeros((200, 200, 3), np.uint8)
    faces = result([[60, 60, 120, 120]], (200, 200), track_ids=np.array([7]))
    assert (draw.overlay(picture, faces) != draw.overlay(picture, result([[60, 60, 120, 120]], (200, 200)))).any()
    bare = Result("m", (200, 200), np.zeros(1), np.zeros(1, np.int64), faces.faces, {})
    assert draw.overlay(picture, bare).any()


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (48, 48), (2000, 30)])
def test_odd_picture_sizes_are_drawn(size):
    width, height = size
    drawn = draw.overlay(np.zeros((height, width, 3), np.uint8), result([[0, 0, width, height]], size))
    assert drawn.shape == (height, width, 3)


def test_heat_blends_and_has_a_scale():
    crop = np.full((40, 50, 3), 100, np.uint8)
    values = np.array([[0.0, 0.0], [1.0, 1.0]])
    assert (draw.heat(crop, values, alpha=0, bar=False) == crop).all()
    alone = draw.heat(crop, values, alpha=1, bar=False).astype(int).sum(-1)
    assert (alone[-1] > alone[0]).all()  # inferno: lighter is more
    barred = draw.heat(crop, values, alpha=0.5)
    assert barred.shape == (40, 66, 3)
    luminance = barred[:, 50 + 4].astype(int).sum(-1)
    assert (np.diff(luminance) <= 0).mean() > 0.9  # 1 on top
