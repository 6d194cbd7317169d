"""EMENet, MobileFaceNet and MarbleNet: time axes, streams, ensembles, uncertainty, importers."""

from __future__ import annotations

import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from emotion import hub, importers
from emotion.errors import UserError
from emotion.labels import FERPLUS
from emotion.models import emenet, marblenet
from emotion.models.base import FaceInput
from emotion.models.emenet import EMENet, EMENetConfig
from emotion.models.mobilefacenet import MobileFaceNet, MobileFaceNetConfig
from emotion.outputs import Faces, Result

SMALL = FaceInput(size=(32, 32), square=True)
torch.manual_seed(0)


def make(**changes):
    """A small EMENet in evaluation mode whose features have a usual size."""
    torch.manual_seed(1)
    return EMENet(EMENetConfig(**{"input": SMALL, **changes})).eval()


def frames(n, seed=0):
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def features(model, n, seed=0):
    shape = (model.config.members, n, model.config.features)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_same(a, b):
    assert a.keys() == b.keys()
    for task in a:
        torch.testing.assert_close(a[task], b[task], rtol=1e-4, atol=1e-5, msg=lambda m, task=task: f"{task}: {m}")


KINDS = ["gru", "lstm", "rnn_tanh", "rnn_relu", "transformer"]


@pytest.mark.parametrize("axis", ["frames", "lanes"])
@pytest.mark.parametrize("temporal", KINDS)
@torch.inference_mode()
def test_a_clip_does_not_depend_on_the_others_of_its_batch(axis, temporal):
    model = make(temporal=temporal, time_axis=axis)
    clips = features(model, 6).reshape(1, 3, 2, -1)
    together = model.read(clips)[0]
    alone = [model.read(clips[:, i : i + 1])[0] for i in range(3)]
    assert_same(together, {t: torch.cat([a[t] for a in alone], dim=1) for t in together})


@pytest.mark.parametrize("temporal", KINDS[:4])
@torch.inference_mode()
def test_frames_are_followed_through_a_clip_and_through_a_stream(temporal):
    model = make(temporal=temporal, layers=2, dropout=0.0)
    read = features(model, 70)
    whole = model.read(read.unsqueeze(1))[0]
    assert_same(model.sequence(read), {t: z.squeeze(1) for t, z in whole.items()})
    x, state, parts = frames(5), None, []
    for chunk in (x[:2], x[2:3], x[3:]):
        logits, state = model.step(chunk, state)
        parts.append(logits)
    assert_same(model.sequence(model.embed(x)), {t: torch.cat([p[t] for p in parts], dim=1) for t in parts[0]})
    single = model(x)["expression"]
    assert (parts[2]["expression"] - single[:, 3:]).abs().max() > 1e-4, "the state must matter"


@torch.inference_mode()
def test_lanes_continue_the_frame_64_before_and_the_last_window_its_lanes():
    model = make(time_axis="lanes")
    read = features(model, 150)
    fresh, state = model.read(read[:, None, :64])
    second, after = model.read(read[:, None, 64:128], state)
    last = model.read(read[:, None, 128:], after[..., 64 - 22 :, :])[0]  # 22 frames at the end of a window
    parts = [{t: z.squeeze(1) for t, z in p.items()} for p in (fresh, second, last)]
    assert_same(model.sequence(read), {t: torch.cat([p[t] for p in parts], dim=1) for t in parts[0]})
    assert model.sequence(features(model, 50))["expression"].shape[1] == 50, "short clips keep all their frames"
    assert (model.sequence(read[:, 64:128])["expression"] - second["expression"][:, 0]).abs().max() > 1e-4


@torch.inference_mode()
def test_a_stream_of_lanes_has_a_lag_of_64_whatever_the_chunks():
    model = make(time_axis="lanes")
    read = features(model, 128)
    model.embed = lambda x, sound=None: read[:, x.long()]  # the stream's frames are known by number
    state, parts = None, []
    for chunk in torch.arange(128).split([3, 60, 64, 1]):
        logits, state = model.step(chunk, state)
        parts.append(logits)
    assert_same(model.sequence(read), {t: torch.cat([p[t] for p in parts], dim=1) for t in parts[0]})
    with pytest.raises(ValueError, match="1 to 64"):
        model.step(torch.arange(65))


@torch.inference_mode()
def test_single_faces_are_independent_on_every_axis():
    for axis in emenet.TIME_AXES:
        model = make(time_axis=axis)
        x = frames(3)
        assert_same(model(x), {t: torch.cat([model(f)[t] for f in x.split(1)], dim=1) for t in model.labels})


@torch.inference_mode()
def test_an_ensemble_is_its_members_and_the_mean_of_their_probabilities():
    models = [make().eval() for _ in range(3)]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    together, x = emenet.ensemble(models), frames(4)
    assert together.config.members == 3 and not together.training
    logits = together(x)
    assert_same(logits, {t: torch.cat([m(x)[t] for m in models]) for t in logits})
    assert_same({t: z[1:2] for t, z in logits.items()}, together(x, member=1))
    tasks = together.decode(logits)
    p = torch.cat([m(x)["expression"] for m in models]).double().softmax(-1).mean(0)
    np.testing.assert_allclose(tasks["expression"].values, p, atol=1e-6)
    for task in tasks.values():
        unsure = task.uncertainty
        assert (unsure["epistemic"] >= 0).all() and unsure["epistemic"].max() > 0
        assert all((u >= 0).all() and (u <= 1).all() for u in unsure.values())
    assert (np.abs(tasks["valence_arousal"].values) <= 1).all()
    with pytest.raises(ValueError, match="equal configurations"):
        emenet.ensemble([models[0], make(hidden=64)])


@torch.inference_mode()
@pytest.mark.parametrize("temporal", ["gru", "transformer"])
def test_dropout_at_prediction_time_really_drops(temporal):
    model, x = make(temporal=temporal), frames(4)
    plain = model(x)
    assert "epistemic" not in model.decode(plain)["expression"].uncertainty
    draws = model.with_mc_dropout(6, seed=3)(x)
    assert draws["expression"].shape == (6, 4, 7) and draws["expression"].std(0).min() > 0
    assert_same(draws, model(x))
    if temporal == "gru":  # a pass is one thinned network: what it says of a face does not depend on the batch
        assert_same(draws, {t: torch.cat([model(f)[t] for f in x.split(1)], dim=1) for t in draws})
    assert not any(m.training for m in model.modules())
    assert model.decode(draws)["expression"].uncertainty["epistemic"].min() > 0
    other = model.with_mc_dropout(6, seed=4)(x)
    assert not torch.equal(other["expression"], draws["expression"])
    assert_same(plain, model.with_mc_dropout(0)(x))


@torch.inference_mode()
def test_dropout_at_prediction_time_of_films_leaves_the_state_alone():
    model, x = make(), frames(5)
    _, plain = model.step(x)
    logits, state = model.with_mc_dropout(3).step(x)
    assert logits["expression"].shape == (3, 5, 7) and torch.equal(plain, state)
    assert model.sequence(model.embed(x))["action_units"].shape == (3, 5, 12)


def test_dropout_at_prediction_time_needs_dropout():
    with pytest.raises(UserError, match="without dropout"):
        make(dropout=0.0).with_mc_dropout()
    with pytest.raises(UserError, match="2 or more passes"):
        make().with_mc_dropout(1)


@torch.inference_mode()
def test_large_logits_and_temperature():
    model = make()
    huge = {t: z * 1e4 for t, z in model(frames(2)).items()}
    for task in model.decode(huge).values():
        assert np.isfinite(task.values).all() and all(np.isfinite(u).all() for u in task.uncertainty.values())
    hot = EMENet(replace(model.config, temperature=emenet.Temperature(1e6, (1e6,), 1e6, 1e6)))
    flat = hot.decode(model(frames(2)))
    np.testing.assert_allclose(flat["expression"].values, 1 / 7, atol=1e-4)
    np.testing.assert_allclose(flat["valence_arousal"].uncertainty["total"], 1, atol=1e-4)


@torch.inference_mode()
def test_hearing_models_take_missing_sound_as_silence():
    model = make(sound=True, voice=True, landmarks=68)
    x = frames(2)
    silence = torch.zeros(2, marblenet.SAMPLES)
    assert_same(model(x), model(x, silence))
    noise = torch.rand(2, marblenet.SAMPLES, generator=torch.Generator().manual_seed(0)) - 0.5
    assert (model(x, noise)["voice"] - model(x)["voice"]).abs().max() > 1e-4
    tasks = model.decode(model(x, noise))
    assert tasks["voice"].labels == ("background", "speech")
    assert tasks["landmarks"].labels[:3] == ("x0", "y0", "x1")
    assert "epistemic" not in tasks["expression"].uncertainty, "one network cannot tell"


@torch.inference_mode()
def test_documents_of_every_head_follow_the_schema():
    model = make(members=2, landmarks=68)
    tasks = model.decode(model(frames(2)))
    assert "deviation" in tasks["valence_arousal"].uncertainty
    points = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    faces = Faces(np.array([[0, 0, 9, 9], [9, 9, 20, 20]], np.float32), np.ones(2), landmarks=points)
    document = Result("m", (32, 32), np.zeros(1), np.zeros(2, np.int64), faces, tasks).to_dict()
    schema = Path(__file__).parents[1] / "docs" / "schema.json"
    jsonschema.validate(json.loads(json.dumps(document)), json.loads(schema.read_text(encoding="utf-8")))
    face = document["frames"][0]["faces"][0]
    assert face["landmarks"] == points[0].tolist() and len(face["model_landmarks"]["values"]) == 136
    assert document["labels"].keys() == face.keys() - {"box", "score", "landmarks"}


def test_sound_is_varied_in_training_only():
    torch.manual_seed(0)
    maps = torch.ones(4, 64, 64)
    cut = marblenet.cut_out(maps)
    assert (cut == 0).any() and ((cut == 0) | (cut == 1)).all() and not torch.equal(cut[0], cut[1])
    model = marblenet.MarbleNet(marblenet.MarbleNetConfig()).eval()
    sound = torch.rand(2, marblenet.SAMPLES) - 0.5
    torch.testing.assert_close(model(sound)["voice"], model(sound)["voice"])


BAD = [
    ({"temporal": "cnn"}, "temporal"),
    ({"time_axis": "batch"}, "time_axis"),
    ({"audio_clock": "fps"}, "audio_clock"),
    ({"voice": True}, "needs sound"),
    ({"members": 0}, "at least one member"),
    ({"expressions": (), "action_units": (), "bins": 0}, "one task"),
    ({"input": FaceInput(size=(50, 48))}, "divisible by 16"),
    ({"temperature": emenet.Temperature(action_units=(1.0, 2.0))}, "temperature"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_impossible_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        EMENetConfig(**changes)


def test_a_network_without_some_tasks_does_not_mention_them(tmp_path):
    model = make(action_units=(), expressions=FERPLUS)
    assert list(model.labels) == ["expression", "valence_arousal"]
    card = hub.Card("emenet_v.test", "MIT", True)
    hub.save(model, "emenet", tmp_path / "m", card, "# test\n")
    again = hub.load(tmp_path / "m")
    assert again.config == model.config
    with torch.inference_mode():
        assert_same(again(frames(2)), model(frames(2)))


@pytest.mark.parametrize("spec", [SMALL, FaceInput(size=(48, 48), channels="gray")])
def test_a_plain_classifier_of_any_size_learns(spec):
    model = MobileFaceNet(MobileFaceNetConfig(input=spec, landmarks=5)).train()
    x = torch.rand(3, spec.depth, *spec.size)
    out = model(x)
    assert out["expression"].shape == (3, 8) and out["landmarks"].shape == (3, 10)
    (out["expression"].logsumexp(-1).sum() + out["landmarks"].sum()).backward()
    assert all(p.grad is not None for p in model.parameters())
    task = model.eval().decode(out)["expression"]
    assert task.labels == FERPLUS and list(task.uncertainty) == ["total"]


# -- importers -------------------------------------------------------------------------------------------------------


def original(seed=0, tasks=(7, 12, 40), landmarks=False, surplus=False, sound=False, prefix=""):
    """A state dict under the original's names."""
    torch.manual_seed(seed)
    model = EMENet(
        emenet.emenet_v(landmarks=68 * landmarks) if not sound else emenet.emenet_va(landmarks=68 * landmarks)
    )
    trunk = {"backbone": "video_backbone" if sound else "backbone", "audio": "audio_backbone"}
    children = {f"backbone.{new}": f"{trunk['backbone']}.{old}" for old, new in importers_names().items()}
    children |= {f"audio.{new}": f"audio_backbone.{old}" for old, new in audio_names().items()}
    children |= {f"heads.{t}": f"tmodels.{i}" for i, t in enumerate(model.config.outputs)}
    state = {}
    for name, value in model.members[0].state_dict().items():
        stem = next(p for p in children if name.startswith(p + "."))
        state[prefix + children[stem] + name.removeprefix(stem)] = value
    if surplus:
        head = {k: v for k, v in state.items() if "tmodels.0." in k}
        state |= {k.replace("tmodels.0.", "tmodels.9."): v for k, v in head.items()}
    return state, model


def importers_names():
    from emotion.importers import mobilefacenet

    return mobilefacenet.CHILDREN


def audio_names():
    from emotion.importers import marblenet as nemo

    return nemo.children()


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["plain", "dataparallel", "landmarks", "surplus", "sound"])
def test_one_network_is_imported(kind, tmp_path):
    options = {"landmarks": kind == "landmarks", "surplus": kind == "surplus", "sound": kind == "sound"}
    state, model = original(prefix="module." * (kind == "dataparallel"), **options)
    torch.save({"state_dict": state, "epoch": 4}, tmp_path / "net_epoch_4_student.pth")
    found = importers.convert("emenet", tmp_path / "net_epoch_4_student.pth", tmp_path / "out")
    again = hub.load(tmp_path / "out")
    assert again.config.time_axis == "lanes" and again.config == model.config
    assert again.config.audio_clock == ("faithful" if kind == "sound" else "true")
    x = torch.rand(1, 3, 112, 112)
    assert_same(model.eval()(x), again(x))
    assert ("tmodels.9" in found.dropped) == (kind == "surplus")


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_folder_per_member_becomes_an_ensemble(kind, tmp_path):
    released = tmp_path / "checkpoints"
    models = []
    for m in (0, 2, 10):  # natural, not alphabetical, order
        state, model = original(seed=m, landmarks=m == 2)
        name = f"student_round_3_exp_{m}"
        (released / name).mkdir(parents=True)
        torch.save({"state_dict": original(seed=99)[0]}, released / name / f"net_epoch_1_{name}.pth")
        torch.save({"state_dict": state}, released / name / f"net_epoch_{4 + m}_{name}.pth")
        (released / name / "opt_epoch_4_OPT.pth").write_bytes(b"not needed")
        models.append(model.eval())
    source = released
    if kind == "zip":
        source = tmp_path / "released.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in released.rglob("*.pth"):
                archive.write(path, path.relative_to(tmp_path))
    elif kind == "tar":
        source = tmp_path / "released.tar.gz"
        with tarfile.open(source, "w:gz") as archive:
            archive.add(released, "checkpoints")
    found = importers.convert("emenet", source, tmp_path / "out")
    again = hub.load(tmp_path / "out")
    assert again.config.members == 3 and "landmarks" not in again.labels
    assert any("not all members" in why for why in found.dropped.values())
    x = torch.rand(1, 3, 112, 112)
    wanted = {t: torch.cat([m(x)[t] for m in models]) for t in again.labels}
    assert_same(wanted, again(x))
    first = importers.read("emenet", source, members="*_exp_2", epoch=1)
    assert first.config.members == 1


def test_unsuitable_files_are_refused(tmp_path):
    state, _ = original()
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    with pytest.raises(UserError, match="holds no net_epoch"):
        importers.read("emenet", lonely)
    cases = {
        "is no EMENet: it holds": state | {"classifier.weight": torch.zeros(1)},
        "it has no heads": {k: v for k, v in state.items() if "tmodels" not in k},
        "heads read 100 features": state | {"tmodels.0.rnn.weight_ih_l0": torch.zeros(384, 100)},
    }
    for number, (message, tensors) in enumerate(cases.items()):
        path = tmp_path / f"net_epoch_{number}_x.pth"
        torch.save({"state_dict": tensors}, path)
        with pytest.raises(UserError, match=message):
            importers.read("emenet", path)
    for m, tensors in enumerate((state, original(sound=True)[0])):
        folder = tmp_path / "mixed" / f"member_{m}"
        folder.mkdir(parents=True)
        torch.save({"state_dict": tensors}, folder / f"net_epoch_1_member_{m}.pth")
    with pytest.raises(UserError, match="different kinds"):
        importers.read("emenet", tmp_path / "mixed")
    with pytest.raises(UserError, match="no epoch 7"):
        importers.read("emenet", tmp_path / "mixed", epoch=7)
    torn = tmp_path / "torn.zip"
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        archive.writestr("a/net_epoch_1_a.pth", bytes(5000))
    torn.write_bytes((tmp_path / "whole.zip").read_bytes()[:3000])
    with pytest.raises(UserError, match=r"torn\.zip"):
        importers.read("emenet", torn)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../net_epoch_1_a.pth", b"x")
    with pytest.raises(UserError, match="points out of the archive"):
        importers.read("emenet", tmp_path / "bad.zip")


def test_other_importers_refuse_foreign_files(tmp_path):
    torch.save(
        {"state_dict": {"conv1.conv.weight": torch.zeros(1), "fc.weight": torch.zeros(1)}}, tmp_path / "fa.pth.tar"
    )
    with pytest.raises(UserError, match=r"it holds 'fc\.weight'"):
        importers.read("mobilefacenet", tmp_path / "fa.pth.tar")
    with tarfile.open(tmp_path / "empty.nemo", "w:gz") as archive:
        archive.add(tmp_path / "fa.pth.tar", "other.ckpt")
    with pytest.raises(UserError, match=r"holds no file called model_weights\.ckpt"):
        importers.read("marblenet", tmp_path / "empty.nemo")
