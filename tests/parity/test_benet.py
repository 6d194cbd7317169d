"""BENet against its original: network, geometry, merging, decoding, whole pictures."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from emotion import labels
from emotion.models import benet_decode as decode
from emotion.models.benet import BENet, BENetConfig
from tests.parity import common
from tests.parity.benet_network import METHOD, assert_found, network

HEADS = {"context": "bg"}  # their name of the background head


def pictures(spec: dict) -> torch.Tensor:
    x = torch.from_numpy(common.make_input(spec))
    if "gain" in spec:
        gain, offset = (torch.tensor(spec[k]).view(-1, 1, 1, 1) for k in ("gain", "offset"))
        x = x * gain + offset
    return x


def strided(actual: torch.Tensor, description: str) -> torch.Tensor:
    """The cells that the fixture keeps, as its description says ("[..., ::3, ::3]")."""
    stride = re.search(r"::(\d+), ::(\d+)", description)
    return actual[..., :: int(stride[1]), :: int(stride[2])] if stride else actual


@pytest.mark.parametrize("case", common.params(METHOD, kind="network"))
def test_network(case: dict) -> None:
    model, x = network(case), pictures(case["input"])
    expected = common.load(METHOD, f"{case['name']}.npz")
    if "heads" in case:
        routes = {}
        for image, head in enumerate(case["heads"]):
            routes.setdefault(HEADS.get(head, head), []).append(image)
    else:
        routes = {HEADS.get(h, h): images for h, images in case["routing"].items() if h != "fusion"}
    with torch.inference_mode():
        out = model(x, routes)
        actual = _named(model, case, routes, out)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        common.assert_close(strided(actual[name], case["outputs"][name]), value, case, name)


def _named(model: BENet, case: dict, routes: dict, out: dict) -> dict[str, torch.Tensor]:
    """Our outputs under the fixture's names; for two data sets, theirs split as they are."""
    ours = {"hm": "heatmap", "hw": "size"}
    named = {f"{n}{s}": out[f"{o}{s}"] for n, o in ours.items() for s in (0, 1)}
    if "from_heco" not in case:
        named |= {"bu0": out["bu0"], "bu1": out["bu1"]}
        if "pc" in out:
            named |= {"pc": out["pc"], "context": out["bg"]}
            bu = [_at(out[f"bu{s}"], case["centers_xy"][f"scale{s}"]) for s in (0, 1)]
            named["fusion"] = model.fuse((bu[0] + bu[1]) / 2, out["pc"], out["bg"])
        return named
    heco = torch.tensor(case["from_heco"], dtype=torch.bool)
    for head in ("bu", "pc", "bg"):
        theirs = heco[torch.tensor(routes[head])]
        for key in ("bu0", "bu1") if head == "bu" else (head,):
            name = "context" if head == "bg" else key
            named[name] = out[key][~theirs]
            mixed = model.extra[key](out[key][theirs])
            if head == "bu":
                named[f"bu_mixed{key[-1]}"] = mixed
            else:
                named |= {f"{name}_mixed_asis": out[key][theirs], f"{name}_mixed_fixed": mixed}
    return named


def _at(maps: torch.Tensor, centres: list[list[int]]) -> torch.Tensor:
    x, y = torch.tensor(centres).T
    return maps[:, :, y, x].mean(-1)


def test_resize_geometry() -> None:
    case = common.case(METHOD, "geometry")
    fixture = common.load(METHOD, case["file"])
    scene = decode.SceneInput(size=fixture["input_size"])
    for row in fixture["resize"]:
        frame = scene.frame(*row["wh"])
        assert list(frame.size) == row["size_resized_wh"]
        common.assert_close(_affine(frame), row["forward_2x3"], case, str(row["wh"]))
        points = np.array([[0, 0], row["wh"]])
        common.assert_close(frame.inverse(frame.forward(points)), points, case)
    for row in fixture["crop_into_image_frame"]:
        frame = scene.crop_frame(*row["crop_wh"], scene.frame(*row["image_wh"]), published=True)
        assert list(frame.size) == row["output_wh"]
        common.assert_close(_affine(frame), row["forward_2x3"], case, str(row["crop_wh"]))


def _affine(frame: decode.Frame) -> list[list[float]]:
    return [[frame.scale, 0, frame.shift[0]], [0, frame.scale, frame.shift[1]]]


def test_positions() -> None:
    fixture = common.load(METHOD, common.case(METHOD, "geometry")["file"])
    scene = decode.SceneInput(size=fixture["input_size"])
    for row in fixture["positions"]:
        frame = scene.frame(*row["wh"])
        assert decode.positions(frame, row["boxes_x1y1x2y2"]).tolist() == row["readout_xy_on_projected_map"]
        for stride, scale in ((4, 0), (2, 1)):
            found = decode.centres(frame, row["boxes_x1y1x2y2"], stride)
            assert found.tolist() == row[f"fusion_centres_xy_scale{scale}"]


def test_crop_frame_by_default_shows_the_whole_crop_centred() -> None:
    scene = decode.SceneInput(size=256)
    for whole in ((300, 500), (500, 300), (256, 256)):
        for crop in ((10, 400), (400, 10), (64, 64)):
            frame = scene.crop_frame(*crop, scene.frame(*whole))
            corners = frame.forward([[0, 0], crop])
            assert (corners > -frame.scale).all() and (corners < np.array(frame.size) + frame.scale).all()


@pytest.mark.parametrize("picture", ["smooth", "noise"])
def test_warp(picture: str) -> None:
    case = common.case(METHOD, "warp")
    fixture = common.load(METHOD, case["file"])
    scene = decode.SceneInput(size=case["input_size"])
    image = fixture[f"{picture}_in"]
    whole = scene.frame(image.shape[1], image.shape[0])
    crop = image[20:120, 30:70]
    frames = {"": (image, whole), "_crop": (crop, scene.crop_frame(40, 100, whole, published=True))}
    for kind, (pixels, frame) in frames.items():
        actual = frame.warp(pixels)[::3, ::5].astype(int)
        assert np.abs(actual - fixture[f"{picture}{kind}_out"]).max() <= case["atol"]


def test_normalise() -> None:
    case = common.case(METHOD, "normalise")
    image = common.load(METHOD, "warp.npz")["noise_in"]
    actual = decode.SceneInput().tensor([image])[0][:, ::7, ::7]
    common.assert_close(actual, common.load(METHOD, case["file"])["out"], case)


OURS = {"hm": "heatmap", "hw": "size", "context": "bg"}


def _logits(raw: dict) -> dict[str, torch.Tensor]:
    out = {}
    for name, spec in raw.items():
        name = OURS.get(name, name)
        if isinstance(spec, list):
            out |= {f"{name}{scale}": torch.from_numpy(common.make_input(s)) for scale, s in enumerate(spec)}
        else:
            out[name] = torch.from_numpy(common.make_input(spec))
    return out


@pytest.mark.parametrize("case", common.params(METHOD, kind="merge"))
def test_merge(case: dict) -> None:
    n = case["num_cat"]
    logits = _logits(case["raw_outputs"])
    mirrored = _logits(case["raw_outputs_of_flipped_image"]) if case["flip_test"] else None
    modes = {"fixed": decode.merge(logits, mirrored), "asis": decode.merge(logits, mirrored, affect_from=n)}
    if case["project2image"]:
        modes = {k: decode.project(v, tuple(case["size_projected_wh"])) for k, v in modes.items()}
    for name, expected in common.load(METHOD, case["file"]).items():
        head, _, rest = name.partition("_")
        value = modes["asis" if rest.endswith("asis") else "fixed"][OURS.get(head, head)]
        if rest:
            value = value[:, :n] if rest.startswith("cat") else value[:, n:]
        common.assert_close(value if value.dim() == 4 else value[0], expected, case, name)


@pytest.mark.parametrize("case", common.params(METHOD, kind="decode"))
def test_decode(case: dict) -> None:
    fixture = common.load(METHOD, case["file"])
    maps = {"heatmap": torch.from_numpy(fixture["hm"])}
    maps |= {k: torch.from_numpy(common.make_input(case[v])) for k, v in (("size", "hw"), ("bu", "bu_cat"))}
    geometry = case["geometry"]
    scale = min(geometry["map_wh"]) / (min(geometry["scale"]) * 200)
    shift = np.array(geometry["map_wh"]) / 2 - scale * np.array(geometry["center"])
    frame = decode.Frame(tuple(geometry["image_wh"]), tuple(geometry["map_wh"]), scale, tuple(shift))
    config = BENetConfig()
    common_options = {"threshold": case["threshold"], "people": case["max_num_people"], "window": case["nms_kernel"]}
    for published, boxes, image in ((True, "asis", "asis_image"), (False, "refined_boxes", "refined_image")):
        options = decode.Decoding(published=published, **common_options)
        found = decode.peaks(maps, frame.size, options)
        rows = torch.cat([found.boxes, found.scores[..., None], found.values], dim=-1)[found.valid].numpy()
        expected = fixture[boxes]
        assert_same_people(rows[:, : expected.shape[1]], expected, case)
        on_image = decode.to_image(found.boxes[found.valid].numpy(), frame, published=True)
        assert_same_people(on_image, fixture[image], case)
    ((faces, tasks),) = decode.people(maps, [frame], config, options)
    assert_same_people(faces.boxes, fixture["refined_image_clipped_to_image"], case)
    assert_same_people(tasks["emotions"].values, fixture["asis"][:, 5:], case)
    assert tasks["emotions"].labels == config.labels


def assert_same_people(actual: np.ndarray, expected: np.ndarray, case: dict) -> None:
    """The same rows as sets: peaks of equal height may come in any order."""
    assert actual.shape == expected.shape
    order = [np.lexsort(np.round(rows, 1).T[::-1]) for rows in (actual, expected)]
    common.assert_close(actual[order[0]], expected[order[1]], case)


@pytest.mark.parametrize("case", common.params(METHOD, kind="image_run"))
def test_image_run(case: dict) -> None:
    model = network(case)
    expected = common.load(METHOD, case["file"])
    image = _image(case["image"])
    frame = model.config.input.frame(image.shape[1], image.shape[0])
    resized = frame.warp(image)
    if "resized" in expected:
        difference = resized[::7, ::9].astype(int) - expected["resized"]
        assert np.abs(difference).max() <= 1
    x = model.config.input.tensor([resized])
    with torch.inference_mode():
        logits, mirrored = model(x), model(x.flip(-1))
    maps = decode.project(decode.merge(logits, mirrored), frame.size)
    for name, ours, rows, columns in (("hm", "heatmap", 9, 7), ("hw", "size", 9, 7), ("bu", "bu", 23, 19)):
        actual = maps[ours][0, :, ::rows, ::columns]
        actual = actual[0] if name == "hm" else actual
        atol = case["atol_hw"] if name == "hw" else case["atol_maps"]
        common.assert_close(actual, expected[name], {"rtol": 0, "atol": atol}, name)
    if "people" in expected:
        ((faces, tasks),) = model.decode(logits, [frame], mirrored, decode.PUBLISHED)
        assert_found(faces, tasks["emotions"].values, expected["people"], case)


def _image(spec: dict | str) -> np.ndarray:
    if isinstance(spec, str):
        return np.asarray(Image.open(common.PARITY_DIR / METHOD / spec).convert("RGB"))
    image = np.floor(common.make_input(spec)).astype(np.uint8)
    coarse = common.make_input(spec["blocks"])
    size = (spec["shape"][0] // coarse.shape[0], spec["shape"][1] // coarse.shape[1])
    light = coarse.repeat(size[0], axis=0).repeat(size[1], axis=1)
    return (image * light).astype(np.uint8)


def test_labels() -> None:
    fixture = common.load(METHOD, common.case(METHOD, "labels")["file"])
    assert list(labels.EMOTIC) == fixture["EMOTIC"] and list(labels.HECO) == fixture["HECO"]
