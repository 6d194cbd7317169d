"""Audiovisual fusion against the original's recorded behaviour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from emotion import hub, importers
from emotion.models.avfusion import AVFusion, Clips, distort
from tests.parity.common import array, assert_close, blocks, cases, load, params, state_dict

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
    audio, visual = clips(case)
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


def test_every_case_is_tested() -> None:
    kinds = {
        "network", "modality_dropout", "training", "evaluation", "metrics", "schedule", "transforms",
        "audio_features", "audio_preprocessing", "face_preprocessing", "face_detection", "end_to_end", "annotations",
    }  # fmt: skip
    assert {c["kind"] for c in cases(METHOD)} <= kinds
