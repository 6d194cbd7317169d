"""Detection on real pictures, selection, crops and alignment."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image

from emotion import faces, media
from emotion.errors import UserError
from emotion.faces import detectors
from emotion.models.base import FaceInput
from emotion.outputs import Faces

MEDIA = Path(__file__).parent / "media"

# Fewest and most faces to be found; the truth is 29 people at the conference.
COUNTS = {
    "group_solvay_1927.jpg": (27, 29),
    "group_tennis.jpg": (10, 12),
    "scene_ribbon.jpg": (16, 20),
    "scene_tasting.jpg": (4, 6),
    "scene_handshake.jpg": (2, 2),
    "scene_no_person.jpg": (0, 0),
    "scene_laughing_man.jpg": (1, 1),
    "scene_office.jpg": (1, 1),
    "portrait_obama.jpg": (1, 1),
    "portrait_biden.jpg": (1, 1),
    "portrait_hopper.jpg": (1, 1),
    "portrait_astronaut.png": (1, 1),
    "face_happy.png": (1, 1),
    "face_sad.png": (1, 1),
}


@pytest.fixture(scope="module")
def mtcnn() -> faces.MTCNN:
    return faces.MTCNN()


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    return {name: media.read_image(MEDIA / name) for name in COUNTS}


@pytest.fixture(scope="module")
def found(mtcnn, pictures) -> dict[str, Faces]:
    return dict(zip(pictures, mtcnn(list(pictures.values()))))


def assert_sound(found: Faces, picture: np.ndarray) -> None:
    """Boxes inside the picture, not empty, largest first; scores and landmarks in range."""
    height, width = picture.shape[:2]
    assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
    assert (found.areas > 0).all() and (np.diff(found.areas) <= 0).all()
    assert ((found.scores > 0) & (found.scores <= 1)).all() and found.landmarks.shape == (len(found), 5, 2)


@pytest.mark.parametrize("name", COUNTS)
def test_real_pictures(name, found, pictures):
    low, high = COUNTS[name]
    assert low <= len(found[name]) <= high
    assert_sound(found[name], pictures[name])


def test_landmarks_are_where_they_should_be(found):
    for name, result in found.items():
        left_eye, right_eye, nose, left_mouth, right_mouth = result.landmarks.transpose(1, 0, 2)
        if "portrait" in name:
            assert (left_eye[:, 0] < right_eye[:, 0]).all() and (left_mouth[:, 0] < right_mouth[:, 0]).all()
        assert (left_eye[:, 1] < left_mouth[:, 1]).all() and (right_eye[:, 1] < right_mouth[:, 1]).all()
        assert ((nose > result.boxes[:, :2]) & (nose < result.boxes[:, 2:])).all()


def test_a_batch_equals_one_by_one(mtcnn, pictures, found):
    for name in ("scene_tasting.jpg", "scene_handshake.jpg", "scene_ribbon.jpg", "face_sad.png", "scene_no_person.jpg"):
        alone = mtcnn([pictures[name]])[0]
        assert len(alone) == len(found[name]), name
        np.testing.assert_allclose(alone.boxes, found[name].boxes, atol=0.01)
        np.testing.assert_allclose(alone.landmarks, found[name].landmarks, atol=0.01)
        np.testing.assert_allclose(alone.scores, found[name].scores, atol=1e-4)


def test_more_pictures_of_one_size_than_a_batch_keep_their_order(pictures, found):
    mtcnn = faces.MTCNN()
    mtcnn.BATCH = 2
    order = ["scene_office.jpg", "scene_no_person.jpg", "scene_laughing_man.jpg", "scene_office.jpg", "face_happy.png"]
    for name, result in zip(order, mtcnn([pictures[n] for n in order])):
        assert len(result) == len(found[name])
        np.testing.assert_allclose(result.boxes, found[name].boxes, atol=0.01)


def test_twice_the_same(mtcnn, pictures):
    first, second = (mtcnn([pictures["scene_tasting.jpg"], pictures["face_sad.png"]]) for _ in range(2))
    assert all((a.boxes == b.boxes).all() and (a.scores == b.scores).all() for a, b in zip(first, second))


def test_at_full_size_it_is_facenet_pytorch(pictures):
    """The cascade run here and the package's own driver agree on single pictures."""
    from facenet_pytorch import MTCNN as Reference

    reference, ours = Reference(keep_all=True), faces.MTCNN(threshold=0.7, longest_side=None)
    for name in ("scene_tasting.jpg", "portrait_hopper.jpg", "face_happy.png"):
        boxes, scores, landmarks = reference.detect(pictures[name], landmarks=True)
        height, width = pictures[name].shape[:2]
        boxes = np.clip(boxes.astype(float).reshape(-1, 2, 2), 0, (width, height)).reshape(-1, 4)
        order = np.argsort(-((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)), kind="stable")
        result = ours([pictures[name]])[0]
        assert len(result) == len(boxes)
        np.testing.assert_allclose(result.boxes, boxes[order], atol=0.01)
        np.testing.assert_allclose(result.scores, scores[order].astype(float), atol=1e-4)
        np.testing.assert_allclose(result.landmarks, landmarks[order].astype(float), atol=0.01)


def test_a_huge_picture_is_searched_at_the_working_size(pictures, found, monkeypatch):
    small = pictures["portrait_hopper.jpg"]
    huge = cv2.resize(small, (5_850, 6_856), interpolation=cv2.INTER_CUBIC)  # 40 megapixels
    mtcnn, seen = faces.MTCNN(), []
    cascade = mtcnn._cascade
    monkeypatch.setattr(mtcnn, "_cascade", lambda batch: (seen.append(batch.shape), cascade(batch))[1])
    (result,) = mtcnn([huge])
    assert seen == [(1, 960, 819, 3)]
    assert_sound(result, huge)
    ratio = np.tile(np.divide(huge.shape[1::-1], small.shape[1::-1]), 2)
    expected = found["portrait_hopper.jpg"].boxes * ratio
    assert len(result) == 1 and np.abs(result.boxes - expected).max() < 0.05 * (expected[0, 2] - expected[0, 0])


def test_pictures_on_which_other_drivers_fail(mtcnn):
    rng = np.random.default_rng(0)
    shapes = [(16, 16), (16, 4000), (4000, 16), (19, 300), (20, 20), (21, 1000), (96, 64)]
    noise = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    flat = [np.full((*shape, 3), level, np.uint8) for shape in shapes for level in (0, 255)]
    for picture, result in zip(noise + flat, mtcnn(noise + flat)):
        assert_sound(result, picture)
    assert not any(len(r) for r in mtcnn(flat))
    assert mtcnn([]) == []


@pytest.mark.parametrize("shape", [(48, 48), (60, 30)])
def test_candidates_everywhere_do_no_harm(shape):
    """With every threshold near zero the cascade runs on thousands of boxes, many across the border."""
    greedy = faces.MTCNN(threshold=1e-6, min_face=12)
    greedy.CANDIDATES = greedy.REFINED = 0.01
    picture = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    (result,) = greedy([picture])
    assert len(result) > 0
    assert_sound(result, picture)


def test_candidates_outside_the_picture_are_dropped_with_their_rows(mtcnn):
    """The package's own driver mixes up rows here and fails."""
    batch = torch.zeros(2, 3, 50, 60)
    batch[1] = 255
    corners = [[-50, -50, -10, -10], [5, 5, 30, 30], [70, 5, 90, 25], [5, 60, 25, 80], [40, 30, 90, 80]]
    boxes, owner = torch.tensor([[*c, 0.9] for c in corners]), torch.tensor([0, 1, 1, 0, 0])
    kept, owners, (moves, probability) = mtcnn._look(batch, boxes, owner, 24, mtcnn._rnet)
    assert kept.tolist() == boxes[[1, 4]].tolist() and owners.tolist() == [1, 0]
    white, black = probability.unbind()
    for level, row in ((255, white), (0, black)):
        flat = torch.full((1, 3, 24, 24), (level - 127.5) / 128)
        torch.testing.assert_close(row, mtcnn._rnet(flat)[1][0], atol=1e-5, rtol=0)
    nothing, owners, (moves, probability) = mtcnn._look(batch, boxes[:1], owner[:1], 24, mtcnn._rnet)
    assert len(nothing) == len(owners) == len(moves) == len(probability) == 0


def test_threshold_and_smallest_face(pictures, found):
    ribbon = pictures["scene_ribbon.jpg"]
    strict, large = faces.MTCNN(threshold=0.999), faces.MTCNN(min_face=60)
    assert 0 < len(strict([ribbon])[0]) < len(found["scene_ribbon.jpg"])
    assert len(large([ribbon])[0]) < len(found["scene_ribbon.jpg"])
    for wrong in ({"threshold": 0}, {"threshold": 1.5}, {"min_face": 3}):
        with pytest.raises(UserError):
            faces.MTCNN(**wrong)


def test_weights_come_with_the_package(monkeypatch):
    import socket

    def refuse(*_):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    picture = np.array(Image.open(MEDIA / "portrait_hopper.jpg").convert("RGB"))
    assert len(faces.MTCNN()([picture])[0]) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(pictures, found):
    for name, result in zip(pictures, faces.MTCNN(device="cuda")(list(pictures.values()))):
        assert abs(len(result) - len(found[name])) <= 1


# Other detectors ---------------------------------------------------------------------------------------------------


def test_haar(pictures):
    results = faces.detector("haar")([pictures["portrait_obama.jpg"], pictures["scene_no_person.jpg"]])
    assert [len(r) for r in results] == [1, 0]
    assert len(faces.detector("esr-haar")([pictures["portrait_obama.jpg"]])[0]) == 1
    with pytest.raises(UserError, match="no cascade"):
        faces.Haar("missing.xml")
    with pytest.raises(UserError, match="no cascade"):
        faces.Haar(__file__)


def test_an_opencv_without_cascades_says_what_to_do(monkeypatch):
    monkeypatch.delattr(cv2, "CascadeClassifier")
    for name in ("haar", "esr-haar"):
        with pytest.raises(UserError, match="mtcnn, or `pip install"):
            faces.detector(name)


def test_haar_boxes_of_a_scripted_cascade():
    grey = np.zeros((100, 100), np.uint8)
    np.testing.assert_array_equal(detectors.haar_boxes(grey, lambda *_, **__: [[1, 2, 30, 40]]), [[1, 2, 31, 42, 1]])
    assert detectors.haar_boxes(grey, lambda *_, **__: ()).shape == (0, 5)


def test_dlib(pictures):
    pytest.importorskip("dlib")
    results = faces.detector("dlib")([pictures["portrait_obama.jpg"], pictures["scene_no_person.jpg"]])
    assert [len(r) for r in results] == [1, 0]
    assert 0.5 < results[0].scores[0] < 1 and results[0].landmarks is None
    with pytest.raises(UserError, match="mmod_human_face_detector"):
        faces.Dlib("missing.dat")
    with pytest.raises(UserError, match="no dlib face detector"):
        faces.Dlib(__file__)


def test_detectors_that_are_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(UserError, match="pip install dlib-bin"):
        faces.detector("dlib")
    with pytest.raises(UserError, match="mtcnn, haar, dlib"):
        faces.detector("retina")
    with pytest.raises(UserError, match="mmod_human_face_detector"):
        faces.detector("esr-optimised")
    with pytest.raises(UserError, match="unknown rule"):
        faces.FirstFace("first")
    assert isinstance(faces.detector(), faces.MTCNN)


def test_first_face_ignores_a_box_off_the_corner():
    grey = np.zeros((100, 100), np.uint8)
    assert detectors.first_face(grey, lambda _: [[-50, -50, 40, 60]], (1.0,)) is None
    assert detectors.first_face(grey, lambda _: [[-50, -50, 40, 61]], (1.0,)) == (-50, -50, 40, 61)


# Selection and the user's own boxes --------------------------------------------------------------------------------

ROW = Faces(np.array([[0, 0, 50, 50], [40, 40, 60, 60], [80, 80, 100, 95]]), np.array([0.9, 0.8, 0.95]))


def test_select():
    assert faces.select(ROW, "all", (100, 100)) is ROW
    np.testing.assert_array_equal(faces.select(ROW, "largest", (100, 100)).boxes, ROW.boxes[:1])
    np.testing.assert_array_equal(faces.select(ROW, "closest-to-centre", (100, 100)).boxes, ROW.boxes[1:2])
    np.testing.assert_array_equal(faces.select(ROW, "closest-to-centre", (180, 190)).boxes, ROW.boxes[2:])
    for which in faces.SELECTIONS:
        assert len(faces.select(Faces.empty(), which, (100, 100))) == 0
    with pytest.raises(UserError, match="largest"):
        faces.select(ROW, "oldest", (100, 100))


def test_given_boxes():
    result = faces.given([[10, 20, 30, 40], [-5, 0, 2000, 50]], (100, 80))
    np.testing.assert_array_equal(result.boxes, [[10, 20, 30, 40], [0, 0, 100, 50]])
    assert (result.scores == 1).all() and result.landmarks is None
    assert len(faces.given([], (100, 80))) == 0


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([1, 2, 3, 4], "shape"),
        ([[1, 2, 3]], "shape"),
        ([["a", 2, 3, 4]], "numbers"),
        ([[1, 2], [3]], "numbers"),
        (None, "finite|shape"),
        ([[0, 0, math.nan, 5]], "finite"),
        ([[0, 0, math.inf, 5]], "finite"),
        ([[0, 0, 9, 9], [5, 5, 5, 9]], r"box 1 \[5.0"),
        ([[9, 9, 5, 5]], "covers nothing"),
        ([[200, 0, 300, 50]], "100x80 picture"),
    ],
)
def test_boxes_that_make_no_sense(boxes, message):
    with pytest.raises(UserError, match=message):
        faces.given(boxes, (100, 80))


# Crops -------------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 61, 47
NOISE = np.random.default_rng(2).integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)  # nowhere black


def boxes_of(*rows) -> Faces:
    return Faces(np.array(rows, np.float32), np.ones(len(rows)))


def reference(region: tuple[int, ...], size: tuple[int, int], antialias: bool) -> np.ndarray:
    """A crop by other means: gathered pixel by pixel, resized in floating point."""
    x0, y0, x1, y1 = region
    ys, xs = np.mgrid[y0:y1, x0:x1]
    inside = (ys >= 0) & (ys < HEIGHT) & (xs >= 0) & (xs < WIDTH)
    pixels = np.where(inside[..., None], NOISE[ys.clip(0, HEIGHT - 1), xs.clip(0, WIDTH - 1)], 0)
    x = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
    out = F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    return out[0].permute(1, 2, 0).numpy()


sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
corner = st.floats(-80, 120, width=32)


@settings(max_examples=150, deadline=None)
@hypothesis_given(corner, corner, st.floats(0, 90, width=32), st.floats(0, 90, width=32), sizes, st.booleans())
def test_crop_equals_a_float_resize(x, y, w, h, size, antialias):
    box = np.array([x, y, x + w, y + h], np.float32)
    x0, y0 = (int(v) for v in np.rint(box[:2]))
    x1, y1 = max(x0 + 1, int(np.rint(box[2]))), max(y0 + 1, int(np.rint(box[3])))
    (out,) = faces.crop(NOISE, boxes_of(box), FaceInput(size=size, antialias=antialias))
    assert out.dtype == np.uint8 and out.shape == (*size, 3)
    if x0 > -WIDTH and y0 > -HEIGHT and x0 < 2 * WIDTH and y0 < 2 * HEIGHT and x1 <= 2 * WIDTH and y1 <= 2 * HEIGHT:
        assert np.abs(out - reference((x0, y0, x1, y1), size, antialias)).max() <= 1


@settings(max_examples=100, deadline=None)
@hypothesis_given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4), max_size=3),
    st.floats(0, 3),
    st.floats(-2, 2),
    st.booleans(),
    st.booleans(),
)
def test_boxes_of_any_position_are_safe(boxes, margin, shift, square, antialias):
    detected = Faces(np.array(boxes, np.float32).reshape(-1, 4), np.ones(len(boxes)))
    spec = FaceInput(size=(9, 7), margin=margin, shift=shift, square=square, antialias=antialias)
    assert faces.crop(NOISE, detected, spec).shape == (len(boxes), 9, 7, 3)


def test_a_box_of_its_own_size_is_copied():
    (out,) = faces.crop(NOISE, boxes_of([5, 6, 25, 36]), FaceInput(size=(30, 20)))
    np.testing.assert_array_equal(out, NOISE[6:36, 5:25])


def test_outside_is_black():
    (out,) = faces.crop(NOISE, boxes_of([-10, -5, WIDTH + 4, HEIGHT + 3]), FaceInput(size=(HEIGHT + 8, WIDTH + 14)))
    np.testing.assert_array_equal(out[5:-3, 10:-4], NOISE)
    assert out.sum() == NOISE.sum()
    assert not faces.crop(NOISE, boxes_of([200, 200, 240, 250], [-90, 5, -70, 9]), FaceInput(size=(8, 8))).any()


def test_margin_square_and_shift():
    box = boxes_of([20, 10, 30, 30])

    def region(x0, y0, x1, y1, **spec):
        (out,) = faces.crop(NOISE, box, FaceInput(size=(y1 - y0, x1 - x0), **spec))
        np.testing.assert_array_equal(out, NOISE[y0:y1, x0:x1])

    region(18, 6, 32, 34, margin=0.2)
    region(15, 10, 35, 30, square=True)
    region(20, 15, 30, 35, shift=0.25)
    region(10, 10, 40, 40, square=True, margin=0.25, shift=0.25)


def test_a_very_long_picture():
    long = np.full((16, 200_000, 3), 7, np.uint8)
    for antialias in (False, True):
        out = faces.crop(long, boxes_of([0, 0, 200_000, 16]), FaceInput(size=(8, 8), antialias=antialias))
        assert (out == 7).all()
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    for antialias in (False, True):
        assert (faces.warp(long, half, (8, 30_000), antialias)[1:-1, 1:-1] == 7).all()


# Alignment ---------------------------------------------------------------------------------------------------------

FIVE = np.array([[30.0, 30], [70, 32], [50, 55], [35, 75], [66, 76]])


@settings(max_examples=100, deadline=None)
@hypothesis_given(st.floats(0.05, 20), st.floats(-math.pi, math.pi), st.floats(-300, 300), st.floats(-300, 300))
def test_similarity_is_recovered(scale, angle, dx, dy):
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    moved = FIVE @ turn.T + [dx, dy]
    (matrix,) = faces.similarity(FIVE[None], moved)
    np.testing.assert_allclose(matrix, np.column_stack([turn, [dx, dy]]), atol=1e-8 * max(scale, 1) + 1e-9)


def test_similarity_is_the_least_squares_solution():
    rng = np.random.default_rng(3)
    points, target = FIVE + rng.normal(0, 4, (4, 5, 2)), FIVE / 100 * 112
    for z, matrix in zip(points, faces.similarity(points, target)):
        # Umeyama's construction by singular values.
        z0, w0 = z - z.mean(0), target - target.mean(0)
        u, s, vt = np.linalg.svd(w0.T @ z0)
        turn = u @ np.diag([1, np.linalg.det(u) * np.linalg.det(vt)]) @ vt * s.sum() / (z0**2).sum()
        np.testing.assert_allclose(matrix, np.column_stack([turn, target.mean(0) - turn @ z.mean(0)]), atol=1e-9)


def test_similarity_never_mirrors_and_survives_equal_points():
    (mirrored,) = faces.similarity(FIVE[None], FIVE * [-1, 1])
    assert np.linalg.det(mirrored[:, :2]) >= 0
    equal = faces.similarity(np.ones((2, 5, 2)), FIVE)
    assert np.isfinite(equal).all()
    assert not faces.warp(NOISE, equal[0], (10, 10)).any()


def test_warp_without_a_turn_is_a_cut():
    shift = np.array([[1.0, 0, -7], [0, 1, -4]])
    np.testing.assert_array_equal(faces.warp(NOISE, shift, (20, 30)), NOISE[4:24, 7:37])
    away = np.array([[1.0, 0, -700], [0, 1, -4]])
    assert not faces.warp(NOISE, away, (20, 30)).any()


def test_warp_turns_as_told():
    quarter = np.array([[0.0, -1, HEIGHT - 1], [1, 0, 0]])  # (x, y) -> (height - 1 - y, x): clockwise on the screen
    out = faces.warp(NOISE, quarter, (WIDTH, HEIGHT))
    np.testing.assert_array_equal(out, np.rot90(NOISE, -1))


def test_warp_averages_where_it_shrinks():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 200
    for factor in (4, 7.3, 16):
        matrix = np.array([[1 / factor, 0, 0], [0, 1 / factor, 0]])
        smooth = faces.warp(stripes, matrix, (20, 20))[2:-2, 2:-2]
        assert np.abs(smooth.astype(int) - 100).max() <= 15
    assert faces.warp(stripes, np.array([[0.25, 0, 0], [0, 0.25, 0]]), (20, 20), antialias=False).max() == 200


def test_aligned_faces_have_their_landmarks_on_the_template(mtcnn, pictures, found):
    """A tilted portrait comes out upright: found again in the crop, the eyes lie where the template has them."""
    portrait = pictures["portrait_obama.jpg"]
    tilted = np.asarray(Image.fromarray(portrait).rotate(20, Image.Resampling.BILINEAR))
    spec = FaceInput(size=(224, 224), template="arcface")
    (detected,) = mtcnn([tilted])
    crops = faces.crop(tilted, faces.select(detected, "largest", tilted.shape[1::-1]), spec)
    (again,) = mtcnn([cv2.copyMakeBorder(crops[0], 60, 60, 60, 60, cv2.BORDER_REPLICATE)])
    landmarks = again.landmarks[0] - 60
    assert np.abs(landmarks - faces.TEMPLATES["arcface"] * 224).max() < 12
    tilt = np.degrees(np.arctan2(*(landmarks[1] - landmarks[0])[::-1]))
    before = np.degrees(np.arctan2(*(detected.landmarks[0, 1] - detected.landmarks[0, 0])[::-1]))
    assert abs(tilt) < 4 < 15 < abs(before)


def test_alignment_needs_landmarks_and_a_known_template(monkeypatch):
    with pytest.raises(UserError, match="landmarks"):
        faces.crop(NOISE, boxes_of([0, 0, 9, 9]), FaceInput(size=(8, 8), template="arcface"))
    with pytest.raises(UserError, match="unknown landmark template"):
        faces.crop(NOISE, Faces.empty(), FaceInput(size=(8, 8), template="nobody"))
    assert faces.crop(NOISE, Faces.empty(), FaceInput(size=(8, 8), template="arcface")).shape == (0, 8, 8, 3)

    def left_eye_first(landmarks, size):
        return np.array([[[1, 0, -x], [0, 1, -y]] for x, y in landmarks[:, 0]])

    monkeypatch.setitem(faces.TEMPLATES, "rule", left_eye_first)
    detected = Faces(np.array([[0, 0, 9, 9]]), np.ones(1), FIVE[None] / 4 + 0.5)
    (out,) = faces.crop(NOISE, detected, FaceInput(size=(8, 8), template="rule"))
    np.testing.assert_array_equal(out, NOISE[8:16, 8:16])
