"""`python -m train.thresholds CHECKPOINT --data DIR -o OUT`: decision thresholds from labelled pictures, stored.

Of an emotion in scenes the threshold with the highest F1; of an action unit the lowest score at which precision and
recall come nearest to each other, as in the FG-2020 system. Imported scene models have 0.5 for every emotion, which
calls frequent ones present in everybody.
"""

from __future__ import annotations

import argparse
import sys

from emotion import datasets, hub
from emotion.errors import UserError
from emotion.models.benet import BENet
from emotion.models.fg2020 import FG2020
from train.benet_judge import calibrate
from train.fg2020 import tune
from train.fg2020_data import Units


def main(argv: list[str] | None = None) -> int:
    """Calibrate, write the checkpoint, print the thresholds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.thresholds", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="registry name or folder of a scene model or an FG-2020 model")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--dataset", help="its name (default: emotic; for faces affwild2_2020)")
    parser.add_argument("--split", help="labelled pictures to calibrate on (default: val; for faces valid)")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="folder of the new checkpoint")
    args = parser.parse_args(argv)
    try:
        model = hub.load(args.checkpoint)
        if isinstance(model, BENet):
            method, names = "benet", _scenes(model, args.dataset or "emotic", args.data, args.split or "val")
        elif isinstance(model, FG2020):
            method, names = "fg2020", _faces(model, args.dataset or "affwild2_2020", args.data, args.split or "valid")
        else:
            raise UserError(f"{args.checkpoint} has no thresholds to search: it is no scene model and no FG-2020 model")
        readme = (hub.find(args.checkpoint) / hub.CARD).read_text(encoding="utf-8")
        hub.save(model, method, args.out, model.card, readme)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, threshold in zip(names, model.config.thresholds):
        print(f"{name:16s} {threshold:.3f}")
    return 0


def _scenes(model: BENet, dataset: str, folder: str, split: str) -> tuple[str, ...]:
    scenes = datasets.reader(dataset).load(folder, split)
    if scenes.vocabulary != model.config.labels:
        raise UserError(f"{dataset} has other emotions than this model")
    calibrate(model, [scenes])
    return model.config.labels


def _faces(model: FG2020, dataset: str, folder: str, split: str) -> tuple[str, ...]:
    options = {"task": "action_units"} if dataset.startswith("affwild2") else {}
    samples = datasets.reader(dataset).load(folder, split, **options)
    if "action_units" not in samples.targets or "action_units" not in model.labels:
        raise UserError(f"{dataset} or this model has no action units")
    tune(model, Units([samples], model.config.input, model.labels, model.config.frames))
    return model.config.action_units


if __name__ == "__main__":
    sys.exit(main())
