"""Annotation files of FG-2020's data sets against the structures that the original builds from them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion.datasets import afewva, affwild2_2020, disfa, expw
from emotion.labels import ABAW1_ACTION_UNITS
from tests.parity import common

ROWS = common.load("fg2020", "datasets.json")
TASKS = {"AU_Set": "action_units", "EXPR_Set": "expression", "VA_Set": "valence_arousal"}
SPLITS = {"Training_Set": "train", "Validation_Set": "valid"}


def blank(path: Path, height: int = 16, width: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


def values(entry: dict | list) -> np.ndarray:
    """An array of the fixture, bare or described."""
    return np.array(entry["values"] if isinstance(entry, dict) else entry)


@pytest.fixture(scope="module")
def affwild2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, row = tmp_path_factory.mktemp("affwild2"), ROWS["aff_wild2"]
    for name, text in row["annotation_texts"].items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for video, numbers in row["frames_present"].items():
        for number in numbers:
            blank(root / "cropped_aligned" / video / f"{number:05d}.jpg")
    return root


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("split", SPLITS)
def test_affwild2(affwild2: Path, name: str, split: str) -> None:
    expected = ROWS["aff_wild2"]["expected"][name][split]
    samples = affwild2_2020.load(affwild2, SPLITS[split], TASKS[name])
    targets = samples.targets[TASKS[name]]
    targets = targets.argmax(1)[:, None] if name == "EXPR_Set" else targets
    found = affwild2_2020.tables(affwild2, SPLITS[split], TASKS[name])
    assert list(found) == sorted(expected)
    for video, entry in expected.items():
        columns = dict(entry["columns"])
        paths, numbers = columns.pop("path"), columns.pop("frames_ids")
        mine = samples.groups == video
        assert [f"affwild2/{samples.ids[i]}" for i in np.flatnonzero(mine)] == paths
        np.testing.assert_array_equal(found[video][0], numbers)
        np.testing.assert_allclose(targets[mine], np.array(list(columns.values())).T, atol=1e-7)
    assert samples.picture(0).shape == (16, 16, 3)


@pytest.mark.parametrize("row", ROWS["aff_wild2_test_fill"]["cases"], ids=lambda row: str(row["frames"]))
def test_affwild2_gaps(row: dict) -> None:
    assert affwild2_2020.fill_gaps(row["frames"], row["length"]) == row["expected"]


@pytest.fixture(scope="module")
def disfa_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture's people; those whose texts it does not give have zeros."""
    root, row = tmp_path_factory.mktemp("disfa"), ROWS["disfa"]
    frames = row["frames_per_video"]
    for person in row["training_order"] + row["validation_order"]:
        for unit in ABAW1_ACTION_UNITS:
            name = f"ActionUnit_Labels/{person}/{person}_{unit.lower()}.txt"
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            zeros = "\n".join(f"{i},0" for i in range(1, frames + 1))
            (root / name).write_text(row["annotation_texts"].get(name, zeros))
        for number in range(1, frames + 1):
            blank(root / (row["image_file"].replace("<S>", person) % number))
    return root


def test_disfa(disfa_root: Path) -> None:
    row = ROWS["disfa"]
    parts = {split: disfa.load(disfa_root, split) for split in ("train", "valid", "all")}
    assert list(dict.fromkeys(parts["train"].groups)) == row["training_order"]
    assert list(dict.fromkeys(parts["valid"].groups)) == row["validation_order"]
    everything = parts["all"]
    for person, entry in row["expected"].items():
        mine = np.flatnonzero(everything.groups == person)
        np.testing.assert_array_equal(everything.targets["action_units"][mine], values(entry["label"]))
        assert [f"DISFA/{everything.ids[i]}" for i in mine] == entry["path"]


@pytest.fixture(scope="module")
def expw_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, row = tmp_path_factory.mktemp("expw"), ROWS["expw"]
    (root / "label").mkdir()
    (root / "label" / "label.lst").write_text(row["label_lst"])
    for name in row["images"]["names"]:
        blank(root / "image" / "origin" / name, *row["images"]["size_hw"])
    return root


def test_expw(expw_root: Path) -> None:
    """Labels and crops as the original's; two faces of one picture stay two, where the original overwrites one."""
    row, samples = ROWS["expw"], expw.load(expw_root)
    np.testing.assert_array_equal(samples.classes(), np.array(expw.ORDER)[values(row["expected"]["label"])])
    assert len(set(samples.ids)) == len(samples.ids)
    for name, size in row["crop_sizes_wh"].items():
        last = np.flatnonzero(samples.groups == name)[-1]
        assert samples.picture(int(last)).shape == (*size[::-1], 3)


@pytest.fixture(scope="module")
def afewva_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, row = tmp_path_factory.mktemp("afewva"), ROWS["afew_va"]
    for clip, frames in row["json"].items():
        table = {}
        for name, frame in frames.items():
            landmarks = np.zeros((68, 2))
            for index, point in frame["landmarks_used"].items():
                landmarks[int(index)] = point
            table[name] = {**frame, "landmarks": landmarks.tolist()}
            blank(root / clip / f"{name}.png", 90, 120)
        (root / clip / f"{clip.split('/')[1]}.json").write_text(json.dumps({"frames": table}))
    return root


@pytest.mark.parametrize("split", SPLITS)
def test_afewva(afewva_root: Path, split: str) -> None:
    row, samples = ROWS["afew_va"], afewva.load(afewva_root, SPLITS[split])
    expected = row["expected"][split]
    assert list(dict.fromkeys(samples.groups)) == list(expected)
    for clip, entry in expected.items():
        mine = np.flatnonzero(samples.groups == clip)
        wanted = np.stack([values(entry["valence"]), values(entry["arousal"])], axis=1)
        np.testing.assert_allclose(samples.targets["valence_arousal"][mine], wanted, atol=1e-7)
        assert [f"AFEW/cropped_aligned_faces/{samples.ids[i]}" for i in mine] == entry["path"]
        for i in mine:
            size = row["crop_sizes_wh"][samples.ids[i]]
            assert samples.picture(int(i)).shape == (*size[::-1], 3)


@pytest.mark.parametrize("name", TASKS)
def test_mixed(name: str, affwild2: Path, disfa_root: Path, expw_root: Path, afewva_root: Path) -> None:
    """Thinned Aff-Wild2 and then all of the other set; the fixture mixes in only the people it gives texts for."""
    task, row = TASKS[name], ROWS[f"mixed_{name[:-4]}"]
    other = {"AU": disfa.load(disfa_root, "all"), "EXPR": expw.load(expw_root), "VA": afewva.load(afewva_root, "all")}
    second = other[name[:-4]]
    if name == "AU_Set":
        second = second.subset(np.isin(second.groups, list(ROWS["disfa"]["expected"])))
    first = affwild2_2020.load(affwild2, "train", task, published=True)
    paths = values(row["Training_Set"]["path"])
    assert [f"affwild2/{i}" for i in first.ids] == [p for p in paths if p.startswith("affwild2")]
    assert len(first) + len(second) == len(paths)
    targets = np.concatenate([first.targets[task], second.targets[task]])
    targets = targets.argmax(1) if name == "EXPR_Set" else targets
    np.testing.assert_allclose(targets, values(row["Training_Set"]["label"]), atol=1e-7)
    valid = affwild2_2020.load(affwild2, "valid", task, published=True)
    assert [f"affwild2/{i}" for i in valid.ids] == values(row["Validation_Set"]["path"]).tolist()
