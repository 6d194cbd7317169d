"""`python -m train.esr_folds --data DIR`: ESR-4 on CK+ in ten trials by subject; every face is tested once."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emotion import hub
from emotion.datasets import Samples, ckplus
from emotion.errors import UserError
from emotion.hub.provenance import provenance
from emotion.outputs import Task
from eval import predictions
from eval.runner import from_tasks
from train import __main__ as command
from train import curves, esr, loop
from train import recipe as recipes
from train.data import FaceData
from train.recipe import Recipe


@dataclass(frozen=True)
class Trial:
    """A tested trial: its test faces and what the trained network says about them."""

    faces: Samples
    task: Task

    @property
    def accuracy(self) -> float:
        """Of the ensemble."""
        return float((self.task.choice == self.faces.classes()).mean())

    @property
    def branch_accuracy(self) -> float:
        """Mean over the branches."""
        return float((self.task.members.argmax(-1) == self.faces.classes()).mean())


def trial(recipe: Recipe, fold: int) -> Recipe:
    """The recipe with all its data from one of the ten trials."""
    data = {
        role: [replace(source, options=source.options | {"fold": fold}) for source in sources]
        for role, sources in recipe.data.items()
    }
    return replace(recipe, data=data)


def run_trial(recipe: Recipe, folders: dict[str, Path], out: Path) -> Trial:
    """Train, keep the checkpoint and the curves in `out`, and test; goes on with what is there already."""
    trainee = esr.build(recipe, folders, None)
    history = loop.fit(trainee, out, recipe.settings)
    curves.plot(history).savefig(out / "curves.svg")
    card, text = esr.report(trainee, recipe, "python -m train.esr_folds --data DIR")
    hub.save(trainee.model, recipe.method, out / recipe.name, card, text, half=True)
    (faces,) = recipes.samples(recipe, "test", folders)
    data = FaceData([faces], trainee.model.config.input, trainee.model.labels)
    return Trial(faces, trainee.model.decode(esr.predict(trainee.model, data))["expression"])


def table(trials: list[Trial]) -> list[str]:
    """Accuracies per trial, their mean and standard deviation, and the accuracy over all faces, as Markdown."""
    lines = ["| fold | subjects | faces | ensemble | mean of branches |", "|---" * 5 + "|"]
    for fold, one in enumerate(trials):
        subjects = len(set(one.faces.groups))
        lines.append(f"| {fold} | {subjects} | {len(one.faces)} | {one.accuracy:.4f} | {one.branch_accuracy:.4f} |")
    ensemble, branches = ([getattr(t, k) for t in trials] for k in ("accuracy", "branch_accuracy"))
    faces = sum(len(t.faces) for t in trials)
    pooled = sum(t.accuracy * len(t.faces) for t in trials) / faces
    spread = [f"{np.mean(x):.4f} ± {np.std(x, ddof=1):.4f}" for x in (ensemble, branches)]
    return [*lines, f"| mean ± deviation | | | {spread[0]} | {spread[1]} |", "", f"{faces} faces: {pooled:.4f}"]


def keep(trials: list[Trial], recipe: Recipe, out: Path) -> None:
    """Write folds.json, and predictions.npz, which `python -m eval score --split all` reads."""
    document = {
        "recipe": recipe.name,
        "model": recipe.rest["model"],
        "accuracy": [t.accuracy for t in trials],
        "branch_accuracy": [t.branch_accuracy for t in trials],
        "faces": [len(t.faces) for t in trials],
        "versions": provenance(),
    }
    (out / "folds.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    ids = tuple(i for t in trials for i in t.faces.ids)
    task = Task.concatenate([t.task for t in trials])
    about = {"model": recipe.name, "dataset": trials[0].faces.dataset, "split": "all"}
    predictions.write(from_tasks(ids, {"expression": task}, about), out / "predictions.npz")


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.esr_folds", description=__doc__)
    parser.add_argument("--data", metavar="DIR", help="CK+")
    parser.add_argument("--level", type=int, choices=(1, 2, 3, 4), default=3, help="blocks shared; default: 3")
    parser.add_argument("--out", type=Path, help="default: runs/esr-ckplus-LEVEL; an unfinished run goes on")
    parser.add_argument("--smoke", action="store_true", help="two epochs per trial on synthetic data: does it run?")
    args = parser.parse_args(argv)
    recipe = recipes.load("esr-ckplus")
    recipe = replace(recipe, rest=recipe.rest | {"model": recipe.rest["model"] | {"level": args.level}})
    if args.smoke:
        recipe = command.smoke(recipe)
    out = args.out or Path("runs") / f"esr-ckplus-{args.level}{'-smoke' if args.smoke else ''}"
    try:
        if not (args.data or args.smoke):
            raise UserError("give the folder of CK+: --data DIR")
        folders = recipes.fake_folders(recipe) if args.smoke else {"ckplus": Path(args.data)}
        trials = [run_trial(trial(recipe, k), folders, out / f"fold-{k}") for k in range(ckplus.FOLDS)]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    keep(trials, recipe, out)
    print("\n".join(table(trials)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
