"""Folders of face crops: order, formats, and the same answers as the model gives picture by picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emotion import hub
from emotion.__main__ import main
from emotion.errors import UserError
from emotion.faces import cropped
from tests.tiny import tiny_fg2020


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten crops of mixed sizes; numbers without leading zeros, so that names sort wrongly."""
    root, rng = tmp_path_factory.mktemp("crops"), np.random.default_rng(0)
    for number in (1, 2, 3, 5, 8, 9, 10, 11, 12, 20):
        size = (48 + number, 48 + number % 3, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(root / f"face_{number}.png")
    (root / "face_7.png.txt").write_text("no picture")
    return root


def save(folder: Path, frames: int = 0, members: tuple[str, ...] = ("student_0", "student_1")) -> Path:
    card = hub.Card(f"tiny.{members[0]}_{frames}", "MIT", True)
    hub.save(tiny_fg2020(members, frames), "fg2020", folder / card.name, card, "tiny")
    return folder / card.name


def test_numbers_order_the_frames(folder: Path) -> None:
    assert [int(p.stem[5:]) for p in cropped.crop_files(folder)] == [1, 2, 3, 5, 8, 9, 10, 11, 12, 20]
    with pytest.raises(UserError, match="no pictures"):
        cropped.crop_files(folder, (".webp",))
    with pytest.raises(UserError, match="is no folder"):
        cropped.crop_files(folder / "nowhere")


@torch.inference_mode()
def test_every_crop_is_a_frame(folder: Path, tmp_path: Path) -> None:
    model = hub.load(save(tmp_path))
    result = cropped.analyze_crops(folder, model, fps=10)
    np.testing.assert_allclose(result.timestamps, np.arange(10) / 10)
    picture = np.asarray(Image.open(folder / "face_10.png"))
    alone = model.decode(model(model.config.input.tensor([picture])))["valence_arousal"]
    np.testing.assert_allclose(result.tasks["valence_arousal"].values[6], alone.values[0], atol=1e-4)
    np.testing.assert_array_equal(result.faces.boxes[6], [0, 0, picture.shape[1], picture.shape[0]])


def test_formats(folder: Path, tmp_path: Path) -> None:
    students, teacher = save(tmp_path, frames=4), save(tmp_path, frames=4, members=("teacher",))
    both = ["--model", str(students), "--model", str(teacher)]
    assert main(["crops", str(folder), *both, "-o", str(tmp_path / "out"), "--format", "fg2020"]) == 0
    names = {f"{m}/{t}.txt" for m in ("teacher", "student_0", "student_1", "merged", "merged_raw") for t in
             ("AU", "EXPR", "VA")}  # fmt: skip
    assert {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.txt")} == names
    assert len((tmp_path / "out" / "merged" / "VA.txt").read_text().split("\n")) == 11
    assert main(["crops", str(folder), "--model", str(students), "-o", str(tmp_path / "api"), "--format", "api"]) == 0
    rows = (tmp_path / "api" / f"{students.name}.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows[1:]] == [1, 2, 3, 5, 8, 9, 10, 11, 12, 20]
    assert main(["crops", str(folder), "--model", str(students), "-o", str(tmp_path / "csv")]) == 0
    assert len((tmp_path / "csv" / f"{students.name}.csv").read_text().splitlines()) == 11


def test_short_films_keep_their_frames(folder: Path, tmp_path: Path) -> None:
    model = hub.load(save(tmp_path, frames=16))
    assert len(cropped.fg2020_table(cropped.crop_files(folder), model).splitlines()) == 11
    assert len(cropped.analyze_crops(folder, model)) == 10
