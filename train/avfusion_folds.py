"""`python -m train.avfusion_folds RECIPE --data DIR`: tests by speakers nobody trained on, on RAVDESS.

Cross-validation tests every clip once, by a network that all other speakers trained. The scheme "published" tests the
four speakers of the published split, by a network of its sixteen for training. Nothing is selected: the last epoch
counts. Several seeds give every clip several tests: figures are means over seeds, intervals are over speakers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emotion import hub
from emotion.datasets import ravdess
from emotion.errors import UserError
from emotion.hub.provenance import provenance
from train import avfusion, loop
from train import recipe as recipes
from train.avfusion_data import ClipData


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code (0 done, 2 something the user can mend)."""
    parser = argparse.ArgumentParser(prog="python -m train.avfusion_folds", description=__doc__)
    parser.add_argument("recipe", help="name of a fusion recipe on RAVDESS, or path of a YAML file")
    parser.add_argument("--data", action="append", default=[], metavar="[NAME=]DIR", help="folder of a data set")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE-folds); an unfinished run goes on")
    parser.add_argument("--scheme", choices=ravdess.SCHEMES, default="folds", help="default: %(default)s")
    parser.add_argument("--folds", type=int, default=4, help="of the scheme folds; default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="default: the recipe's")
    parser.add_argument("--init", help="checkpoint to start every fold from")
    args = parser.parse_args(argv)
    try:
        print("\n".join(run(args)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run(args: argparse.Namespace) -> list[str]:
    """Train and test every fold; writes folds.json and returns the table of pooled figures as Markdown lines."""
    recipe = recipes.load(args.recipe)
    if recipe.method != "avfusion":
        raise UserError(f"{args.recipe} is a recipe of {recipe.method}, not of avfusion")
    out = args.out or Path("runs") / f"{Path(args.recipe).stem}-{args.scheme}"
    folders = recipes.data_folders(recipe, args.data)
    begin = hub.load(args.init) if args.init else None
    config, options = avfusion.plan(recipe, folders, begin)
    parts = [part for role in ("train", "valid", "test") for part in recipes.samples(recipe, role, folders)]
    faces = {role: avfusion.lenders(recipe, role, folders, config, options) for role in ("train", "test")}
    clips = ClipData(parts, config.input, config.labels, faces["train"], speeds=options.vary.speeds)
    options = replace(options, stages=tuple(replace(s, evaluate_every=s.epochs) for s in options.stages))
    seeds, tested = args.seeds or [recipe.settings.seed], []
    for fold, (speakers, unheard) in enumerate(_groups(clips, args)):
        chosen, train = np.isin(clips.groups, speakers), np.isin(clips.groups, speakers + unheard, invert=True)
        test, train = clips.only(chosen, faces["test"]), clips.only(train, faces["train"], fixed=False)
        for seed in seeds:
            model = avfusion.fresh(config, options, train, seed, begin)
            trainee = avfusion.AVFusionTrainee(model, train, None, test, options)
            folder = out / f"fold-{fold}" / f"seed-{seed}"
            loop.fit(trainee, folder, replace(recipe.settings, seed=seed))
            tested.append(_tested(trainee, speakers))
    lines, rows = _table(tested, clips.conditions)
    counts = len(set(np.concatenate([t["groups"] for t in tested]))), len(tested) // len(seeds), len(seeds)
    lines = ["{} speakers, {} folds, {} seeds".format(*counts), "", *lines]
    document = {
        "recipe": recipe.name,
        "settings": asdict(recipe.settings),
        "seeds": seeds,
        "protocol": clips.parts[0].protocol.split(",")[0],
        "test speakers": [t["speakers"] for t in tested],
        "figures": rows,
        "versions": provenance(),
    }
    (out / "folds.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return lines


def _table(tested: list[dict[str, Any]], conditions: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
    """The pooled figures of all tests under every condition, as Markdown lines and as numbers."""
    classes = torch.cat([t["classes"] for t in tested])
    groups = np.concatenate([t["groups"] for t in tested])
    rows: dict[str, Any] = {}
    lines = ["| input | accuracy | 95 % | UAR | macro F1 |", "|---" * 5 + "|"]
    for condition in conditions:
        logits = torch.cat([t["logits"][condition] for t in tested])
        each = [avfusion.top(t["logits"][condition], t["classes"], 1) for t in tested]
        row = avfusion.figures(logits, classes) | {"interval": avfusion.interval(logits, classes, groups)}
        low, high = row["interval"]["accuracy"]
        lines.append(
            f"| {condition} | {row['accuracy']:.4f} | {low:.3f}-{high:.3f} | {row['uar']:.4f} | {row['f1']:.4f} |"
        )
        rows[condition] = row | {"each": each}
    return lines, rows


def _groups(clips: ClipData, args: argparse.Namespace) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """For every fold the speakers that it tests, and those that it leaves out altogether."""
    if args.scheme == "published":
        tested, unheard = ravdess.PUBLISHED["test"], ravdess.PUBLISHED["valid"]
        return [(tuple(map(str, tested)), tuple(map(str, unheard)))]
    speakers = {int(s) for s in clips.groups}
    groups = ravdess.FIVE_FOLDS if args.scheme == "five" else ravdess.deal(speakers, args.folds)
    return [(tuple(map(str, group)), ()) for group in groups]


def _tested(trainee: avfusion.AVFusionTrainee, speakers: tuple[str, ...]) -> dict[str, Any]:
    return {
        "classes": trainee.test.classes,
        "groups": trainee.test.groups,
        "logits": {c: avfusion.predict(trainee.model, trainee.test, c) for c in trainee.test.conditions},
        "speakers": speakers,
    }


if __name__ == "__main__":
    sys.exit(main())
