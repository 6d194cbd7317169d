"""Conversion of EMOTIC and HECO against the original's files."""

from __future__ import annotations

import json

from emotion.datasets import emotic, heco, scenes
from tests.parity import common

METHOD = "benet"
FOLDER = common.PARITY_DIR / METHOD


def _write(tmp_path, form: str) -> dict[str, dict]:
    paths = scenes.convert(tmp_path / form, FOLDER / "data/EMOTIC", FOLDER / "data/HECO", form)
    return {p.stem: json.loads(p.read_text()) for p in paths}


def test_convert_equals_the_repaired_files(tmp_path) -> None:
    written = {k: v for form in scenes.FORMATS for k, v in _write(tmp_path, form).items()}
    for name in ("emotic_import", "heco_import"):
        for file in common.case(METHOD, name)["expected"]:
            stem = file.split("/")[-1].removesuffix(".json").removesuffix("_fixed")
            assert written[stem] == common.load(METHOD, file), file


def test_published_conversion_of_heco_repeats_its_faults() -> None:
    data = heco.load(FOLDER / "data/HECO", published=True)
    for file in common.case(METHOD, "heco_import")["expected_asis"]:
        form = "xywh" if "xywh" in file else "x1y1x2y2"
        table = scenes.person_table(data, form, vad_scale=10, published=True)
        assert table == common.load(METHOD, file), file


def test_merge() -> None:
    case = common.case(METHOD, "emotic_heco_merge")
    first, second = (common.load(METHOD, file) for file in case["source"])
    assert scenes.merge(first, second) == common.load(METHOD, case["expected"])


def test_readers_give_the_pictures() -> None:
    data = emotic.load(FOLDER / "data/EMOTIC", "test")
    for k, scene in enumerate(data.scenes):
        assert data.picture(k).shape == (scene.size[1], scene.size[0], 3)
    labels, vad = data.targets(data.scenes[0])
    assert labels.sum(axis=1).tolist() == [len(names) for names in data.scenes[0].labels]
    assert ((vad >= 0.1) & (vad <= 1)).all()
