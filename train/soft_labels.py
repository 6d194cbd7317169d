"""What an ensemble says about the pictures of a data set: soft labels for its students, and how classes go together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from emotion.errors import UserError
from emotion.labels import index_map
from emotion.models.emenet import EMENet, probabilities
from train.emenet_data import Clips

BATCH = 64


@torch.inference_mode()
def collect(model: EMENet, data: Clips, member: int | None = None) -> dict[str, Tensor]:
    """Logits [M, N, ...] of every picture of `data`, in order, on the CPU; clips are followed from frame to frame.

    Args:
        model: in any mode; afterwards in evaluation mode.
        data: its pictures as they are, not augmented.
        member: only this one.
    """
    model.eval()
    device = next(model.parameters()).device
    films = data.films or [np.arange(len(data.ids))]
    parts = []
    for film in films:
        chunks = [film[i : i + BATCH].tolist() for i in range(0, len(film), BATCH)]
        features = torch.cat([_embed(model, data, chunk, member, device) for chunk in chunks], dim=1)
        if data.films:
            logits = model.sequence(features, member)
        else:  # unrelated pictures: a clip of one frame each
            axis = 1 if model.config.time_axis == "clips" else 2
            logits = {t: z.flatten(1, 2) for t, z in model.read(features.unsqueeze(axis), member=member)[0].items()}
        parts.append({task: z.float().cpu() for task, z in logits.items()})
    back = torch.as_tensor(np.argsort(np.concatenate(films), kind="stable"))
    return {task: torch.cat([p[task] for p in parts], dim=1)[:, back] for task in parts[0]}


def _embed(model: EMENet, data: Clips, chunk: list[int], member: int | None, device: torch.device) -> Tensor:
    faces = torch.from_numpy(np.stack([data.picture(i) for i in chunk])).permute(0, 3, 1, 2)
    sound = torch.from_numpy(data.sound([data.ids[i] for i in chunk])).to(device) if data.sound else None
    return model.embed(model.config.input.normalise(faces.float()).to(device), sound, member=member)


def truth(data: Clips) -> dict[str, np.ndarray]:
    """Targets [N, K] of every picture, NaN where unlabelled; tasks without any label are left out."""
    return {task: y.numpy() for task, y in data.targets.items() if y.isfinite().any()}


def mean_probabilities(teacher: EMENet, data: Clips) -> dict[str, Tensor]:
    """Soft labels: the members' mean probabilities [N, ...] per task, in the order of the student's vocabulary.

    Raises:
        UserError: the teacher lacks a class of the student.
    """
    p = probabilities(collect(teacher, data.seen_as(teacher.config.input)), teacher.config.temperature)
    out = {}
    for task, names in data.labels.items():
        if task not in p:
            continue
        values = torch.from_numpy(p[task].mean(axis=0)).float()
        where = index_map(names, teacher.labels[task])
        if missing := [n for n, k in zip(names, where) if k < 0]:
            raise UserError(f"the teacher does not know {', '.join(missing)}; students need the same {task} labels")
        out[task] = values[:, where]
    if not out:
        raise UserError("the teacher predicts none of the student's tasks")
    return out


def save(path: str | Path, data: Clips, logits: dict[str, Tensor]) -> None:
    """Write every member's logits as a compressed .npz: "ids" [N] and per task float16 [M, N, ...]."""
    arrays = {task: z.numpy().astype(np.float16) for task, z in logits.items()}
    np.savez_compressed(path, ids=np.array(data.ids), **arrays)


def affinity(probabilities: np.ndarray) -> np.ndarray:
    """Cosine similarity of every pair of classes over all pictures, with a zero diagonal.

    Args:
        probabilities: [N, K], columns of any tasks side by side.

    Returns:
        [K, K], symmetric, in [0, 1].
    """
    p = np.asarray(probabilities, np.float64)
    lengths = np.maximum(np.linalg.norm(p, axis=0), np.finfo(np.float64).tiny)
    matrix = (p.T @ p) / lengths / lengths[:, None]
    np.fill_diagonal(matrix, 0.0)
    return matrix
