"""`python -m train.thresholds CHECKPOINT --data DIR -o OUT`: thresholds per emotion from labelled scenes.

From its threshold on, an emotion counts as present; the one with the highest F1 on validation is stored. Imported
checkpoints have 0.5 for every emotion, which calls frequent ones present in everybody.
"""

from __future__ import annotations

import argparse
import sys

from emotion import datasets, hub
from emotion.errors import UserError
from emotion.models.benet import BENet
from train.benet import calibrate


def main(argv: list[str] | None = None) -> int:
    """Calibrate, write the checkpoint, print the thresholds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m train.thresholds", description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="registry name or folder of a scene model")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--dataset", default="emotic", help="its name (default: emotic)")
    parser.add_argument("--split", default="val", help="labelled scenes to calibrate on (default: val)")
    parser.add_argument("-o", "--out", required=True, metavar="DIR", help="folder of the new checkpoint")
    args = parser.parse_args(argv)
    try:
        model = hub.load(args.checkpoint)
        if not isinstance(model, BENet):
            raise UserError(f"{args.checkpoint} is no scene model")
        scenes = datasets.reader(args.dataset).load(args.data, args.split)
        if scenes.vocabulary != model.config.labels:
            raise UserError(f"{args.dataset} has other emotions than {args.checkpoint}")
        calibrate(model, [scenes])
        readme = (hub.find(args.checkpoint) / hub.CARD).read_text(encoding="utf-8")
        hub.save(model, "benet", args.out, model.card, readme)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for name, threshold in zip(model.config.labels, model.config.thresholds):
        print(f"{name:16s} {threshold:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
