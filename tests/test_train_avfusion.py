"""Training the fusion: what learns, what is measured, and that its recipes run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from emotion import hub
from emotion.datasets import Samples, ravdess
from emotion.errors import UserError
from emotion.importers.avfusion import original_input
from emotion.labels import RAVDESS
from emotion.models.avfusion import CONDITIONS, AVFusion, AVFusionConfig, Clips
from emotion.models.avfusion_audio import clip_samples, mfcc
from emotion.models.base import ClipInput, FaceInput, VectorInput
from emotion.models.efficientface import EfficientFace, EfficientFaceConfig
from train import __main__ as command
from train import avfusion, avfusion_folds, loop
from train import recipe as recipes
from train.avfusion_data import BorrowedFaces, ClipData, Turn, Vary, mixup, modality_dropout, standardised

SIZE, FRAMES = 32, 2
TINY = {
    "method": "avfusion",
    "about": "a test",
    "name": "avfusion_tiny.ravdess",
    "data": {r: [{"dataset": "ravdess", "split": r, "visual": "action_units"}] for r in ("train", "valid", "test")},
    "model": {"input": {"visual": "action_units", "frames": 1}, "fusion": "it", "heads": 2, "dropout": 0.1},
    "settings": {"optimizer": "adamw"},
    "batch": 4,
    "standardise": True,
    "noise": 0.1,
    "select": "mean",
    "stages": [{"epochs": 15, "lr": 0.003, "evaluate_every": 5}],
}
FACES = TINY | {
    "data": {r: [{"dataset": "ravdess", "split": r}] for r in ("train", "valid")},
    "model": {"input": {"visual": {"size": [SIZE, SIZE]}, "frames": FRAMES}},
    "turn": {"flip": 0.5, "degrees": 10},
    "stages": [{"epochs": 1, "lr": 0.01, "lr_backbone": 0.0}, {"epochs": 1, "lr": 0.01, "lr_backbone": 0.001}],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ravdess.fake(tmp_path_factory.mktemp("ravdess"), size=SIZE, frames=FRAMES)


def recipe_file(folder: Path, table: dict = TINY, **changes: object) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(table | changes))
    return str(path)


def trainee(folder: Path, root: Path, table: dict = TINY, **changes: object) -> avfusion.AVFusionTrainee:
    return avfusion.build(recipes.load(recipe_file(folder, table, **changes)), {"ravdess": root}, None)


def test_a_run_learns_and_measures_every_condition(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "run"
    assert command.main([recipe_file(tmp_path), "--data", str(data), "--out", str(out)]) == 0
    model = hub.load(out / "avfusion_tiny.ravdess")
    assert model.config.input.visual.names == ravdess.action_units(data)[0]
    assert len(model.config.input.audio.mean) == model.config.input.audio.coefficients
    figures = model.card.metrics
    assert {k.split("/")[2] for k in figures} == set(CONDITIONS)
    assert figures["ravdess/test/both/accuracy"] > 0.5  # every class has a tone and values of its own
    assert figures["ravdess/test/video/accuracy"] > 0.3  # chance is 0.125
    text = (out / "avfusion_tiny.ravdess" / "README.md").read_text()
    assert "| audio |" in text and "actors 5" in text and "collected on the web" not in text


def test_faces_train_with_the_backbone_frozen_or_not(tmp_path: Path, data: Path) -> None:
    run = trainee(tmp_path, data, FACES)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    frozen, free = run.stages()
    for stage, changes in ((frozen, False), (free, True)):
        run.begin(stage)
        loader = run.batches(stage)
        run.loss(run.model, next(iter(loader)), stage).backward()
        assert (run.model.backbone.top[0].weight.grad is not None) == changes
        same = torch.equal(run.model.backbone.top[1].running_mean, before["backbone.top.1.running_mean"])
        assert same != changes
    figures = run.evaluate(run.model, frozen)
    assert {"score", "accuracy_both", "accuracy_audio", "accuracy_video"} == set(figures)


def test_folds_test_every_speaker_once(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    recipe = recipe_file(tmp_path, stages=[{"epochs": 1, "lr": 0.001}])
    arguments = [recipe, "--data", str(data), "--folds", "3", "--out", str(tmp_path / "folds")]
    assert avfusion_folds.main(arguments) == 0
    assert "3 speakers, 3 folds, 1 seeds" in capsys.readouterr().out
    document = json.loads((tmp_path / "folds" / "folds.json").read_text())
    assert set(document["figures"]) == set(CONDITIONS) and len(document["test speakers"]) == 3
    assert avfusion_folds.main([recipe, "--data", str(data), "--folds", "9"]) == 2


def test_the_published_split_with_several_seeds(tmp_path: Path, data: Path) -> None:
    recipe, out = recipe_file(tmp_path, stages=[{"epochs": 1, "lr": 0.001}]), tmp_path / "run"
    asked = [recipe, "--data", str(data), "--scheme", "published", "--seeds", "3", "4", "--out", str(out)]
    assert avfusion_folds.main(asked) == 0
    document = json.loads((out / "folds.json").read_text())
    both = document["figures"]["both"]
    assert document["seeds"] == [3, 4] and document["test speakers"] == [["5", "10", "16", "19"]] * 2
    assert len(both["each"]) == 2 and both["accuracy"] == pytest.approx(np.mean(both["each"]))
    low, high = both["interval"]["accuracy"]
    assert low == high == pytest.approx(both["accuracy"])  # one of the four speakers is in these data
    states = [(out / f"fold-0/seed-{s}/best-0.safetensors").read_bytes() for s in (3, 4)]
    assert states[0] != states[1]


def test_voices_alone(tmp_path: Path, data: Path) -> None:
    sources = {r: [{"dataset": "ravdess", "split": r, "visual": "none"}] for r in ("train", "valid", "test")}
    network = TINY["model"] | {"input": {"visual": {"names": ["nothing"]}, "frames": 1}}
    for select in ("both", "mean"):
        trained = trainee(tmp_path, data, data=sources, model=network, select=select, mixup=0.2)
        before = {name: value.clone() for name, value in trained.model.state_dict().items()}
        loop.fit(trained, tmp_path / select, recipes.load(str(tmp_path / "tiny.yaml")).settings)
        assert set(trained.evaluate(trained.model, trained.stages()[0])) == {"score", "accuracy_audio"}
        name = "audio.stage1.0.weight"
        assert not torch.equal(trained.model.state_dict()[name], before[name])
    _, kept = avfusion.condition_table(trained.model, trained.test)
    assert set(kept) == {f"{c}/{m}" for c in ("audio", "noisy audio") for m in ("accuracy", "uar", "f1")}
    assert standardised(trained.train).audio.mean != (0.0,)
    films = trainee(tmp_path, data).train
    with pytest.raises(UserError, match="some clips have sound alone"):
        ClipData([*trained.train.parts, *films.parts], films.config, films.parts[0].labels["expression"])


@pytest.mark.parametrize("visual", ["faces", "action_units"])
def test_pictures_alone(visual: str, tmp_path: Path, data: Path) -> None:
    sources = {r: [{"dataset": "ravdess", "split": r, "visual": visual, "sound": False}] for r in ("train", "valid")}
    table = TINY if visual == "action_units" else FACES
    for dropout in ("softhard", "hard"):
        trained = trainee(
            tmp_path, data, table, data=sources, mixup=0.2, standardise=True, modality_dropout=dropout,
            vary={"speeds": [1.0, 1.1], "shift": 2, "masks": 1, "columns": 3}, noise=0.1,
            stages=[{"epochs": 1, "lr": 0.01}],
        )  # fmt: skip
        before = trained.model.fc.weight.clone()
        loop.fit(trained, tmp_path / dropout, loop.Settings())
        assert not torch.equal(trained.model.fc.weight, before)
        assert set(trained.evaluate(trained.model, trained.stages()[0])) == {"score", "accuracy_video"}
    _, kept = avfusion.condition_table(trained.model, trained.valid)
    assert set(kept) == {f"{c}/{m}" for c in ("video", "noisy video") for m in ("accuracy", "uar", "f1")}
    heard = trainee(tmp_path, data, table)
    with pytest.raises(UserError, match="some clips have pictures alone"):
        ClipData([*trained.train.parts, *heard.train.parts], trained.train.config, RAVDESS)
    assert trained.train.only(trained.train.classes.numpy() < 4).features is None


def test_going_on_keeps_what_the_network_saw(tmp_path: Path, data: Path) -> None:
    known = replace(original_input(), frames=FRAMES, visual=replace(original_input().visual, size=(SIZE, SIZE)))
    torch.manual_seed(3)
    begin = AVFusion(AVFusionConfig(input=known, heads=4))
    hub.save(begin, "avfusion", tmp_path / "begin", hub.Card("avfusion_ia.begin", "MIT", True), "# Untrained\n")
    recipe = recipes.load(recipe_file(tmp_path, FACES))
    run = avfusion.build(recipe, {"ravdess": data}, str(tmp_path / "begin"))
    assert recipe.rest["standardise"] and run.model.config.heads == 4
    audio, pictures, _ = run.model.inputs(*run.train.__getitems__([0, 1])[:2])
    entry = run.train.parts[0].picture(0)
    own = begin.inputs(mfcc(clip_samples(entry.sound, known, 0.0), known.audio)[None], np.array(entry.visual)[None])
    torch.testing.assert_close(audio[:1], own.audio)
    torch.testing.assert_close(pictures[:1], own.visual)
    assert all(torch.equal(run.model.state_dict()[name], value) for name, value in begin.state_dict().items())
    with pytest.raises(UserError, match="face crops; the recipe's input is the measurements AU04_r"):
        avfusion.build(recipes.load(recipe_file(tmp_path)), {"ravdess": data}, str(tmp_path / "begin"))


def test_cards_say_that_faces_are_borrowed(tmp_path: Path, data: Path) -> None:
    sources = {r: [{"dataset": "ravdess", "split": r, "visual": "none"}] for r in ("train", "valid")}
    network = TINY["model"] | {"input": {"visual": {"names": ["v"]}, "frames": FRAMES}}
    run = trainee(tmp_path, data, data=sources, model=network)
    faces = BorrowedFaces(
        [grey_faces(RAVDESS)], RAVDESS, FaceInput(size=(SIZE, SIZE)), {}, lambda x: x[:, 0, 0, :1].astype(np.float32)
    )
    recipe = recipes.load(str(tmp_path / "tiny.yaml"))
    text = avfusion.report(run, recipe, "train")[1]
    assert "(voice alone, published" in text and "| audio |" in text
    run.options = replace(run.options, borrow={})
    run.train, run.valid = (ClipData(d.parts, run.model.config.input, RAVDESS, faces) for d in (run.train, run.valid))
    text = avfusion.report(run, recipe, "train")[1]
    assert "(borrowed faces, published" in text and "(none" not in text
    assert "| voice and borrowed face |" in text and "| borrowed face alone |" in text and "| both |" not in text


def test_starting_from_other_checkpoints() -> None:
    face = ClipInput(visual=FaceInput(size=(SIZE, SIZE)), frames=FRAMES)
    torch.manual_seed(1)
    eye = EfficientFace(EfficientFaceConfig())
    model = AVFusion(AVFusionConfig(input=face))
    avfusion.start(model, eye)
    assert all(torch.equal(model.backbone.state_dict()[k], value) for k, value in eye.backbone.state_dict().items())
    other = AVFusion(AVFusionConfig(input=face))
    avfusion.start(other, model)
    assert torch.equal(other.fc.weight, model.fc.weight)
    fewer = AVFusion(AVFusionConfig(input=face, labels=("calm", "anger")))
    avfusion.start(fewer, model)
    assert fewer.fc.weight.shape == (2, 256) and torch.equal(fewer.audio.stage1[0].weight, model.audio.stage1[0].weight)
    with pytest.raises(UserError, match="does not fit"):
        avfusion.start(AVFusion(AVFusionConfig(input=face, fusion="lt")), model)
    with pytest.raises(UserError, match="EfficientFace"):
        avfusion.start(model, torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality_dropout": "soft"}, "softhard, hard, noise, none"),
        ({"select": "best"}, "both or mean"),
        ({"depth": 3}, "depth"),
        ({"stages": [{"epochs": 1, "lr": 0.1, "loss": "l2"}]}, "loss"),
        ({"turn": {"shear": 3}}, "shear"),
        ({"data": {"train": TINY["data"]["train"]}}, "train and valid"),
        ({"model": {"input": {"visual": {"names": ["a"]}, "frames": 1}}}, "measurements have shape"),
    ],
)
def test_recipes_that_do_not_fit(changes: dict, message: str, tmp_path: Path, data: Path) -> None:
    with pytest.raises(UserError, match=message):
        trainee(tmp_path, data, **changes)


def test_crops_of_another_size(tmp_path: Path, data: Path) -> None:
    run = trainee(tmp_path, data, FACES, model={"input": {"visual": {"size": [64, 64]}, "frames": FRAMES}})
    with pytest.raises(UserError, match="prepare it anew"):
        next(iter(run.batches(run.stages()[0])))


def test_turning_is_the_same_for_all_pictures() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8).repeat(3, axis=0)
    varied = Turn(flip=1.0, degrees=10)(crops)
    assert (varied == varied[:1]).all() and not (varied == crops).all()
    np.testing.assert_array_equal(Turn(flip=1.0)(crops), crops[:, :, ::-1])
    np.testing.assert_array_equal(Turn()(crops), crops)


@pytest.mark.parametrize(("kind", "copies"), [("softhard", 4), ("noise", 3), ("none", 1)])
def test_modality_dropout_keeps_clips_whole(kind: str, copies: int) -> None:
    torch.manual_seed(0)
    number = torch.arange(1.0, 6.0)
    clips_ = Clips(number.view(5, 1, 1).expand(5, 2, 3), number.view(5, 1, 1).expand(5, 4, 6))
    out, classes = modality_dropout(clips_, torch.arange(5), kind)
    assert len(out.audio) == len(out.visual) == len(classes) == 5 * copies
    whole = 0
    for audio, visual, k in zip(out.audio, out.visual, classes):
        if kind == "softhard":
            total = (audio.mean() + visual.mean()) / (k + 1)
            assert abs(total - 1) < 1e-5 or abs(total - 2) < 1e-5  # blended or alone, or both whole
        whole += int((audio == k + 1).all() and (visual == k + 1).all())
    assert whole >= 5


def test_hard_dropout_takes_one_modality_or_none() -> None:
    torch.manual_seed(0)
    number = torch.arange(1.0, 401.0)
    whole = Clips(number.view(-1, 1, 1).expand(400, 2, 3), number.view(-1, 1, 1).expand(400, 4, 6))
    out, classes = modality_dropout(whole, torch.arange(400), "hard")
    heard = out.audio.mean((1, 2)) > 0
    assert (heard | out.seen).all() and torch.equal(classes, torch.arange(400))
    assert 70 < int((~heard).sum()) < 130 and 160 < int((~out.seen).sum()) < 240
    torch.testing.assert_close(out.visual[:, 0, 0], number[out.seen])


@pytest.mark.parametrize("names", [None, ("a", "b")])
def test_clips_that_share_the_absence_of_pictures(names: tuple[str, ...] | None) -> None:
    torch.manual_seed(0)
    visual = FaceInput(size=(SIZE, SIZE)) if names is None else VectorInput(names)
    model = AVFusion(AVFusionConfig(input=ClipInput(visual=visual, frames=FRAMES))).eval()
    shapes = model.config.input.audio_shape, model.config.input.visual_shape
    audio, pictures = (torch.randn(3, *shape) for shape in shapes)
    seen = torch.tensor([True, False, True])
    with torch.inference_mode():
        out = model(Clips(audio, pictures[seen], seen))["expression"]
        torch.testing.assert_close(out[seen], model(Clips(audio[seen], pictures[seen]))["expression"])
        torch.testing.assert_close(out[1:2], model(Clips(audio[1:2], None))["expression"], atol=1e-5, rtol=1e-4)


def test_sound_is_varied_in_time() -> None:
    torch.manual_seed(0)
    x = torch.arange(1.0, 41.0).expand(50, 3, 40)
    assert Vary()(x) is x
    moved = Vary(shift=5)(x)
    first = moved[:, 0, 0]
    assert {*first.long().tolist()} <= {*range(1, 7), *range(36, 41)} and len(first.unique()) > 5
    torch.testing.assert_close(moved.sum(-1), x.sum(-1))
    blotted = (Vary(masks=2, columns=6)(x) == 0).float()
    assert (blotted[:, :1] == blotted).all()  # all coefficients alike
    assert blotted[:, 0].sum(-1).mean() > 0 and blotted[:, 0].sum(-1).max() <= 12
    with pytest.raises(ValueError, match="speeds start with"):
        Vary(speeds=(0.9, 1.1))


def test_speeds_are_features_of_their_own(data: Path) -> None:
    config = ClipInput(visual=VectorInput(ravdess.action_units(data)[0]), frames=1)
    parts = [ravdess.load(data, "train", visual="action_units")]
    clips_ = ClipData(parts, config, RAVDESS, speeds=(1.0, 1.25), fixed=False)
    fixed = clips_.only(clips_.classes.numpy() < 2)
    assert len(fixed) == 2 and fixed.classes.tolist() == [0, 1] and len(fixed.vectors) == 2
    features, _, _ = fixed.__getitems__([1, 0])
    np.testing.assert_array_equal(features, clips_.features[[1, 0]])
    slow, fast = clips_.variants
    assert not np.allclose(slow, fast, atol=1)
    drawn = np.stack([clips_.__getitems__([3])[0][0] for _ in range(20)])
    assert {bool((d == slow[3]).all()) for d in drawn} == {True, False}


def test_mixup_blends_clips_and_targets_alike() -> None:
    torch.manual_seed(0)
    targets = torch.eye(4)
    clips_ = Clips(targets[:, :, None].expand(4, 4, 5), targets[:, None].expand(4, 3, 4))
    out, mixed = mixup(clips_, targets, 0.5)
    torch.testing.assert_close(mixed.sum(1), torch.ones(4))
    torch.testing.assert_close(out.audio[:, :, 0], mixed)
    torch.testing.assert_close(out.visual[:, 0], mixed)


def grey_faces(labels: tuple[str, ...]) -> Samples:
    """Two flat grey faces per class, as bright as the class's number."""
    classes = np.repeat(np.arange(len(labels)), 2)
    return Samples(
        dataset="grey",
        split="train",
        ids=tuple(map(str, range(len(classes)))),
        picture=lambda i: np.full((48, 48), 10 * classes[i], np.uint8),
        labels={"expression": labels},
        targets={"expression": np.eye(len(labels), dtype=np.float32)[classes]},
    )


def test_borrowed_faces_show_the_clips_expression(data: Path) -> None:
    seven = tuple(label for label in RAVDESS if label != "calm")
    config = ClipInput(visual=FaceInput(size=(SIZE, SIZE), channels="bgr"), frames=FRAMES)
    faces = BorrowedFaces([grey_faces(seven)], RAVDESS, config.visual, {"calm": "neutral"})
    voices = ClipData([ravdess.load(data, "train", visual="none")], config, RAVDESS, faces)
    _, crops, classes = voices.__getitems__(list(range(len(voices))))
    assert crops.shape == (8, FRAMES, SIZE, SIZE, 3)
    for crop, k in zip(crops, classes):
        label = "neutral" if RAVDESS[k] == "calm" else RAVDESS[k]
        assert (crop == 10 * seven.index(label)).all()
    with pytest.raises(UserError, match="calm"):
        BorrowedFaces([grey_faces(seven)], RAVDESS, config.visual, {})
    brightness = BorrowedFaces(
        [grey_faces(seven)], RAVDESS, config.visual, {"calm": "neutral"}, lambda x: x[:, 0, 0, :1].astype(np.float32)
    )
    lit = ClipData(
        [ravdess.load(data, "train", visual="none")], replace(config, visual=VectorInput(("v",))), RAVDESS, brightness
    )
    _, values, _ = lit.__getitems__([1, 3])
    assert values.shape == (2, FRAMES, 1) and (values[1] == 10 * seven.index(RAVDESS[3])).all()
    assert standardised(lit).visual.mean == (30.0,)  # seven shades, 0 to 60


def test_figures_and_intervals() -> None:
    logits = torch.eye(8)[torch.tensor([0, 0, 1, 2])] * 5
    classes, groups = torch.tensor([0, 0, 1, 3]), np.array(["a", "b", "a", "b"])
    row = avfusion.figures(logits, classes)
    assert row["accuracy"] == 0.75 and row["uar"] == pytest.approx(2 / 3)
    distinct = torch.arange(8.0).expand(2, 8)
    assert [avfusion.top(distinct, torch.tensor([7, 3]), k) for k in (1, 4, 5, 99)] == [0.5, 0.5, 1, 1]
    low, high = avfusion.interval(logits, classes, groups)["accuracy"]
    assert (low, high) == (0.5, 1.0)  # speaker b alone, speaker a alone


RECIPES = [
    "avfusion-ravdess",
    "avfusion-au-ravdess",
    "avfusion-relative-ravdess",
    "avfusion-borrowed-ravdess",
    "avfusion-voice-ravdess",
    "avfusion-clips",
]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_build(name: str, tmp_path: Path, data: Path) -> None:
    recipe = recipes.load(name)
    model = hub.build("avfusion", avfusion._with_names(recipe.rest["model"], {"ravdess": data}))
    assert model.config.labels == RAVDESS


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_smoke(name: str, tmp_path: Path) -> None:
    assert command.main([name, "--smoke", "--out", str(tmp_path / "run")]) == 0


def test_loop_settings_reach_the_optimiser() -> None:
    linear = torch.nn.Linear(2, 2)
    stage = loop.Stage("s", 1, [(0.1, list(linear.parameters()))])
    for decay_all in (False, True):
        settings = loop.Settings(dampening=0.9, weight_decay=0.01, decay_all=decay_all)
        kernels, others = loop._optimizer(stage, settings).param_groups
        assert kernels["dampening"] == 0.9 and kernels["weight_decay"] == 0.01
        assert others["weight_decay"] == (0.01 if decay_all else 0.0)
