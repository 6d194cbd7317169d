"""`python -m train.fg2020_study --data ferplus=DIR --data diffusionfer=DIR`: do incomplete labels help?

Every training face has labels of one task only. Two designs: "within" gives one half of DiffusionFER's faces their
expressions and the other half their valence and arousal; "across" takes expressions of FER+ faces and valence and
arousal of all DiffusionFER faces. For every seed the same small network is trained with the same number of steps and
images per task in four ways: on expressions alone, on valence and arousal alone, on both as a multitask teacher, and as
a student of that teacher, on the labels and on its answers for the missing ones. A stopped study goes on where it was.
Intervals resample test faces and seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from emotion.datasets import Samples, diffusionfer, ferplus
from emotion.errors import UserError
from emotion.models.fg2020 import FG2020, fg2020
from eval.metrics.ccc import ccc_core
from eval.metrics.expression import expression_core
from train import loop
from train.fg2020 import FG2020Trainee, Options, Phase, predict
from train.fg2020_data import Units

BACKBONE, SIZE = "test_resnet", 48  # timm's smallest residual network, 0.4 million parameters
BATCH, RATE = 48, 2e-3
REPLICATES = 1000
SETTINGS = loop.Settings(optimizer="adamw", weight_decay=0.01, clip=5.0, precision="bf16")
TASKS = ("expression", "valence_arousal")
ALONE, TEACHER, STUDENT = ARMS = ("single task", "teacher", "student")
Interval = tuple[float, float, float]  # value, lower and upper limit
# What is measured in each design: name -> (task, data set of the test faces, figure).
SAME = {
    "DiffusionFER CCC of valence": ("valence_arousal", "diffusionfer", "valence"),
    "DiffusionFER CCC of arousal": ("valence_arousal", "diffusionfer", "arousal"),
    "DiffusionFER accuracy": ("expression", "diffusionfer", "accuracy"),
    "DiffusionFER macro F1": ("expression", "diffusionfer", "f1"),
}
ROWS = {
    "within": SAME,
    "across": SAME
    | {"FER+ accuracy": ("expression", "ferplus", "accuracy"), "FER+ macro F1": ("expression", "ferplus", "f1")},
}


def small_grey(samples: Samples) -> Samples:
    """The same samples as grey pictures of SIZE pixels in memory, so that both sets look alike."""
    pictures = [Image.fromarray(samples.picture(i)).convert("L").resize((SIZE, SIZE)) for i in range(len(samples))]
    faces = np.stack([np.asarray(p) for p in pictures])
    return replace(samples, picture=lambda i: faces[i])


@dataclass(frozen=True)
class Data:
    """Task -> training faces that have labels of this task only; the test faces; and what is measured, of `ROWS`."""

    train: dict[str, Samples]
    test: list[Samples]
    rows: dict[str, tuple[str, str, str]]


def load(folders: dict[str, str], design: str, labelled: int) -> Data:
    """Read the data of a design.

    Args:
        folders: of "ferplus" and "diffusionfer".
        design: key of `ROWS`.
        labelled: FER+ training faces to use "across".

    Raises:
        UserError: a folder is missing or its reader complains.
    """
    if folders.keys() != {"ferplus", "diffusionfer"}:
        raise UserError("the study needs --data ferplus=DIR --data diffusionfer=DIR")
    tests = [small_grey(diffusionfer.load(folders["diffusionfer"], "test"))]
    affect = diffusionfer.load(folders["diffusionfer"], "train", task="valence_arousal")
    if design == "within":
        expression = diffusionfer.load(folders["diffusionfer"], "train", task="expression")
        order = np.random.default_rng(0).permutation(len(affect))
        halves = expression.subset(order[::2]), affect.subset(order[1::2])
    else:
        faces, valid = (without_contempt(ferplus.load(folders["ferplus"], split)) for split in ("train", "valid"))
        halves = faces.subset(slice(labelled)), affect
        tests = [small_grey(valid), *tests]
    return Data(dict(zip(TASKS, map(small_grey, halves))), tests, ROWS[design])


def without_contempt(samples: Samples) -> Samples:
    """The seven expressions that both data sets know."""
    return samples.subset(samples.classes() != samples.labels["expression"].index("contempt"))


def network(tasks: tuple[str, ...], seed: int) -> FG2020:
    """A small Multitask-CNN with some of its heads, from scratch."""
    torch.manual_seed(seed)
    return FG2020(replace(fg2020(BACKBONE, size=SIZE), tasks=tasks))


def trained(
    tasks: tuple[str, ...], data: Data, out: Path, seed: int, steps: int, teacher: FG2020 | None = None
) -> FG2020:
    """One network after `steps` steps of BATCH images per task; goes on with what is in `out`."""
    parts = [data.train[t] for t in tasks]
    epochs = math.ceil(steps / min(max(1, len(p) // BATCH) for p in parts))
    schedule = loop.Schedule("cosine", warmup=epochs / 20)
    phase = Phase(epochs=epochs, lr=RATE, schedule=schedule, evaluate_every=epochs)  # test faces choose nothing
    options = Options(batch=BATCH, mixed=True)
    trainee = FG2020Trainee(network(tasks, seed), parts, data.test, [phase], options, teacher, SETTINGS.precision)
    loop.fit(trainee, out, replace(SETTINGS, seed=seed))
    return trainee.model.eval()


def answers(model: FG2020, data: Data) -> dict[str, np.ndarray]:
    """What a network says about all test faces: probabilities [N, 7] and values [N, 2], of the tasks it has."""
    tasks = model.decode(predict(model, Units(data.test, model.config.input, model.labels)))
    return {name: task.values for name, task in tasks.items()}


def run(data: Data, out: Path, seeds: int, steps: int) -> dict[str, dict[str, np.ndarray]]:
    """Train everything that `out` does not hold yet; the answers of all seeds, arm -> task -> [seeds, N, ...]."""
    found: dict[str, dict[str, list[np.ndarray]]] = {arm: {t: [] for t in TASKS} for arm in ARMS}
    for seed in range(seeds):
        folder = out / f"seed-{seed}"
        alone = {t: trained((t,), data, folder / t, seed, steps) for t in TASKS}
        teacher = trained(TASKS, data, folder / "teacher", seed, steps)
        student = trained(TASKS, data, folder / "student", seed + 1000, steps, teacher)  # its own random start
        for arm, models in zip(ARMS, (alone.values(), [teacher], [student])):
            for model in models:
                for task, values in answers(model, data).items():
                    found[arm][task].append(values)
    return {arm: {t: np.stack(values) for t, values in tasks.items()} for arm, tasks in found.items()}


def truth(data: Data) -> dict[str, np.ndarray]:
    """Targets of all test faces in the order of `answers`, NaN where unlabelled: [N, 7] and [N, 2]."""
    model = network(TASKS, seed=0)
    return {t: y.numpy() for t, y in Units(data.test, model.config.input, model.labels).targets.items()}


def terms(values: np.ndarray, wanted: np.ndarray, task: str) -> np.ndarray:
    """What every face adds to the sums from which `FIGURES` compute, [N, T]; zeros where it has no label."""
    known = np.isfinite(wanted).all(axis=1)
    if task == "valence_arousal":
        return np.hstack([ccc_core.terms(p, y) for p, y in zip(values.T, wanted.T)])
    k = wanted.shape[1]
    cells = np.nan_to_num(wanted).argmax(axis=1) * k + values.argmax(axis=1)
    return np.eye(k * k)[cells] * known[:, None]


def figures(sums: np.ndarray, task: str) -> dict[str, np.ndarray]:
    """Figures of sums [..., T] of `terms`."""
    if task == "valence_arousal":
        return {"valence": ccc_core.ccc_from_sums(sums[..., :6]), "arousal": ccc_core.ccc_from_sums(sums[..., 6:])}
    k = math.isqrt(sums.shape[-1])
    return expression_core.scores(sums.reshape(*sums.shape[:-1], k, k))


def compare(found: dict[str, dict[str, np.ndarray]], data: Data) -> dict[str, dict[str, Interval]]:
    """Row of `data.rows` -> arm, or gain of an arm over the single task -> mean over seeds and 95 % interval.

    A replicate draws seeds and, the same for all networks, test faces. "together" are the seeds' networks as one
    ensemble; there only faces are drawn.
    """
    out = {}
    owner = np.repeat([p.dataset for p in data.test], [len(p) for p in data.test])
    targets = truth(data)
    for name, (task, dataset, figure) in data.rows.items():
        mine = owner == dataset
        y, drawn, whole = targets[task][mine], {}, {}
        for arm in ARMS:
            values = found[arm][task][:, mine]
            for kind, networks in ((arm, values), (f"{arm}, together", values.mean(axis=0, keepdims=True))):
                units = [terms(v, y, task) for v in networks]
                drawn[kind] = np.stack([_replicates(u, task, figure) for u in units])
                whole[kind] = np.stack([figures(u.sum(axis=0), task)[figure] for u in units])
        out[name] = _intervals(whole, drawn)
    return out


def _replicates(units: np.ndarray, task: str, figure: str) -> np.ndarray:
    rng = np.random.default_rng(0)  # the same faces for every network
    shares = np.full(len(units), 1 / len(units))
    return np.array([figures(rng.multinomial(len(units), shares) @ units, task)[figure] for _ in range(REPLICATES)])


def _intervals(whole: dict[str, np.ndarray], drawn: dict[str, np.ndarray]) -> dict[str, Interval]:
    """Means over drawn seeds; gains are differences within the same seeds and faces."""
    rng, out = np.random.default_rng(1), {}
    seeds = len(whole[ALONE])
    chosen = rng.integers(0, seeds, (REPLICATES, seeds))
    for kind, values in drawn.items():
        base = ALONE if kind in ARMS else f"{ALONE}, together"
        pick = chosen if kind in ARMS else np.zeros((REPLICATES, 1), int)
        for label, less, centre in (
            (kind, 0.0, whole[kind].mean()),
            (f"gain of {kind}", drawn[base], whole[kind].mean() - whole[base].mean()),
        ):
            means = np.take_along_axis((values - less).T, pick, axis=1).mean(axis=1)
            out[label] = (float(centre), *(float(v) for v in np.quantile(means, [0.025, 0.975])))
    return out


def markdown(compared: dict[str, dict[str, Interval]]) -> str:
    """Two tables: single networks (mean over seeds), and the seeds' networks together."""
    lines = []
    for suffix, title in (("", "one network (mean over seeds)"), (", together", "all seeds' networks together")):
        kinds = [arm + suffix for arm in ARMS]
        head = [title, *ARMS, f"gain of {TEACHER}", f"gain of {STUDENT}"]
        lines += ["", f"| {' | '.join(head)} |", f"| --- |{' ---: |' * 5}"]
        for row, found in compared.items():
            cells = [_cell(found[kind]) for kind in kinds]
            cells += [_cell(found[f"gain of {kind}"], "+") for kind in kinds[1:]]
            lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines[1:]) + "\n"


def _cell(interval: Interval, sign: str = "") -> str:
    value, low, high = interval
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def main(argv: list[str] | None = None) -> int:
    """Run the study, print the tables and write them to OUT/DESIGN/study.md and study.json."""
    parser = argparse.ArgumentParser(prog="python -m train.fg2020_study", description=__doc__.split(": ", 1)[1])
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR", help="ferplus and diffusionfer")
    parser.add_argument("--design", choices=tuple(ROWS), action="append", help="may be repeated; default: both")
    parser.add_argument("--out", type=Path, default=Path("runs/fg2020-study"))
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=800, help="of every network; default: %(default)s")
    parser.add_argument("--labelled", type=int, default=4000, help="FER+ faces in training; default: %(default)s")
    args = parser.parse_args(argv)
    folders = dict(text.partition("=")[::2] for text in args.data)
    try:
        for design in args.design or ROWS:
            out = args.out / design
            data = load(folders, design, args.labelled)
            compared = compare(run(data, out, args.seeds, args.steps), data)
            text = f"### {design}\n\n{markdown(compared)}"
            (out / "study.md").write_text(text, encoding="utf-8")
            (out / "study.json").write_text(json.dumps(compared, indent=1), encoding="utf-8")
            print(text)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
