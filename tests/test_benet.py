"""BENet: sizes of the published configurations, importing, decoding of odd maps, whole pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emotion import hub, importers, labels
from emotion.errors import UserError
from emotion.importers import benet as originals
from emotion.models import benet_decode as decode
from emotion.models import esr
from emotion.models.benet import CONFIGURATIONS, BENet, BENetConfig, benet, benet_small
from emotion.predict.scenes import ScenePredictor, _aligned
from tests.parity import common

TINY = BENetConfig(
    input=decode.SceneInput(size=64),
    width=4,
    stem=4,
    modules=(1, 1, 1),
    blocks=1,
    bottlenecks=1,
    heads=("det", "bu"),
    labels=("Fear", "Happiness", "Peace"),
    affect=("valence",),
    thresholds=(0.4, 0.5, 0.6),
)


def sized(config: BENetConfig) -> BENet:
    """Random weights, but boxes of plausible sizes."""
    torch.manual_seed(0)
    model = BENet(config).eval()
    with torch.no_grad():
        model.size.low[-1][-1].bias.fill_(6)
        model.size.high[-1][-1].bias.fill_(12)
    return model


@pytest.fixture(scope="module")
def tiny() -> BENet:
    return sized(TINY)


def parameters(config: BENetConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in BENet(config).parameters())


def test_parameters_of_the_published_network() -> None:
    assert parameters(BENetConfig()) == 19_499_851
    assert parameters(BENetConfig(extra=labels.HECO)) == 19_500_931
    of_configuration = [parameters(benet(name)) for name in CONFIGURATIONS]
    assert of_configuration == sorted(of_configuration) and of_configuration[-1] < 19_500_931


def test_config_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="heads must hold 'bu'"):
        BENetConfig(heads=("det",))
    with pytest.raises(ValueError, match="fusion head needs"):
        BENetConfig(heads=("bu", "fusion"))
    with pytest.raises(ValueError, match="2 thresholds for 26 emotions"):
        BENetConfig(thresholds=(0.5, 0.4))
    with pytest.raises(ValueError, match="unknown configuration"):
        benet("bu_bg")
    with pytest.raises(ValueError, match="multiples of 32"):
        decode.SceneInput(size=500)


def test_checkpoint_round_trip(tiny: BENet, tmp_path) -> None:
    hub.save(tiny, "benet", tmp_path / "m", hub.Card("benet_tiny.test", "MIT", True), "")
    again = hub.load(tmp_path / "m")
    assert again.config == TINY
    x = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        for name, value in tiny(x).items():
            torch.testing.assert_close(again(x)[name], value)


# -- importing ---------------------------------------------------------------------------------------------------------


def original(config: BENetConfig, trained: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """An original's state dict: names from inverting `rename` on the real names' shapes, counters as after training."""
    with torch.device("meta"):
        ours = BENet(config).state_dict()
    names = {originals.rename(n): n for n in ORIGINAL_NAMES if originals.rename(n) in ours}
    assert names.keys() == ours.keys()
    moved = {"det": ("hm_", "hw_"), "bu": ("bu_",), "pc": ("pc_",), "bg": ("incre", "downsamp", "final", "classifier")}
    out = {}
    for mine, theirs in names.items():
        counter = mine.endswith("num_batches_tracked")
        head = next((h for h, starts in moved.items() if theirs.startswith(starts)), None)
        value = torch.zeros((), dtype=torch.long) if counter else torch.rand(ours[mine].shape) * 0.1
        out[theirs] = value + (7 if counter and (head is None or head in trained) else 0)
    return out


ORIGINAL_NAMES = [name for name, *_ in common.load("benet", "keys_heco.json")]


def test_heads_that_were_never_trained_are_left_out(tmp_path) -> None:
    state = original(BENetConfig(), ("det", "bu"))
    torch.save(
        {"epoch": 3, "model": "BENet", "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "c"
    )
    imported = importers.read("benet", tmp_path / "c")
    assert imported.config == benet("bu_det")
    assert imported.card.name == "benet_bu_det.emotic" and not imported.card.commercial
    assert set(imported.dropped) >= {"pc_classifier.*", "incre_modules.*", "fusion.*"}
    hub.fit(BENet(imported.config), imported.tensors)


def test_folder_names_and_configurations(tmp_path) -> None:
    state = original(BENetConfig(extra=labels.HECO), ())
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"model_best\.pth\.tar"):
        importers.read("benet", tmp_path / "run")
    torch.save({k: v for k, v in state.items()}, tmp_path / "run/final_state0.pth.tar")
    imported = importers.read("benet", tmp_path / "run", configuration="bu_det_pc_bg_ed")
    assert imported.config == benet("bu_det_pc_bg_ed")
    assert imported.card.trained_on == ("EMOTIC", "HECO")
    with pytest.raises(UserError, match="unknown configuration"):
        importers.read("benet", tmp_path / "run", configuration="all")


def test_foreign_files_are_refused(tmp_path) -> None:
    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "hrnet.pth")
    with pytest.raises(UserError, match="HRNet backbone"):
        importers.read("benet", tmp_path / "hrnet.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="no state dict"):
        importers.read("benet", tmp_path / "list.pth")


@pytest.mark.parametrize("prefix", ["", "1."])
def test_pose_backbone_gives_978_tensors(tmp_path, prefix: str) -> None:
    with torch.device("meta"):
        wanted = BENet(benet("bu_det")).state_dict()
    taken_from = [
        n for n in ORIGINAL_NAMES
        if originals.rename(n).startswith("backbone.") and "attention_block" not in n and not n.startswith("stage2.1.")
    ]  # fmt: skip
    pose = {prefix + n: torch.zeros(wanted[originals.rename(n)].shape) for n in taken_from}
    extra = {
        f"{prefix}stage2.0.branches.0.3.conv1.weight": torch.zeros(32, 32, 3, 3),
        "final_layers.0.bias": torch.zeros(34),
    }
    torch.save(pose | extra, tmp_path / "pose.pth")
    taken, dropped = originals.backbone(tmp_path / "pose.pth", wanted)
    assert len(taken) == 978 and set(dropped) == set(extra)
    torch.save(extra, tmp_path / "other.pth")
    with pytest.raises(UserError, match="lacks stage2, stage3, stage4 of the backbone; start from an HRNet-W32"):
        originals.backbone(tmp_path / "other.pth", wanted)


@pytest.mark.parametrize("foreign", ["conv1.weight", "stage3.0.branches.0.0.conv1.weight"])
def test_backbones_of_another_shape_are_refused(foreign: str, tmp_path) -> None:
    """A ResNet's first kernel is larger, a wider HRNet's branches have more channels; much else of them fits."""
    with torch.device("meta"):
        wanted = BENet(benet("bu_det")).state_dict()
    file = {k.removeprefix("backbone."): torch.zeros(v.shape) for k, v in wanted.items() if k.startswith("backbone.")}
    torch.save(file | {foreign: torch.zeros(48, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"{foreign} has the shape \(48, 3, 7, 7\), not .*HRNet-W32"):
        originals.backbone(tmp_path / "other.pth", wanted)


# -- decoding ----------------------------------------------------------------------------------------------------------


def maps(height: int, width: int, people: list[tuple[int, int, float]], size: float = 10) -> decode.Merged:
    """Half-resolution maps with single peaks (x, y, score), steeper to the left and above: no plateaus."""
    heat = torch.zeros(1, 1, height, width)
    for x, y, score in people:
        heat[0, 0, y, x], heat[0, 0, y, x + 1], heat[0, 0, y + 1, x] = score, score / 2, score / 3
    return {
        "heatmap": heat,
        "size": torch.full((1, 2, height, width), float(size)),
        "bu": torch.rand(1, 4, height, width, generator=torch.Generator().manual_seed(0)),
    }


def test_nobody_there() -> None:
    frame = decode.SceneInput(size=64).frame(64, 64)
    ((faces, tasks),) = decode.people(maps(32, 32, []), [frame], TINY)
    assert len(faces) == 0 and tasks["emotions"].values.shape == (0, 3) and tasks["vad"].values.shape == (0, 1)


def test_two_hundred_people() -> None:
    places = [(4 + 6 * i, 4 + 6 * j, 0.5 + 0.001 * (20 * j + i)) for j in range(10) for i in range(20)]
    frame = decode.SceneInput(size=128).frame(256, 128)
    merged = maps(64, 128, places, size=4)
    assert len(decode.people(merged, [frame], TINY)[0][0]) == 200
    scores = decode.people(merged, [frame], TINY, decode.PUBLISHED)[0][0].scores
    assert len(scores) == 15 and (np.diff(scores) <= 0).all()


def test_sampling_equals_projecting() -> None:
    merged = maps(20, 28, [(3, 3, 1.0)])
    x, y = torch.tensor([[0, 5, 55, 30]]), torch.tensor([[0, 7, 39, 20]])
    full = decode.project(merged, (56, 40))
    for name in ("bu", "size"):
        expected = full[name][:, :, y[0], x[0]].transpose(1, 2)
        factor = 2 if name == "size" else 1
        torch.testing.assert_close(decode.sample(merged[name], x, y, (56, 40)) * factor, expected)


def test_boxes_of_negative_size_are_nobody() -> None:
    frame = decode.SceneInput(size=64).frame(64, 64)
    merged = maps(32, 32, [(10, 10, 0.9)], size=-5)
    assert len(decode.people(merged, [frame], TINY)[0][0]) == 0


def test_the_same_person_again() -> None:
    frame = decode.SceneInput(size=64).frame(64, 64)
    merged = maps(32, 32, [(10, 10, 0.9), (14, 10, 0.7), (24, 24, 0.8)], size=12)
    assert len(decode.people(merged, [frame], TINY)[0][0]) == 3, "published networks tell people apart by peaks alone"
    ((faces, tasks),) = decode.people(merged, [frame], replace(TINY, overlap=0.4))
    assert len(faces) == len(tasks["emotions"].values) == 2 and (np.diff(faces.scores) <= 0).all()
    with pytest.raises(ValueError, match="overlap must be above 0"):
        replace(TINY, overlap=0.0)


def test_the_limit_counts_people_inside_the_picture() -> None:
    frame = decode.SceneInput(size=64).frame(70, 64)  # the network's input is wider, bars left and right
    assert frame.size == (128, 64) and frame.shift[0] > 20
    merged = maps(32, 64, [(4, 8, 0.9), (58, 20, 0.8), (30, 16, 0.5)], size=3)
    one = replace(decode.DEFAULT, people=1)
    assert len(decode.people(merged, [frame], TINY)[0][0]) == len(decode.people(merged, [frame], TINY, one)[0][0]) == 1
    both = maps(32, 64, [(30, 8, 0.6), (30, 20, 0.9)], size=3)
    ((faces, _),), ((strongest, _),) = (decode.people(both, [frame], TINY, how) for how in (decode.DEFAULT, one))
    assert len(faces) == 2 and strongest.boxes.tolist() == faces.boxes[:1].tolist() and faces.boxes[0, 1] > 30


def test_model_without_detector_wants_boxes() -> None:
    model = BENet(replace(TINY, heads=("bu",))).eval()
    predictor = ScenePredictor(model)
    picture = np.zeros((80, 60, 3), np.uint8)
    with pytest.raises(UserError, match="no person detector"):
        predictor.image(picture)
    result = predictor.image(picture, boxes=[[0, 0, 30, 40], [10, 10, 59, 79]])
    assert result.tasks["emotions"].values.shape == (2, 3)
    assert predictor.maps(picture).heatmap is None


# -- whole pictures ----------------------------------------------------------------------------------------------------


def random_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_batches_equal_single_pictures(tiny: BENet) -> None:
    predictor = ScenePredictor(tiny)
    pictures = [random_picture(60, 80, 1), random_picture(90, 50, 2), random_picture(60, 80, 3)]
    together = predictor.images(pictures)
    for picture, result in zip(pictures, together):
        alone = predictor.image(picture)
        assert len(alone) == len(result) > 0 and result.size == (picture.shape[1], picture.shape[0])
        np.testing.assert_allclose(alone.faces.boxes, result.faces.boxes, atol=1e-3)
        np.testing.assert_allclose(alone.tasks["emotions"].values, result.tasks["emotions"].values, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (16, 400), (400, 16), (17, 700)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    model = sized(replace(TINY, input=decode.SceneInput(size=64, longest=256)))
    result = ScenePredictor(model).image(random_picture(*size))
    boxes = result.faces.boxes
    assert len(boxes) and np.isfinite(boxes).all() and (boxes >= 0).all()
    assert (boxes[:, 2] <= size[1]).all() and (boxes[:, 3] <= size[0]).all()


def test_result_has_thresholds_and_serialises(tiny: BENet) -> None:
    result = ScenePredictor(tiny).image(random_picture(64, 64))
    task = result.tasks["emotions"]
    assert task.kind == "multilabel" and task.thresholds.tolist() == pytest.approx([0.4, 0.5, 0.6])
    person = result.to_dict()["frames"][0]["faces"][0]
    expected = [n for n, v, t in zip(task.labels, task.values[0], task.thresholds) if v >= t]
    assert person["emotions"]["present"] == expected
    assert 0 <= person["vad"]["values"]["valence"] <= 1


def test_emotions_of_known_boxes_are_the_maps_values(tiny: BENet) -> None:
    picture = random_picture(64, 64)
    predictor = ScenePredictor(tiny)
    found = predictor.maps(picture)
    assert found.labels == ("Fear", "Happiness", "Peace", "valence") and found.maps.shape == (4, 64, 64)
    result = predictor.image(picture, boxes=[[10, 20, 30, 40]])
    np.testing.assert_allclose(result.tasks["emotions"].values[0], found.maps[:3, 30, 20], atol=1e-5)


def test_maps_are_aligned_with_the_picture() -> None:
    frame = decode.SceneInput(size=64).frame(120, 60)
    x = torch.linspace(0, 1, frame.size[0]).expand(1, 1, frame.size[1], -1)
    row = _aligned(x.contiguous(), frame, (120, 60))[0, 30]
    middle = (frame.forward(np.array([[60.0, 30.0]]))[0, 0]) / (frame.size[0] - 1)
    assert row[60] == pytest.approx(middle, abs=1e-4) and (np.diff(row) > 0).all()


def test_mirroring_and_other_working_sizes(tiny: BENet) -> None:
    picture = random_picture(64, 64)
    mirrored = ScenePredictor(tiny, flip=True)
    left, right = mirrored.maps(picture).maps, mirrored.maps(picture[:, ::-1].copy()).maps
    np.testing.assert_allclose(left, right[:, :, ::-1], atol=1e-4)
    assert len(ScenePredictor(tiny, size=128).image(picture)) >= 0
    with pytest.raises(UserError, match="multiples of 32"):
        ScenePredictor(tiny, size=100)


def test_unknown_map_and_wrong_model(tiny: BENet) -> None:
    with pytest.raises(UserError, match="no map 'Joy'; it has: Fear, Happiness"):
        ScenePredictor(tiny).maps(random_picture(64, 64), ["Joy"])
    with pytest.raises(UserError, match="ESR does not read scenes"):
        ScenePredictor(esr.ESR(esr.esr4()))


def test_small_preset_is_small() -> None:
    assert parameters(benet_small()) < 12_500_000, "25 MB in half precision"
