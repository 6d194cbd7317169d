"""Readers of scene data sets: layouts, odd annotations, messages."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emotion import labels
from emotion.datasets import coco_person, emotic, heco, scenes
from emotion.datasets.__main__ import main
from emotion.errors import UserError


def test_emotic_fake_reads_back(tmp_path) -> None:
    root = emotic.fake(tmp_path / "emotic", scenes=4)
    for split in emotic.SPLITS:
        data = emotic.load(root, split)
        assert len(data) == 4
        assert data.picture(0).shape == (*data.scenes[0].size[::-1], 3)
        assert all(names for scene in data.scenes for names in scene.labels)
    assert data.fingerprint == emotic.load(root, "test").fingerprint != emotic.load(root, "val").fingerprint
    part = data.subset([2, 0])
    np.testing.assert_array_equal(part.picture(1), data.picture(0))


def test_emotic_names_missing_pictures(tmp_path) -> None:
    root = emotic.fake(tmp_path / "emotic")
    (root / "PAMI/emotic/framesdb/images/val_1.png").unlink()
    with pytest.raises(UserError, match=r"lacks framesdb/images/val_1\.png"):
        emotic.load(root, "val")
    assert len(emotic.load(root, "val", pictures=False)) == 3


@pytest.mark.parametrize("damage", ["truncate", "absent", "other"])
def test_emotic_damaged_annotations(tmp_path, damage: str) -> None:
    root = emotic.fake(tmp_path / "emotic")
    path = root / "PAMI/Annotations/Annotations.mat"
    if damage == "truncate":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "absent":
        path.unlink()
    else:
        path.write_text("train")
    with pytest.raises(UserError, match=r"Annotations\.mat"):
        emotic.load(root)


def _array_release(root) -> None:
    (root / "annots_arrs").mkdir(parents=True)
    (root / "img_arrs").mkdir()
    np.save(root / "img_arrs/a.npy", np.full((50, 100, 3), 7, np.uint8))
    columns = ["Width", "Height", "Filename", "Folder", "X1", "Y1", "X2", "Y2", "Arr_name", *labels.EMOTIC]
    with (root / "annots_arrs/annot_arrs_train.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "Valence", "Arousal", "Dominance"])
        present = [1 if e in ("Anger", "Yearning") else 0 for e in labels.EMOTIC]
        writer.writerow([200, 100, "a.jpg", "mscoco/images", 20, 10, 60, 90, "a.npy", *present, 3, "", 8])
        writer.writerow([200, 100, "a.jpg", "mscoco/images", 0, 0, 10, 10, "a.npy", *present, 3, 4, 8])


def test_emotic_array_release(tmp_path) -> None:
    _array_release(tmp_path)
    data = emotic.load(tmp_path)
    (scene,) = data.scenes
    assert scene.size == (100, 50)
    assert scene.boxes.tolist() == [[10, 5, 30, 45], [0, 0, 5, 5]]
    assert scene.labels[0] == ("Anger", "Yearning")
    assert np.isnan(scene.vad[0, 1]) and scene.vad[1].tolist() == [3, 4, 8]
    assert data.picture(0).shape == (50, 100, 3)
    (tmp_path / "img_arrs/a.npy").unlink()
    with pytest.raises(UserError, match=r"line 2 \(a\.npy\)"):
        emotic.load(tmp_path)


def test_heco_fake_and_its_misspelling(tmp_path) -> None:
    data = heco.load(heco.fake(tmp_path / "heco"))
    assert [s.rows.tolist() for s in data.scenes] == [[0, 3], [1, 4], [2]]
    assert data.scenes[1].labels == (("Disgust",), ("Happiness",))
    assert data.notices == ("line 6: 'Happinesst' read as 'Happiness'",)


def test_heco_accepts_the_other_folder_and_refuses_unknown_emotions(tmp_path) -> None:
    root = heco.fake(tmp_path / "heco")
    (root / "Images").rename(root / "Data")
    assert len(heco.load(root)) == 3
    table = root / heco.TABLE
    table.write_text(table.read_text().replace("Disgust", "Boredom"))
    with pytest.raises(UserError, match=r"heco_1\.png: person 1 has the unknown emotion 'Boredom'"):
        heco.load(root)
    table.write_text(table.read_text().replace("Boredom", "Fear").replace("xmin", "left"))
    with pytest.raises(UserError, match="no column xmin"):
        heco.load(root)


def test_odd_boxes_are_kept_and_noted() -> None:
    notices: list[str] = []
    scene = scenes.make_scene("a.png", (100, 50), [[-5, 0, 120, 20], [10, 10, 10, 40]], notices)
    assert scene.boxes.tolist() == [[0, 0, 100, 20], [10, 10, 10, 40]]
    assert len(notices) == 2 and "without area" in notices[0] and "outside" in notices[1]


def test_people_outside_the_picture_have_no_area_but_are_converted_as_published() -> None:
    notices: list[str] = []
    scene = scenes.make_scene("a.png", (100, 80), [[120, 10, 140, 50], [-30, 10, -5, 50]], notices)
    assert scene.boxes.tolist() == [[100, 10, 100, 50], [0, 10, 0, 50]]
    assert "person 1 has a box without area" in notices[0] and "person 2" in notices[1]
    data = scenes.Scenes("d", "s", (scene,), (), lambda i: np.zeros((80, 100, 3), np.uint8))
    assert [a["bbox"] for a in scenes.coco_table(data)["annotations"]] == [[120, 10, 100, 50], [0, 10, -5, 50]]
    assert scenes.person_table(data)["annotations"][0]["bbox"] == [[120, 10, 100, 50], [0, 10, -5, 50]]


def _renamed(root: Path, change: Callable[[str], str]) -> None:
    table = json.loads((root / "annotations.json").read_text())
    for image in table["images"]:
        image["file_name"] = change(image["file_name"])
    (root / "annotations.json").write_text(json.dumps(table))


def test_coco_person_finds_pictures_by_their_path(tmp_path) -> None:
    root = coco_person.fake(tmp_path / "persons")
    before = coco_person.load(root)
    for kind in ("images", "masks"):
        (root / kind).rename(root / "val2017")
        (root / kind).mkdir()
        (root / "val2017").rename(root / kind / "val2017")
    with pytest.raises(UserError, match=r"lacks 6 annotated pictures, e\.g\. train_0\.png"):
        coco_person.load(root)
    _renamed(root, "val2017/{}".format)
    data = coco_person.load(root)
    assert data.picture(1).shape == (96, 128, 3) and data.mask(1).any() and data.mask(0) is None
    assert [s.boxes.tolist() for s in data.scenes] == [s.boxes.tolist() for s in before.scenes]


@pytest.mark.parametrize(("inside", "found"), [("images/", True), ("", True), ("train2017/", False)])
def test_archives_that_load_can_be_read(inside: str, found: bool, tmp_path) -> None:
    root = coco_person.fake(tmp_path / "persons")
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for path in (root / "images").iterdir():
            archive.write(path, inside + path.name)
    if found:
        assert coco_person.load(root).picture(0).shape == (96, 128, 3)
        return
    with pytest.raises(UserError, match=r"images\.zip \(in its folder images/, or from its top\) lacks 6"):
        coco_person.load(root)
    _renamed(root, "train2017/{}".format)
    assert coco_person.load(root).picture(0).shape == (96, 128, 3)


def test_pictures_of_another_size_than_annotated_are_named(tmp_path) -> None:
    persons, people = coco_person.fake(tmp_path / "p"), emotic.fake(tmp_path / "e")
    data, mat = coco_person.load(persons), emotic.load(people)
    Image.new("RGB", (64, 48)).save(persons / "images/train_1.png")
    Image.new("L", (64, 48)).save(persons / "masks/train_1.png")
    for read in (data.picture, data.mask):
        with pytest.raises(UserError, match=r"train_1\.png has 64 x 48 pixels, but its boxes are of 128 x 96"):
            read(1)
    Image.new("RGB", (3, 4)).save(people / "PAMI/emotic" / mat.scenes[0].file)
    with pytest.raises(UserError, match=r"train_0\.png has 3 x 4 pixels"):
        mat.picture(0)


def test_coco_person_splits_crowds_and_masks(tmp_path) -> None:
    root = coco_person.fake(tmp_path / "persons")
    table = json.loads((root / "annotations.json").read_text())
    table["annotations"][0]["iscrowd"] = 1
    table["images"][1]["complete_from_height"] = 30.5
    (root / "annotations.json").write_text(json.dumps(table))
    data = coco_person.load(root, "train")
    assert [len(s) for s in data.scenes] == [0, 1, 0, 1, 0, 1]
    assert data.scenes[1].crowd.tolist() == [True] and data.scenes[1].complete_from == 30.5
    assert data.mask(0) is None
    x0, y0, x1, y1 = data.scenes[3].boxes[0].astype(int)
    assert data.mask(3)[y0:y1, x0:x1].all() and data.mask(3).sum() == (x1 - x0) * (y1 - y0)
    np.testing.assert_array_equal(data.subset([3]).mask(0), data.mask(3))


def test_coco_person_complains(tmp_path) -> None:
    root = coco_person.fake(tmp_path / "persons")
    with pytest.raises(UserError, match="pictures of split 'nonsense', only"):
        coco_person.load(root, "nonsense")
    (root / "images/train_2.png").unlink()
    with pytest.raises(UserError, match=r"lacks 1 annotated pictures, e\.g\. train_2\.png"):
        coco_person.load(root)
    table = json.loads((root / "annotations.json").read_text())
    table["annotations"][0]["image_id"] = 999
    (root / "annotations.json").write_text(json.dumps(table))
    with pytest.raises(UserError, match="image 999"):
        coco_person.load(root, "val")


@pytest.mark.parametrize("content", [b"no picture", b"", b"\x89PNG\r\n\x1a\n\x00\x00\x00\x0dIHDR"])
def test_a_picture_that_cannot_be_read_is_named(content: bytes, tmp_path, capsys) -> None:
    root = heco.fake(tmp_path / "heco")
    data = heco.load(root)
    (root / "Images/heco_0.png").write_bytes(content)
    with pytest.raises(UserError, match=r"heco_0\.png"):
        data.picture(0)
    assert main(["--heco", str(root), "-o", str(tmp_path / "out")]) == 2
    text = capsys.readouterr().err
    assert "cannot read the picture" in text and "heco_0.png" in text and not (tmp_path / "out").exists()


def test_damaged_archives_of_pictures_are_named(tmp_path) -> None:
    root = coco_person.fake(tmp_path / "persons")
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for path in (root / "images").iterdir():
            archive.write(path, path.name)
    whole = (root / "images.zip").read_bytes()
    place = whole.index(b"\x89PNG") + 60  # inside the first picture
    (root / "images.zip").write_bytes(whole[:place] + bytes(40) + whole[place + 40 :])
    data = [coco_person.load(root, split) for split in ("train", "val", "test")]
    with pytest.raises(UserError, match=r"images.*png|png.*images"):
        [part.picture(i) for part in data for i in range(len(part))]
    (root / "images.zip").write_bytes(whole[:-40])
    with pytest.raises(UserError, match=r"cannot read .*images\.zip"):
        coco_person.load(root)


def test_arrays_that_are_no_pictures_are_named(tmp_path) -> None:
    _array_release(tmp_path)
    data = emotic.load(tmp_path)
    for content in (np.zeros((4, 5)), np.zeros((4, 5, 1))):
        np.save(tmp_path / "img_arrs/a.npy", content)
        with pytest.raises(UserError, match=r"a\.npy is no picture in colours"):
            data.picture(0)
    np.save(tmp_path / "img_arrs/a.npy", np.zeros(3))
    with pytest.raises(UserError, match=r"line 2 \(a\.npy\)"):
        emotic.load(tmp_path)
    (tmp_path / "img_arrs/a.npy").write_bytes(b"")
    for read in (lambda: data.picture(0), lambda: emotic.load(tmp_path)):
        with pytest.raises(UserError, match=r"a\.npy"):
            read()


def test_notices_reach_people(tmp_path, caplog) -> None:
    """Every reader tells how many annotations are odd, and the first of them; there is no silence."""
    root = heco.fake(tmp_path / "heco")
    heco.load(root)
    assert "heco train: odd annotations (1):\n  line 6: 'Happinesst' read as 'Happiness'" in caplog.text
    table = root / heco.TABLE
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *[lines[5]] * 7]))
    caplog.clear()
    assert len(heco.load(root).notices) == 7
    assert "annotations (7)" in caplog.text and "line 6:" in caplog.text and "line 7:" not in caplog.text
    assert caplog.text.rstrip().endswith("...")
    command = [sys.executable, "-m", "emotion.datasets", "--heco", str(root), "-o", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("heco train: odd annotations (7):\n  line 2:") and "odd" not in done.stdout
    persons = coco_person.fake(tmp_path / "persons")
    annotations = json.loads((persons / "annotations.json").read_text())
    annotations["annotations"][0]["bbox"] = [-5, 0, 20, 50]
    (persons / "annotations.json").write_text(json.dumps(annotations))
    coco_person.load(persons)
    assert "coco_person train: odd annotations (1):\n  train_1.png: 1 boxes reach outside" in caplog.text


def test_a_box_without_numbers_is_named(tmp_path) -> None:
    root = heco.fake(tmp_path / "heco")
    table = root / heco.TABLE
    lines = table.read_text().splitlines()
    cells = lines[1].split(",")
    table.write_text("\n".join([lines[0], ",".join([cells[0], "", *cells[2:]]), *lines[2:]]))
    with pytest.raises(UserError, match=r"heco_0\.png: person 1 has no box"):
        heco.load(root)


def test_rounding_at_the_edge_is_not_odd() -> None:
    notices: list[str] = []
    scenes.make_scene("a.png", (100, 50), [[0, 0, 100.0000001, 50]], notices)
    assert not notices


def test_command_writes_all_files(tmp_path, capsys) -> None:
    folders = ["--emotic", str(emotic.fake(tmp_path / "e")), "--heco", str(heco.fake(tmp_path / "h"))]
    assert main([*folders, "-o", str(tmp_path / "out")]) == 0
    written = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert len(written) == 8 and len(capsys.readouterr().out.splitlines()) == 8
    both = json.loads((tmp_path / "out/EMOTIC_and_HECO_train_x1y1x2y2_tdpc.json").read_text())
    assert [a["id"] for a in both["annotations"]] == list(range(len(both["annotations"])))
    assert main(["-o", str(tmp_path / "none")]) == 2
    assert "nothing to convert" in capsys.readouterr().err


def test_a_file_is_no_folder_to_write_to(tmp_path, capsys) -> None:
    (tmp_path / "out").write_text("mine")
    assert main(["--heco", str(heco.fake(tmp_path / "h")), "-o", str(tmp_path / "out")]) == 2
    assert "cannot write to" in capsys.readouterr().err and (tmp_path / "out").read_text() == "mine"


def test_heco_with_short_rows_and_blanks(tmp_path) -> None:
    root = heco.fake(tmp_path / "heco")
    before, table = heco.load(root), root / heco.TABLE
    text = table.read_text()
    table.write_text(text.replace(",Anger,", ",Anger ,"))
    assert heco.load(root).fingerprint == before.fingerprint and table.read_text() != text
    header, *lines = ([*row[1:], row[0]] for row in csv.reader(text.splitlines()))
    lines[2].pop()
    table.write_text("\n".join(",".join(row) for row in (header, *lines)))
    with pytest.raises(UserError, match="line 4: no Image"):
        heco.load(root)


def test_pictures_are_rgb(tmp_path) -> None:
    Image.fromarray(np.full((4, 5), 9, np.uint8)).save(tmp_path / "grey.png")
    assert scenes.read_picture(tmp_path / "grey.png").shape == (4, 5, 3)
