"""Scenes with complete labels, composed without end: figures and faces pasted onto pictures without people.

Some are walls of portraits, as in a video call: many large faces, each in the middle of its person's box.

Every person's visible extent is known exactly, and with the faces' expression, valence and arousal also some emotions.
Categories that such faces cannot carry are not part of `LABELS`: a model trained on composed scenes does not have them.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from emotion.datasets import Samples
from emotion.datasets.scenes import Scene, Scenes, make_scene
from emotion.errors import UserError
from train.benet_data import Sample

# EMOTIC's categories that a face of known expression, valence and arousal (in [-1, 1]) can stand for.
OF_EXPRESSION = {
    "anger": "Anger",
    "disgust": "Aversion",
    "fear": "Fear",
    "happiness": "Happiness",
    "sadness": "Sadness",
    "surprise": "Surprise",
}
PLEASED = 0.3  # valence from which on a face counts as Pleasure
EXCITED = 0.5  # arousal from which on a pleased face counts as Excitement
LABELS = ("Anger", "Aversion", "Excitement", "Fear", "Happiness", "Pleasure", "Sadness", "Surprise")

HEAD = 1 / 7.5  # of a standing figure's height
LEGIBLE = 20  # pixels of a face's side below which its expression cannot be asked for
VISIBLE = 0.2  # share of a figure that must be visible for it to be a person to find; less is ignored


def emotions(expression: str, valence: float, arousal: float) -> tuple[str, ...]:
    """The categories of a face, in the order of `LABELS`; () for a calm neutral one."""
    present = {OF_EXPRESSION.get(expression)}
    if valence >= PLEASED:
        present |= {"Pleasure"} | ({"Excitement"} if arousal >= EXCITED else set())
    return tuple(name for name in LABELS if name in present)


@dataclass(frozen=True)
class Arrangement:
    """How scenes are composed.

    Attributes:
        side: the shorter side in pixels; the longer one is up to `longest` times that.
        longest: largest ratio of the sides.
        crowd: largest number of figures; small numbers are the most frequent.
        empty: share of scenes without anybody.
        height: smallest and largest height of a figure, in heights of the picture.
        cut: share of figures of which only the upper part is pasted.
        faces: share of figures that get a face; the others keep their own.
        grey: share of scenes without colour, whose faces come from grey sets.
        things: mean number of pasted shapes of figures that show no person, so that pasting itself gives nothing away.
        portraits: share of scenes that are walls of portraits.
        wall: fewest and most portraits along the shorter side of a wall.
    """

    side: int = 320
    longest: float = 1.5
    crowd: int = 12
    empty: float = 0.05
    height: tuple[float, float] = (0.12, 1.6)
    cut: float = 0.4
    faces: float = 0.7
    grey: float = 0.0
    things: float = 0.0
    portraits: float = 0.0
    wall: tuple[int, int] = (1, 5)


Truth = tuple[np.ndarray, np.ndarray]  # emotions [K] 0 or 1; valence, arousal, dominance in [0, 1], NaN where unknown
FaceBox = tuple[int, int, int, int]


@dataclass
class _Pasted:
    """A shape in its place: its mask over the whole picture, whether it is a person, and what the face says where."""

    mask: np.ndarray
    person: bool = True
    face: FaceBox | None = None
    truth: Truth | None = None


class Composer:
    """An endless source of samples (see `benet_data.Source`).

    Args:
        figures: scenes with a mask, one person each; emotions they have count where a figure keeps its own face.
        backgrounds: scenes without people; others among them are left out.
        faces: face crops with "expression" and "valence_arousal" targets, in colour or grey [H, W].
        length: samples per epoch.
        arrangement: how they are composed.

    Raises:
        UserError: no masks, no empty picture or no labelled faces.
    """

    def __init__(
        self,
        figures: Scenes,
        backgrounds: list[Scenes],
        faces: Sequence[Samples],
        length: int,
        arrangement: Arrangement | None = None,
    ) -> None:
        self.figures, self.length = figures, length
        self.how = arrangement or Arrangement()
        self.masked = [i for i in range(len(figures)) if figures.mask is not None and figures.mask(i) is not None]
        self.empty = [(data, i) for data in backgrounds for i, scene in enumerate(data.scenes) if not len(scene)]
        if not self.masked or not self.empty:
            what = "masked figures" if not self.masked else "pictures without people"
            raise UserError(f"scenes cannot be composed: there are no {what}")
        for data in faces:
            missing = {"expression", "valence_arousal"} - data.targets.keys()
            if missing:
                raise UserError(f"scenes cannot be composed: the faces of {data.dataset} have no {', '.join(missing)}")
        grey = [len(data) > 0 and data.picture(0).ndim == 2 for data in faces]
        self.faces = [_Balanced([d for d, g in zip(faces, grey) if g == without]) for without in (False, True)]
        self._cutouts: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def arranged(self, **changes: object) -> Composer:
        """The same parts, arranged differently: fields of `Arrangement`."""
        other = copy.copy(self)
        other.how = replace(self.how, **changes)
        return other

    def __len__(self) -> int:
        return self.length

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """A new scene; `index` does not matter."""
        canvas = self._background(rng)
        grey = bool(rng.random() < self.how.grey)
        if rng.random() < self.how.portraits and len(self.faces[grey]):
            return self._wall(canvas, grey, rng)
        count = 0 if rng.random() < self.how.empty else 1 + min(int(rng.exponential(2.5)), self.how.crowd - 1)
        things = int(rng.poisson(self.how.things)) if self.how.things else 0
        heights = np.exp(rng.uniform(*np.log(self.how.height), count + things))
        shapes = sorted(zip(heights, rng.permutation(count + things) < count))  # small, far ones first
        pasted = [self._paste(canvas, h * canvas.shape[0], grey, rng) if person
                  else self._thing(canvas, h * canvas.shape[0], rng) for h, person in shapes]  # fmt: skip
        if grey:
            canvas[:] = canvas.mean(axis=2, keepdims=True)
        return self._sample(canvas, pasted)

    def _wall(self, canvas: np.ndarray, grey: bool, rng: np.random.Generator) -> Sample:
        """Portraits side by side, one in ten missing."""
        cell = min(canvas.shape[:2]) // int(rng.integers(self.how.wall[0], self.how.wall[1] + 1))
        boxes, truths = [], []
        for top, left in np.ndindex(canvas.shape[0] // cell, canvas.shape[1] // cell):
            if rng.random() < 0.1:
                continue
            side = int(cell * rng.uniform(0.75, 1))
            y, x = top * cell + int(rng.integers(cell - side + 1)), left * cell + int(rng.integers(cell - side + 1))
            picture, truth = self.faces[grey].draw(rng)
            how = cv2.INTER_AREA if side < len(picture) else cv2.INTER_LINEAR
            face = cv2.resize(picture, (side, side), interpolation=how)[:, :: rng.choice([-1, 1])]
            canvas[y : y + side, x : x + side] = (face * rng.uniform(0.85, 1.1)).clip(0, 255)
            boxes.append([x, y, x + side, y + side])
            truths.append(truth)
        if grey:
            canvas[:] = canvas.mean(axis=2, keepdims=True)
        return Sample(
            picture=canvas.round().astype(np.uint8),
            boxes=np.array(boxes, float).reshape(-1, 4),
            labels=np.array([labels for labels, _ in truths], np.float32).reshape(-1, len(LABELS)),
            affect=np.array([affect for _, affect in truths], np.float32).reshape(-1, 3),
            known=np.ones(len(boxes), bool),
        )

    def _background(self, rng: np.random.Generator) -> np.ndarray:
        """A random part of a random empty picture, float32 [H, W, 3]."""
        data, i = self.empty[rng.integers(len(self.empty))]
        picture = data.picture(i)
        ratio = rng.uniform(1, self.how.longest)
        size = np.array([self.how.side, int(self.how.side * ratio)])[:: rng.choice([-1, 1])]  # height, width
        part = min(picture.shape[0] / size[0], picture.shape[1] / size[1]) * rng.uniform(0.6, 1)
        extent = np.maximum((size * part).astype(int), 1)
        y, x = (rng.integers(0, n - e + 1) for n, e in zip(picture.shape, extent))
        crop = cv2.resize(
            picture[y : y + extent[0], x : x + extent[1]], tuple(size[::-1].tolist()), interpolation=cv2.INTER_AREA
        )
        return (crop[:, :: rng.choice([-1, 1])] * rng.uniform(0.7, 1.1)).clip(0, 255).astype(np.float32)

    def _cutout(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        """A figure's pixels and mask, cut to its extent."""
        if k not in self._cutouts:
            mask = self.figures.mask(self.masked[k])
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            self._cutouts[k] = self.figures.picture(self.masked[k])[part].copy(), mask[part].copy()
        return self._cutouts[k]

    def _thing(self, canvas: np.ndarray, height: float, rng: np.random.Generator) -> _Pasted:
        """Draw part of another background into the canvas, in the shape of a figure."""
        mask = self._cutout(int(rng.integers(len(self.masked))))[1][:: rng.choice([-1, 1])]
        size = (max(2, round(mask.shape[1] * height / len(mask))), max(4, round(height)))
        alpha = cv2.resize(np.ascontiguousarray(mask).astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        pixels = cv2.resize(self._background(rng), size, interpolation=cv2.INTER_AREA)
        x, y = (int(rng.uniform(0, n) - s / 2) for n, s in zip(canvas.shape[1::-1], size))
        return _Pasted(_blend(canvas, pixels, alpha, x, y) > 0.5, person=False)

    def _paste(self, canvas: np.ndarray, height: float, grey: bool, rng: np.random.Generator) -> _Pasted:
        """Draw a random figure of this height into the canvas."""
        which = int(rng.integers(len(self.masked)))
        pixels, mask = self._cutout(which)
        flip = rng.choice([-1, 1])
        scale = height / len(mask)
        size = (max(2, round(mask.shape[1] * scale)), max(4, round(height)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        pixels = cv2.resize(np.ascontiguousarray(pixels[:, ::flip]), size, interpolation=how) * rng.uniform(0.7, 1.15)
        alpha = cv2.resize(np.ascontiguousarray(mask[:, ::flip]).astype(np.float32), size, interpolation=how)
        if rng.random() < self.how.faces and len(self.faces[grey]):
            picture, truth = self.faces[grey].draw(rng)
            face = self._face(pixels, alpha, picture, rng)
        else:
            face, truth = _head(alpha), self._own(which)
        if rng.random() < self.how.cut:
            rows = max(4, int(len(alpha) * rng.uniform(0.2, 0.8)))
            pixels, alpha = pixels[:rows], alpha[:rows]
        x = (
            int(rng.uniform(-0.3, 1.3) * canvas.shape[1] - size[0] / 2)
            if rng.random() < 0.2
            else int(rng.uniform(0, max(1, canvas.shape[1] - size[0])))
        )
        bottom = rng.uniform(0.55, 1.1) if len(alpha) < canvas.shape[0] else rng.uniform(1.0, 1.4)
        y = int(bottom * canvas.shape[0]) - len(alpha)
        y = max(y, -int(0.05 * len(alpha))) if len(alpha) > canvas.shape[0] else y
        placed = _blend(canvas, pixels, alpha, x, y)
        return _Pasted(placed > 0.5, True, (face[0] + x, face[1] + y, face[2] + x, face[3] + y), truth)

    def _own(self, which: int) -> Truth | None:
        """What a figure's own face says, where that is known."""
        scene = self.figures.scenes[self.masked[which]]
        if len(scene) != 1 or scene.labels[0] is None or self.figures.vocabulary != LABELS:
            return None
        labels, affect = self.figures.targets(scene)
        return labels[0], affect[0]

    def _face(self, pixels: np.ndarray, alpha: np.ndarray, picture: np.ndarray, rng: np.random.Generator) -> FaceBox:
        """Draw a face over a figure's head; returns its box on the figure."""
        x, y, right, bottom = _head(alpha)
        side = right - x
        picture = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        grid = (np.arange(side) + 0.5) / side * 2 - 1
        distance = np.sqrt((grid[None] / 0.72) ** 2 + (grid[:, None] / 0.92) ** 2)
        oval = ((1 - distance) * 6).clip(0, 1).astype(np.float32)
        _blend(pixels, picture * rng.uniform(0.85, 1.1), oval, x, y)
        alpha[max(y, 0) : y + side, max(x, 0) : x + side] = np.maximum(
            alpha[max(y, 0) : y + side, max(x, 0) : x + side],
            oval[max(-y, 0) :, max(-x, 0) :][: len(alpha) - max(y, 0), : alpha.shape[1] - max(x, 0)],
        )
        return x, y, right, bottom

    def _sample(self, canvas: np.ndarray, pasted: list[_Pasted]) -> Sample:
        """Boxes around what is visible of everybody, and what their visible faces say."""
        owner = np.full(canvas.shape[:2], -1)
        for k, figure in enumerate(pasted):
            owner[figure.mask] = k
        rows: list[tuple[np.ndarray, np.ndarray, np.ndarray, bool]] = []
        hidden = []
        for k, figure in enumerate(pasted):
            visible = owner == k
            if not figure.person or not visible.any():
                continue
            box = _extent(visible)
            if visible.sum() < VISIBLE * figure.mask.sum() or min(box[2] - box[0], box[3] - box[1]) < 6:
                hidden.append(box)
                continue
            known = figure.truth is not None and _legible(figure.face, visible)
            labels, affect = figure.truth if known else (np.zeros(len(LABELS), np.float32), np.full(3, np.nan))
            rows.append((box, labels, affect, known))
        boxes, labels, affect, known = (list(column) for column in zip(*rows)) if rows else ([], [], [], [])
        return Sample(
            picture=canvas.round().clip(0, 255).astype(np.uint8),
            boxes=np.array(boxes, float).reshape(-1, 4),
            labels=np.array(labels, np.float32).reshape(-1, len(LABELS)),
            affect=np.array(affect, np.float32).reshape(-1, 3),
            known=np.array(known, bool),
            ignore=np.array(hidden, float).reshape(-1, 4),
        )


class _Balanced:
    """Faces of several sets, drawn so that rare expressions come often: with the inverse root of their frequency."""

    def __init__(self, sets: Sequence[Samples]) -> None:
        self.sets = sets
        rows = [(data, i, k) for data in sets for i, k in enumerate(data.classes())]
        self.rows = [(data, i) for data, i, _ in rows]
        names = [data.labels["expression"][k] for data, _, k in rows]
        count = Counter(names)
        weights = np.array([count[name] ** -0.5 for name in names])
        self.share = weights.cumsum() / weights.sum()

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, Truth]:
        """A face, uint8 [H, W, 3], and what it says."""
        data, i = self.rows[int(np.searchsorted(self.share, rng.random(), side="right"))]
        picture = data.picture(i)
        expression = data.labels["expression"][int(data.targets["expression"][i].argmax())]
        valence, arousal = data.targets["valence_arousal"][i]
        present = emotions(expression, valence, arousal)
        affect = np.array([(valence + 1) / 2, (arousal + 1) / 2, np.nan], np.float32)
        labels = np.array([name in present for name in LABELS], np.float32)
        return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2), (labels, affect)


def _head(alpha: np.ndarray) -> FaceBox:
    """The square of the face of a standing figure, from its mask."""
    head = len(alpha) * HEAD
    rows = slice(int(0.2 * head), max(int(0.8 * head), int(0.2 * head) + 1))
    columns = np.flatnonzero((alpha[rows] > 0.5).any(0))
    middle = columns.mean() if len(columns) else alpha.shape[1] / 2
    side = max(2, round(1.1 * head))
    x, y = round(middle - side / 2), round(0.08 * head)
    return x, y, x + side, y + side


def _blend(canvas: np.ndarray, pixels: np.ndarray, alpha: np.ndarray, x: int, y: int) -> np.ndarray:
    """Draw pixels over the canvas at (x, y) in place; returns their alpha over the whole canvas."""
    placed = np.zeros(canvas.shape[:2], np.float32)
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + len(alpha), canvas.shape[0]), min(x + alpha.shape[1], canvas.shape[1])
    if bottom <= top or right <= left:
        return placed
    source = np.s_[top - y : bottom - y, left - x : right - x]
    share = alpha[source]
    here = canvas[top:bottom, left:right]
    here[:] = here + share[..., None] * (pixels[source] - here)
    placed[top:bottom, left:right] = share
    return placed


def _extent(mask: np.ndarray) -> np.ndarray:
    """The box x0 y0 x1 y1 around a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], float)


def _legible(face: tuple[int, int, int, int], visible: np.ndarray) -> bool:
    """Whether a face is large enough and its middle mostly visible."""
    x0, y0, x1, y1 = face
    quarter = (x1 - x0) // 4
    middle = visible[max(y0 + quarter, 0) : max(y1 - quarter, 0), max(x0 + quarter, 0) : max(x1 - quarter, 0)]
    return x1 - x0 >= LEGIBLE and middle.sum() >= 0.7 * (x1 - x0 - 2 * quarter) ** 2


def frozen(composer: Composer, count: int, seed: int = 0, name: str = "composed") -> Scenes:
    """`count` composed scenes that stay the same, for validation."""
    samples = [composer.sample(k, np.random.default_rng([seed, k])) for k in range(count)]
    notices: list[str] = []
    scenes = tuple(_scene(f"{name}_{k}", s, notices) for k, s in enumerate(samples))
    return Scenes(name, f"seed {seed}", scenes, LABELS, lambda i: samples[i].picture, notices=tuple(notices))


def _scene(name: str, s: Sample, notices: list[str]) -> Scene:
    boxes = np.concatenate([s.boxes, s.ignore])
    hidden = len(s.ignore)
    labels = [tuple(np.array(LABELS)[row == 1].tolist()) if k else None for row, k in zip(s.labels, s.known)]
    return make_scene(
        name,
        (s.picture.shape[1], s.picture.shape[0]),
        boxes,
        notices,
        labels=[*labels, *[None] * hidden],
        vad=np.concatenate([s.affect * 10, np.full((hidden, 3), np.nan)]),
        crowd=np.array([False] * len(s.boxes) + [True] * hidden, bool),
    )
