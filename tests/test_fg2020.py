"""FG-2020: importer, ensembles, windows, streams. Numbers of the original are in tests/parity."""

from __future__ import annotations

import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from emotion import exports, hub, importers, merging
from emotion.errors import UserError
from emotion.exports import abaw
from emotion.importers.fg2020 import backbone_tensors, find_members
from emotion.models.fg2020 import FG2020, STUDENTS, THRESHOLDS, FaceResNet50, fg2020, windows
from tests.parity import common
from tests.tiny import tiny_fg2020

KEYS = {"cnn": "keys_cnn_ferplus.json", "rnn": "keys_cnn_rnn_ferplus.json", "sfew": "keys_cnn_sfew.json"}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One original-like file per network."""
    folder = tmp_path_factory.mktemp("originals")
    for kind, keys in KEYS.items():
        state = {k: torch.from_numpy(v) for k, v in common.state_dict("fg2020", keys).items()}
        torch.save(state, folder / f"{kind}.pth")
    return {kind: folder / f"{kind}.pth" for kind in KEYS}


def lay(folder: Path, names: list[str], file: Path) -> Path:
    """A folder tree whose files are all the given one."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(file, folder / name)
    return folder


TRAINED = ["net_epoch_teacher_id_resnet50.pth", *(f"net_epoch_{s}_id_resnet50.pth" for s in STUDENTS[:2])]


@pytest.mark.parametrize(
    ("names", "options", "members"),
    [
        (TRAINED, {}, STUDENTS[:2]),
        (TRAINED, {"members": "teacher"}, ("teacher",)),
        (TRAINED, {"members": "student_1"}, ("student_1",)),
        (TRAINED, {"members": "all"}, ("teacher", *STUDENTS[:2])),
        ([f"Multitask-CNN/{n}" for n in TRAINED], {}, STUDENTS[:2]),
        (["pretrained_models/CNN/0.pth", "pretrained_models/CNN/4.pth"], {}, ("student_0", "student_4")),
        (["CNN/0.pth", "CNN_RNN/0.pth"], {"model": "cnn"}, ("student_0",)),
        ([*TRAINED, "opt_epoch_teacher_id_F.pth"], {"members": "teacher"}, ("teacher",)),
    ],
)
def test_folders(tmp_path: Path, originals: dict[str, Path], names: list[str], options: dict, members: tuple) -> None:
    imported = importers.read("fg2020", lay(tmp_path, names, originals["cnn"]), **options)
    assert imported.config.members == members
    assert imported.config.frames == 0
    tuned = len(members) > 1
    assert (imported.config.thresholds[0] != 0.5) == tuned


def test_sequence_folder_shares_equal_cnns(tmp_path: Path, originals: dict[str, Path]) -> None:
    folder = lay(tmp_path, [f"Multitask-CNN-RNN/Seq_len=16/{s}_GRU.pth" for s in STUDENTS[:2]], originals["rnn"])
    imported = importers.read("fg2020", folder, frames=16)
    assert imported.config.frames == 16
    assert imported.config.shared_cnn
    assert not any(name.startswith("cnns.1.") for name in imported.tensors)
    assert len(imported.dropped) == 4
    hub.fit(FG2020(imported.config), imported.tensors)


@pytest.mark.parametrize("place", ["", "Seq_len=16", "Multitask-CNN-RNN", "Seq_len=16/student_0_GRU.pth"])
def test_windows_are_those_of_the_folder(tmp_path: Path, originals: dict[str, Path], place: str) -> None:
    inside = "Multitask-CNN-RNN/Seq_len=16" if place == "Multitask-CNN-RNN" else "Seq_len=16"
    source = lay(tmp_path, [f"{inside}/student_0_GRU.pth"], originals["rnn"]) / place
    with pytest.raises(UserError, match="windows of 16 frames, not 32: give --frames 16"):
        importers.read("fg2020", source)
    assert find_members(source, "auto", "student_0", 16).keys() == {"student_0"}


@torch.inference_mode()
def test_a_tuned_network_keeps_its_thresholds_in_files() -> None:
    logits = {
        "action_units": torch.full((1, 2, 8), -1.0),
        "expression": torch.zeros(1, 2, 7),
        "valence_arousal": torch.zeros(1, 2, 2, 20),
    }
    for threshold, decision in ((0.1, "1"), (0.5, "0")):
        tasks = small(("teacher",), thresholds=(threshold,) * 8).decode(logits)
        files = exports.fg2020_files(tasks, ("teacher",)) | abaw.files("clip", tasks, np.arange(2))
        for name in ("teacher/AU.txt", "0/AU_Set/clip.txt", "merged/AU_Set/clip.txt"):
            assert files[name].split("\n")[1] == ",".join([decision] * 8)
    twice = {task: torch.cat([z, z]) for task, z in logits.items()}
    ensemble = small(STUDENTS[:2], thresholds=(0.1,) * 8).decode(twice)
    files = exports.fg2020_files(ensemble, STUDENTS[:2])
    assert [files[f"{m}/AU.txt"].split("\n")[1][0] for m in ("student_0", "merged")] == ["0", "1"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives(tmp_path: Path, originals: dict[str, Path], kind: str) -> None:
    archive, name = tmp_path / f"models.{kind}", "CNN/3.pth"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            file.write(originals["sfew"], name)
    else:
        with tarfile.open(archive, "w") as file:
            file.add(originals["sfew"], name)
    imported = importers.read("fg2020", archive)
    assert imported.config.members == ("student_3",)
    assert imported.config.backbone == "sfew"


def test_convert_and_load(tmp_path: Path, originals: dict[str, Path]) -> None:
    importers.convert("fg2020", originals["cnn"], tmp_path / "fg2020.teacher")
    model = hub.load(tmp_path / "fg2020.teacher")
    assert model.card.name == "fg2020.teacher"
    with torch.inference_mode():
        tasks = model.decode(model(model.example()))
    assert set(tasks) == {"expression", "action_units", "valence_arousal"}
    assert set(tasks["expression"].uncertainty) == {"total"}


def test_pretrained_backbone(tmp_path: Path, originals: dict[str, Path]) -> None:
    full = torch.load(originals["sfew"], weights_only=True)
    source = {k.removeprefix("backbone.model."): v for k, v in full.items() if k.startswith("backbone.")}
    torch.save(source | {"prediction.weight": torch.zeros(7, 2048)}, tmp_path / "resnet50_face_sfew_dag.pth")
    variant, tensors = backbone_tensors(tmp_path / "resnet50_face_sfew_dag.pth")
    assert variant == "sfew"
    hub.fit(FaceResNet50(variant, 0.0), tensors)


class Evil:
    def __reduce__(self) -> tuple:
        return os.system, ("false",)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"a": torch.zeros(1)}, {}, "neither the FER"),
        ({"conv1_7x7_s2.weight": torch.zeros(1), "extra.weight": torch.zeros(1)}, {}, "no known layer"),
        ([1, 2], {}, "no state dict"),
        ({"x": Evil()}, {}, "refused"),
        ({}, {"members": "professor"}, "members must be"),
        ({}, {"model": "transformer"}, "model must be"),
    ],
)
def test_bad_files(tmp_path: Path, content: object, options: dict, message: str) -> None:
    torch.save(content, tmp_path / "teacher.pth")
    with pytest.raises(UserError, match=message):
        importers.read("fg2020", tmp_path / "teacher.pth", **options)


def test_bad_folders(tmp_path: Path, originals: dict[str, Path]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="found: none"):
        importers.read("fg2020", tmp_path / "empty")
    with pytest.raises(UserError, match="several files for student_0"):
        importers.read("fg2020", lay(tmp_path / "a", ["0.pth", "student_0.pth"], originals["cnn"]))
    with pytest.raises(UserError, match="CNN, CNN_RNN"):
        importers.read("fg2020", lay(tmp_path / "b", ["CNN/0.pth", "CNN_RNN/0.pth"], originals["cnn"]))
    with pytest.raises(UserError, match="holds a CNN, not the rnn"):
        importers.read("fg2020", originals["cnn"], model="rnn")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match="as a PyTorch file"):
        importers.read("fg2020", tmp_path / "notes.txt")


def small(members: tuple[str, ...] = STUDENTS[:3], frames: int = 0, **changes: object) -> FG2020:
    return tiny_fg2020(members, frames, **changes).eval()


@pytest.mark.parametrize("rule", merging.RULES)
@torch.inference_mode()
def test_ensemble_outputs(rule: str) -> None:
    model = small(merge=rule)
    tasks = model.decode(model(torch.randn(4, 3, 32, 32)))
    np.testing.assert_allclose(tasks["expression"].values.sum(1), 1, rtol=1e-5)
    assert np.abs(tasks["valence_arousal"].values).max() <= 1
    for task in tasks.values():
        assert len(task.members) == 3
        assert set(task.uncertainty) == {"total", "aleatoric", "epistemic"}
        assert all(np.isfinite(u).all() and (u >= 0).all() for u in task.uncertainty.values())
    deviation = tasks["valence_arousal"].uncertainty
    np.testing.assert_allclose(
        deviation["total"] ** 2, deviation["aleatoric"] ** 2 + deviation["epistemic"] ** 2, atol=1e-6
    )


def test_rules_differ_as_documented() -> None:
    logits = {
        "action_units": np.array([[[3.0]], [[-0.1]], [[-0.1]]]),
        "expression": np.array([[[0, 4.0]], [[1.0, 0]], [[1.0, 0]]]),
    }
    got = {rule: merging.merge(logits, rule) for rule in merging.RULES}
    assert [got[r]["expression"][0].argmax() for r in ("predictor", "api", "first", "single")] == [1, 1, 0, 1]
    assert got["first"]["action_units"][0, 0] == pytest.approx(1 / 3)
    assert got["predictor"]["action_units"][0, 0] == pytest.approx((1 / (1 + np.exp(-3)) + 2 / (1 + np.exp(0.1))) / 3)
    assert got["api"]["action_units"][0, 0] == pytest.approx(1 / (1 + np.exp(-2.8 / 3)))
    with pytest.raises(ValueError, match="unknown merging rule"):
        merging.merge(logits, "third")


def test_thresholds_without_positives_and_with_unknown_labels() -> None:
    scores = np.array([[0.2, 0.3], [0.9, 0.4], [0.6, 0.1], [0.95, 0.5]])
    labels = np.array([[0, 0], [1, 0], [1, 0], [-1, 0]])
    np.testing.assert_allclose(merging.search_thresholds(scores, labels), [0.6, 0.5])


@pytest.mark.parametrize("frames", [0, 8])
@torch.inference_mode()
def test_the_interface_has_tuned_thresholds_for_one_student_too(frames: int) -> None:
    logits = {"action_units": torch.zeros(1, 1, 8)}

    def limits(rule: str, *members: str, **changes: object) -> np.ndarray:
        return small(members, frames, **changes).decode(logits, rule)["action_units"].thresholds

    np.testing.assert_allclose(limits("api", "student_0"), THRESHOLDS[frames], atol=1e-6)
    np.testing.assert_allclose(limits("predictor", "student_0"), 0.5, atol=1e-6)
    np.testing.assert_allclose(limits("api", "teacher"), 0.5, atol=1e-6)
    np.testing.assert_allclose(limits("api", "student_0", thresholds=(0.3,) * 8), 0.3, atol=1e-6)


@torch.inference_mode()
def test_present_means_strictly_above() -> None:
    model = small(("teacher",))
    logits = {"action_units": torch.tensor([[[0.0] * 8, [1e-3] * 8]])}
    task = model.decode(logits)["action_units"]
    np.testing.assert_array_equal(task.values >= task.thresholds, [[False] * 8, [True] * 8])


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("length", [1, 8, 32])
def test_windows_cover_every_frame_once_in_order(length: int, overlap: bool) -> None:
    for n in range(1, 100):
        chosen = windows(n, length, overlap)
        assert chosen.shape[1] == length
        assert set(chosen.ravel()) == set(range(n))
        assert (np.diff(chosen, axis=1) >= 0).all()
        assert len(np.unique(chosen, axis=0)) == len(chosen)
        if not overlap:
            assert len(chosen) == max(1, -(-n // length))


@torch.inference_mode()
def test_sequences_do_not_depend_on_batches() -> None:
    model = small(frames=4)
    frames = torch.randn(10, 3, 32, 32)
    whole = model.sequence(model.embed(frames))
    parts = model.sequence(torch.cat([model.embed(p) for p in frames.split(3)], dim=1))
    direct = model(frames[torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]])])
    for task, z in whole.items():
        assert z.shape[:2] == (3, 10)
        torch.testing.assert_close(z, parts[task])
        torch.testing.assert_close(z[:, :8], direct[task][:, :2].flatten(1, 2))
        torch.testing.assert_close(z[:, 8:], direct[task][:, 2, 2:])
    assert len(model.decode(direct)["expression"].values) == 12


@torch.inference_mode()
def test_shared_cnn_equals_copies() -> None:
    one = small(frames=4, shared_cnn=True)
    many = small(frames=4)
    for cnn in many.cnns:
        cnn.load_state_dict(one.cnns[0].state_dict())
    many.temporal.load_state_dict(one.temporal.state_dict())
    x = torch.randn(1, 4, 3, 32, 32)
    for task, z in one(x).items():
        torch.testing.assert_close(z, many(x)[task])


@torch.inference_mode()
def test_stream_sees_the_frames_before() -> None:
    model = small(frames=4)
    frames = torch.randn(9, 3, 32, 32)
    state, seen = None, []
    for i in range(len(frames)):
        logits, state = model.step(frames[i : i + 1], state)
        seen.append(logits["expression"])
        assert state.shape[1] == min(i + 1, 3)
    window = model(frames[None, 5:9])["expression"][:, 0, -1:]
    torch.testing.assert_close(seen[-1], window)
    images = small()
    logits, state = images.step(frames)
    assert state.shape[1] == 0
    torch.testing.assert_close(logits["expression"], images(frames)["expression"])


def test_every_parameter_learns() -> None:
    for frames in (0, 4):
        model = small(frames=frames).train()
        x = torch.randn(2, 4, 3, 32, 32) if frames else torch.randn(4, 3, 32, 32)
        sum(z.square().sum() for z in model(x).values()).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize(
    "wrong",
    [{"merge": "mean"}, {"tasks": ("action_units", "expression")}, {"thresholds": (0.5,)}, {"shared_cnn": True}],
)
def test_bad_configs(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"merge|tasks|thresholds|shared"):
        replace(fg2020(), **wrong)


@torch.inference_mode()
def test_backbones_with_a_hidden_layer_in_their_head() -> None:
    model = FG2020(fg2020("mobilenetv3_small_050", size=32)).eval()
    assert model(torch.zeros(2, 3, 32, 32))["expression"].shape == (1, 2, 7)


def test_unknown_backbone() -> None:
    with pytest.raises(ValueError, match="neither ferplus, sfew nor a timm network"):
        FG2020(fg2020("resnet_of_nobody"))


@torch.inference_mode()
def test_stills_are_windows_without_movement() -> None:
    model = small(frames=4)
    x = torch.randn(2, 3, 32, 32)
    still, film = model(x), model(x[:, None].expand(-1, 4, -1, -1, -1))
    for task, z in still.items():
        torch.testing.assert_close(z, film[task][:, :, 0])


@pytest.mark.parametrize("options", [{}, {"frames": 4}, {"frames": 4, "shared_cnn": True}])
@torch.inference_mode()
def test_one_member_alone(options: dict) -> None:
    model = small(**options)
    x = torch.randn(1, 4, 3, 32, 32) if options else torch.randn(2, 3, 32, 32)
    for task, z in model(x).items():
        torch.testing.assert_close(model(x, member=1)[task], z[1:2])
