"""The command line: what it prints and writes, and one message with exit code 2 for every kind of bad input."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

from emotion import __version__, hub, registry
from emotion.__main__ import main
from emotion.cli import analyze as analyze_command
from emotion.cli import importing
from emotion.faces import SELECTIONS
from emotion.models import emenet, esr
from emotion.models.base import FaceInput
from emotion.predict import FacePredictor
from tests.test_importers import network, originals, write
from tests.test_outputs import SCHEMA

MEDIA = Path(__file__).parent / "media"
ROOT = MEDIA.parents[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An untrained ESR with affect heads: what it says is arbitrary, differs between faces and is always the same."""
    blocks = (esr.Block(8, kernel=5, pool=True), esr.Block(8, pool=True))
    config = esr.ESRConfig(FaceInput((48, 48)), base=blocks, branch=(esr.Block(8),), branches=3, affect=True)
    model, folder = network(config), tmp_path_factory.mktemp("models") / "tiny"
    for branch in model.branches:
        branch.fc.weight.data *= 40
    card = hub.Card("esr.tiny", "MIT", True, trained_on=("nothing",), metrics={"FER+/valid/accuracy": 0.125})
    hub.save(model, "esr", folder, card, "---\nlicense: mit\n---\n# Tiny\n\nOnly for tests.\n")
    return str(folder)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three photos, two of which have the same name, and files of other kinds."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for source, target in (("happy", "a.png"), ("sad", "b.png"), ("fear", "more/A.png"), ("anger", ".hidden/c.png")):
        with Image.open(MEDIA / f"face_{source.replace('anger', 'angry')}.png") as image:
            image.save(folder / target)
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    return folder


def fails(capsys: pytest.CaptureFixture[str], *argv: str | Path, code: int = 2) -> str:
    """Run a command that must fail with one message; returns it."""
    try:
        got = main([str(a) for a in argv])
    except SystemExit as stop:  # argparse
        got = stop.code
    out, err = capsys.readouterr()
    assert got == code, (out, err)
    assert "Traceback" not in err and err.count("error: ") == 1, err
    return err[err.index("error: ") + 7 :]


def documents(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_table_shows_what_the_library_says(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    photo = MEDIA / "scene_handshake.jpg"
    assert main(["analyze", str(photo), "--model", checkpoint]) == 0
    out = capsys.readouterr().out
    with Image.open(photo) as image:
        picture = np.asarray(image.convert("RGB"))
    result = FacePredictor(hub.load(checkpoint)).images([picture], [photo.name])[0]
    assert f"{photo.name}  {picture.shape[1]} x {picture.shape[0]} pixels, {len(result)} faces" in out
    lines = [line.split() for line in out.splitlines() if re.match(r"\d+ ", line)]
    assert len(lines) == len(result) >= 2
    expression, affect = result.tasks["expression"], result.tasks["valence_arousal"]
    for i, cells in enumerate(lines):
        assert cells[0] == str(i + 1)
        assert [int(v) for v in cells[1:5]] == [round(float(v)) for v in result.faces.boxes[i]]
        assert cells[5] == expression.names()[i]
        assert cells[6] == f"{expression.values[i, expression.choice[i]]:.2f}"
        assert cells[7] == f"{expression.uncertainty['total'][i]:.2f}"
        assert cells[8] == f"{affect.values[i, 0]:+.2f}" and cells[11] == f"{affect.values[i, 1]:+.2f}"


def test_landmarks_are_in_the_files_and_not_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = emenet.EMENet(emenet.EMENetConfig(FaceInput((32, 32)), hidden=8, landmarks=68)).eval()
    hub.save(model, "emenet", tmp_path / "m", hub.Card("emenet.tiny", "MIT", True), "---\nlicense: mit\n---\n# Tiny\n")
    argv = ["analyze", str(MEDIA / "face_happy.png"), "--model", str(tmp_path / "m"), "-o", str(tmp_path / "out")]
    assert main(argv) == 0
    out = capsys.readouterr().out
    (row,) = csv.DictReader((tmp_path / "out" / "face_happy.csv").open(encoding="utf-8"))
    assert f"{float(row['valence_arousal.valence']):+.2f} ± " in out
    assert sum(name.startswith("landmarks.") for name in row) == 136


def test_files_of_a_photo(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, out = MEDIA / "scene_handshake.jpg", tmp_path / "new" / "out"
    assert main(["analyze", str(photo), "--model", checkpoint, "-o", str(out), "--json"]) == 0
    assert sorted(p.name for p in out.iterdir()) == [f"scene_handshake.{x}" for x in ("csv", "json", "png")]
    document = json.loads((out / "scene_handshake.json").read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    assert documents(capsys.readouterr().out) == [document]
    rows = list(csv.DictReader((out / "scene_handshake.csv").open(encoding="utf-8")))
    assert [row["face"] for row in rows] == [str(i + 1) for i in range(len(document["frames"][0]["faces"]))]
    with Image.open(out / "scene_handshake.png") as drawn, Image.open(photo) as original:
        assert drawn.size == original.size == (document["width"], document["height"])
        assert np.asarray(drawn).tolist() != np.asarray(original.convert("RGB")).tolist()


def test_one_face_only(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for faces in SELECTIONS:
        argv = ["analyze", str(MEDIA / "group_tennis.jpg"), "--model", checkpoint, "--json", "--faces", faces]
        assert main(argv) == 0
        found.append([f["box"] for f in documents(capsys.readouterr().out)[0]["frames"][0]["faces"]])
    assert SELECTIONS == ("all", "largest", "closest-to-centre")
    area = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in found[0]]
    assert len(found[0]) > 3 and found[1] == [found[0][int(np.argmax(area))]]
    assert len(found[2]) == 1 and found[2][0] in found[0]


def test_no_face_is_a_result(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["analyze", str(MEDIA / "scene_no_person.jpg"), "--model", checkpoint, "-o", str(tmp_path)]
    assert main(argv) == 0
    assert "no face found" in capsys.readouterr().out
    assert json.loads((tmp_path / "scene_no_person.json").read_text())["frames"] == [{"timestamp": 0.0, "faces": []}]
    assert len(list(tmp_path.iterdir())) == 3


def test_folders_patterns_and_batches(
    checkpoint: str, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analyze_command, "BATCH", 2)
    found = {}
    for argument in (photos, photos / "**" / "*.png", photos / "a.png"):
        assert main(["analyze", str(argument), str(photos / "a.png"), "--model", checkpoint, "--json"]) == 0
        found[argument.name] = documents(capsys.readouterr().out)
    assert [d["source"] for d in found["photos"]] == ["a.png", "b.png", "A.png"]
    assert sorted(d["source"] for d in found["*.png"]) == ["A.png", "a.png", "b.png"]
    (alone,) = found["a.png"]
    (face,), (again,) = alone["frames"][0]["faces"], found["photos"][0]["frames"][0]["faces"]
    np.testing.assert_allclose(again["box"], face["box"], atol=0.05)
    values = [list(f["expression"]["values"].values()) for f in (face, again)]
    np.testing.assert_allclose(*values, atol=1e-3)


def test_equal_names_get_numbers_and_inputs_stay_untouched(checkpoint: str, photos: Path) -> None:
    before = {p: p.read_bytes() for p in photos.rglob("*") if p.is_file()}
    for _ in range(2):  # the second run replaces the files of the first and makes no others
        argv = [str(p) for p in sorted(before) if p.suffix == ".png" and ".hidden" not in p.parts]
        assert main(["analyze", *argv, "--model", checkpoint, "-o", str(photos)]) == 0
        made = sorted(p.name for p in photos.iterdir() if p not in before and p.is_file())
        assert made == sorted(f"{n}.{x}" for n in ("a-2", "b-2", "A-3") for x in ("csv", "json", "png"))
        assert all(p.read_bytes() == content for p, content in before.items())
    sources = {n: json.loads((photos / f"{n}.json").read_text())["source"] for n in ("a-2", "b-2", "A-3")}
    assert sources == {"a-2": "a.png", "b-2": "b.png", "A-3": "A.png"}


def test_files_of_others_are_never_replaced(checkpoint: str, tmp_path: Path) -> None:
    photo = tmp_path / "face.jpg"
    Image.open(MEDIA / "face_happy.png").convert("RGB").save(photo)
    theirs = {tmp_path / "face.json": '{"shapes": []}', tmp_path / "face.csv": "my,table\n"}
    for path, text in theirs.items():
        path.write_text(text)
    for _ in range(2):  # the second run finds files of ours, and replaces these
        assert main(["analyze", str(photo), "--model", checkpoint, "-o", str(tmp_path)]) == 0
        assert {path: path.read_text() for path in theirs} == theirs
        made = sorted(p.name for p in tmp_path.iterdir() if p not in theirs and p != photo)
        assert made == ["face-2.csv", "face-2.json", "face-2.png"]


def test_names_are_printed_as_they_are(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "[bold] :smile: [1].png"
    shutil.copy(MEDIA / "face_happy.png", photo)
    assert main(["analyze", str(photo), "--model", checkpoint, "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.startswith(photo.name)
    assert (tmp_path / "out" / f"{photo.stem}.png").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode here")
def test_names_that_are_no_text(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(MEDIA / "face_happy.png", photo)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    assert main(["analyze", str(photo), "--model", checkpoint, "--json"]) == 0
    assert documents(capsys.readouterr().out)[0]["source"] == "caf\N{REPLACEMENT CHARACTER}.png"


def bad_file(kind: str, folder: Path) -> Path:
    path = folder / f"{kind.replace(' ', '_')}.png"
    whole = (MEDIA / "face_happy.png").read_bytes()
    content = {"empty": b"", "text": b"hello\n", "truncated": whole[: len(whole) // 2], "garbage": whole[:200] * 40}
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "one pixel":
        Image.new("RGB", (1, 1)).save(path)
    elif kind == "100 megapixels":
        Image.new("1", (10_000, 10_000)).save(path)
    elif kind == "folder without pictures":
        path = folder / "empty"
        path.mkdir()
    elif kind == "pattern without match":
        path = folder / "*.jpeg"
    return path


KINDS = (
    "missing", "empty", "text", "truncated", "garbage", "one pixel", "100 megapixels",
    "folder without pictures", "pattern without match",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_bad_picture(kind: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = bad_file(kind, tmp_path)
    message = fails(capsys, "analyze", path, "--model", checkpoint, "-o", tmp_path / "out")
    assert path.name in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_one_bad_picture_does_not_stop_the_others(
    checkpoint: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    argv = ["analyze", str(photos), str(photos / "missing.png"), "--model", checkpoint, "--json"]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert [d["source"] for d in documents(out)] == ["a.png", "b.png", "A.png"]
    assert err.count("error: ") == 2 and "broken.jpg" in err and "missing.png" in err
    assert err.splitlines()[-1] == "2 of 5 could not be analysed"


def broken_checkpoint(kind: str, good: str, folder: Path) -> str:
    """A checkpoint folder with one fault."""
    if kind == "unknown name":
        return "esr9.afectnet"
    if kind == "to import":
        return "esr9.affectnet"
    path = folder / "checkpoint"
    if kind == "missing folder":
        return f"{path}/"
    shutil.copytree(good, path)
    weights, config = path / hub.WEIGHTS, path / hub.CONFIG
    document = json.loads(config.read_text())
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif kind == "pickled":
        torch.save({"a": torch.zeros(1)}, weights)
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no config":
        config.unlink()
    elif kind == "nan":
        from safetensors.torch import load_file, save_file

        tensors = load_file(weights)
        tensors["base.0.conv.weight"][0] = torch.nan
        save_file(tensors, weights)
        document["card"]["sha256"] = ""
    elif kind == "other method":
        document["method"] = "nosuch"
    elif kind == "other size":
        document["config"]["branches"] = 4
    elif kind == "config is no JSON":
        config.write_text("{")
    if config.exists() and kind in ("nan", "other method", "other size"):
        config.write_text(json.dumps(document))
    return str(path)


CHECKPOINT_KINDS = (
    "unknown name", "to import", "missing folder", "truncated", "pickled", "no weights", "no config", "nan",
    "other method", "other size", "config is no JSON",
)  # fmt: skip


@pytest.mark.parametrize("kind", CHECKPOINT_KINDS)
def test_bad_checkpoint(kind: str, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = broken_checkpoint(kind, checkpoint, tmp_path)
    fails(capsys, "analyze", MEDIA / "face_happy.png", "--model", model, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if kind != "to import":
        fails(capsys, "info", model)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["analyze"], "required: PATH"),
        (["analyze", "x.png", "--nosuch"], "unknown option --nosuch"),
        (["analyze", "x.png", "--faces", "some"], "invalid choice"),
        (["nosuch"], "invalid choice"),
        ([], "required: COMMAND"),
        (["models", "--method", "nosuch"], "methods are"),
        (["models", "--task", "nosuch"], "tasks are"),
        (["info", "nosuch"], "no model is called"),
        (["import", "nosuch", "x", "-o", "y"], "no importer"),
        (["import", "esr", "nosuch_folder", "-o", "y"], "does not exist"),
        (["import", "esr", "x"], "-o"),
    ],
)
def test_bad_arguments(argv: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in fails(capsys, *argv)


@pytest.mark.parametrize("device", ["nosuch", "cuda:99"])
def test_bad_device(device: str, checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("analyze", MEDIA / "face_happy.png", "--model", checkpoint, "--device", device)
    assert device in fails(capsys, *argv)


def test_output_that_is_a_file(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    argv = ("analyze", MEDIA / "face_happy.png", "--model", checkpoint, "-o", tmp_path / "file")
    assert "file" in fails(capsys, *argv)
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_ctrl_c(checkpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(hub, "load", interrupt)
    assert main(["analyze", str(MEDIA / "face_happy.png"), "--model", checkpoint]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_models_lists_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(name)} ", out, re.M) for name in registry.entries())
    assert main(["models", "--json", "--method", "esr", "--task", "valence_arousal"]) == 0
    rows = json.loads(capsys.readouterr().out)
    expected = [e for e in registry.entries().values() if e.method == "esr" and "valence_arousal" in e.tasks]
    assert [row["name"] for row in rows] == [e.name for e in expected]
    assert [row["commercial"] for row in rows] == [e.commercial for e in expected]


def test_info_on_a_model_to_import_names_both_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "esr9.affectnet"]) == 0
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    entry = registry.get("esr9.affectnet")
    assert entry.import_command in out and entry.licence in out and entry.reported in out
    assert "commercial use: no" in out and re.sub(r"\s", "", entry.original) in out.replace(" ", "")


def test_info_on_a_folder_shows_card_and_figures(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", checkpoint]) == 0
    out = capsys.readouterr().out
    parameters = sum(p.numel() for p in hub.load(checkpoint).parameters())
    for text in ("esr.tiny", "MIT", f"{parameters:,}", "FER+/valid/accuracy", "0.125", "Only for tests."):
        assert text in out
    assert "license: mit" not in out


def test_import_tells_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "original", originals(network(esr.esr4(branches=2))))
    argv = ["import", "esr", str(source), "-o", str(tmp_path / "ours"), "--batchnorm", "batch"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    for text in ("esr4.ckplus", "2 branches", "not taken over", "num_batches_tracked", "commercial use: no"):
        assert text in out
    model = hub.load(tmp_path / "ours")
    assert model.config.batchnorm == "batch"
    assert f"{sum(v.numel() for k, v in model.state_dict().items() if 'num_batches' not in k):,} numbers" in out
    assert main(["info", str(tmp_path / "ours")]) == 0


def test_import_options_have_the_importer_s_types(capsys: pytest.CaptureFixture[str]) -> None:
    options = importing._options("avfusion", ["--heads", "4", "--labels", "happiness,anger"])
    assert options["heads"] == 4 and options["labels"] == ("happiness", "anger") and options["name"] is None
    argv = ("import", "avfusion", "x", "-o", "y", "--heads", "many")
    assert "invalid int value: 'many'" in fails_with_usage(capsys, *argv)


def test_import_refuses_what_it_should(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = originals(network(esr.esr4(branches=3)))
    source, out = write(tmp_path / "original", files), tmp_path / "ours"
    assert "--batchnorm" in fails_with_usage(capsys, "import", "esr", source, "-o", out, "--nosuch", "1")
    assert "batchnorm must be" in fails(capsys, "import", "esr", source, "-o", out, "--batchnorm", "nosuch")
    (source / "Net-Branch_2.pt").unlink()
    assert "Net-Branch_2.pt" in fails(capsys, "import", "esr", source, "-o", out)
    assert not out.exists() and not list(tmp_path.glob("*.part"))


def fails_with_usage(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    assert stop.value.code == 2
    return capsys.readouterr().err


def python(*argv: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, **options)


def test_version_and_models_import_no_heavy_library() -> None:
    run = python("-m", "emotion", "--version")
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, f"emotion {__version__}", "")
    code = "import sys; from emotion.__main__ import main; main(['models']); print({*sys.modules} & {'torch', 'cv2'})"
    assert python("-c", code).stdout.splitlines()[-1] == "set()"


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "emotion", "models", "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        run.stdout.close()
        assert run.stderr.read() == "" and run.wait() == 0
