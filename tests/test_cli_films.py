"""`python -m emotion analyze` on videos: the files it writes, options, Ctrl-C, and one message for what is wrong."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest

from emotion import exports, hub, timeline
from emotion.__main__ import main
from emotion.cli import films as command
from emotion.faces.detectors import MTCNN
from emotion.media import video
from emotion.models.emenet import EMENet, EMENetConfig
from emotion.predict import FacePredictor
from tests import films
from tests.test_cli import documents, fails
from tests.test_outputs import SCHEMA
from tests.test_sequences import FACE, SMALL, Boxes, tiny_esr

MADE = ("csv", "curves.png", "json", "mp4", "summary.json", "vtt")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    hub.save(tiny_esr(), "esr", folder, hub.Card("esr.tiny", "MIT", True), "---\nlicense: mit\n---\n# Tiny\n")
    return str(folder)


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One face where it is in the talk, found in no time."""
    monkeypatch.setattr(MTCNN, "__init__", lambda self, **_: None)
    monkeypatch.setattr(MTCNN, "__call__", lambda self, pictures: Boxes(FACE)(pictures))


def test_files_of_a_film(checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["analyze", str(films.TWO), "--model", checkpoint, "-o", str(tmp_path / "out"), "--fps", "5", "--json"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    stem = tmp_path / "out" / films.TWO.stem
    assert sorted(p.name for p in stem.parent.iterdir()) == [f"{stem.name}.{x}" for x in MADE]
    document = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    jsonschema.validate(document, SCHEMA)
    assert documents(out) == [document] and err == ""
    assert [f["timestamp"] for f in document["frames"]] == [round(i / 5, 6) for i in range(15)]
    assert {face["track"] for frame in document["frames"] for face in frame["faces"]} == {1, 2}
    rows = list(csv.DictReader(stem.with_suffix(".csv").open(encoding="utf-8")))
    assert len(rows) == 30 and {row["track"] for row in rows} == {"1", "2"}
    assert [s for s, _ in video.decode(stem.with_suffix(".mp4"))] == pytest.approx(
        [i / 25 for i in range(75)], abs=1e-3
    )
    told = json.loads(Path(f"{stem}.summary.json").read_text(encoding="utf-8"))
    assert [t["track"] for t in told["tracks"]] == [1, 2] and told["frames"] == 15
    assert stem.with_suffix(".vtt").read_text(encoding="utf-8").startswith("WEBVTT\n\n00:00:00.000 --> 00:00:")


@pytest.mark.usefixtures("fixed")
def test_table_of_a_film(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", str(films.TALK), "--model", checkpoint]) == 0
    head, _, _, row = capsys.readouterr().out.splitlines()
    assert head == f"{films.TALK.name}  360 x 288 pixels, 3.0 s, 30 frames, 1 person"
    result = FacePredictor(tiny_esr(), Boxes(FACE)).video(films.TALK)
    label, count = next(iter(pd.Series(result.tasks["expression"].names()).value_counts().items()))
    assert row.split()[:6] == ["1", "0.0", "to", "2.9", "s", label] and 1 <= count <= 30


@pytest.mark.usefixtures("fixed")
def test_sampling_smoothing_and_search(checkpoint: str, capsys: pytest.CaptureFixture[str]) -> None:
    counts, values = {}, {}
    for options in ("--fps all", "--fps 5/30", "--fps 2", "--fps 2 --smooth 1", "--fps 2 --detect-every 3"):
        assert main(["analyze", str(films.TALK), "--model", checkpoint, "--json", *options.split()]) == 0
        frames = documents(capsys.readouterr().out)[0]["frames"]
        counts[options] = len(frames)
        values[options] = [f["faces"][0]["expression"]["values"]["neutral"] for f in frames]
    assert list(counts.values()) == [75, 12, 6, 6, 6]
    plain, smooth = np.array(values["--fps 2"]), values["--fps 2 --smooth 1"]
    np.testing.assert_allclose(smooth[1], np.exp(-0.52) * plain[0] + (1 - np.exp(-0.52)) * plain[1], atol=1e-5)
    np.testing.assert_allclose(values["--fps 2 --detect-every 3"], plain, atol=1e-6)


@pytest.mark.usefixtures("fixed")
def test_other_formats_and_details(checkpoint: str, tmp_path: Path) -> None:
    photo = films.MEDIA / "portrait_hopper.jpg"
    argv = ["analyze", str(films.TALK), str(photo), "--model", checkpoint, "-o", str(tmp_path), "--fps", "5/30"]
    assert main([*argv, "--details", *(x for f in ("esr", "parquet", "abaw") for x in ("--export", f))]) == 0
    result = FacePredictor(tiny_esr(), Boxes(FACE)).video(films.TALK, "5/30")
    assert (tmp_path / "esr" / "talk_man_1.csv").read_text(encoding="utf-8") == exports.esr_csv(result)
    parquet, table = (pd.read_parquet(tmp_path / "talk_man_1.parquet"), pd.read_csv(tmp_path / "talk_man_1.csv"))
    pd.testing.assert_frame_equal(parquet, table, check_dtype=False)
    labels = (tmp_path / "abaw" / "merged" / "EXPR_Set" / "talk_man_1.txt").read_text().splitlines()
    assert [int(k) for k in labels[1:]] == result.tasks["expression"].choice.tolist()
    _, wide = next(video.decode(tmp_path / "talk_man_1.mp4"))
    assert wide.shape[0] == 288 and wide.shape[1] == 360 + 288
    assert main([*argv[:2], *argv[3:], "--smooth", "0.5", "--export", "esr"]) == 0
    smooth = exports.esr_csv(timeline.smooth(result, 0.5))
    assert (tmp_path / "esr" / "talk_man_1.csv").read_text(encoding="utf-8") == smooth != exports.esr_csv(result)
    assert len((tmp_path / "esr" / "portrait_hopper.csv").read_text().splitlines()) == 2


def test_formats_of_one_face_per_frame(tmp_path: Path) -> None:
    with video.VideoWriter(tmp_path / "gap.mp4") as out:
        for i, (_, picture) in zip(range(6), video.decode(films.TALK)):
            out.write(picture * (i not in (0, 2, 3)), i / 10)
    result = FacePredictor(tiny_esr(), Boxes((10, 10, 50, 50), FACE)).video(tmp_path / "gap.mp4", "all")
    assert result.frame.tolist() == [1, 1, 4, 4, 5, 5]
    lines = exports.files("esr", result, "a")["esr/a.csv"].decode().splitlines()
    assert [line.split(",")[1] == "None" for line in lines[1:]] == [True, False, True, True, False, False]
    one = exports.biggest(result)
    np.testing.assert_array_equal(one.faces.boxes, np.broadcast_to(np.float32(FACE), (3, 4)))
    assert exports.nearest_rows(one).tolist() == [0, 0, 0, 1, 1, 2]


@pytest.mark.usefixtures("fixed")
@pytest.mark.parametrize("step", ["reading", "drawing"])
def test_ctrl_c_leaves_complete_files_of_what_was_done(
    step: str, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = command.Bar.__call__

    def pressed(self: command.Bar, done: float, total: float) -> bool:
        if done > 1 and self.text.endswith(step):
            signal.raise_signal(signal.SIGINT)
        return usual(self, done, total)

    monkeypatch.setattr(command.Bar, "__call__", pressed)
    argv = ["analyze", str(films.TALK), str(films.TWO), "--model", checkpoint, "-o", str(tmp_path), "--fps", "all"]
    assert main(argv) == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    out, err = capsys.readouterr()
    assert err.count("stopping") == 1 and "talk_two" not in out
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"talk_man_1.{x}" for x in MADE]
    document = json.loads((tmp_path / "talk_man_1.json").read_text())
    pictures = len(list(video.decode(tmp_path / "talk_man_1.mp4")))
    if step == "reading":
        assert len(document["frames"]) == pictures == 32 and "stopped after 1.2 of 3.0 seconds" in document["notes"]
    else:
        assert len(document["frames"]) == 75 and document["notes"] == [] and pictures == 27


def test_a_film_that_cannot_be_read_does_not_stop_the_others(
    checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(films.TALK.read_bytes()[:9000])
    films.remuxed(tmp_path / "sound.mp4", "a")
    photo = films.MEDIA / "portrait_hopper.jpg"
    argv = ["analyze", str(tmp_path), str(photo), "--model", checkpoint, "--json", "-o", str(tmp_path / "out")]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert [d["source"] for d in documents(out)] == [photo.name]
    assert "broken.mp4" in err and "only sound" in err and err.endswith("2 of 3 could not be analysed\n")
    assert {p.stem for p in (tmp_path / "out").iterdir()} == {photo.stem}


@pytest.mark.usefixtures("fixed")
def test_the_input_is_not_overwritten(checkpoint: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(films.TALK.read_bytes())
    for _ in range(2):
        assert main(["analyze", str(path), "--model", checkpoint, "-o", str(tmp_path), "--fps", "1"]) == 0
    assert path.read_bytes() == films.TALK.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["clip.mp4", *(f"clip-2.{x}" for x in MADE)])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--fps", "often"], "a number per second, F/30 or all"),
        (["--fps", "40/30"], "1 to 30"),
        (["--fps", "0"], "must be positive"),
        (["--smooth", "-1"], "time constant"),
        (["--detect-every", "0"], "at least 1"),
        (["--export", "esr"], "-o DIR"),
        (["--dashboard"], "-o DIR"),
        (["--export", "xls", "-o", "x"], "invalid choice"),
    ],
)
def test_bad_options(options: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in fails(capsys, "analyze", films.TALK, *options)


def test_what_a_model_cannot_give_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = EMENet(EMENetConfig(SMALL, hidden=8, bins=0, action_units=()))
    hub.save(model, "emenet", tmp_path / "m", hub.Card("emenet.tiny", "MIT", True), "---\nlicense: mit\n---\n# Tiny\n")
    for form, expected in (("esr", "no ESR table"), ("fg2020", "predicts no ")):
        argv = ("analyze", films.TALK, "--model", tmp_path / "m", "-o", tmp_path / "out", "--export", form)
        assert expected in fails(capsys, *argv)
    assert not (tmp_path / "out").exists()
