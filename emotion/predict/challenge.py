"""Predictions for the test clips of the ABAW challenges of 2020 and 2021, as their organisers ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from emotion import media
from emotion.datasets import affwild2
from emotion.errors import UserError
from emotion.exports import abaw
from emotion.faces import cropped
from emotion.media import audio
from emotion.media.windowing import cut_sound, video_sound_windows
from emotion.outputs import Task

BATCH = 64


def predict(
    root: str | Path,
    model: nn.Module,
    out: str | Path,
    lists: dict[str, str | Path | None],
    device: str | torch.device = "cpu",
) -> list[Path]:
    """Read every test clip once and write its files for all tasks that list it, per ensemble member and merged.

    Args:
        root: the data set, see `datasets.affwild2`.
        model: a model of face sequences (`embed`, `sequence`, `decode`).
        out: folder, see `abaw.write`.
        lists: task -> text file with one clip name per line; None: the list in the data set.
        device: where the network runs.

    Returns:
        The files written.

    Raises:
        UserError: a model of single faces, a task that it lacks, or lists, pictures or films that are missing.
    """
    if not hasattr(model, "sequence"):
        raise UserError("this model does not read clips; choose an emenet or fg2020 model")
    root, written = Path(root), []
    model.to(device).eval()
    wanted: dict[str, set[str]] = {}
    for task, path in lists.items():
        for clip in affwild2.listed_clips(Path(path) if path else affwild2.list_of_test_clips(root, task)):
            wanted.setdefault(clip, set()).add(task)
    for clip in sorted(wanted):
        tasks = read_clip(root, clip, model, device)
        if missing := wanted[clip] - tasks.keys():
            raise UserError(f"this model predicts no {' and no '.join(sorted(missing))}; leave that list out")
        chosen = {task: tasks[task] for task in tasks if task in wanted[clip]}
        frames = np.arange(len(next(iter(chosen.values())).values))
        written += abaw.write(out, clip, chosen, frames)
    return written


@torch.inference_mode()
def read_clip(root: Path, clip: str, model: nn.Module, device: str | torch.device = "cpu") -> dict[str, Task]:
    """Predictions for every frame of a test clip; one without a picture is seen as in `affwild2.frames_to_predict`."""
    shown = affwild2.frames_to_predict(root, clip)
    sound = _sound(root, clip, len(shown), model)
    features = []
    for start in range(0, len(shown), BATCH):
        numbers, back = np.unique(shown[start : start + BATCH], return_inverse=True)
        pictures = [media.read_image(root / affwild2.picture_path(clip, int(n))) for n in numbers]
        x = cropped.tensor(pictures, model.config.input)[torch.as_tensor(back)]
        heard = {} if sound is None else {"sound": sound(slice(start, start + BATCH)).to(device)}
        features.append(model.embed(x.to(device), **heard))
    return model.decode(model.sequence(torch.cat(features, dim=1)))


def _sound(root: Path, clip: str, frames: int, model: nn.Module) -> Callable[[slice], Tensor] | None:
    """From some frames of a clip to the sound around them; None for models that do not hear and silent films."""
    if not getattr(model.config, "sound", False):
        return None
    sound = audio.read(affwild2.find_video(root, clip))
    if sound is None:
        return None
    starts = video_sound_windows(frames, affwild2.frame_rate(root, clip), len(sound.samples), model.config.audio_clock)
    return lambda part: torch.from_numpy(cut_sound(sound, starts[part]))
