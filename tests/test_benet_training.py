"""BENet's training on tiny synthetic data: composed scenes, samples, batches, thresholds, a whole small run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from emotion import hub
from emotion.datasets import Samples, coco_person, emotic, heco, persons
from emotion.datasets.scenes import Scenes, make_scene
from emotion.errors import UserError
from emotion.labels import EMOTIC
from emotion.models import benet_decode as decode
from emotion.models.benet import BENet, BENetConfig
from train import __main__ as command
from train import benet as training
from train import benet_augment as augment
from train import benet_data as data
from train import benet_judge, compose, thresholds
from train import benet_losses as losses
from train import recipe as recipes

TINY = BENetConfig(
    input=decode.SceneInput(size=64),
    width=4,
    stem=4,
    modules=(1, 1, 1),
    blocks=1,
    bottlenecks=1,
    heads=("det", "bu"),
    labels=compose.LABELS,
    affect=("valence", "arousal"),
)


def faces(count: int = 6) -> Samples:
    """Red faces, happy and angry in turn."""
    classes = np.eye(3, dtype=np.float32)[[k % 2 for k in range(count)]]
    affect = np.array([[0.8, 0.6], [-0.7, 0.7]] * (count // 2), np.float32)
    return Samples(
        dataset="faces",
        split="train",
        ids=tuple(map(str, range(count))),
        picture=lambda i: np.full((40, 40, 3), (255, 0, 0), np.uint8),
        labels={"expression": ("happiness", "anger", "neutral"), "valence_arousal": ("valence", "arousal")},
        targets={"expression": classes, "valence_arousal": affect},
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> tuple[Scenes, Scenes]:
    root = persons.fake(tmp_path_factory.mktemp("persons"))
    return coco_person.load(root, "train", source="ccp"), coco_person.load(root, "train", source="coco")


@pytest.fixture(scope="module")
def composer(parts) -> compose.Composer:
    figures, empty = parts
    return compose.Composer(figures, [empty], [faces()], 10, compose.Arrangement(side=160, crowd=5, empty=0.2))


# -- composing ---------------------------------------------------------------------------------------------------------


def test_emotions_of_faces() -> None:
    assert compose.emotions("happiness", 0.8, 0.6) == ("Excitement", "Happiness", "Pleasure")
    assert compose.emotions("happiness", 0.1, 0.9) == ("Happiness",)
    assert compose.emotions("disgust", -0.5, 0.9) == ("Aversion",)
    assert compose.emotions("neutral", 0.0, 0.0) == ()


def test_composed_scenes_are_labelled_completely(composer) -> None:
    known, empty = 0, 0
    for seed in range(40):
        sample = composer.sample(0, np.random.default_rng(seed))
        height, width = sample.picture.shape[:2]
        assert min(height, width) == 160 and max(height, width) <= 240
        boxes = sample.boxes
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= [width, height]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert len(sample.labels) == len(sample.affect) == len(sample.known) == len(boxes)
        assert not sample.labels[~sample.known].any() and np.isnan(sample.affect[~sample.known]).all()
        known, empty = known + int(sample.known.sum()), empty + (not len(boxes))
        for row, values in zip(sample.labels[sample.known], sample.affect[sample.known]):
            happy = values[0] > 0.5
            names = {n for n, on in zip(compose.LABELS, row) if on}
            assert names == ({"Excitement", "Happiness", "Pleasure"} if happy else {"Anger"})
    assert known > 5 and empty > 2


def test_things_are_nobody_and_figures_keep_what_their_own_face_says(parts) -> None:
    figures, empty = parts
    how = compose.Arrangement(side=96, empty=1, things=4)
    nobody = compose.Composer(figures, [empty], [faces()], 1, how)
    for seed in range(5):
        sample = nobody.sample(0, np.random.default_rng(seed))
        assert not len(sample.boxes) and not len(sample.ignore)
    scenes = tuple(replace(s, labels=(("Fear",),) * len(s), vad=np.full((len(s), 3), 4.0)) for s in figures.scenes)
    read = replace(figures, scenes=scenes, vocabulary=compose.LABELS)
    how = compose.Arrangement(side=320, crowd=1, empty=0, faces=0, height=(1.5, 1.6), cut=0)
    own = compose.Composer(read, [empty], [faces()], 1, how)
    samples = [own.sample(0, np.random.default_rng(seed)) for seed in range(12)]
    known = [s for s in samples if s.known.any()]
    assert len(known) > 3
    for sample in known:
        assert sample.labels[0].tolist() == [name == "Fear" for name in compose.LABELS]
        assert sample.affect[0].tolist() == pytest.approx([0.4] * 3)


def test_grey_scenes_take_grey_faces(parts) -> None:
    figures, empty = parts
    angry = replace(faces(), picture=lambda i: np.full((48, 48), 200, np.uint8))
    angry.targets["expression"][:] = [0, 1, 0]
    angry.targets["valence_arousal"][:] = [-0.7, 0.7]
    for share, expected in ((1.0, {"Anger"}), (0.0, {"Anger", "Excitement", "Happiness", "Pleasure"})):
        how = compose.Arrangement(side=160, crowd=3, empty=0, faces=1, grey=share)
        composer = compose.Composer(figures, [empty], [faces(), angry], 1, how)
        samples = [composer.sample(0, np.random.default_rng(seed)) for seed in range(12)]
        seen = {n for s in samples for row in s.labels[s.known] for n, on in zip(compose.LABELS, row) if on}
        assert seen == expected
        assert all((np.ptp(s.picture, axis=2) == 0).all() for s in samples) == (share == 1)


def test_walls_of_portraits_are_labelled_completely(parts) -> None:
    figures, empty = parts
    composer = compose.Composer(figures, [empty], [faces()], 1, compose.Arrangement(side=160, portraits=1))
    counts = []
    for seed in range(12):
        sample = composer.sample(0, np.random.default_rng(seed))
        counts.append(len(sample.boxes))
        assert sample.known.all() and (sample.labels.any(axis=1) == np.isfinite(sample.affect[:, 0])).all()
        assert (augment.areas(sample.boxes) > 0).all() and not len(sample.ignore)
        h, w = sample.picture.shape[:2]
        assert (sample.boxes >= 0).all() and (sample.boxes[:, 2:] <= [w, h]).all()
        overlap = [augment.intersections(a, sample.boxes[:i]).any() for i, a in enumerate(sample.boxes)]
        assert not any(overlap)
    assert min(counts) < 3 and max(counts) > 15
    assert not np.array_equal(counts, [len(composer.arranged(portraits=0.0).sample(0, np.random.default_rng(s)).boxes)
                                       for s in range(12)])  # fmt: skip


def test_boxes_surround_the_bright_figures(parts) -> None:
    """Figures of the synthetic set are brighter than any ground: a lone one's box is where the bright pixels are."""
    figures, empty = parts
    how = compose.Arrangement(side=96, crowd=1, empty=0, faces=0, height=(0.3, 0.6), cut=0)
    composer = compose.Composer(figures, [empty], [faces()], 1, how)
    for seed in range(10):
        sample = composer.sample(0, np.random.default_rng(seed))
        if len(sample.boxes) != 1:
            continue
        x0, y0, x1, y1 = sample.boxes[0].astype(int)
        bright = sample.picture.astype(int).max(axis=2) > 100
        assert bright[y0:y1, x0:x1].mean() > 0.8
        bright[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = False
        assert bright.mean() < 0.01


def test_frozen_scenes_stay_the_same(composer) -> None:
    first, second = compose.frozen(composer, 5, seed=3), compose.frozen(composer, 5, seed=3)
    assert first.fingerprint == second.fingerprint != compose.frozen(composer, 5, seed=4).fingerprint
    np.testing.assert_array_equal(first.picture(2), second.picture(2))


def test_composing_needs_all_parts(parts) -> None:
    figures, empty = parts
    with pytest.raises(UserError, match="no pictures without people"):
        compose.Composer(figures, [figures], [faces()], 1)
    with pytest.raises(UserError, match="no masked figures"):
        compose.Composer(empty, [empty], [faces()], 1)
    unlabelled = replace(faces(), targets={"expression": faces().targets["expression"]})
    with pytest.raises(UserError, match="have no valence_arousal"):
        compose.Composer(figures, [empty], [unlabelled], 1)


# -- samples and batches -----------------------------------------------------------------------------------------------


def scene_of(boxes: list, labels: list | None = None, vad: list | None = None, **more) -> Scenes:
    scene = make_scene("a.png", (100, 80), boxes, [], labels=labels, vad=vad, **more)
    picture = np.full((80, 100, 3), 200, np.uint8)
    return Scenes("test", "train", (scene,), compose.LABELS, lambda i: picture)


def test_what_each_head_sees() -> None:
    boxes = [[10, 10, 30, 50], [60, 30, 90, 70]]
    vad = [[2, 4, 6], [4, 8, float("nan")]]
    source = data.Annotated(scene_of(boxes, [["Anger"], ["Fear"]], vad))
    assert len(source) == 2
    sample, rng = source.sample(1, np.random.default_rng(0)), np.random.default_rng(0)
    assert sample.boxes[0].tolist() == boxes[1] and sample.known.all()
    person = data.for_head(sample, "pc", rng)
    assert person.picture.shape == (40, 30, 3) and person.labels[0, compose.LABELS.index("Fear")] == 1
    background = data.for_head(sample, "bg", rng)
    assert (background.picture[30:70, 60:90] == 0).all() and background.labels.sum() == 2
    assert background.affect[0].tolist() == pytest.approx([0.2, 0.4, 0.6])  # the complete row alone
    assert (sample.picture == 200).all()  # nobody changed the original


def test_crowds_and_people_without_area_are_no_targets() -> None:
    crowd = np.array([False, True, False])
    scenes = scene_of([[10, 10, 30, 50], [0, 0, 99, 79], [5, 5, 5, 9]], crowd=crowd)
    source = data.Annotated(scenes)
    assert len(source) == 1
    sample = source.sample(0, np.random.default_rng(0))
    assert len(sample.boxes) == 1 and not sample.known.any() and sample.ignore.tolist() == [[0, 0, 99, 79]]


def test_people_moved_out_of_the_crop_are_no_targets() -> None:
    m = np.array([[1, 0, -50.0], [0, 1, 0], [0, 0, 1]])
    boxes = np.array([[0, 0, 40, 40], [60, 0, 90, 40], [45, 10, 60, 30.0]])
    assert augment.inside(boxes, m, 64).tolist() == [False, True, True]


def test_crops_lie_anywhere_but_inside() -> None:
    how = augment.Variation(scale=(0.5, 0.5), rotate=0, perspective=0, anywhere=True)
    corners = []
    for seed in range(50):
        m = augment.matrix(augment.draw(np.random.default_rng(seed)), (200, 100), 64, False, how)
        corners.append(np.linalg.inv(m) @ [[0, 64], [0, 64], [1, 1]])
    first, last = (np.array([c[:2, k] for c in corners]) for k in (0, 1))
    assert (first >= -1e-6).all() and (last <= [200 + 1e-6, 100 + 1e-6]).all()
    assert np.ptp(first[:, 0]) > 100 and np.ptp(first[:, 1]) > 30


def test_what_is_left_of_people_outside_the_crop_is_ignored() -> None:
    source = data.Annotated(scene_of([[20, 10, 80, 70], [0, 0, 10, 80]]))
    how = augment.Variation(scale=(0.5, 0.5), rotate=0, perspective=0, move=0, flip=0)
    dataset = data.SceneData([source], TINY, {"det+bu": 1.0}, how)
    sample = source.sample(0, np.random.default_rng(0))
    row = dataset.row(sample, "det+bu", augment.draw(np.random.default_rng(0), 0), np.random.default_rng(0))
    assert len(row["boxes0"]) == 1 and len(row["ignore0"]) == 1


def test_from_scratch_nobody_is_seen_at_first() -> None:
    torch.manual_seed(0)
    model = BENet(TINY).eval()
    training.initialise(model, scratch=True)
    with torch.no_grad():
        out = model(torch.randn(1, 3, 64, 64))
    assert out["heatmap1"].sigmoid().median() < 0.2
    assert model.bu.high[-1][-1].bias.tolist() == pytest.approx([training.PRIOR] * 8 + [0, 0])


def test_boxes_follow_the_picture() -> None:
    """A bright rectangle and its box go the same way under rotation, perspective and mirroring."""
    picture = np.zeros((80, 100, 3), np.uint8)
    picture[30:50, 40:70] = 255
    box, how = np.array([[40, 30, 70, 50.0]]), augment.Variation()
    for seed in range(20):
        d = augment.draw(np.random.default_rng(seed))
        m = augment.matrix(d, (100, 80), 128, False, how)
        out = augment.warp(picture, m, 128, d.flip)[..., 0] > 127
        rows, columns = np.flatnonzero(out.any(1)), np.flatnonzero(out.any(0))
        if not len(rows):
            continue
        seen = [columns[0], rows[0], columns[-1], rows[-1]]
        np.testing.assert_allclose(augment.move_boxes(box, m, 128, d.flip)[0], seen, atol=3)


def test_batches(composer) -> None:
    torch.manual_seed(0)
    real = data.Annotated(scene_of([[10, 10, 30, 50]]))
    dataset = data.SceneData([composer, real], TINY, {"det+bu": 1.0})
    assert len(dataset) == 11
    batch = next(iter(dataset.loader(11)))
    assert batch["images"].shape == (11, 3, 64, 64)
    assert batch["routes"] == {"det": [*range(11)], "bu": [*range(11)]}
    assert batch["heatmap0"].shape == (11, 16, 16) and batch["heatmap1"].shape == (11, 32, 32)
    people = batch["present"].sum(1)
    centres = (batch["heatmap1"] == 1).sum((1, 2))
    assert (centres <= people).all() and (centres[people > 0] > 0).all()
    again = torch.manual_seed(0) and next(iter(dataset.loader(11)))
    torch.testing.assert_close(batch["images"], again["images"])


def test_bumps_as_wide_as_people_have_their_top_at_the_centre() -> None:
    boxes = np.array([[2, 2, 6, 8], [10, 4, 60, 44.0]])
    heat = losses.bumps(boxes, 64, 0.1)
    assert heat.dtype == np.float32 and heat[5, 4] == heat[24, 35] == 1 and (heat == 1).sum() == 2
    assert heat[24, 40] == pytest.approx(np.exp(-0.5), abs=1e-6), "a tenth of the width is one deviation"
    assert heat[28, 35] == pytest.approx(np.exp(-0.5), abs=1e-6), "and of the height"
    assert heat[5, 5] == pytest.approx(np.exp(-0.5), abs=1e-6), "at least one cell"
    assert not losses.bumps(np.zeros((0, 4)), 8, 0.1).any()


def test_people_are_learnt_at_their_centres_and_around_them() -> None:
    aim = losses.Aim(spread=0.1, cells=5, relative=True)
    boxes = np.array([[0, 0, 2, 2], [10, 4, 60, 44.0]])
    cells = losses.around(boxes, 64, aim, np.random.default_rng(0)).reshape(2, 5, 2)
    assert cells[:, 0].tolist() == losses.centres(boxes).tolist() and cells.min() >= 0
    assert len(np.unique(cells[1], axis=0)) > 2 and np.abs(cells[1] - cells[1, 0]).max() < 20
    assert losses.around(boxes, 64, losses.PUBLISHED, np.random.default_rng(0)).tolist() == cells[:, 0].tolist()
    dataset = data.SceneData(
        [data.Annotated(scene_of([[10, 10, 30, 50], [40, 10, 70, 70]]))], TINY, {"det+bu": 1.0}, aim=aim
    )
    torch.manual_seed(0)
    batch = next(iter(dataset.loader(2)))
    assert batch["present"].sum(1).tolist() == [10, 10] and batch["sizes0"].shape == (2, 10, 2)
    sizes = batch["sizes1"].unflatten(1, (2, 5))
    assert (sizes == sizes[:, :, :1]).all() and (
        batch["cells1"].unflatten(1, (2, 5)) != batch["cells1"][:, None, :1]
    ).any()


def test_relative_errors_of_sizes_do_not_depend_on_size() -> None:
    sizes, there = torch.tensor([[[10.0, 4.0], [100.0, 40.0]]]), torch.tensor([[True, True]])
    errors = [losses.size_l1(sizes * 1.1, sizes, there & torch.arange(2).eq(k), relative=True) for k in (0, 1)]
    assert errors[0].item() == pytest.approx(0.2) and errors[1].item() == pytest.approx(0.2)


def test_where_an_annotation_is_incomplete_nobody_is_denied() -> None:
    whole = scene_of([[10, 10, 30, 50], [40, 20, 60, 70]])
    for scenes, outside in (
        (whole, False),
        (replace(whole, scenes=(replace(whole.scenes[0], complete_from=40.0),)), True),
    ):
        sample = data.Annotated(scenes).sample(0, np.random.default_rng(0))
        covered = np.zeros((80, 100), bool)
        for x0, y0, x1, y1 in sample.ignore.round().astype(int):
            covered[y0:y1, x0:x1] = True
        people = np.zeros_like(covered)
        people[10:70, 10:60] = True
        assert (covered == (outside & ~people)).all()


def test_two_vocabularies_in_one_batch(tmp_path) -> None:
    config = BENetConfig(input=TINY.input, width=4, stem=4, modules=(1, 1, 1), blocks=1, bottlenecks=1,
                         heads=("det", "bu", "pc", "bg"), extra=("Anger", "Disgust", "Excitement", "Fear", "Happiness",
                                                                 "Peace", "Sadness", "Surprise"))  # fmt: skip
    sources = [
        data.Annotated(emotic.load(emotic.fake(tmp_path / "e"))),
        data.Annotated(heco.load(heco.fake(tmp_path / "h")), second=True),
    ]
    model = BENet(config)
    weights = dict.fromkeys(("det", "bu", "pc", "bg"), 0.25)
    torch.manual_seed(1)
    seen: set[str] = set()
    loader = data.SceneData(sources, config, weights).loader(11)
    for _ in range(6):
        for batch in loader:
            model.train()
            parts = training.losses.parts(model, model(batch["images"], batch["routes"]), batch)
            assert all(torch.isfinite(v) for v in parts.values())
            seen |= parts.keys()
    assert {"heatmap0", "size1", "bu0", "bu1_extra", "pc", "pc_extra", "bg"} <= seen


def test_without_detection_only_people_with_emotions_teach() -> None:
    config = replace(TINY, heads=("bu",))
    assert not len(data.Annotated(scene_of([[10, 10, 30, 50]]), detection=False))
    assert not len(data.Annotated(scene_of([[10, 10, 30, 50]], [[]]), detection=False))
    assert len(data.Annotated(scene_of([[10, 10, 30, 50]], [["Anger"]]), detection=False)) == 1
    nobody = data.SceneData([data.Annotated(scene_of([]))], config, {"bu": 1.0})  # as composed scenes may be
    batch = next(iter(nobody.loader(1)))
    trainee = training.BENetTrainee(BENet(config), nobody, [], [training.Phase(1, 0.1)])
    assert torch.isfinite(trainee.loss(trainee.model, batch, trainee.stages()[0]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batchsize": 4}, "unknown field batchsize"),
        ({"batch": 0}, "batch: Input should be greater than 0"),
        ({"heads": None}, "heads: "),
        ({"heads": {"bu": 0.5, "det": 0.5}}, "cannot train det; it has bu"),
        ({"heads": {"bu": 0}}, "bu needs a probability above 0"),
        ({"compose": {"length": 4}}, "valid must say how many"),
        ({"model": {"preset": "huge"}}, "unknown preset"),
        ({"stages": []}, "stages: "),
    ],
)
def test_wrong_recipes_are_refused_by_name(changes, message, tmp_path) -> None:
    model = {"input": {"size": 64}, "width": 4, "stem": 4, "modules": [1, 1, 1], "blocks": 1, "bottlenecks": 1,
             "heads": ["bu"], "labels": list(compose.LABELS), "affect": []}  # fmt: skip
    recipe = recipes.load("benet-bu")
    rest = {"model": model, "heads": {"bu": 1}, "stages": [{"epochs": 1, "lr": 0.1}], "batch": "4"} | changes
    with pytest.raises(UserError, match=message):
        training.build(replace(recipe, data={}, rest=rest), {}, None)


def test_heads_and_stages_are_asked_for() -> None:
    recipe = recipes.load("benet-bu")
    for field in ("heads", "stages", "model"):
        rest = {k: v for k, v in recipe.rest.items() if k != field}
        with pytest.raises(UserError, match=f"recipe: {field}"):
            training.build(replace(recipe, rest=rest), {}, None)


def test_batch_without_any_target_still_trains() -> None:
    source = data.Annotated(scene_of([]))
    dataset = data.SceneData([source], TINY, {"det+bu": 1.0})
    phases = [training.Phase(1, 0.1), training.Phase(1, 0.1, side=96)]
    trainee = training.BENetTrainee(BENet(TINY), dataset, [], phases, batch=1)
    for stage, side in zip(trainee.stages(), (64, 96), strict=True):
        trainee.begin(stage)
        batch = next(iter(trainee.batches(stage)))
        loss = trainee.loss(trainee.model, batch, stage)
        loss.backward()
        assert torch.isfinite(loss) and batch["images"].shape[2:] == (side, side)


# -- the whole ---------------------------------------------------------------------------------------------------------


def test_thresholds_maximise_f1() -> None:
    labels = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], float)
    scores = np.array([[0.9, 0.1], [0.3, 0.2], [0.2, 0.3], [0.1, 0.4]])
    assert benet_judge.thresholds(labels, scores) == (0.3, 0.5)


def test_threshold_of_people_maximises_f1() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10.0]])
    found = [{"boxes": boxes, "scores": np.array([0.9, 0.6, 0.4, 0.2])}]
    truth = [{"boxes": boxes[[0, 2]]}]  # two of the three strongest are right: 0.8; the strongest alone: 0.67
    assert benet_judge.person_threshold(found, truth) == 0.4
    assert benet_judge.person_threshold(found, [{"boxes": np.zeros((0, 4))}]) is None


def test_detections_too_short_to_be_annotated_are_not_judged() -> None:
    scene = make_scene("a", (100, 100), [[0, 0, 40, 80], [0, 0, 5, 10]], [], complete_from=30.0)
    found = {"boxes": np.array([[0, 0, 40, 80], [50, 50, 60, 70.0]]), "scores": np.array([0.5, 0.9])}
    kept, truth = benet_judge.complete(scene, found)
    assert kept["scores"].tolist() == [0.5] and truth["ignore"].tolist() == [False, True]


def test_a_small_run_writes_a_checkpoint_and_learns(tmp_path, capsys) -> None:
    table = yaml.safe_load((recipes.FOLDER / "benet-small.yaml").read_text())
    table |= {"batch": 4, "workers": 0, "repeat": 1, "side": 64,
              "compose": {"length": 12, "valid": 16, "side": 160, "grey": 0.5, "things": 1.0}}  # fmt: skip
    table["model"] = {
        "input": {"size": 64}, "width": 4, "stem": 4, "modules": [1, 1, 1], "blocks": 1, "bottlenecks": 1,
        "heads": ["det", "bu"], "labels": list(compose.LABELS), "affect": ["valence", "arousal"],
    }  # fmt: skip
    table["stages"] = [
        {"epochs": 1, "lr": 0.002},
        {"epochs": 1, "lr": 0.002, "side": 96, "compose": {"portraits": 0.5}},
    ]
    table["settings"] |= {"precision": "no", "compile": False}
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(table))
    assert command.main([str(path), "--smoke", "--out", str(tmp_path / "run")]) == 0
    model = hub.load(tmp_path / "run/benet_small.scenes")
    assert isinstance(model, BENet) and len(model.config.thresholds) == len(compose.LABELS)
    assert model.card.metrics.keys() >= {
        "composed/seed 0/mAP", "portraits/seed 0/mAP", "coco_person/val/AP"
    }  # fmt: skip
    card = (tmp_path / "run/benet_small.scenes/README.md").read_text()
    assert "Pleasure a valence of at least 0.3" in card
    capsys.readouterr()


def test_recipes_of_all_published_configurations_build(tmp_path) -> None:
    folders = {"emotic": emotic.fake(tmp_path / "e"), "heco": heco.fake(tmp_path / "h")}
    for name in (n for n in recipes.names() if n.startswith("benet-bu")):
        recipe = recipes.load(name)
        with torch.device("meta"):
            model = BENet(training._config(recipe.rest["model"]))
        assert set(recipe.rest["heads"]) == set(model.config.heads)
        loaded = recipes.samples(recipe, "train", folders)
        assert [training._second(model, d) for d in loaded] == [False, True][: len(loaded)]


def test_starting_from_another_checkpoint(tmp_path) -> None:
    torch.manual_seed(0)
    first = BENet(TINY)
    hub.save(first, "benet", tmp_path / "first", hub.Card("a.b", "MIT", True), "")
    second = BENet(replace(TINY, affect=()))
    training.start(second, str(tmp_path / "first"))
    torch.testing.assert_close(second.backbone.conv1.weight, first.backbone.conv1.weight)
    with pytest.raises(UserError, match="tensors of its backbone differ"):
        training.start(BENet(replace(TINY, width=8, stem=8)), str(tmp_path / "first"))


def test_thresholds_of_a_finished_checkpoint(tmp_path, capsys) -> None:
    folder = emotic.fake(tmp_path / "e")
    config = replace(TINY, labels=EMOTIC, affect=())
    torch.manual_seed(0)
    hub.save(BENet(config), "benet", tmp_path / "m", hub.Card("a.b", "MIT", True), "card")
    arguments = [str(tmp_path / "m"), "--data", str(folder), "-o", str(tmp_path / "calibrated")]
    assert thresholds.main(arguments) == 0
    again = hub.load(tmp_path / "calibrated")
    assert len(again.config.thresholds) == 26 and set(again.config.thresholds) != {0.5}
    assert (tmp_path / "calibrated/README.md").read_text() == "card"
    assert "Affection" in capsys.readouterr().out
    hub.save(BENet(TINY), "benet", tmp_path / "other", hub.Card("a.b", "MIT", True), "")
    assert thresholds.main([str(tmp_path / "other"), "--data", str(folder), "-o", str(tmp_path / "x")]) == 2
