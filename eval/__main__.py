"""Command line: `python -m eval run | score | compare | datasets | leaderboard | card | ood | bench`.

Exit codes: 0 done, 2 something the user can mend (told on stderr), 130 stopped by Ctrl-C.
A command's module is imported when it is called: `leaderboard` must not wait for torch.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from emotion.cli.console import call
from eval import results
from eval.tracks import FORMATS, TRACKS

PROGRAM = "python -m eval"


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    args = _parser().parse_args(argv)
    return call(args.run, args, "stopped; `run` goes on where it was when called again")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Measure models and compare them.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: str, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text}.", allow_abbrev=False)
        sub.set_defaults(run=f"eval.{run}")
        return sub

    sub = command("run", "commands:run", "run a model over a data set: predictions and a result file")
    sub.add_argument("--model", required=True, metavar="NAME|FOLDER")
    _data(sub)
    _published(sub)
    text = "BENet: also ask the person, background and fusion heads, for their figures and those of means of heads"
    sub.add_argument("--heads", action="store_true", help=text)
    _dropout(sub)
    sub.add_argument("--batch", type=_positive, default=32, help="faces per forward pass; default: %(default)s")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, mps ...; default: %(default)s")
    sub.add_argument("--quiet", action="store_true", help="no progress bar")

    sub = command("score", "commands:score", "score predictions that another tool made")
    sub.add_argument(
        "--predictions", required=True, type=Path, metavar="FILE", help=".csv, .parquet, .npz; scenes .json"
    )
    sub.add_argument("--name", default="", help="what to call the model; default: the file's name")
    _data(sub)
    _published(sub)

    sub = command("compare", "commands:compare", "test the difference of two models on the same samples")
    sub.add_argument("a", metavar="A", help="model that was run, or predictions file")
    sub.add_argument("b", metavar="B")
    _data(sub)

    sub = command("datasets", "commands:list_datasets", "known data sets: origin, terms, layout, synthetic copies")
    sub.add_argument("dataset", nargs="?", metavar="NAME", help="one of them in full")
    sub.add_argument("--fake", type=Path, metavar="DIR", help="write a small synthetic copy")
    sub.add_argument("--data", type=Path, metavar="DIR", help="print the sample ids found there")
    sub.add_argument("--split", default="test", help="default: %(default)s")
    sub.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="argument of the reader")

    sub = command("leaderboard", "leaderboard:run", "all results and published figures as tables")
    sub.add_argument("--track", choices=TRACKS, help="one of the tables only")
    sub.add_argument("--format", choices=FORMATS, default="table", help="default: %(default)s")
    sub.add_argument("--out", type=Path, metavar="DIR", help="write a file there instead of printing")
    sub.add_argument("--results", type=Path, action="append", default=[], metavar="DIR", help="further result files")
    sub.add_argument("--strict", action="store_true", help="exit code 2 if a result file is broken")

    sub = command("card", "cards:run", "write a checkpoint's results into its model card, or read them back")
    sub.add_argument("model", metavar="NAME|FOLDER")
    sub.add_argument("--read", action="store_true", help="print what the card says")
    sub.add_argument("--results", type=Path, action="append", default=[], metavar="DIR", help="further result files")

    sub = command(
        "ood", "ood:run", "does a face model doubt what is no face? folders of face crops and of other pictures"
    )
    sub.add_argument("--model", required=True, metavar="NAME|FOLDER")
    sub.add_argument("--faces", required=True, type=Path, metavar="DIR", help="face crops")
    sub.add_argument(
        "--others", required=True, type=Path, metavar="DIR", help="pictures of anything else, read as crops"
    )
    _dropout(sub)
    sub.add_argument("--device", default="cpu", help="cpu, cuda, mps ...; default: %(default)s")
    sub.add_argument("-o", "--out", required=True, type=Path, metavar="DIR", help="where figures and drawing go")

    sub = command("bench", "bench:run", "speed and size of models on this machine")
    sub.add_argument("models", nargs="*", metavar="NAME|FOLDER", help="default: every registered one")
    sub.add_argument("--seconds", type=float, default=2.0, help="time per figure; default: %(default)s")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, mps ...; default: %(default)s")
    text = "wall time, or processor time of one thread, for a machine that does other things too; default: %(default)s"
    sub.add_argument("--clock", choices=("wall", "cpu"), default="wall", help=text)
    sub.add_argument("--out", type=Path, default=results.FOLDER / "speed", metavar="DIR", help="default: %(default)s")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _data(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dataset", required=True, metavar="NAME", help=f"see `{PROGRAM} datasets`")
    sub.add_argument("--data", required=True, type=Path, metavar="DIR", help="the data set's folder")
    sub.add_argument("--split", default="test", help="default: %(default)s")
    sub.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="argument of the reader")
    sub.add_argument("--out", type=Path, default=results.FOLDER, metavar="DIR", help="where results are kept")


def _dropout(sub: argparse.ArgumentParser) -> None:
    text = "EMENet: read every face so often with dropout on (Monte Carlo dropout); the baseline of an ensemble"
    sub.add_argument("--mc-dropout", type=int, default=0, metavar="PASSES", help=text)


def _published(sub: argparse.ArgumentParser) -> None:
    text = "scenes: detect and match people as BENet's original does, faults included"
    sub.add_argument("--published", action="store_true", help=text)
    text = "scenes: write BENet's score file there, all figures of its original's evaluation"
    sub.add_argument("--scores", type=Path, metavar="FILE", help=text)


if __name__ == "__main__":
    raise SystemExit(main())
