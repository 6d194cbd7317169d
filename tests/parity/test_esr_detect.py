"""The original ESR framework's choice of one face, and its resize of the crop, against scripted detectors."""

from __future__ import annotations

import numpy as np
import pytest

from emotion import faces
from emotion.faces import detectors
from emotion.models.base import FaceInput
from emotion.outputs import Faces
from tests.parity import common

CASES = common.load("esr", "detect.json")["cases"]


class Script:
    """A detector that gives prepared answers and notes what it was asked."""

    def __init__(self, answers):
        self.answers, self.calls = list(answers), []

    def __call__(self, grey):
        self.calls.append(list(grey.shape))
        return self.answers.pop(0)

    def multi_scale(self, grey, scaleFactor, minNeighbors, minSize):
        call = {"shape": list(grey.shape), "scale": scaleFactor, "neighbors": minNeighbors, "min_size": list(minSize)}
        self.calls.append(call)
        return self.answers.pop(0)


@pytest.mark.parametrize("case", CASES)
def test_first_face(case):
    grey = np.zeros(case["image"], np.uint8)
    script = Script(case["detector_answers"])
    find = script if case["method"] != 3 else lambda grey: detectors.haar_boxes(grey, script.multi_scale)
    scales = detectors.first_face_scales(*case["image"]) if case["method"] == 1 else (1.0,)
    box = detectors.first_face(grey, find, scales)
    assert script.calls == case["detector_calls"]
    assert (None if box is None else [list(box[:2]), list(box[2:])]) == case["box"]


@pytest.mark.parametrize("number", range(len(common.case("esr", "resize")["inputs"])))
def test_resize(number):
    case = common.case("esr", "resize")
    picture = common.make_input(case["inputs"][number] | {"kind": case["kind"]})
    expected = common.load("esr", "resize.npz")[f"out_{number}"]
    height, width = picture.shape[:2]
    whole = Faces(np.array([[0, 0, width, height]]), np.ones(1))
    (out,) = faces.crop(picture, whole, FaceInput(size=expected.shape[:2], antialias=False))
    assert np.abs(out.astype(int) - expected).max() <= case["atol_levels"]
