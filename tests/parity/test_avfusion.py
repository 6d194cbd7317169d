"""Audiovisual fusion against the original's recorded behaviour."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion import hub, importers
from emotion.datasets import ravdess
from emotion.faces import MTCNN
from emotion.importers.avfusion import PREFIXES, original_input
from emotion.importers.files import renamed
from emotion.media import audio
from emotion.models.avfusion import AVFusion, Clips, distort, under
from emotion.models.avfusion_audio import clip_samples, mfcc
from emotion.models.avfusion_video import FaceStretch, choose_frames, face_stretch, frame_numbers, middle_frames
from emotion.models.base import AudioInput
from tests.parity.avfusion_synth import clip_frame, face_frame, two_faces, wav, waveform
from tests.parity.common import array, assert_close, blocks, cases, load, params, state_dict
from train import loop
from train.avfusion import figures, top
from train.avfusion_data import Turn, modality_dropout
from train.loop import Schedule, Settings, Stage

METHOD = "avfusion"


def make(spec: dict) -> torch.Tensor:
    """An input as its description says: plain values, or pictures of 16 x 16 flat patches."""
    if spec["recipe"] == "array":
        return torch.from_numpy(array(spec["shape"], spec["seed"], spec["low"], spec["high"]))
    size = spec["size"]
    return torch.from_numpy(blocks([spec["n"], 3, size, size], size // 16, spec["seed"], spec["low"], spec["high"]))


def weights(case: dict, keys: str | None = None) -> dict[str, torch.Tensor]:
    """The original's state dict: filled tensors, those of four dimensions multiplied by the case's gain."""
    state = state_dict(METHOD, keys or case["keys"], case["salt"])
    return {k: torch.from_numpy(v * np.float32(case["gain"]) if v.ndim == 4 else v) for k, v in state.items()}


def original_file(path: Path, state: dict[str, torch.Tensor], prefix: str = "module.") -> Path:
    """A file as the original's training writes it, with a numpy number in the optimiser."""
    group = {"lr": np.float64(0.04), "momentum": 0.9, "params": [0]}
    document = {
        "epoch": 3,
        "arch": "multimodalcnn",
        "state_dict": {prefix + k: v for k, v in state.items()},
        "optimizer": {"state": {}, "param_groups": [group]},
        "best_prec1": 50.0,
    }
    torch.save(document, path)
    return path


def network(case: dict, tmp_path: Path, keys: str | None = None) -> AVFusion:
    """The network of a case, by way of the importer."""
    labels = tuple(f"class {i}" for i in range(case["n_classes"]))
    source = original_file(tmp_path / "original.pth", weights(case, keys))
    imported = importers.read(METHOD, source, heads=case["num_heads"], frames=case["seq_length"], labels=labels)
    model = AVFusion(imported.config).eval()
    hub.fit(model, imported.tensors)
    return model


def clips(case: dict) -> Clips:
    return Clips(make(case["audio"]), make(case["video"]).unflatten(0, (-1, case["seq_length"])))


@pytest.mark.parametrize("case", params(METHOD, prefix="model_"))
def test_network(case: dict, tmp_path: Path) -> None:
    model, expected = network(case, tmp_path), load(METHOD, f"{case['name']}.npz")
    assert model.config.fusion == case["fusion"]
    with torch.inference_mode():
        out = model(clips(case), attention=True)
    assert_close(out["expression"], expected["logits"], case, "logits")
    if "attention_av" in expected:  # the sound's steps are strided
        assert_close(out["attention_visual"][:, ::5], expected["attention_av"], case, "attention on pictures")
        assert_close(out["attention_audio"][:, :, ::5], expected["attention_va"], case, "attention on sound")


@pytest.mark.parametrize("case", params(METHOD, prefix="stages"))
@torch.inference_mode()
def test_stages(case: dict, tmp_path: Path) -> None:
    model, expected = network(case, tmp_path), load(METHOD, f"{case['name']}.npz")
    batch, eye = clips(case), model.backbone
    stem = eye.stem(batch.visual.flatten(0, 1))
    stage2, local = eye.stage2(eye.pool(stem)), eye.local(eye.pool(stem))
    modulated = eye.modulator(stage2)
    stage3 = eye.stage3(modulated + local)
    audio, visual = model.features(batch)
    audio1, visual1 = model.audio.stage1(audio), model.visual.stage1(visual)
    audio2, visual2 = model.audio.stage2(audio1), model.visual.stage2(visual1)
    actual = {
        "conv1": stem[::5, :, ::16, ::16],
        "stage2": stage2[::5, :, ::7, ::7],
        "modulated": modulated[::5, :, ::7, ::7],
        "local": local[::5, :, ::7, ::7],
        "stage3": stage3[::5, :, ::5, ::5],
        "stage4": eye.stage4(stage3)[::5, ::2, ::3, ::3],
        "features": visual.transpose(1, 2).flatten(0, 1),
        "visual_stage1": visual1,
        "visual_stage2": visual2,
        "audio_stage1": audio1[:, :, ::3],
        "audio_stage2": audio2[:, :, ::3],
        "visual_head": model.visual.head(visual2.mean(-1)),
        "audio_head": model.audio.head(audio2.mean(-1)),
    }
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        assert_close(value, expected[name], case, name)


@pytest.mark.parametrize("case", params(METHOD, prefix="missing_"))
def test_missing_modality(case: dict, tmp_path: Path) -> None:
    model, expected = network(case, tmp_path), load(METHOD, f"{case['name']}.npz")
    audio, visual, _ = clips(case)
    noise = Clips(make(case["noise_audio"]), make(case["noise_video"]).transpose(1, 2))
    for name, logits in expected.items():
        kept, _, distortion = name.partition("_")
        batch = Clips(
            distort(audio, distortion, noise.audio) if kept == "video" else audio,
            distort(visual, distortion, noise.visual) if kept == "audio" else visual,
        )
        with torch.inference_mode():
            assert_close(model(batch)["expression"], logits, case, name)
            if distortion == "zeros":  # the same without computing on empty pictures
                absent = Clips(audio, None) if kept == "audio" else Clips(None, visual)
                assert_close(model(absent)["expression"], logits, case, f"{name}, absent")


@pytest.mark.parametrize("case", params(METHOD, prefix="efficientface"))
def test_efficientface(case: dict, tmp_path: Path) -> None:
    imported = importers.read("efficientface", original_file(tmp_path / "face.pth.tar", weights(case)))
    model = hub.model_class("efficientface")(imported.config).eval()
    hub.fit(model, imported.tensors)
    with torch.inference_mode():
        logits = model(make(case["video"]))["expression"]
    assert_close(logits, load(METHOD, f"{case['name']}.npz")["logits"], case)


@pytest.mark.parametrize("case", params(METHOD, kind="audio_features"))
def test_sound_features(case: dict) -> None:
    expected = load(METHOD, f"{case['name']}.npz")
    samples = waveform(**case["waveform"])
    np.testing.assert_array_equal(samples[: len(expected["wave_head"])], expected["wave_head"])
    assert_close(mfcc(samples, AudioInput(rate=case["waveform"]["sr"])), expected["mfcc"], case)


@pytest.mark.parametrize("case", params(METHOD, kind="audio_preprocessing"))
def test_sound_of_a_file(case: dict) -> None:
    expected, config = load(METHOD, f"{case['name']}.npz"), original_input()
    sound = audio.read(wav(case["channels"]))
    resampled = sound.at_rate(config.audio.rate, config.audio.resampler).samples
    assert len(resampled) == expected["resampled_length"]
    assert_close(resampled[::29], expected["resampled"], {"rtol": 0, "atol": 1e-5}, "resampled")
    samples = clip_samples(sound, config)
    assert_close(samples[::29], expected["croppad"], {"rtol": 0, "atol": 1.01 / 32768}, "cut and rounded")
    assert_close(mfcc(samples, config.audio), expected["mfcc"], case, "features")


@pytest.mark.parametrize("case", params(METHOD, kind="audio_preprocessing"))
def test_modern_resampling_stays_near(case: dict) -> None:
    expected, config = load(METHOD, f"{case['name']}.npz"), original_input()
    config = replace(config, audio=replace(config.audio, resampler="soxr"))
    sound = audio.read(wav(case["channels"]))
    resampled = sound.at_rate(config.audio.rate, config.audio.resampler).samples
    assert len(resampled) == expected["resampled_length"]
    assert_close(resampled[::29], expected["resampled"], {"rtol": 0, "atol": case["wave_atol_other_resampler"]})
    difference = np.abs(mfcc(clip_samples(sound, config), config.audio) - expected["mfcc"])
    assert difference.max() <= case["mfcc_atol_other_resampler"]
    assert difference.mean() <= case["mfcc_mean_abs_other_resampler"]


@pytest.fixture(scope="module")
def detector() -> MTCNN:
    return MTCNN(threshold=0.7, longest_side=None)


@cache
def crops_of(name: str, detector: MTCNN) -> FaceStretch:
    """The face crops of a case's clip. Drawing is slow, so frames that must not be chosen are left grey."""
    (clip,) = (c["clip"] for c in cases(METHOD, kind="face_preprocessing") if c["name"] == name)
    config, wanted = original_input(), set(load(METHOD, f"{name}.npz")["indices"].tolist())
    grey = np.full((clip["h"], clip["w"], 3), 128, np.uint8)
    film = ((n / 30, clip_frame(n, clip) if n in wanted else grey) for n in range(clip["n"]))
    return face_stretch(choose_frames(film, config), detector, config.visual)


@pytest.mark.parametrize("case", params(METHOD, kind="face_preprocessing"))
def test_faces_of_a_clip(case: dict, detector: MTCNN) -> None:
    expected = load(METHOD, f"{case['name']}.npz")
    np.testing.assert_array_equal(frame_numbers(original_input()), expected["indices"])
    stretch = crops_of(case["name"], detector)
    present = len(expected["boxes"])
    found = expected["boxes"][:, 0] >= 0
    np.testing.assert_array_equal(stretch.found[:present], found)
    assert not stretch.found[present:].any()
    np.testing.assert_allclose(stretch.boxes[:present][found], expected["boxes"][found], atol=case["box_atol"])
    crops = stretch.crops[..., ::-1]  # the original keeps blue first
    difference = np.abs(crops[:, ::6, ::6].astype(int) - expected["crops"])
    assert difference.max() <= case["atol"] and difference.mean() <= case["crop_mean_abs"]
    np.testing.assert_allclose(crops.mean(axis=(1, 2)), expected["means"], atol=case["means_atol"])


@pytest.mark.parametrize("case", params(METHOD, kind="face_detection"))
def test_face_detection(case: dict, detector: MTCNN) -> None:
    pictures = [face_frame(**f) for f in case["frames"]]
    pictures.append(two_faces(case["two_faces"]["left"], case["two_faces"]["right"]))
    for picture, faces, expected in zip(pictures, detector(pictures), case["expected_boxes"], strict=True):
        height, width = picture.shape[:2]
        boxes = np.reshape(expected or [], (-1, 2, 2)).clip(0, (width, height)).reshape(-1, 4)  # ours end at the edge
        np.testing.assert_allclose(faces.boxes, boxes, atol=case["box_atol"])


@pytest.mark.parametrize("case", params(METHOD, kind="end_to_end"))
def test_whole_path(case: dict, detector: MTCNN, tmp_path: Path) -> None:
    expected = load(METHOD, f"{case['name']}.npz")
    (voice,) = (c["channels"] for c in cases(METHOD, kind="audio_preprocessing") if c["name"] in case["audio"])
    config = original_input(case["seq_length"])
    features = mfcc(clip_samples(audio.read(wav(voice)), config), config.audio)
    crops = crops_of(case["clip"].removeprefix("clip of "), detector).crops
    for fusion, atol in case["atol"].items():
        model = network(case, tmp_path, case["keys"].replace("<fusion>", fusion))
        with torch.inference_mode():
            logits = model(model.inputs(features[None], crops[None]))
        tolerance = {"rtol": case["rtol"], "atol": atol}
        assert_close(logits["expression"], expected[f"logits_{fusion}"], tolerance, fusion)
        values = model.decode(logits)["expression"].values
        assert_close(values, expected[f"probabilities_{fusion}"], tolerance, f"{fusion}, probabilities")


@pytest.mark.parametrize("case", params(METHOD, kind="annotations"))
def test_frame_numbers(case: dict) -> None:
    for sizes, expected in case["frame_indices"].items():
        frames, total = (int(part.partition("=")[2]) for part in sizes.split(","))
        assert middle_frames(frames, total).tolist() == expected
        film = [(n / 30, n) for n in range(total + 5)]
        for timing in ("index", "time"):  # the same at 30 frames per second
            config = replace(original_input(frames), seconds=total / 30 + 1e-6, timing=timing)
            assert choose_frames(iter(film), config) == expected


@pytest.mark.parametrize("case", params(METHOD, kind="annotations"))
def test_annotations(case: dict, tmp_path: Path) -> None:
    path = tmp_path / "annotations.txt"
    path.write_text("\n".join(case["lines"]) + "\n", encoding="utf-8")
    read = ravdess.annotations(path)
    assert {subset: [vars(row) for row in rows] for subset, rows in read.items()} == case["expected"]
    actors = ravdess.split_actors({a for part in case["published_split"].values() for a in part})
    names = {"training": "train", "validation": "valid", "testing": "test"}
    for subset, expected in case["published_split"].items():
        assert sorted(actors[names[subset]]) == expected


@pytest.mark.parametrize("case", params(METHOD, kind="modality_dropout"))
def test_modality_dropout(case: dict) -> None:
    expected = load(METHOD, f"{case['name']}.npz")
    clips = Clips(make(case["audio"]), make(case["video"]).transpose(1, 2))
    torch.manual_seed(case["torch_seed"])
    out, targets = modality_dropout(clips, torch.tensor(case["targets"]), case["mask"].replace("nodropout", "none"))
    np.testing.assert_array_equal(targets, expected["targets"])
    assert_close(out.audio, expected["audio"], case, "audio")
    assert_close(out.visual.flatten(0, 1), expected["video"], case, "pictures")


@pytest.mark.parametrize("case", params(METHOD, kind="training"))
def test_training(case: dict, tmp_path: Path) -> None:
    expected, model = load(METHOD, f"{case['name']}.npz"), network(case, tmp_path).double()
    optimiser = {k: v for k, v in case["optimiser"].items() if k not in ("name", "lr")}
    stage = Stage("test", 1, [(1.0, list(model.parameters()))])
    steps = loop._optimizer(stage, Settings(optimizer=case["optimiser"]["name"].lower(), decay_all=True, **optimiser))
    audio, visual = (x.double() for x in clips(case)[:2])
    torch.manual_seed(case["torch_seed"])
    logits, targets, losses = [], [], []
    for i in range(case["steps"]):
        part = slice(i * case["batch"], (i + 1) * case["batch"])
        wanted = torch.tensor(case["targets"])[part]
        batch, wanted = modality_dropout(
            Clips(audio[part], visual[part]), wanted, case["mask"].replace("nodropout", "none")
        )
        out = model.train()(batch)["expression"]
        loss = torch.nn.functional.cross_entropy(out, wanted)
        steps.zero_grad()
        loss.backward()
        for group in steps.param_groups:
            group["lr"] = case["optimiser"]["lr"]
        steps.step()
        logits.append(out.detach())
        targets.append(wanted)
        losses.append(loss.item())
    assert_close(losses, expected["loss"], case, "loss")
    assert_close([100 * top(x, y, 1) for x, y in zip(logits, targets)], expected["prec1"], case, "accuracy")
    seen = figures(torch.cat(logits), torch.cat(targets))
    epoch = (seen["loss"], 100 * seen["accuracy"], 100 * seen["top5"])
    assert_close(epoch, expected["epoch"], case, "epoch")
    ours = {name: renamed(name, PREFIXES) or name for name in state_dict(METHOD, case["keys"])}
    parameters = dict(model.named_parameters())
    untouched = {ours[name] for name in case["no_gradient"]}
    assert {name for name, p in parameters.items() if p.grad is None} == untouched
    after = model.state_dict()
    for name, values in expected.items():
        if name.startswith("after/"):
            assert_close(after[ours[name.removeprefix("after/")]].flatten()[::7], values, case, name)


@pytest.mark.parametrize("case", params(METHOD, kind="evaluation"))
def test_evaluation(case: dict, tmp_path: Path) -> None:
    expected, model = load(METHOD, f"{case['name']}.npz"), network(case, tmp_path)
    targets, generator = torch.tensor(case["targets"]), torch.Generator()
    for condition in ("both", "audio", "video"):
        parts = zip(*(x.split(case["batches"]) for x in clips(case)[:2]))
        with torch.inference_mode():
            logits = torch.cat([model(under(Clips(*p), condition, generator))["expression"] for p in parts])
        if condition == "both":
            assert_close(logits, expected["logits"], case, "logits")
        row = figures(logits, targets)
        assert_close((row["loss"], 100 * row["accuracy"], 100 * row["top5"]), expected[condition], case, condition)


@pytest.mark.parametrize("case", params(METHOD, kind="metrics"))
def test_metrics(case: dict) -> None:
    expected, logits = load(METHOD, f"{case['name']}.npz"), make(case["logits"])
    targets = torch.from_numpy(expected["targets"])
    row = figures(logits, targets)
    assert_close((100 * row["accuracy"], 100 * row["top5"], row["loss"]), expected["result"], case)
    few = logits[:, :3], targets % 3
    assert_close([100 * top(*few, k) for k in (1, 5)], expected["three_class"], case)


@pytest.mark.parametrize("case", params(METHOD, kind="schedule"))
def test_schedule(case: dict) -> None:
    schedule = Schedule(kind="step", factor=0.1, at=tuple(case["lr_steps"]))
    rates = load(METHOD, f"{case['name']}.npz")["lr"]
    assert_close([case["base_lr"] * schedule(epoch, len(rates)) for epoch in range(len(rates))], rates, case)


@pytest.mark.parametrize("case", params(METHOD, kind="transforms"))
def test_transforms(case: dict) -> None:
    expected = load(METHOD, f"{case['name']}.npz")
    picture = (255 * make(case["image"])[0]).round().to(torch.uint8).permute(1, 2, 0).numpy()
    turn, face = Turn(flip=0.5, degrees=10), original_input().visual
    for draw in case["draws"]:
        seed = draw["python_seed"]
        varied = turn(picture[None], random.Random(seed))
        x = replace(face, channels="rgb").tensor(varied)[0]
        assert_close(x[:, ::5, ::5], expected[f"seed{seed}"], case, str(seed))
    x = replace(face, channels="rgb").tensor(picture[None])[0]
    assert_close(x[:, ::5, ::5], expected["plain"], case, "plain")


def test_every_case_is_tested() -> None:
    kinds = {
        "network", "modality_dropout", "training", "evaluation", "metrics", "schedule", "transforms",
        "audio_features", "audio_preprocessing", "face_preprocessing", "face_detection", "end_to_end", "annotations",
    }  # fmt: skip
    assert {c["kind"] for c in cases(METHOD)} <= kinds
