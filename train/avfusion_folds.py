"""`python -m train.avfusion_folds RECIPE --data DIR`: cross-validation by speakers on RAVDESS.

Every clip is tested once, by a network that all other speakers trained; nothing is selected, the last epoch counts.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emotion.datasets import ravdess
from emotion.errors import UserError
from emotion.hub.provenance import provenance
from emotion.models.avfusion import CONDITIONS
from train import avfusion, loop
from train import recipe as recipes
from train.avfusion_data import ClipData


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code (0 done, 2 something the user can mend)."""
    parser = argparse.ArgumentParser(prog="python -m train.avfusion_folds", description=__doc__)
    parser.add_argument("recipe", help="name of a fusion recipe on RAVDESS, or path of a YAML file")
    parser.add_argument("--data", action="append", default=[], metavar="[NAME=]DIR", help="folder of a data set")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE-folds); an unfinished run goes on")
    parser.add_argument("--scheme", choices=("folds", "five"), default="folds", help="default: %(default)s")
    parser.add_argument("--folds", type=int, default=4, help="of the scheme folds; default: %(default)s")
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
    out = args.out or Path("runs") / f"{Path(args.recipe).stem}-folds"
    folders = recipes.data_folders(recipe, args.data)
    config, options = avfusion.plan(recipe, folders)
    parts = [part for role in ("train", "valid", "test") for part in recipes.samples(recipe, role, folders)]
    faces = {role: avfusion.lenders(recipe, role, folders, config, options) for role in ("train", "test")}
    clips = ClipData(parts, config.input, config.labels, faces["train"], speeds=options.vary.speeds)
    options = replace(options, stages=tuple(replace(s, evaluate_every=s.epochs) for s in options.stages))
    tested = []
    for fold, speakers in enumerate(_groups(clips, args)):
        chosen = np.isin(clips.groups, speakers)
        train = clips.only(~chosen, faces["train"], fixed=False)
        model = avfusion.fresh(config, options, train, recipe.settings.seed, args.init)
        trainee = avfusion.AVFusionTrainee(model, train, None, clips.only(chosen, faces["test"]), options)
        loop.fit(trainee, out / f"fold-{fold}", recipe.settings)
        tested.append(_tested(trainee, speakers))
    classes = torch.cat([t["classes"] for t in tested])
    groups = np.concatenate([t["groups"] for t in tested])
    rows: dict[str, Any] = {}
    lines = [f"{len(classes)} clips of {len(set(groups))} speakers, {len(tested)} folds", ""]
    lines += ["| input | accuracy | 95 % | UAR | macro F1 |", "|---" * 5 + "|"]
    for condition in CONDITIONS:
        logits = torch.cat([t["logits"][condition] for t in tested])
        row = avfusion.figures(logits, classes) | {"interval": avfusion.interval(logits, classes, groups)}
        low, high = row["interval"]["accuracy"]
        lines.append(
            f"| {condition} | {row['accuracy']:.4f} | {low:.3f}-{high:.3f} | {row['uar']:.4f} | {row['f1']:.4f} |"
        )
        rows[condition] = row
    document = {
        "recipe": recipe.name,
        "settings": asdict(recipe.settings),
        "protocol": clips.parts[0].protocol.split(",")[0],
        "test speakers": [t["speakers"] for t in tested],
        "figures": rows,
        "versions": provenance(),
    }
    (out / "folds.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return lines


def _groups(clips: ClipData, args: argparse.Namespace) -> list[tuple[str, ...]]:
    """The speakers that every fold tests."""
    speakers = {int(s) for s in clips.groups}
    groups = ravdess.FIVE_FOLDS if args.scheme == "five" else ravdess.deal(speakers, args.folds)
    return [tuple(map(str, group)) for group in groups]


def _tested(trainee: avfusion.AVFusionTrainee, speakers: tuple[str, ...]) -> dict[str, Any]:
    return {
        "classes": trainee.test.classes,
        "groups": trainee.test.groups,
        "logits": {c: avfusion.predict(trainee.model, trainee.test, c) for c in CONDITIONS},
        "speakers": speakers,
    }


if __name__ == "__main__":
    sys.exit(main())
