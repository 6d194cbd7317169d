"""`python -m train.emenet_rounds --data ferplus=DIR --data diffusionfer=DIR`: does iterative distillation help?

Round 0 are teachers on the labels there are, every later round students on the mean answers of the round before, each
an ensemble (Deng, Wu, Shi 2021). All start from one pretrained face network. What is trained is in three recipes; a
stopped run goes on where it was. The tables compare the rounds' accuracy and uncertainty, and tell whether pictures
without a face look more uncertain than faces.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from emotion import hub, media
from emotion.errors import UserError
from emotion.models.emenet import EMENet
from emotion.outputs import Task
from eval import ood
from eval.metrics.risk_coverage.risk_coverage_core import auroc
from train import calibrate, emenet, loop, soft_labels
from train import recipe as recipes
from train.emenet_data import Clips
from train.recipe import Recipe

REPLICATES = 300
FIGURES = {
    "expression_accuracy": "expression accuracy",
    "expression_f1": "expression macro F1",
    "expression_nll": "expression NLL",
    "expression_ece": "expression ECE",
    "expression_confidence": "mean probability of the chosen expression",
    "ccc_valence": "CCC of valence",
    "ccc_arousal": "CCC of arousal",
    "rmse_valence": "RMSE of valence",
    "rmse_arousal": "RMSE of arousal",
}
Tasks = dict[str, Task]
# "one network" -> the members on their own, "ensemble" -> the ensemble alone, "calibrated" -> it at other temperatures
Said = dict[str, list[Tasks]]
Interval = tuple[float, float, float]  # value, lower and upper limit


def train_round(
    recipe: Recipe, folders: dict[str, Path], out: Path, trunk: Path | None, teacher: Path | None, command: str
) -> Path:
    """The checkpoint of one round, trained from a face network, by a teacher, if it is not there yet."""
    folder = out / recipe.name
    if not (folder / hub.CONFIG).is_file():
        trainee = emenet.build(recipe, folders, trunk and str(trunk), teacher and str(teacher))
        loop.fit(trainee, out, recipe.settings)
        card, text = emenet.report(trainee, recipe, command)
        hub.save(trainee.model, recipe.method, folder, card, text, half=True)
    return folder


def run(
    backbone: Recipe,
    teacher: Recipe,
    student: Recipe,
    folders: dict[str, Path],
    out: Path,
    seeds: int,
    rounds: int,
    command: str,
) -> list[list[Path]]:
    """Checkpoints of all seeds and rounds, [seeds][1 + rounds]."""
    trunk = train_round(backbone, folders, out / "backbone", None, None, command)
    found = []
    for seed in range(seeds):
        chain: list[Path] = []
        for k in range(1 + rounds):
            recipe = student if k else teacher
            recipe = replace(recipe, settings=replace(recipe.settings, seed=100 * seed + k))
            place = out / f"seed-{seed}" / f"round-{k}"
            chain.append(train_round(recipe, folders, place, trunk, chain[-1] if chain else None, command))
        found.append(chain)
    return found


def answers(folder: Path, recipe: Recipe, folders: dict[str, Path]) -> tuple[Said, dict[str, np.ndarray]]:
    """What a checkpoint says about the validation faces, and their targets [N, K]."""
    model = hub.load(folder)
    data = Clips(recipes.samples(recipe, "valid", folders), model.config.input, model.labels)
    logits = soft_labels.collect(model, data)
    truth = soft_labels.truth(data)
    alone = [model.decode({t: z[m : m + 1] for t, z in logits.items()}) for m in range(model.config.members)]
    together = {"ensemble": [model.decode(logits)], "calibrated": [calibrated(model, logits, truth)]}
    return {"one network": alone, **together}, truth


def calibrated(model: EMENet, logits: dict[str, torch.Tensor], truth: dict[str, np.ndarray]) -> Tasks:
    """The ensemble's answers with temperatures of the expressions: each half of the faces at that of the other half."""
    plain, halves = model.config, calibrate.halves(len(truth["expression"]))
    parts = []
    for here, other in (halves, halves[::-1]):
        fitted = calibrate.fit(emenet.rows(logits, other), {"expression": truth["expression"][other]})
        model.config = replace(plain, temperature=fitted)
        parts.append(model.decode(emenet.rows(logits, here)))
    model.config, order = plain, np.argsort(np.concatenate(halves))
    return {name: Task.concatenate([part[name] for part in parts])[order] for name in parts[0]}


def compare(checkpoints: list[list[Path]], recipe: Recipe, folders: dict[str, Path]) -> dict[str, dict[str, Interval]]:
    """Figure -> column -> mean over seeds and 95 % interval. A replicate draws seeds, and faces, the same for all.

    Columns are a network, the ensemble and the calibrated ensemble of every round, and the changes from the teachers'
    ensemble to a round's, as they are and both calibrated.
    """
    found = [[answers(folder, recipe, folders) for folder in chain] for chain in checkpoints]
    truth = found[0][0][1]
    networks = [[said for said, _ in chain] for chain in found]
    rng, n, seeds = np.random.default_rng(0), len(next(iter(truth.values()))), len(checkpoints)
    draws = [(rng.integers(0, n, n), rng.integers(0, seeds, seeds)) for _ in range(REPLICATES)]
    centre, *drawn = (_row(networks, truth, f, s) for f, s in [(np.arange(n), np.arange(seeds)), *draws])
    out: dict[str, dict[str, Interval]] = {}
    for key, value in centre.items():
        low, high = np.quantile([row[key] for row in drawn], [0.025, 0.975])
        out.setdefault(key[0], {})[key[1]] = (value, float(low), float(high))
    return out


def _row(
    networks: list[list[Said]], truth: dict[str, np.ndarray], faces: np.ndarray, seeds: np.ndarray
) -> dict[tuple[str, str], float]:
    """(figure, column) -> mean over some seeds, of some faces; `networks` by seed and round."""
    out: dict[tuple[str, str], float] = {}
    y = {t: v[faces] for t, v in truth.items()}
    for k, kinds in enumerate(networks[0]):
        for kind in kinds:
            several = [tasks for seed in seeds for tasks in networks[seed][k][kind]]
            found = [_figures({t: task[faces] for t, task in tasks.items()}, y) for tasks in several]
            for figure in (f for f in FIGURES if f in found[0]):
                out[figure, f"round {k}, {kind}"] = mean = float(np.mean([f[figure] for f in found]))
                if k and kind != "one network":
                    end = "" if kind == "ensemble" else f", {kind}"
                    out[figure, f"round {k}, change{end}"] = mean - out[figure, f"round 0, {kind}"]
    return out


def _figures(tasks: Tasks, truth: dict[str, np.ndarray]) -> dict[str, float]:
    found = calibrate.figures(tasks, truth)
    if "expression" in tasks and "expression" in truth:
        known = calibrate.classes(truth["expression"]) >= 0
        found["expression_confidence"] = float(tasks["expression"].values[known].max(axis=1).mean())
    return found


def table(compared: dict[str, dict[str, Interval]]) -> str:
    """The comparison as Markdown."""
    columns = list(next(iter(compared.values())))
    lines = [f"| figure | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for figure, text in FIGURES.items():
        if figure in compared:
            cells = [_cell(compared[figure][c], "+" if "change" in c else "") for c in columns]
            lines.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(interval: Interval, sign: str) -> str:
    value, low, high = interval
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def strange(faces: np.ndarray, pictures: list[np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """What a face network should doubt, as many as there are faces: uint8 [N, H, W, C] each.

    Args:
        faces: uint8 [N, H, W, C], with sides that 4 divides.
        pictures: without people, uint8 [H, W, 3]; random squares are cut out of them. None: that kind is left out.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    n, h, w, c = faces.shape
    tiles = faces.reshape(n, 4, h // 4, 4, w // 4, c).swapaxes(2, 3).reshape(n, 16, h // 4, w // 4, c)
    mixed = np.stack([t[rng.permutation(16)] for t in tiles]).reshape(n, 4, 4, h // 4, w // 4, c)
    half = faces.copy()
    half[:, h // 2 :] = rng.integers(0, 256, half[:, h // 2 :].shape, dtype=np.uint8)
    out = {
        "noise": rng.integers(0, 256, faces.shape, dtype=np.uint8),
        "faces with their tiles shuffled": mixed.reshape(n, 4, 4, h // 4, w // 4, c)
        .swapaxes(2, 3)
        .reshape(faces.shape),
        "faces whose lower half is noise": half,
    }
    if pictures:
        out["pictures without people"] = np.stack(
            [_square(pictures[i % len(pictures)], (h, w), c, rng) for i in range(n)]
        )
    return out


def _square(picture: np.ndarray, size: tuple[int, int], channels: int, rng: np.random.Generator) -> np.ndarray:
    side = int(rng.integers(min(64, *picture.shape[:2]), min(picture.shape[:2]) + 1))
    top, left = (int(rng.integers(0, have - side + 1)) for have in picture.shape[:2])
    cut = Image.fromarray(picture[top : top + side, left : left + side]).resize(size[::-1])
    return np.asarray(cut.convert("L"))[..., None] if channels == 1 else np.asarray(cut)


@torch.inference_mode()
def doubts(model: EMENet, faces: np.ndarray) -> dict[str, np.ndarray]:
    """Uncertainties of single faces uint8 [N, H, W, C], see `ood.doubts`."""
    x = model.config.input.normalise(torch.from_numpy(faces).permute(0, 3, 1, 2).float())
    parts = [model.decode(model(chunk)) for chunk in x.split(soft_labels.BATCH)]
    return ood.doubts({t: Task.concatenate([p[t] for p in parts]) for t in parts[0]})


def detection(model: EMENet, faces: np.ndarray, pictures: list[np.ndarray]) -> str:
    """Markdown table: how well each uncertainty tells strange pictures from faces (AUROC; 0.5 is chance)."""
    clean = doubts(model, faces)
    lines = [f"| pictures | {' | '.join(clean)} |", f"| --- |{' ---: |' * len(clean)}"]
    for kind, others in strange(faces, pictures).items():
        found = doubts(model, others)
        positive = np.repeat([False, True], [len(faces), len(others)])
        cells = [f"{auroc(np.concatenate([clean[k], found[k]]), positive):.3f}" for k in clean]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def bundle(
    students: Path, recipe: Recipe, folders: dict[str, Path], keep: int, out: Path, command: str, pictures: list[Any]
) -> str:
    """Write the first members of an ensemble as a checkpoint of its own, its expressions calibrated on one half of
    validation and measured on the other; returns `detection`'s table.

    Args:
        students: checkpoint of the whole ensemble, trained by `recipe`.
        folders: of the data sets.
        keep: number of members.
        out: folder of the new checkpoint.
        command: that reproduces it.
        pictures: for `strange`.
    """
    rest = {k: v for k, v in recipe.rest.items() if k != "distill"}  # nobody has to teach it any more
    rest |= {"model": rest["model"] | {"members": keep}, "stages": rest["stages"][:1], "calibrate": ["expression"]}
    trainee = emenet.build(replace(recipe, rest=rest), folders, None)
    tensors = hub.load(students).state_dict()
    trainee.model.load_state_dict({k: tensors[k] for k in trainee.model.state_dict()})
    card, text = emenet.report(trainee, recipe, command)
    faces = np.stack([trainee.valid.picture(i) for i in range(len(trainee.valid.parts[0]))])
    told = detection(trainee.model.eval(), faces, pictures)
    text += f"\n## Faces against other pictures\n\nAUROC of its uncertainties on {len(faces)} faces:\n\n{told}"
    hub.save(trainee.model, recipe.method, out, card, text, half=True)
    return told


def main(argv: list[str] | None = None) -> int:
    """Run the rounds, print the tables and write them to OUT; with --keep also the small checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m train.emenet_rounds", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="folder of a data set")
    parser.add_argument("--backbone", default="emenet-open-backbone", metavar="RECIPE", help="default: %(default)s")
    parser.add_argument("--teacher", default="emenet-open-teacher", metavar="RECIPE", help="default: %(default)s")
    parser.add_argument("--student", default="emenet-open-student", metavar="RECIPE", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("runs/emenet-rounds"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1, help="of students (default: 1)")
    parser.add_argument("--scenes", type=Path, metavar="DIR", help="pictures without people, to be told from faces")
    parser.add_argument("--keep", type=int, default=1, help="members in the small checkpoint (default: %(default)s)")
    args = parser.parse_args(argv)
    command = "python -m train.emenet_rounds --data ferplus=DIR --data diffusionfer=DIR"
    try:
        backbone, teacher, student = map(recipes.load, (args.backbone, args.teacher, args.student))
        folders = recipes.data_folders(student, args.data)
        checkpoints = run(backbone, teacher, student, folders, args.out, args.seeds, args.rounds, command)
        compared = compare(checkpoints, student, folders)
        scenes = [media.read_image(p) for p in sorted(args.scenes.iterdir())] if args.scenes else []
        small = args.out / student.name
        told = bundle(checkpoints[0][-1], student, folders, args.keep, small, command, scenes)
        texts = [table(compared), told]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    (args.out / "rounds.md").write_text("\n".join(texts), encoding="utf-8")
    (args.out / "rounds.json").write_text(json.dumps(compared, indent=1), encoding="utf-8")
    print(*texts, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
