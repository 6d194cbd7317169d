"""Scenes on the command line, drawings of maps, crowds, weak labels of people."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from emotion import __main__ as command
from emotion import draw, hub, predict
from emotion.datasets.scenes import Scenes, make_scene
from emotion.draw import scene_maps
from emotion.errors import UserError
from emotion.models import benet_decode as decode
from emotion.models import esr
from emotion.models.benet import BENet, BENetConfig
from emotion.outputs import Faces, Result, Task
from emotion.predict.scenes import SceneMaps, ScenePredictor
from train import weak_labels
from train.compose import LABELS

CONFIG = BENetConfig(
    input=decode.SceneInput(size=64), width=4, stem=4, modules=(1, 1, 1), blocks=1, bottlenecks=1, heads=("det", "bu"),
    labels=LABELS, affect=("valence", "arousal"),
)  # fmt: skip


def random_model(threshold: float = 0.1) -> BENet:
    """Random weights with boxes of plausible sizes; nearly everywhere somebody, or with a high threshold nobody."""
    torch.manual_seed(0)
    model = BENet(CONFIG).eval()
    with torch.no_grad():
        model.size.low[-1][-1].bias.fill_(6)
        model.size.high[-1][-1].bias.fill_(12)
        if threshold > 0.9:
            for part in (model.heatmap.low, model.heatmap.high):
                part[-1][-1].bias.fill_(-20)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene") / "model"
    hub.save(random_model(), "benet", folder, hub.Card("benet_tiny.random", "MIT", True), "card")
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "beach.png"
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def persons(count: int, size: tuple[int, int] = (400, 300)) -> Result:
    """People in a row with falling happiness; the last one feels nothing."""
    x = np.linspace(0, size[0] - 60, count)
    boxes = np.stack([x, np.full(count, 40), x + 50, np.full(count, size[1] - 10)], axis=1)
    values = np.zeros((count, len(LABELS)), np.float32)
    values[:, LABELS.index("Happiness")] = np.linspace(0.9, 0.1, count)
    task = Task("multilabel", LABELS, values, thresholds=np.full(len(LABELS), 0.3, np.float32))
    where = np.zeros(count, int)
    return Result("m", size, np.zeros(1), where, Faces(boxes, np.ones(count)), {"emotions": task}, source="a.png")


# -- command line ------------------------------------------------------------------------------------------------------


def test_analyze_writes_people(checkpoint, photo, tmp_path, capsys) -> None:
    assert command.main(["analyze", str(photo), "--model", str(checkpoint), "-o", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "people" in table and "valence" in table and "+0." not in table
    document = json.loads((tmp_path / "beach.json").read_text())
    assert document["frames"][0]["faces"][0]["emotions"].keys() >= {"present"}
    assert np.asarray(Image.open(tmp_path / "beach.png")).shape == (60, 90, 3)
    assert command.main(["analyze", str(photo), "--model", str(checkpoint), "--faces", "largest"]) == 2
    assert "reads everybody" in capsys.readouterr().err


def test_scene_models_do_not_read_videos(checkpoint) -> None:
    with pytest.raises(UserError, match="reads pictures, not videos"):
        predict.analyze("tests/media/talk_man_1.mp4", checkpoint)


def test_a_picture_without_people_is_a_calm_result(tmp_path, photo, capsys) -> None:
    hub.save(random_model(threshold=1), "benet", tmp_path / "m", hub.Card("a.b", "MIT", True), "")
    assert command.main(["analyze", str(photo), "--model", str(tmp_path / "m")]) == 0
    assert "no person found" in capsys.readouterr().out


def test_maps_as_picture_and_arrays(checkpoint, photo, tmp_path, capsys) -> None:
    line = ["maps", str(photo), "--model", str(checkpoint), "-o", str(tmp_path), "--emotions", "Happiness", "arousal"]
    assert command.main(line) == 0
    assert "Happiness" in capsys.readouterr().out
    stored = np.load(tmp_path / "beach_maps.npz")
    assert stored["labels"].tolist() == ["Happiness", "arousal"] and stored["size"].tolist() == [90, 60]
    whole = ScenePredictor(checkpoint).maps(photo)
    np.testing.assert_array_equal(stored["maps"][0], whole.maps[whole.labels.index("Happiness")])
    np.testing.assert_array_equal(stored["heatmap"], whole.heatmap)
    assert Image.open(tmp_path / "beach_maps.png").width > 4 * scene_maps.CELL
    assert command.main([*line, "--colour"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--emotions", "Joy"], "has no map 'Joy'; it has: Anger"),
        (["--size", "100"], "multiples of 32"),
        (["--model", "esr_compact.ferplus"], "does not read scenes"),
    ],
)
def test_maps_says_what_is_wrong(checkpoint, photo, tmp_path, capsys, options, message) -> None:
    line = ["maps", str(photo), "--model", str(checkpoint), "-o", str(tmp_path), *options]
    assert command.main(line) == 2
    assert message in capsys.readouterr().err


def people(options: list[str], checkpoint, photo, capsys) -> list[dict]:
    """What `analyze` finds with these options."""
    assert command.main(["analyze", str(photo), "--model", str(checkpoint), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)["frames"][0]["faces"]


def test_the_original_s_options_reach_the_predictor(checkpoint, photo, capsys) -> None:
    """Each changes what is found, exactly as the library's argument of the same meaning does."""
    usual = people([], checkpoint, photo, capsys)
    scores = [one["score"] for one in usual]
    middle = (scores[0] + scores[-1]) / 2
    assert len(usual) > 20, "a random network sees somebody nearly everywhere"
    for option in (["--people", "100"], ["--person-threshold", f"{middle:.7f}"]):
        some = [one["score"] for one in people(option, checkpoint, photo, capsys)]
        assert some == scores[: len(some)] and 0 < len(some) < len(usual), "the strongest stay"
    assert len(people(["--window", "21"], checkpoint, photo, capsys)) < len(usual)
    assert people(["--flip"], checkpoint, photo, capsys) != usual != people(["--size", "96"], checkpoint, photo, capsys)
    published = people(["--published"], checkpoint, photo, capsys)
    assert len(published) == decode.PUBLISHED.people and published != usual[:15]
    assert len(people(["--published", "--people", "20"], checkpoint, photo, capsys)) == 20
    for threshold, present in (("0", list(LABELS)), ("1", [])):
        found = people(["--threshold", threshold], checkpoint, photo, capsys)
        assert all(one["emotions"]["present"] == present for one in found)
        assert [one["emotions"]["values"] for one in found] == [one["emotions"]["values"] for one in usual]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "1.5"], "a probability from 0 to 1, not 1.5"),
        (["--person-threshold", "-1"], "between 0 and 1, not at -1"),
        (["--people", "0"], "1 or more"),
        (["--window", "4"], "odd number of pixels, not 4"),
        (["--size", "100"], "multiples of 32"),
        (["--detector", "haar"], "finds and reads everybody"),
        (["--model", "esr_compact.ferplus", "--flip", "--people", "3"], "--flip, --people: only for scene models"),
    ],
)
def test_options_that_cannot_be(checkpoint, photo, capsys, options, message) -> None:
    assert command.main(["analyze", str(photo), "--model", str(checkpoint), *options]) == 2
    assert message in capsys.readouterr().err


def test_published_maps_of_the_mirrored_picture_repeat_the_original_s_fault(photo) -> None:
    predictor = ScenePredictor(random_model())
    once = predictor.maps(photo)
    predictor.flip, predictor.options = True, decode.PUBLISHED
    twice = predictor.maps(photo)
    n = len(LABELS)
    np.testing.assert_allclose(twice.maps[n:], 0.75 * once.maps[n:], atol=1e-6)
    assert np.abs(twice.maps[:n] - once.maps[:n]).max() > 1e-3


def test_faces_and_scenes_are_told_apart() -> None:
    assert isinstance(predict.of_pictures(random_model()), ScenePredictor)
    assert isinstance(predict.of_pictures(esr.ESR(esr.esr4())), predict.FacePredictor)


def test_result_and_maps_of_one_pass_are_those_of_two() -> None:
    predictor = ScenePredictor(random_model())
    picture = np.random.default_rng(1).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    result, maps = predictor.image_and_maps(picture, "x.png")
    assert result.to_json() == predictor.image(picture, "x.png").to_json()
    np.testing.assert_array_equal(maps.maps, predictor.maps(picture).maps)


# -- drawings ----------------------------------------------------------------------------------------------------------


def test_people_are_drawn_with_their_strongest_emotion() -> None:
    result = persons(3)
    assert draw.present(result.tasks["emotions"]) == [["Happiness"], ["Happiness"], []]
    picture = np.full((300, 400, 3), 200, np.uint8)
    drawn = draw.overlay(picture, result, selected=1)
    assert drawn.shape == picture.shape and (drawn != picture).any()


def test_chips_of_persons_lie_inside_the_picture_and_apart() -> None:
    boxes = np.array([[0, 0, 390, 290], [5, 5, 380, 280], [200, 100, 399, 299]])
    chips = draw.layout((400, 300), boxes, [["1 Happiness", "1"]] * 3, 16, inside=True)
    placed = np.array([c.box for c in chips])
    assert (placed[:, :2] >= 0).all() and (placed[:, 2:] <= [400, 300]).all()
    for a in range(3):
        assert not draw._overlap(placed[a : a + 1], np.delete(placed, a, axis=0)).any()


def test_a_sheet_has_a_fixed_scale_and_all_maps() -> None:
    maps = SceneMaps((40, 30), np.zeros((30, 40)), ("Fear", "Peace"), np.stack([np.ones((30, 40)), np.eye(30, 40)]))
    picture = np.full((30, 40, 3), 100, np.uint8)
    sheet = scene_maps.sheet(picture, maps)
    step = scene_maps.CELL + scene_maps.GAP
    middles = [sheet[sheet.shape[0] // 2, scene_maps.GAP + scene_maps.CELL // 2 + k * step] for k in range(4)]
    assert [m.tolist() for m in middles[:3]] == [[100] * 3, [0] * 3, [255] * 3]
    nothing = replace(maps, heatmap=None, labels=(), maps=np.zeros((0, 30, 40)))
    assert scene_maps.sheet(picture, nothing).shape[1] < 2 * scene_maps.CELL


def test_a_map_over_a_picture_is_clear_where_it_is_zero() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    np.testing.assert_array_equal(scene_maps.over(picture, np.zeros((20, 30)), alpha=1), picture)
    ones = scene_maps.over(picture, np.ones((20, 30)), alpha=1)
    np.testing.assert_array_equal(ones, np.broadcast_to(draw.heat_colours()[255], ones.shape))


# -- crowds ------------------------------------------------------------------------------------------------------------


def test_two_hundred_people_are_all_found() -> None:
    """A grid of 20 x 10 clear peaks: everybody is there once, with the emotions of his or her place."""
    height, width = 160, 320
    heat = torch.zeros(1, 1, height, width)
    ys, xs = torch.meshgrid(torch.arange(8, height, 16), torch.arange(8, width, 16), indexing="ij")
    heat[0, 0, ys, xs] = 0.9
    emotions = torch.linspace(0, 1, width).expand(1, len(LABELS) + 2, height, width).contiguous()
    size = torch.full((1, 2, height, width), 12.0)
    frame = decode.Frame((width, height), (width, height), 1.0, (0.0, 0.0))
    ((faces, tasks),) = decode.people({"heatmap": heat, "size": size, "bu": emotions}, [frame], CONFIG)
    assert len(faces) == 200
    centres = (faces.boxes[:, 0] + faces.boxes[:, 2]) / 2
    inner = (faces.boxes[:, 0] > 0) & (faces.boxes[:, 2] < width - 1)
    np.testing.assert_allclose(tasks["emotions"].values[inner, 0], centres[inner] / width, atol=0.01)
    drawn = draw.overlay(np.zeros((height, width, 3), np.uint8), _as_result(faces, tasks, (width, height)))
    assert drawn.any()


def _as_result(faces: Faces, tasks: dict[str, Task], size: tuple[int, int]) -> Result:
    return Result("m", size, np.zeros(1), np.zeros(len(faces), int), faces, tasks)


# -- weak labels -------------------------------------------------------------------------------------------------------


def test_a_face_belongs_to_the_smallest_box_around_it() -> None:
    boxes = np.array([[0, 0, 100, 200], [40, 0, 70, 100], [200, 0, 300, 200.0]])
    assert weak_labels.owner(np.array([50, 10, 60, 20]), boxes) == 1
    assert weak_labels.owner(np.array([5, 10, 15, 20]), boxes) == 0
    assert weak_labels.owner(np.array([5, 170, 15, 190]), boxes) is None, "a face at somebody's feet is not theirs"
    assert weak_labels.owner(np.array([0, 0, 1, 1]), np.zeros((0, 4))) is None


class Reader:
    """Stands in for a face model: one happy face, one that it is not sure about, one too small, a crowd's."""

    def image(self, picture: np.ndarray) -> Result:
        assert picture.shape == (60, 386, 3), "only where faces can be"
        boxes = np.array([[10, 10, 40, 40], [110, 10, 140, 40], [210, 10, 215, 15], [310, 10, 340, 40.0]])
        chances = np.array([[0.9, 0.1], [0.45, 0.4], [0.9, 0.1], [0.9, 0.1]], np.float32)
        tasks = {
            "expression": Task("categorical", ("happiness", "anger"), chances, choice=chances.argmax(1)),
            "valence_arousal": Task("continuous", ("valence", "arousal"), np.full((4, 2), 0.6, np.float32)),
        }
        return Result("r", (400, 100), np.zeros(1), np.zeros(4, int), Faces(boxes, np.ones(4)), tasks)


def test_only_confident_readings_of_legible_faces_count() -> None:
    boxes = [[x, 0, x + 80, 100] for x in (0, 100, 200, 300)]
    scene = make_scene("a", (400, 100), boxes, [], crowd=np.array([False, False, False, True]))
    data = Scenes(
        "d", "s", (scene, make_scene("b", (400, 100), [], [])), (), lambda i: np.zeros((100, 400, 3), np.uint8)
    )
    labelled = weak_labels.of_people(data, Reader())
    assert labelled.vocabulary == LABELS
    assert labelled.scenes[0].labels == (("Excitement", "Happiness", "Pleasure"), None, None, None)
    np.testing.assert_allclose(labelled.scenes[0].vad[0, :2], 8)
    assert np.isnan(labelled.scenes[0].vad[1:]).all()
    targets, affect = labelled.targets(labelled.scenes[0])
    assert targets[0].sum() == 3 and affect[0, 0] == pytest.approx(0.8)
