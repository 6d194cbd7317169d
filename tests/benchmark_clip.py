"""Seconds per clip of voice and face, by stage: `python -m tests.benchmark_clip MODEL [FILM]`.

One stretch of 3.6 seconds in one thread; medians of nine rounds, in milliseconds of processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emotion.faces.detectors import MTCNN
from emotion.media import audio, video
from emotion.models.avfusion import Clips
from emotion.models.avfusion_audio import clip_samples, mfcc
from emotion.models.avfusion_video import choose_frames, face_stretch
from emotion.models.base import ClipInput
from emotion.predict.clips import ClipPredictor

ROUNDS = 9
FILM = Path(__file__).parent / "media" / "talk_man_1.mp4"


def main() -> None:
    """Measure and print one line per stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="registry name or checkpoint folder")
    parser.add_argument("film", type=Path, nargs="?", default=FILM)
    args = parser.parse_args()
    torch.set_num_threads(1)
    predictor = ClipPredictor(args.model, MTCNN())
    config, face = predictor.input, predictor.seen.visual
    times: dict[str, list[float]] = {}

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        start = time.process_time()
        out = work()
        times.setdefault(stage, []).append(time.process_time() - start)
        return out

    for _ in range(ROUNDS):
        sound = timed("decode sound", lambda: audio.read(args.film))
        pictures = timed("decode pictures", lambda: choose_frames(video.decode(args.film), predictor.seen))
        crops = timed("find and cut faces", lambda p=pictures: face_stretch(p, predictor.detector, face).crops)
        visual = timed("measure faces", lambda c=crops: predictor.visual([c]))
        features = timed("sound features", lambda s=sound: features_of(s, config))
        clips = predictor.model.inputs(features[None], visual)
        timed("network, both", lambda c=clips: score(predictor.model, c))
        timed("network, voice alone", lambda c=clips: score(predictor.model, Clips(c.audio, None)))
        timed("network, face alone", lambda c=clips: score(predictor.model, Clips(None, c.visual)))
    total = 0.0
    for stage, values in times.items():
        total += float(np.median(values))
        print(f"| {stage} | {1000 * np.median(values):.1f} |")
    print(f"| all | {1000 * total:.1f} |")


def features_of(sound: audio.Sound, config: ClipInput) -> np.ndarray:
    """Resampled, cut and transformed."""
    return mfcc(clip_samples(sound, config), config.audio)


@torch.inference_mode()
def score(model: torch.nn.Module, clips: Clips) -> torch.Tensor:
    """One forward pass."""
    return model(clips)["expression"]


if __name__ == "__main__":
    main()
