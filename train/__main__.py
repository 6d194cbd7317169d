"""`python -m train RECIPE --data DIR`: train a checkpoint; `python -m train --list` shows the recipes.

`python -m train balance DATASET DIR` shows how labels are distributed, see `train.balance`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from emotion import hub
from emotion.errors import UserError
from train import curves, loop
from train import recipe as recipes
from train.recipe import Recipe


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code (0 done, 2 something the user can mend, 130 interrupted)."""
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="?", help="name of a recipe, or path of a YAML file")
    parser.add_argument("--data", action="append", default=[], metavar="[NAME=]DIR", help="folder of a data set")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/RECIPE); an unfinished run goes on")
    parser.add_argument(
        "--init", help="checkpoint to start from (registry name or folder; some recipes: several, with commas)"
    )
    parser.add_argument("--teacher", metavar="CHECKPOINT", help="whom students learn from (recipes with distill: true)")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--smoke", action="store_true", help="one epoch per stage on synthetic data: does it run?")
    parser.add_argument("--list", action="store_true", help="show the recipes")
    argv = sys.argv[1:] if argv is None else argv
    try:
        if argv[:1] == ["balance"]:
            return importlib.import_module("train.balance").main(argv[1:])
        args = parser.parse_args(argv)
        if args.list or not args.recipe:
            for name in recipes.names():
                print(f"{name:24s} {recipes.load(name).about}")
            return 0
        folder = run(args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last finished epoch", file=sys.stderr)
        return 130
    print(f"checkpoint: {folder}")
    return 0


def run(args: argparse.Namespace) -> Path:
    """Train as the arguments say and write the checkpoint; returns its folder."""
    recipe = recipes.load(args.recipe)
    students = bool(recipe.rest.get("distill"))
    if args.teacher and not students:
        wanted = ", ".join(n for n in recipes.names() if recipes.load(n).rest.get("distill"))
        raise UserError(f"{args.recipe} learns from labels alone, without --teacher; students are trained by {wanted}")
    if students and not (args.teacher or args.smoke):
        raise UserError(f"{args.recipe} trains students: say whom they learn from with --teacher CHECKPOINT")
    if args.seed is not None:
        recipe = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, seed=args.seed))
    out = args.out or Path("runs") / (Path(args.recipe).stem + ("-smoke" if args.smoke else ""))
    if args.smoke:
        recipe = smoke(recipe)
        folders = recipes.fake_folders(recipe)
    else:
        folders = recipes.data_folders(recipe, args.data)
    method = _method(recipe)
    start = _untrained(recipe, folders, out / "start") if args.smoke else None
    if students:
        trainee = method.build(recipe, folders, args.init, args.teacher or start)
    else:
        trainee = method.build(recipe, folders, args.init or start)
    history = loop.fit(trainee, out, recipe.settings)
    curves.plot(history).savefig(out / "curves.svg")
    card, text = method.report(trainee, recipe, _command(args))
    hub.save(trainee.model, recipe.method, out / recipe.name, card, text, half=True)
    return out / recipe.name


def smoke(recipe: Recipe) -> Recipe:
    """The recipe shortened to its first two stages of one epoch each, of few composed scenes, without compilation."""
    rest: dict[str, Any] = dict(recipe.rest)
    rest["stages"] = [dict(stage, epochs=1) for stage in rest["stages"][:2]]
    if "compose" in rest:
        rest["compose"] = dict(rest["compose"], length=32, valid=8)
    return dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, compile=False), rest=rest)


def _untrained(recipe: Recipe, folders: dict[str, Path], folder: Path) -> str | None:
    """For a smoke run of a recipe that needs a teacher or a start: an untrained checkpoint of the same network."""
    rest = {k: v for k, v in recipe.rest.items() if k not in ("distill", "fine_tune")}
    if rest == recipe.rest:
        return None
    model = _method(recipe).build(dataclasses.replace(recipe, rest=rest), folders, None).model
    hub.save(model, recipe.method, folder, hub.Card(recipe.name, recipe.licence, recipe.commercial), "")
    return str(folder)


def _method(recipe: Recipe) -> ModuleType:
    try:
        return importlib.import_module(f"train.{recipe.method}")
    except ModuleNotFoundError as error:
        raise UserError(f"there is no training code for method {recipe.method!r}") from error


def _command(args: argparse.Namespace) -> str:
    """The command that reproduces the run, with folder names left out."""
    data = " ".join(f"--data {d.split('=')[0] + '=' if '=' in d else ''}DIR" for d in args.data)
    extra = "".join(f" --{name} CHECKPOINT" for name in ("init", "teacher") if getattr(args, name))
    extra += f" --seed {args.seed}" if args.seed is not None else ""
    return f"python -m train {args.recipe} {data}{extra}".strip()


if __name__ == "__main__":
    raise SystemExit(main())
