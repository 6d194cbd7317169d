"""`python -m train.soft_labels MODEL --data DIR -o FILE.npz`: what an ensemble says about pictures, for its students.

Every member's logits for every training picture of a recipe go into one file, which `python -m train` takes as
`--teacher`. Beside it go the class affinities: how alike two classes are in what the ensemble says, as a table and a
picture.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emotion import hub
from emotion.errors import UserError
from emotion.labels import index_map
from emotion.models.emenet import EMENet, Temperature, probabilities
from emotion.outputs import write_file
from eval.arrays import DAMAGED, read_arrays, write_arrays
from train import recipe as recipes
from train.emenet_data import Clips, cutter

BATCH = 64
EMOTIONS = ("expression", "action_units", "valence_arousal")


@dataclass(frozen=True)
class Answers:
    """What every member of an ensemble says about N pictures.

    Attributes:
        names: of the pictures, as `Clips.names`.
        labels: vocabulary per task, of `EMOTIONS`.
        logits: per task [M, N, ...]; valence and arousal [M, N, 2, bins].
        temperature: what they are divided by.
    """

    names: tuple[str, ...]
    labels: dict[str, tuple[str, ...]]
    logits: dict[str, Tensor]
    temperature: Temperature

    def mean(self) -> dict[str, np.ndarray]:
        """The members' mean probabilities [N, ...] per task."""
        return {task: p.mean(axis=0) for task, p in probabilities(self.logits, self.temperature).items()}

    def soft(self, data: Clips) -> dict[str, Tensor]:
        """`mean` for the pictures of `data`, in the order of its vocabulary.

        Raises:
            UserError: pictures or classes are missing.
        """
        row = {name: i for i, name in enumerate(self.names)}
        if unknown := [name for name in data.names if name not in row]:
            raise UserError(f"the teacher has not seen {len(unknown)} of the students' pictures, such as {unknown[0]}")
        same = data.names == self.names  # then names need not be unique
        rows = np.arange(len(self.names)) if same else np.array([row[name] for name in data.names])
        mean, out = self.mean(), {}
        for task, names in data.labels.items():
            if task not in mean:
                continue
            where = index_map(names, self.labels[task])
            if missing := [n for n, k in zip(names, where) if k < 0]:
                raise UserError(f"the teacher does not know {', '.join(missing)}; students need the same {task} labels")
            out[task] = torch.from_numpy(mean[task][rows]).float()[:, where]
        if not out:
            raise UserError("the teacher predicts none of the student's tasks")
        return out

    def classes(self) -> tuple[list[str], np.ndarray]:
        """All classes of all tasks side by side: their names, and the mean probabilities [N, K]."""
        mean, names = self.mean(), []
        for task, values in mean.items():
            bins = np.linspace(-1, 1, values.shape[-1]) if values.ndim == 3 else ()
            names += [f"{name} {b:+.2f}" for name in self.labels[task] for b in bins] or self.labels[task]
        return names, np.concatenate([values.reshape(len(values), -1) for values in mean.values()], axis=1)


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
    x, sound = data.inputs(chunk)
    return model.embed(x.to(device), None if sound is None else sound.to(device), member=member)


def truth(data: Clips) -> dict[str, np.ndarray]:
    """Targets [N, K] of every picture, NaN where unlabelled; tasks without any label are left out."""
    return {task: y.numpy() for task, y in data.targets.items() if y.isfinite().any()}


def ask(teacher: EMENet, data: Clips) -> Answers:
    """What an ensemble says about the pictures of `data`, which are in its input; on a GPU if there is one."""
    logits = collect(teacher.to("cuda" if torch.cuda.is_available() else "cpu"), data)
    emotions = [task for task in EMOTIONS if task in logits]
    labels = {task: teacher.labels[task] for task in emotions}
    return Answers(data.names, labels, {t: logits[t] for t in emotions}, teacher.config.temperature)


def save(path: Path, answers: Answers) -> None:
    """Write answers as a compressed .npz: "names" [N], per task float16 logits [M, N, ...], and "head", JSON.

    Raises:
        UserError: the name does not end with .npz, or it cannot be written.
    """
    if path.suffix != ".npz":
        raise UserError(f"soft labels are written as .npz, not as {path.name}")
    head = {"labels": answers.labels, "temperature": asdict(answers.temperature)}
    arrays = {task: z.numpy().astype(np.float16) for task, z in answers.logits.items()}
    write_arrays(head, {"names": np.array(answers.names), **arrays}, path)


def load(path: str | Path) -> Answers:
    """What `save` wrote; nothing is unpickled.

    Raises:
        UserError: unreadable or something else.
    """
    try:
        head, arrays = read_arrays(Path(path))
        labels = {task: tuple(names) for task, names in head["labels"].items()}
        logits = {task: torch.from_numpy(arrays[task].astype(np.float32)) for task in labels}
        table = head["temperature"] | {"action_units": tuple(head["temperature"]["action_units"])}
        return Answers(tuple(arrays["names"].tolist()), labels, logits, Temperature(**table))
    except (UserError, *DAMAGED) as error:
        raise UserError(
            f"{path} is no file of soft labels, or damaged; `python -m train.soft_labels` writes one"
        ) from error


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


def table(names: list[str], matrix: np.ndarray) -> str:
    """A matrix of class affinities as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["class", *names])
    writer.writerows([name, *(f"{value:.6f}" for value in row)] for name, row in zip(names, matrix))
    return out.getvalue()


def plot(names: list[str], matrix: np.ndarray) -> Any:
    """A matrix of class affinities as a matplotlib figure."""
    from matplotlib.figure import Figure

    side = 2.5 + 0.15 * len(names)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="cividis")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    figure.colorbar(image, ax=axes, shrink=0.6, label="class affinity (cosine of mean probabilities)")
    return figure


def main(argv: list[str] | None = None) -> int:
    """Write the soft labels, and the class affinities beside them."""
    parser = argparse.ArgumentParser(prog="python -m train.soft_labels", description=__doc__.split(": ", 1)[1])
    parser.add_argument("model", help="EMENet ensemble: registry name or checkpoint folder")
    parser.add_argument("--data", action="append", default=[], metavar="[NAME=]DIR", help="folder of a data set")
    text = "whose training pictures are read (default: %(default)s)"
    parser.add_argument("--recipe", default="emenet-student", help=text)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.npz")
    args = parser.parse_args(argv)
    try:
        written = _write(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(*written, sep="\n")
    return 0


def _write(args: argparse.Namespace) -> list[Path]:
    recipe, model = recipes.load(args.recipe), hub.load(args.model)
    if not isinstance(model, EMENet):
        raise UserError(f"soft labels come from an EMENet; {args.model} is none")
    folders = recipes.data_folders(recipe, args.data)
    parts = recipes.samples(recipe, "train", folders)
    cut = cutter(model.config, parts, folders, recipe.rest.get("sound"))
    data = Clips(parts, model.config.input, {}, recipe.rest.get("frames", 1), recipe.rest.get("fps", 30), cut)
    answers = ask(model, data)
    save(args.output, answers)
    names, p = answers.classes()
    matrix = affinity(p)
    beside = [args.output.with_name(f"{args.output.stem}_affinity{suffix}") for suffix in (".csv", ".svg")]
    write_file(beside[0], table(names, matrix).encode())
    plot(names, matrix).savefig(beside[1])
    return [args.output, *beside]


if __name__ == "__main__":
    sys.exit(main())
