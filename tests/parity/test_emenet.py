"""EMENet against the original: every network case of fixtures/emenet, through importers and public interfaces."""

from __future__ import annotations

import io
import tarfile
from functools import cache

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from emotion import hub, importers
from emotion.models import emenet, marblenet, mobilefacenet
from tests.parity import common

DOCUMENT = common.load("emenet", "cases.json")
OURS = {"EXPR": "expression", "AU": "action_units", "VA": "valence_arousal", "FA": "landmarks", "VAD": "voice"}
CONSTANTS = {"dct_mat": "dct", "window": "window", "fb": "filters"}


def case(name):
    return common.case("emenet", name)


def original_state(variant, scale=()):
    """The original's state dict, filled as cases.json says; constants of the sound's front end are computed."""
    file = f"keys_{variant}_checkpoint.json" if variant in ("va", "marblenet") else f"keys_{variant}.json"
    state = {k: torch.as_tensor(v) for k, v in common.state_dict("emenet", file, DOCUMENT["salt"]).items()}
    for name, _value in state.items():
        if "preprocessor.featurizer" in name:
            state[name] = getattr(marblenet.MFCC(), CONSTANTS[name.rpartition(".")[2]])
    return {k: v * dict(scale).get(k, 1.0) for k, v in state.items()}


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Variant -> network: written in the original's form, converted, saved and loaded again."""

    @cache
    def load(variant, scale=()):
        folder = tmp_path_factory.mktemp(variant)
        state = original_state(variant, scale)
        if variant == "fa":
            method, source = "mobilefacenet", folder / "mobilefacenet_model_best.pth.tar"
            torch.save({"state_dict": state, "epoch": 1}, source)
        elif variant == "marblenet":
            method, source = "marblenet", folder / "vad_marblenet.nemo"
            write_nemo(source, state)
        else:
            method, source = "emenet", folder / "net_epoch_4_student_round_3_exp_0.pth"
            torch.save({"state_dict": state, "epoch": 4}, source)
        importers.convert(method, source, folder / "model")
        return hub.load(folder / "model")

    def of(case):
        return load(case["variant"], tuple(case.get("scale", {}).items()))

    return of


def write_nemo(path, state):
    weights = io.BytesIO()
    torch.save(state, weights)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in (("model_config.yaml", b"name: vad\n"), ("model_weights.ckpt", weights.getvalue())):
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def waves(n, seed):
    """The sound clips that cases.json describes under "wave"."""
    t = np.arange(marblenet.SAMPLES) / marblenet.RATE
    noise = common.array([n, marblenet.SAMPLES], seed, -1, 1).astype(np.float64)
    amplitude = common.array([n, 3], seed + 1, 0.02, 0.4).astype(np.float64)
    frequency = common.array([n, 3], seed + 2, 80, 4000).astype(np.float64)
    envelope = common.array([n, 2], seed + 3, 0.5, 6).astype(np.float64)
    tones = (amplitude[..., None] * np.sin(2 * np.pi * frequency[..., None] * t)).sum(1)
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * envelope[:, :1] * t)
    return (tones * swell + 0.01 * envelope[:, 1:] * noise).astype(np.float32)


def given(case, name):
    """An input of the case as a tensor, None if it has none of that name."""
    spec = case["inputs"].get(name)
    if spec is None:
        return None
    if isinstance(spec, dict) and spec.get("recipe") == "wave":
        values = waves(spec["n"], spec["seed"])
        return torch.from_numpy(values.reshape(spec.get("reshape", values.shape)))
    return torch.from_numpy(common.make_input(spec))


def lengths(case, sound):
    """Valid samples of every window."""
    return None if sound is None else torch.tensor(case["inputs"]["length"]).expand(sound.shape[:-1])


def features(model, x, sound=None, samples=None):
    """Features of clips [B, T, ...], [1, B, T, F]."""
    flat = [None if t is None else t.flatten(0, 1) for t in (x, sound, samples)]
    return model.embed(*flat).unflatten(1, x.shape[:2])


def assert_outputs(case, expected, logits, state=None, prefix=""):
    """Logits and states of the one member against the arrays whose names start with `prefix`."""
    compared = 0
    for old, new in OURS.items():
        if prefix + old in expected:
            ours = logits[new][0].flatten(2)
            common.assert_close(ours, expected[prefix + old], case, prefix + old)
            compared += 1
        if f"{prefix}state_{old}" in expected:
            index = list(logits).index(new)
            common.assert_close(state[0, index], expected[f"{prefix}state_{old}"], case, f"{prefix}state_{old}")
    assert compared


@pytest.mark.parametrize("name", ["v_single", "va_single"])
def test_one_frame(name, imported):
    c = case(name)
    model, expected = imported(c), common.load("emenet", c["file"])
    x, sound = given(c, "image"), given(c, "waveform")
    with torch.inference_mode():
        logits, state = model.read(features(model, x, sound, lengths(c, sound)))
        alone = model(x[0], None if sound is None else sound[0])
    assert_outputs(c, expected, logits, state)
    assert_outputs(c, expected, {task: z.unsqueeze(1) for task, z in alone.items()}, state)
    assert [t for t in OURS.values() if t in logits] == list(logits), "heads in the checkpoint's order"


def test_features_and_inner_maps(imported):
    c = case("v_single")
    model, expected = imported(c), common.load("emenet", c["file"])
    backbone, seen = model.members[0].backbone, {}
    for name in (k.removeprefix("map_") for k in expected if k.startswith("map_")):
        getattr(backbone, name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out[0]}))
    with torch.inference_mode():
        common.assert_close(model.embed(given(c, "image")[0])[0], expected["features"], c, "features")
    for name, value in seen.items():
        step = 16, 3, 3
        if name not in ("conv_45", "conv_5", "conv_6_sep"):
            step = 8, 7, 7
        common.assert_close(value[tuple(slice(None, None, s) for s in step)], expected[f"map_{name}"], c, name)


@pytest.mark.parametrize("name", ["v_chunks", "va_chunks"])
def test_state_goes_from_window_to_window(name, imported):
    c = case(name)
    model, expected = imported(c), common.load("emenet", c["file"])
    image, wave = ("chunk", "") if "chunk1" in c["inputs"] else ("image", "waveform")
    with torch.inference_mode():
        state, read = None, {}
        for i in (1, 2):
            sound = given(c, f"{wave}{i}") if wave else None
            read[i] = features(model, given(c, f"{image}{i}"), sound, lengths(c, sound))
            logits, state = model.read(read[i], state)
            assert_outputs(c, expected, logits, state, f"c{i}_")
        if any(k.startswith("c2fresh_") for k in expected):
            assert_outputs(c, expected, *model.read(read[2]), "c2fresh_")


@pytest.mark.parametrize("name", ["v_batch", "va_batch", "v_transformer"])
def test_clips_as_in_training(name, imported):
    c = case(name)
    model, expected = imported(c), common.load("emenet", c["file"])
    x, sound = given(c, "image"), given(c, "waveform")
    published = model.config.time_axis
    try:
        with torch.inference_mode():
            read = features(model, x, sound, lengths(c, sound))
            assert_outputs(c, expected, *model.with_time_axis("clips").read(read))
            if any(k.startswith("frames_") for k in expected):
                assert_outputs(c, expected, *model.with_time_axis("frames").read(read), "frames_")
    finally:
        model.with_time_axis(published)


def test_face_alignment(imported):
    c = case("fa_landmarks")
    model = imported(c)
    with torch.inference_mode():
        task = model.decode(model(given(c, "image")))["landmarks"]
    common.assert_close(task.values, common.load("emenet", c["file"])["landmarks"], c)


def test_sound_front_end():
    c = case("audio_front")
    expected, front = common.load("emenet", c["file"]), marblenet.MFCC()
    sound = given(c, "waveform")
    common.assert_close(front(sound)[:, :, ::5], expected["mfcc"], c, "mfcc")
    common.assert_close(front.log_mel(sound)[0], expected["logmel"], c, "log mel")
    samples = torch.tensor(c["inputs"]["length"])
    np.testing.assert_array_equal(marblenet.valid_frames(samples), expected["frames"])
    common.assert_close(front.dct[:, ::7], expected["dct"], c, "dct")
    common.assert_close(front.window, expected["window"], c, "window")
    common.assert_close(front.filters[:, ::5], expected["fb"], c, "filters")


def test_voice_activity(imported):
    c = case("marblenet")
    model, expected = imported(c), common.load("emenet", c["file"])
    sound, samples = given(c, "waveform"), torch.tensor(c["inputs"]["length"])
    with torch.inference_mode():
        ear = model.backbone
        encoded = ear.encode(ear.mfcc(sound), marblenet.valid_frames(samples))
        common.assert_close(encoded[:, ::8, ::7], expected["encoded"], c, "encoded")
        common.assert_close(ear(sound, samples), expected["pooled"], c, "pooled")
        common.assert_close(model(sound, samples)["voice"], expected["logits"], c, "logits")


SIZES = [  # config, trainable numbers, multiply-adds, multiply-adds as the paper's profiler counts them
    (emenet.emenet_v(), 1_684_539, 221.64e6, 228.06e6),
    (emenet.emenet_v(landmarks=68), 1_948_611, 221.9e6, 228.33e6),
    (emenet.emenet_va(), 1_920_891, 227.36e6, 233.90e6),
    (emenet.emenet_va(landmarks=68, voice=True), 2_530_053, 228.0e6, 234.51e6),
]


@pytest.mark.parametrize(("config", "numbers", "macs", "profiled"), SIZES)
def test_published_size(config, numbers, macs, profiled):
    model = emenet.EMENet(config).eval()
    assert sum(p.numel() for p in model.parameters()) == numbers
    normalised = []
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)):
            module.register_forward_hook(lambda m, i, out: normalised.append(out.numel()))
    counts = {}
    for part, run in {"all": model, "front end": front_end(model)}.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run(model.example())
        counts[part] = counter.get_total_flops() / 2
    counted = counts["all"] - counts["front end"]
    assert counted == pytest.approx(macs, rel=2e-4)
    assert counted + 2 * sum(normalised) == pytest.approx(profiled, rel=1e-4)


def front_end(model):
    """The model's waveform-to-cepstrum part, which the paper's table leaves out, as a function of a picture."""
    if not model.config.sound:
        return lambda picture: None
    return lambda picture: model.members[0].audio.mfcc(torch.zeros(1, marblenet.SAMPLES))


def test_alignment_network_size():
    model = mobilefacenet.MobileFaceNet(mobilefacenet.face_alignment())
    assert sum(p.numel() for p in model.parameters()) == 1_007_248
