"""The fusion model: configs, missing modalities, checkpoints, the face followed through a clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion import hub, importers
from emotion.errors import UserError
from emotion.models.avfusion import CONDITIONS, FUSIONS, AVFusion, AVFusionConfig, Clips, distort, under
from emotion.models.avfusion_video import choose_frames, face_stretch, follow
from emotion.models.base import ClipInput, FaceInput, VectorInput
from emotion.models.efficientface import EfficientFace, EfficientFaceConfig
from emotion.outputs import Faces

MEASURED = ClipInput(visual=VectorInput(names=("AU4", "AU12"), mean=(1.0, 0.0), std=(2.0, 1.0)), frames=3)
SEEN = ClipInput(visual=FaceInput(size=(64, 64)), frames=2)


def model(config: ClipInput = MEASURED, **options: object) -> AVFusion:
    torch.manual_seed(0)
    return AVFusion(AVFusionConfig(input=config, **options)).eval()


def batch(config: ClipInput, n: int = 2) -> Clips:
    generator = torch.Generator().manual_seed(1)
    shapes = config.audio_shape, config.visual_shape
    return Clips(*(torch.randn(n, *shape, generator=generator) for shape in shapes))


@torch.inference_mode()
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("config", [MEASURED, SEEN], ids=["measurements", "faces"])
def test_both_kinds_of_visual_input(fusion: str, config: ClipInput) -> None:
    net, clips = model(config, fusion=fusion, heads=4), batch(config)
    out = net(clips, attention=True)
    assert out["expression"].shape == (2, 8)
    for name in ("attention_audio", "attention_visual"):
        torch.testing.assert_close(out[name].sum(-1), torch.ones_like(out[name][..., 0]))
    task = net.decode(out)["expression"]
    np.testing.assert_allclose(task.values.sum(1), 1, atol=1e-6)
    assert ((task.uncertainty["total"] >= 0) & (task.uncertainty["total"] <= 1)).all()


@torch.inference_mode()
def test_clips_do_not_influence_each_other() -> None:
    for config in (MEASURED, SEEN):
        net, clips = model(config), batch(config, 3)
        together = net(clips)["expression"]
        alone = torch.cat([net(Clips(clips.audio[i : i + 1], clips.visual[i : i + 1]))["expression"] for i in range(3)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("missing", ["zeros", "noise"])
@pytest.mark.parametrize("config", [MEASURED, SEEN], ids=["measurements", "faces"])
def test_missing_modalities(missing: str, config: ClipInput) -> None:
    net, clips = model(config, missing=missing), batch(config)
    without_pictures, without_sound = net(Clips(clips.audio, None)), net(Clips(None, clips.visual))
    again = net(Clips(clips.audio, None))
    torch.testing.assert_close(without_pictures["expression"], again["expression"])
    assert not torch.allclose(without_pictures["expression"], without_sound["expression"])
    if missing == "zeros":
        zeros = net(Clips(clips.audio, torch.zeros_like(clips.visual)))
        torch.testing.assert_close(without_pictures["expression"], zeros["expression"], atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="sound, pictures, or both"):
        net(Clips(None, None))


def test_inputs_are_scaled() -> None:
    clips = model().inputs(None, np.array([[[3.0, 1.0]] * 3]))
    assert clips.audio is None
    torch.testing.assert_close(clips.visual, torch.tensor([[[1.0, 1.0]] * 3]))
    blue_first = replace(SEEN, visual=replace(SEEN.visual, channels="bgr"))
    crops = np.zeros((1, 2, 64, 64, 3), np.uint8)
    crops[..., 0] = 255
    clips = model(blue_first).inputs(np.zeros((1, *SEEN.audio_shape)), crops)
    assert clips.visual.shape == (1, 2, 3, 64, 64)
    assert clips.visual[:, :, 2].min() == 1 and clips.visual[:, :, :2].max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"fusion": "early"}, "lt, it, ia"), ({"heads": 3}, "heads"), ({"missing": "ones"}, "zeros or noise")],
)
def test_impossible_configs(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AVFusionConfig(input=MEASURED, **options)
    with pytest.raises(UserError, match=message):
        hub.build("avfusion", {"input": {"visual": {"names": ["a"]}}, **options})


def test_impossible_inputs() -> None:
    with pytest.raises(ValueError, match="time or index"):
        replace(SEEN, timing="guess")
    with pytest.raises(ValueError, match="soxr or kaiser"):
        replace(SEEN.audio, resampler="linear")
    with pytest.raises(ValueError, match="multiples of 32"):
        EfficientFaceConfig(input=FaceInput(size=(100, 100)))


@pytest.mark.parametrize("config", [MEASURED, SEEN], ids=["measurements", "faces"])
def test_checkpoints(config: ClipInput, tmp_path: Path) -> None:
    net = model(config, fusion="it", heads=2, dropout=0.1)
    hub.save(net, "avfusion", tmp_path / "c", hub.Card("avfusion_it.test", "MIT", True), "card")
    back = hub.load(tmp_path / "c")
    assert back.config == net.config
    clips = batch(config)
    with torch.inference_mode():
        torch.testing.assert_close(back(clips)["expression"], net(clips)["expression"])


def test_conditions() -> None:
    clips, generator = batch(MEASURED), torch.Generator().manual_seed(3)
    for condition, (audio, visual) in CONDITIONS.items():
        out = under(clips, condition, generator)
        assert (out.audio is None) == (audio == "absent") and (out.visual is None) == (visual == "absent")
        assert audio or torch.equal(out.audio, clips.audio)
        assert visual or torch.equal(out.visual, clips.visual)
    first, second = (under(clips, "noisy audio", torch.Generator().manual_seed(4)).audio for _ in range(2))
    assert torch.equal(first, second) and not torch.equal(first, clips.audio)
    with pytest.raises(ValueError, match="noisy video"):
        under(clips, "dark", generator)
    with pytest.raises(ValueError, match="addnoise"):
        distort(clips.audio, "blur", clips.audio)


def test_efficientface_takes_other_sizes() -> None:
    net = EfficientFace(EfficientFaceConfig(input=FaceInput(size=(64, 96)))).eval()
    with torch.inference_mode():
        task = net.decode(net(net.example()))["expression"]
    assert task.values.shape == (1, 7) and task.uncertainty["total"].shape == (1,)


# -- importing -------------------------------------------------------------------------------------------------------


def test_importer_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({"state_dict": {"module.fc.weight": torch.zeros(3, 4)}}, path)
    with pytest.raises(UserError, match="no audiovisual fusion checkpoint"):
        importers.read("avfusion", path)
    with pytest.raises(UserError, match="3 classes, not 7"):
        importers.read("efficientface", path)
    torch.save({"weights": 1}, path)
    with pytest.raises(UserError, match="no state dict"):
        importers.read("avfusion", path)
    torch.save({"state_dict": {"av1.q.weight": torch.zeros(1), "classifier_1.0.weight": torch.zeros(6, 4)}}, path)
    with pytest.raises(UserError, match="6 classes"):
        importers.read("avfusion", path)
    with pytest.raises(UserError, match="heads must divide"):
        importers.read("avfusion", path, labels=tuple("abcdef"), heads=5)


# -- pictures --------------------------------------------------------------------------------------------------------


def faces(*boxes: tuple[float, ...]) -> Faces:
    return Faces(np.reshape(boxes, (-1, 4)), np.ones(len(boxes)))


def test_following_uses_neighbours() -> None:
    small, large, none = (0, 0, 10, 10), (20, 0, 60, 40), faces()
    boxes, found = follow([none, faces(small, large), none, faces(small), none])
    assert found.tolist() == [False, True, False, True, False]
    np.testing.assert_array_equal(boxes, [large, large, large, small, small])
    assert follow([none, none]) is None


def test_no_face_no_stretch() -> None:
    pictures = [np.zeros((40, 40, 3), np.uint8), None]
    assert face_stretch(pictures, lambda p: [faces()] * len(p), SEEN.visual) is None
    assert face_stretch([None, None], lambda p: [], SEEN.visual) is None


def test_pictures_after_the_end_are_black() -> None:
    pictures = [np.full((80, 80, 3), 200, np.uint8), None]
    stretch = face_stretch(pictures, lambda p: [faces((10, 10, 50, 50))] * len(p), SEEN.visual)
    assert (stretch.crops[0] == 200).all() and not stretch.crops[1].any()
    assert np.isnan(stretch.boxes[1]).all() and stretch.found.tolist() == [True, False]


def test_frames_by_time_at_any_rate() -> None:
    due = choose_frames(((k / 30, k) for k in range(108)), SEEN)
    for fps in (25, 60):
        chosen = choose_frames(((k / fps, k) for k in range(10 * fps)), SEEN)
        np.testing.assert_allclose(np.divide(chosen, fps), np.divide(due, 30), atol=1 / fps)
    later = choose_frames(((k / 30, k) for k in range(300)), SEEN, start=2.0)
    assert [k - 60 for k in later] == due
    assert choose_frames(((k / 30, k) for k in range(50)), SEEN) == [due[0], 49]
    assert choose_frames(((k / 30, k) for k in range(50)), replace(SEEN, timing="index")) == [due[0], None]
