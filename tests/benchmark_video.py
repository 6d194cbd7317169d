"""`python -m tests.benchmark_video speed|tracking`: frames per second of videos and streams, and how stable ids are.

speed: processor time of one thread per processed frame, median of several rounds in which all models take turns, so
that the load of the machine meets them alike. Networks whose weights are not part of this package have random ones,
which cost the same. "video": a whole clip (two faces; decoding, detection, tracking, reading); "stream": one frame
after another of a clip with one face, with faces searched in every third, and drawn (what the webcam does).

tracking: clips with known persons, through the detector and the tracker at several rates. IDF1 (Ristani et al. 2016,
arXiv 1609.01775) is the share of faces whose id is right under the best assignment of ids to persons; a switch is a
person's face with another id than that person's face before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import nn

from emotion import draw, faces, hub, media, timeline
from emotion.cli.webcam import SEARCHED
from emotion.faces import tracking
from emotion.faces.detectors import MTCNN
from emotion.media import sampling, video
from emotion.models.efficientface import EfficientFace, EfficientFaceConfig
from emotion.models.emenet import EMENet, emenet_v, emenet_va
from emotion.models.esr import ESR, esr9
from emotion.models.fg2020 import FG2020, fg2020
from emotion.outputs import Faces
from emotion.predict import FacePredictor
from tests.films import MEDIA, TALK, TWO

ROUNDS, FRAMES = 3, 15
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "esr_compact.ferplus": hub.load,
    "esr9.affectnet": lambda: ESR(esr9()),
    "efficientface.affectnet7": lambda: EfficientFace(EfficientFaceConfig()),
    "emenet_v, one network": lambda: EMENet(emenet_v()),
    "emenet_va, one network": lambda: EMENet(emenet_va()),
    "fg2020.teacher": lambda: FG2020(fg2020()),
    "fg2020_rnn.teacher": lambda: FG2020(fg2020(frames=32)),
}


def speed() -> None:
    """Print milliseconds and frames per second of every network."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    networks = {name: make().eval() for name, make in NETWORKS.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in networks}
    for _ in range(ROUNDS):
        for name, network in networks.items():
            taken[name].append((_clip(network), _stream(network)))
    print("| model | video, ms per frame | frames/s | stream, ms per frame | frames/s |\n|---|---|---|---|---|")
    for name, seconds in taken.items():
        cells = (f"{1000 * s:.0f} | {1 / s:.0f}" for s in np.median(seconds, axis=0))
        print(f"| {name} | {' | '.join(cells)} |")


def _clip(network: nn.Module) -> float:
    """Processor seconds per frame of the clip of two faces, at five frames per second."""
    predictor = FacePredictor(network)
    return _timed(lambda: predictor.video(TWO, FRAMES / 3), FRAMES)  # three seconds


def _stream(network: nn.Module) -> float:
    """Processor seconds per frame of the first frames of the talk, as by the webcam command."""
    frames = [frame for _, frame in zip(range(FRAMES), video.decode(TALK))]
    stream, smoother = FacePredictor(network, MTCNN(longest_side=SEARCHED)).stream(3), timeline.Smoother()

    def read() -> None:
        for seconds, picture in frames:
            draw.overlay(picture, smoother(stream.read(picture, seconds)))

    return _timed(read, FRAMES)


def _timed(work: Callable[[], object], frames: int) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) / frames


# -- tracking --------------------------------------------------------------------------------------------------------

SIZE, SECONDS, FACE = (640, 480), 6.0, 110  # of the made clips: pixels, length, width of a head's picture
HIDDEN = 0.3  # intersection over union from which on the face behind is not expected to be found
PORTRAITS = ("portrait_obama.jpg", "portrait_biden.jpg", "portrait_hopper.jpg", "portrait_astronaut.png")
Scene = Callable[[int, float], tuple[float, float] | None]  # person, seconds -> centre, None out of sight


def lanes(person: int, seconds: float) -> tuple[float, float]:
    """Everyone walks to and fro on a lane of their own, at up to 300 pixels per second."""
    return 320 + 250 * np.sin((0.5 + 0.25 * person) * seconds + person), 65 + 115 * person


def crossing(person: int, seconds: float) -> tuple[float, float] | None:
    """Two walk past each other again and again, one hiding the other."""
    return (320 + 240 * np.sin(1.5 * seconds + np.pi * person), 200 + 50 * person) if person < 2 else None


def losses(person: int, seconds: float) -> tuple[float, float] | None:
    """As `lanes`, but each is out of sight for 0.6 of every 2 seconds."""
    return None if (seconds + 0.5 * person) % 2 < 0.6 else lanes(person, seconds)


def made(scene: Scene, rate: float) -> Iterator[tuple[float, np.ndarray, dict[int, np.ndarray]]]:
    """Seconds, picture, and the box of every person's face that is in sight."""
    ground = media.read_image(MEDIA / "scene_no_person.jpg")
    cards = [_card(name) for name in PORTRAITS]
    for i in range(int(SECONDS * rate)):
        picture, boxes = ground.copy(), {}
        for person, (card, face) in enumerate(cards):
            place = scene(person, i / rate)
            if place is not None:
                x, y = (round(c - s / 2) for c, s in zip(place, card.shape[1::-1]))
                x, y = int(np.clip(x, 0, SIZE[0] - card.shape[1])), int(np.clip(y, 0, SIZE[1] - card.shape[0]))
                picture[y : y + card.shape[0], x : x + card.shape[1]] = card
                box = face + np.array([x, y, x, y])
                hidden = {p for p, other in boxes.items() if tracking.iou(other[None], box[None])[0, 0] > HIDDEN}
                boxes = {p: other for p, other in boxes.items() if p not in hidden} | {person: box}
        yield i / rate, picture, boxes


def _card(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A head cut out of a portrait, uint8 [h, FACE, 3], and the face's box in it."""
    picture = media.read_image(MEDIA / name)
    found = faces.select(MTCNN()([picture])[0], "largest", picture.shape[1::-1])
    x0, y0, x1, y1 = found.boxes[0]
    margin = 0.25 * np.array([-(x1 - x0), -(y1 - y0), x1 - x0, y1 - y0])
    left, top, right, bottom = np.clip(found.boxes[0] + margin, 0, [*picture.shape[1::-1]] * 2).round().astype(int)
    ratio = FACE / (right - left)
    card = Image.fromarray(picture[top:bottom, left:right]).resize((FACE, round((bottom - top) * ratio)))
    return np.asarray(card), (found.boxes[0] - [left, top, left, top]) * ratio


def two_talking(rate: float) -> Iterator[tuple[float, np.ndarray, dict[int, np.ndarray]]]:
    """The real clip of two people who stay where they are: boxes are the halves of the picture."""
    for seconds, picture in video.decode(TWO, take=sampling.pace(rate)):
        yield seconds, picture, {0: np.array([0.0, 0, 360, 288]), 1: np.array([360.0, 0, 720, 288])}


def ids(frames: Iterator[tuple[float, np.ndarray, dict[int, np.ndarray]]]) -> tuple[float, int, int, int]:
    """IDF1, switches, faces to find and faces found of one clip."""
    detector, tracks = MTCNN(), tracking.Tracks.start()
    pairs, before, switches, truths, found = [], {}, 0, 0, 0
    for seconds, picture, boxes in frames:
        tracks, named = tracking.advance(tracks, detector([picture])[0], seconds)
        truths, found = truths + len(boxes), found + len(named)
        for person, track in _matches(boxes, named):
            pairs.append((person, track))
            switches += before.get(person, track) != track
            before[person] = track
    counts = np.zeros((max((p for p, _ in pairs), default=0) + 1, tracks.next_id + 1))
    for pair in pairs:
        counts[pair] += 1
    return 2 * counts[linear_sum_assignment(-counts)].sum() / (truths + found), switches, truths, found


def _matches(boxes: dict[int, np.ndarray], named: Faces) -> list[tuple[int, int]]:
    """Which person every found face is: centres inside the person's box, each once."""
    if not boxes or not len(named):
        return []
    people, places = list(boxes), np.array(list(boxes.values()))
    centres = named.boxes.reshape(-1, 2, 2).mean(axis=1)
    inside = ((centres[:, None] > places[:, :2]) & (centres[:, None] < places[:, 2:])).all(axis=-1)
    rows, columns = linear_sum_assignment(~inside)
    return [(people[c], int(named.track_ids[r])) for r, c in zip(rows, columns) if inside[r, c]]


def track() -> None:
    """Print IDF1 and switches of every clip at every rate."""
    torch.set_num_threads(1)
    print("| clip | frames/s | faces | found | IDF1 | switches |\n|---|---|---|---|---|---|")
    scenes = {"lanes": lanes, "crossing": crossing, "losses": losses}
    for rate in (25, 10, 5):
        clips = {"two_talking": two_talking(rate)} | {name: made(scene, rate) for name, scene in scenes.items()}
        for name, clip in clips.items():
            score, switches, truths, found = ids(clip)
            print(f"| {name} | {rate} | {truths} | {found} | {100 * score:.1f} % | {switches} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark_video")
    parser.add_argument("what", choices=("speed", "tracking"))
    {"speed": speed, "tracking": track}[parser.parse_args().what]()
