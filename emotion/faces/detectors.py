"""Where the faces are: MTCNN (default), OpenCV's Haar cascade, dlib, and the rules of the original ESR framework.

A detector is called with pictures (uint8 [H, W, 3], RGB, any sizes) and answers with one `Faces` per picture, largest
face first, in pixels of that picture. No face is an empty `Faces`, never an error.

Pictures are searched at a bounded working size, so that a 40-megapixel photo costs no more than a small one; the
smallest face that can be found is relative to that size.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from emotion.errors import UserError
from emotion.outputs import Faces


class Detector(Protocol):
    """Finds the faces of pictures (uint8 [H, W, 3], RGB); see the module's text."""

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Faces]: ...


# Longest side at which faces are searched. Measured on group pictures: 960 finds as many people as any larger size
# (all 29 of the Solvay conference, against 28 at 640 and 27 at its full 1600 pixels), in a third of the time of 1600.
WORKING_SIDE = 960


def shrink(picture: np.ndarray, longest: int | None) -> np.ndarray:
    """The picture at its working size: no side longer than `longest` pixels; never enlarged."""
    height, width = picture.shape[:2]
    if longest is None or max(height, width) <= longest:
        return picture
    ratio = longest / max(height, width)
    size = max(1, round(width * ratio)), max(1, round(height * ratio))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def to_picture(
    boxes: np.ndarray, scores: np.ndarray, landmarks: np.ndarray | None, small: tuple[int, int], full: tuple[int, int]
) -> Faces:
    """Detections of a shrunken picture in pixels of the full one: clipped, without empty boxes, largest first.

    Args:
        boxes: [N, 4] and landmarks [N, 5, 2] in pixels of the shrunken picture; scores: [N].
        small, full: (width, height) of the shrunken and of the full picture.
    """
    ratio = np.divide(full, small)
    boxes = np.clip(np.reshape(boxes, (-1, 2, 2)) * ratio, 0, full).reshape(-1, 4)
    faces = Faces(boxes, scores, None if landmarks is None else (landmarks * ratio).astype(np.float32))
    faces = faces[np.argsort(-faces.areas, kind="stable")]
    return faces[faces.areas > 0]


class MTCNN:
    """Multi-task cascaded networks (Zhang et al. 2016, arXiv 1604.02878), weights of facenet-pytorch.

    The cascade is run here with facenet-pytorch's networks and box functions, because its own driver fails on
    thin pictures and on candidates outside the picture and wants equal sizes. On one picture both find the same.

    Args:
        threshold: smallest probability of a face; the package's own default is 0.7.
        min_face: smallest side of a face in pixels of the working size.
        longest_side: working size, None for full size.
        device: where the networks run.
    """

    CANDIDATES, REFINED = 0.6, 0.7  # thresholds of the first two networks, as published
    PYRAMID = 0.709  # ratio of neighbouring scales: half the area
    CELL = 12  # side of the first network's window
    BATCH = 8  # pictures at a time, to bound memory (at most 0.5 GB)

    def __init__(
        self,
        threshold: float = 0.9,
        min_face: int = 20,
        longest_side: int | None = WORKING_SIDE,
        device: str | torch.device = "cpu",
    ) -> None:
        from facenet_pytorch.models.mtcnn import ONet, PNet, RNet

        if not 0 < threshold < 1:
            raise UserError(f"the detection threshold must be between 0 and 1, not {threshold}")
        if min_face < self.CELL:
            raise UserError(f"the smallest face must be at least {self.CELL} pixels, not {min_face}")
        self.threshold, self.min_face, self.longest_side = threshold, min_face, longest_side
        self.device = torch.device(device)
        self._pnet, self._rnet, self._onet = (net().eval().to(self.device) for net in (PNet, RNet, ONet))

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Faces]:
        """All faces of every picture, with five landmarks each; pictures of one working size are run together."""
        small = [shrink(p, self.longest_side) for p in pictures]
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, picture in enumerate(small):
            by_size.setdefault(picture.shape[:2], []).append(i)
        out = [Faces.empty()] * len(small)
        for (height, width), members in by_size.items():
            for start in range(0, len(members), self.BATCH):
                part = members[start : start + self.BATCH]
                boxes, points, owner = self._cascade(np.stack([small[i] for i in part]))
                for k, i in enumerate(part):
                    mine, full = owner == k, pictures[i].shape[1::-1]
                    out[i] = to_picture(boxes[mine, :4], boxes[mine, 4], points[mine], (width, height), full)
        return out

    @torch.inference_mode()
    def _cascade(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes with scores [N, 5], landmarks [N, 5, 2] and index of the picture [N], from uint8 [B, h, w, 3]."""
        from facenet_pytorch.models.utils.detect_face import bbreg, nms_numpy, rerec

        batch = torch.from_numpy(pictures).to(self.device).permute(0, 3, 1, 2).float()
        boxes, owner = self._candidates(batch)
        boxes, owner, (moves, probability) = self._look(batch, boxes, owner, 24, self._rnet)
        boxes, owner, moves = _keep(probability[:, 1], self.REFINED, boxes, owner, moves)
        kept = _per_picture(owner, lambda i: nms(boxes[i, :4], boxes[i, 4], 0.7))
        boxes, owner = rerec(bbreg(boxes[kept], moves[kept])), owner[kept]

        boxes, owner, (moves, points, probability) = self._look(batch, boxes, owner, 48, self._onet)
        boxes, owner, moves, points = _keep(probability[:, 1], self.threshold, boxes, owner, moves, points)
        origin, side = boxes[:, None, :2], boxes[:, None, 2:4] - boxes[:, None, :2] + 1
        landmarks = points.view(-1, 2, 5).transpose(1, 2) * side + origin - 1
        boxes = bbreg(boxes, moves)

        def overlapping(i: Tensor) -> Tensor:  # relative to the smaller box: drops a face inside a face
            picked = nms_numpy(boxes[i, :4].cpu().numpy(), boxes[i, 4].cpu().numpy(), 0.7, "Min")
            return torch.as_tensor(picked, dtype=torch.long, device=self.device)

        kept = _per_picture(owner, overlapping)
        return boxes[kept].cpu().numpy(), landmarks[kept].cpu().numpy(), owner[kept].cpu().numpy()

    def _candidates(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Square candidate boxes [M, 5] and their pictures [M], from the first network at every scale."""
        from facenet_pytorch.models.utils.detect_face import generateBoundingBox, imresample, rerec

        height, width = batch.shape[2:]
        found, owners = [batch.new_zeros(0, 9)], [torch.zeros(0, dtype=torch.long, device=batch.device)]
        scale = self.CELL / self.min_face
        while min(height, width) * scale >= self.CELL:
            small = imresample(batch, (int(height * scale + 1), int(width * scale + 1)))
            moves, probability = self._pnet(_centred(small))
            boxes, owner = generateBoundingBox(moves, probability[:, 1], scale, self.CANDIDATES)
            kept = _per_picture(owner, lambda i, boxes=boxes: nms(boxes[i, :4], boxes[i, 4], 0.5))
            found.append(boxes[kept])
            owners.append(owner[kept])
            scale *= self.PYRAMID
        boxes, owner = torch.cat(found), torch.cat(owners)
        kept = _per_picture(owner, lambda i: nms(boxes[i, :4], boxes[i, 4], 0.7))
        boxes, owner = boxes[kept], owner[kept]
        corners = boxes[:, :4] + boxes[:, 5:] * (boxes[:, 2:4] - boxes[:, :2]).repeat(1, 2)
        return rerec(torch.cat([corners, boxes[:, 4:5]], dim=1)), owner

    def _look(
        self, batch: Tensor, boxes: Tensor, owner: Tensor, side: int, net: torch.nn.Module
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The boxes inside the picture, and what `net` says about each, cut out and resized to side x side."""
        from facenet_pytorch.models.utils.detect_face import fixed_batch_process, imresample, pad

        height, width = batch.shape[2:]
        # First and last row, first and last column of every box, counted from 1, and its picture.
        limits = list(zip(*(v.tolist() for v in pad(boxes, width, height)), owner.tolist()))
        inside = [k for k, (y0, y1, x0, x1, _) in enumerate(limits) if y1 >= y0 and x1 >= x0]
        cuts = [batch[i : i + 1, :, y0 - 1 : y1, x0 - 1 : x1] for y0, y1, x0, x1, i in (limits[k] for k in inside)]
        if not inside:  # the networks cannot take an empty batch
            return boxes[:0], owner[:0], tuple(a[:0] for a in net(batch.new_zeros(1, 3, side, side)))
        crops = _centred(torch.cat([imresample(cut, (side, side)) for cut in cuts]))
        return boxes[inside], owner[inside], fixed_batch_process(crops, net)


def _centred(levels: Tensor) -> Tensor:
    return (levels - 127.5) / 128


def _keep(score: Tensor, threshold: float, boxes: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Rows whose score passes, with that score as the boxes' fifth column."""
    passed = score > threshold
    return torch.cat([boxes[passed, :4], score[passed, None]], dim=1), *(o[passed] for o in others)


def _per_picture(owner: Tensor, suppress: Callable[[Tensor], Tensor]) -> Tensor:
    """Rows that survive `suppress`, which is given the rows of one picture at a time and answers with positions."""
    rows = [(owner == k).nonzero().squeeze(1) for k in owner.unique()]
    return torch.cat([i[suppress(i)] for i in rows]) if rows else owner.new_zeros(0)


class Haar:
    """Viola and Jones's cascade in OpenCV: fast, frontal faces only, no landmarks, score always 1.

    Args:
        cascade: XML file; default: OpenCV's frontal face.
        longest_side: working size, None for full size.
    """

    def __init__(self, cascade: str | Path | None = None, longest_side: int | None = WORKING_SIDE) -> None:
        if not hasattr(cv2, "CascadeClassifier"):
            raise UserError(
                f"OpenCV {cv2.__version__} has no Haar cascades; use the detector mtcnn, or "
                "`pip install 'opencv-python-headless<5'`"
            )
        path = Path(cascade or Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml")
        if not path.is_file():
            raise UserError(f"there is no cascade file {path}; give the path of haarcascade_frontalface_default.xml")
        try:
            self._classifier = cv2.CascadeClassifier(str(path))
        except (cv2.error, SystemError) as error:
            raise UserError(f"{path} is no cascade that OpenCV can read") from error
        self._one_at_a_time = threading.Lock()  # the classifier keeps buffers between calls
        self.longest_side = longest_side

    def find(self, grey: np.ndarray) -> np.ndarray:
        """x0, y0, x1, y1 and score [N, 5] of the faces of a grey picture, in OpenCV's order."""
        with self._one_at_a_time:
            return haar_boxes(grey, self._classifier.detectMultiScale)

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Faces]:
        return [_search(picture, self.longest_side, self.find) for picture in pictures]


def haar_boxes(grey: np.ndarray, detect_multi_scale: Callable[..., Sequence[Sequence[int]]]) -> np.ndarray:
    """Boxes with score 1, [N, 5], from a cascade's `detectMultiScale` with the ESR framework's settings."""
    found = detect_multi_scale(grey, scaleFactor=1.2, minNeighbors=9, minSize=(60, 60))
    corner, size = np.reshape(found, (-1, 2, 2)).astype(float).transpose(1, 0, 2)
    return np.concatenate([corner, corner + size, np.ones((len(corner), 1))], axis=1)


class Dlib:
    """dlib's detectors (King 2009, 2015), an optional extra; no landmarks.

    Args:
        model: file `mmod_human_face_detector.dat` for the CNN; None: histograms of gradients, part of dlib.
        longest_side: working size, None for full size.
    """

    def __init__(self, model: str | Path | None = None, longest_side: int | None = WORKING_SIDE) -> None:
        try:
            import dlib
        except ImportError as error:
            raise UserError("dlib is not installed: `pip install dlib-bin`, or use the detector mtcnn") from error
        if model is not None and not Path(model).is_file():
            raise UserError(f"there is no file {model}; dlib's CNN needs mmod_human_face_detector.dat (dlib.net/files)")
        try:
            self._cnn = None if model is None else dlib.cnn_face_detection_model_v1(str(model))
        except RuntimeError as error:
            raise UserError(f"{model} is no dlib face detector: {error}") from error
        self._hog = dlib.get_frontal_face_detector()
        self.longest_side = longest_side

    def find(self, grey: np.ndarray) -> np.ndarray:
        """x0, y0, x1, y1 and score [N, 5] of the faces of a grey picture, in dlib's order.

        The score is the logistic of dlib's margin, not a calibrated probability.
        """
        if self._cnn is not None:
            found = [(d.rect, d.confidence) for d in self._cnn(grey)]
        else:
            rectangles, margins, _ = self._hog.run(grey, 0, 0.0)
            found = list(zip(rectangles, margins))
        rows = [(r.left(), r.top(), r.right(), r.bottom(), 1 / (1 + math.exp(-margin))) for r, margin in found]
        return np.reshape(rows, (-1, 5))

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Faces]:
        return [_search(picture, self.longest_side, self.find) for picture in pictures]


def _search(picture: np.ndarray, longest: int | None, find: Callable[[np.ndarray], np.ndarray]) -> Faces:
    grey = to_grey(shrink(picture, longest))
    found = find(grey)
    return to_picture(found[:, :4], found[:, 4], None, grey.shape[::-1], picture.shape[1::-1])


def to_grey(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W] from RGB."""
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)


class FirstFace:
    """At most one face per picture, found as the ESR framework does: for comparisons with it.

    Args:
        rule: "optimised" (dlib's CNN on two shrunken copies), "standard" (dlib's CNN) or "haar".
        model: file of dlib's CNN, or of a cascade.
    """

    RULES = ("optimised", "standard", "haar")

    def __init__(self, rule: str, model: str | Path | None = None) -> None:
        if rule not in self.RULES:
            raise UserError(f"unknown rule {rule!r}; use one of {', '.join(self.RULES)}")
        if rule != "haar" and model is None:
            raise UserError("the rule needs dlib's CNN: give the file mmod_human_face_detector.dat (dlib.net/files)")
        self.scales = first_face_scales if rule == "optimised" else lambda height, width: (1.0,)
        self.detector = Haar(model) if rule == "haar" else Dlib(model)

    def __call__(self, pictures: Sequence[np.ndarray]) -> list[Faces]:
        out = []
        for picture in pictures:
            height, width = picture.shape[:2]
            box = first_face(to_grey(picture), self.detector.find, self.scales(height, width))
            boxes = [] if box is None else [box]
            out.append(to_picture(boxes, np.ones(len(boxes)), None, (width, height), (width, height)))
        return out


def first_face_scales(height: int, width: int) -> tuple[float, float]:
    """The two sizes at which the ESR framework's "optimised" search looks, in this order."""
    return (0.5, 1.0) if height * width <= 250_000 else (0.2, 0.5)


def first_face(
    grey: np.ndarray, find: Callable[[np.ndarray], Sequence[Sequence[float]]], scales: Sequence[float]
) -> tuple[int, ...] | None:
    """The first face in the detector's list at the first scale that shows any.

    Args:
        grey: uint8 [H, W].
        find: answers x0, y0, x1, y1 (and more) of every face of a grey picture.
        scales: sizes to try, in order.

    Returns:
        x0, y0, x1, y1 in the full picture, truncated towards zero, not clipped; None without a face, and where the
        four numbers do not add up to more than 0.
    """
    height, width = grey.shape
    for scale in scales:
        small = grey if scale == 1 else cv2.resize(grey, (round(width * scale), round(height * scale)))
        found = find(small)
        if len(found):
            box = tuple(int(v / scale) for v in found[0][:4])
            return box if sum(box) > 0 else None
    return None


def detector(
    name: str = "mtcnn",
    model: str | Path | None = None,
    device: str | torch.device = "cpu",
    longest_side: int | None = WORKING_SIDE,
) -> Detector:
    """A detector by name: mtcnn, haar, dlib, or esr-optimised, esr-standard, esr-haar (see `FirstFace`).

    Args:
        name: which.
        model: file that haar (cascade) and dlib (CNN) may need.
        device: where MTCNN runs.
        longest_side: working size; the rules of the original ESR have their own.

    Raises:
        UserError: unknown name, or what the detector needs is not there.
    """
    makers: dict[str, Callable[[], Detector]] = {
        "mtcnn": lambda: MTCNN(longest_side=longest_side, device=device),
        "haar": lambda: Haar(model, longest_side),
        "dlib": lambda: Dlib(model, longest_side),
        **{f"esr-{rule}": partial(FirstFace, rule, model) for rule in FirstFace.RULES},
    }
    if name not in makers:
        raise UserError(f"unknown face detector {name!r}; use one of {', '.join(makers)}")
    return makers[name]()
