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
    films = [Path(f"{hashed}/frame{n}.jpg") for hashed, n in (("ff", 1), ("aa", 2), ("dd", 11), ("cc", 10))]
    assert [p.name for p in cropped.ordered(films)] == ["frame1.jpg", "frame2.jpg", "frame10.jpg", "frame11.jpg"]
    named = [Path("ff/ann.jpg"), Path("aa/bob.jpg"), Path("bb/bob2.jpg")]
    assert cropped.ordered(named[::-1]) == named
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
    assert result.size == tuple(result.faces.boxes[:, 2:].max(axis=0))


@pytest.mark.parametrize("fps", [0.0, -5.0, float("nan"), float("inf")])
def test_a_rate_that_is_none(fps: float, folder: Path) -> None:
    with pytest.raises(UserError, match="frames per second"):
        cropped.analyze_crops(folder, tiny_fg2020(), fps=fps)


def test_models_that_read_no_faces(folder: Path) -> None:
    with pytest.raises(UserError, match="does not read faces"):
        cropped.analyze_crops(folder, torch.nn.Identity())


def test_formats(folder: Path, tmp_path: Path) -> None:
    students, teacher = save(tmp_path, frames=4), save(tmp_path, frames=4, members=("teacher",))
    assert (
        main(["crops", str(folder), "--model", str(students), "-o", str(tmp_path / "out"), "--format", "fg2020"]) == 0
    )
    names = {f"{m}/{t}.txt" for m in ("student_0", "student_1", "merged", "merged_raw") for t in ("AU", "EXPR", "VA")}
    assert texts(tmp_path / "out") == names
    assert len((tmp_path / "out" / "merged" / "VA.txt").read_text().split("\n")) == 11
    both = ["--model", str(students), "--model", str(teacher)]
    assert main(["crops", str(folder), *both, "-o", str(tmp_path / "both"), "--format", "fg2020"]) == 0
    expected = {f"{students.name}/{n}" for n in names} | {
        f"{teacher.name}/teacher/{t}.txt" for t in ("AU", "EXPR", "VA")
    }
    assert texts(tmp_path / "both") == expected
    assert main(["crops", str(folder), "--model", str(students), "-o", str(tmp_path / "api"), "--format", "api"]) == 0
    rows = (tmp_path / "api" / f"{students.name}.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows[1:]] == [1, 2, 3, 5, 8, 9, 10, 11, 12, 20]
    assert main(["crops", str(folder), "--model", str(students), "-o", str(tmp_path / "csv")]) == 0
    assert len((tmp_path / "csv" / f"{students.name}.csv").read_text().splitlines()) == 11


def texts(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*.txt")}


@pytest.mark.parametrize("form", ["csv", "json", "fg2020", "api"])
def test_models_of_the_same_name(form: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ["--model", str(save(tmp_path / "a")), "--model", str(save(tmp_path / "b"))]
    assert main(["crops", str(folder), *both, "-o", str(tmp_path / "out"), "--format", form]) == 2
    assert "are called tiny.student_0_0" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_places_that_cannot_be_written_to(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "load", lambda *_: pytest.fail("a model was loaded"))
    (tmp_path / "file").write_text("mine")
    assert main(["crops", str(folder), "--model", "any", "-o", str(tmp_path / "file")]) == 2
    assert "cannot make the folder" in capsys.readouterr().err
    monkeypatch.setattr("os.access", lambda *_: False)
    assert main(["crops", str(folder), "--model", "any", "-o", str(tmp_path)]) == 2
    assert "cannot write into" in capsys.readouterr().err


def test_short_films_keep_their_frames(folder: Path, tmp_path: Path) -> None:
    model = hub.load(save(tmp_path, frames=16))
    assert len(cropped.fg2020_table(cropped.crop_files(folder), model).splitlines()) == 11
    assert len(cropped.analyze_crops(folder, model)) == 10
