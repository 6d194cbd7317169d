"""Command line: `python -m emotion analyze | webcam | crops | models | info | import ...`.

Exit codes: 0 done (also when no face was found), 2 something the user can mend (told on stderr), 130 stopped by Ctrl-C.
A command's module is imported when it is called, so that `models` and `--help` answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from emotion import __version__, registry
from emotion.cli.console import PROGRAM, call


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    parser = _parser()
    args, args.rest = parser.parse_known_args(argv)
    if args.rest and args.command != "import":
        parser.error(f"unknown option {args.rest[0]}; `{PROGRAM} {args.command} --help` lists them")
    return call(args.run, args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Expressions of faces in pictures.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"emotion {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: str, text: str, more: str = "") -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text}.", epilog=more, allow_abbrev=False)
        sub.set_defaults(run=f"emotion.cli.{run}")
        return sub

    _predictions(command)
    _scenes(command)
    _data(command)
    _checkpoints(command)
    return parser


def _predictions(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Commands that read faces."""
    text = "find every face in pictures and videos and predict its expression"
    more = (
        "A file that cannot be read is reported, the rest goes on, and the exit code is 2. Ctrl-C cuts a video short."
    )
    sub = command("analyze", "analyze:run", text, more)
    text = (
        "picture, video, folder (and its sub-folders) or pattern; for models of voice and face videos and sound files"
    )
    sub.add_argument("paths", nargs="+", metavar="PATH", help=text)
    sub.add_argument("--model", default=registry.DEFAULT, metavar="NAME|FOLDER", help="default: %(default)s")
    text = "write .json, .csv and an annotated .png here; for videos an .mp4, a summary, subtitles and curves"
    sub.add_argument("-o", "--output", type=Path, metavar="DIR", help=text)
    _face_options(sub)
    sub.add_argument("--json", action="store_true", help="print one JSON document per file, each on one line")
    formats = ("parquet", "esr", "abaw", "fg2020")  # as exports.FORMATS
    text = "with -o, also write this format (esr: the original's 31 columns); may be given repeatedly"
    sub.add_argument("--export", action="append", choices=formats, default=[], help=text)
    text = (
        "draw beside the picture or film what every branch says of the biggest face, and valence and arousal as curves"
    )
    sub.add_argument("--details", action="store_true", help=text)
    text = "for videos also a film of the biggest face with bars of action units and expressions, and affect over time"
    sub.add_argument("--dashboard", action="store_true", help=text)
    _video_options(sub)
    _scene_options(sub)
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")

    text = "show the faces of a camera with their expressions in a window"
    more = (
        "q or Escape closes the window, Ctrl-C ends as well. Where no window can be opened, use the page's webcam tab."
    )
    sub = command("webcam", "webcam:run", text, more)
    sub.add_argument("--camera", type=int, default=0, metavar="N", help="which camera; default: %(default)s")
    sub.add_argument("--model", default=registry.DEFAULT, metavar="NAME|FOLDER", help="default: %(default)s")
    text = "record here: the film as shown, and the same files as for videos"
    sub.add_argument("-o", "--output", type=Path, metavar="DIR", help=text)
    _face_options(sub)
    sub.add_argument("--export", action="append", choices=formats, default=[], help="with -o, as for analyze")
    sub.add_argument("--details", action="store_true", help="also show what every branch says, and curves")
    text = "frames to read: at most a number per second, F/30 (the original ESR's rule) or all; default: %(default)s"
    sub.add_argument("--fps", default="all", metavar="N|F/30|all", help=text)
    text = "search every N-th frame for faces; between them boxes move on evenly; default: %(default)s"
    sub.add_argument("--detect-every", type=int, default=3, metavar="N", help=text)
    text = "smooth what is shown with this time constant; recorded numbers are not smoothed; default: %(default)s"
    sub.add_argument("--smooth", type=float, default=0.3, metavar="SECONDS", help=text)
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")

    text = "show where in every face of a picture a model looked, branch by branch (Grad-CAM)"
    sub = command("gradcam", "gradcam:run", text, "Writes PICTURE_faceN_gradcam.png, the largest face first.")
    sub.add_argument("picture", type=Path, metavar="PICTURE")
    sub.add_argument("--model", default=registry.DEFAULT, metavar="NAME|FOLDER", help="default: %(default)s")
    sub.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="default: the current folder")
    _face_options(sub)
    sub.add_argument("--original", action="store_true", help="colours and blending of the original ESR framework")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")

    text = "draw bars of prediction and uncertainty for every face of a picture, and its landmarks"
    more = "Writes PICTURE_faceN_figure.png, the largest face first, and for landmarks PICTURE_landmarks.png and .csv."
    sub = command("figure", "figure:run", text, more)
    sub.add_argument("picture", type=Path, metavar="PICTURE")
    sub.add_argument("--model", default=registry.DEFAULT, metavar="NAME|FOLDER", help="default: %(default)s")
    sub.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="default: the current folder")
    _face_options(sub)
    text = "EMENet: read every face this many times with dropout on, for an uncertainty of one network alone"
    sub.add_argument("--mc-dropout", type=int, default=0, metavar="PASSES", help=text)
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")

    text = "read a folder of face crops, one person's frames in order"
    more = "fg2020: prediction files per member and task; api: one CSV of decisions, as the FG-2020 system writes them."
    sub = command("crops", "crops:run", text, more)
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="pictures of one face each, numbered")
    sub.add_argument("--model", action="append", required=True, metavar="NAME|FOLDER", help="may be given repeatedly")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the files go")
    sub.add_argument("--format", choices=("csv", "json", "fg2020", "api"), default="csv", help="default: %(default)s")
    sub.add_argument("--fps", type=float, default=30.0, help="frames per second; default: %(default)s")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")


def _scenes(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Commands that read whole scenes."""
    text = "show where in a picture a scene model sees people and emotions"
    more = "Writes NAME_maps.png (range 0, black, to 1, white) and NAME_maps.npz (size, labels, maps, heatmap)."
    sub = command("maps", "maps:run", text, more)
    sub.add_argument("picture", type=Path, metavar="PICTURE")
    sub.add_argument("--emotions", nargs="+", metavar="NAME", help="Happiness Peace ...; default: all of the model's")
    sub.add_argument("--model", required=True, metavar="NAME|FOLDER", help="a scene model: BENet")
    sub.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="default: the current folder")
    sub.add_argument("--colour", action="store_true", help="maps in colours over the picture")
    _scene_options(sub, people=False)
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")


def _scene_options(sub: argparse.ArgumentParser, people: bool = True) -> None:
    """How a scene model reads a picture, and (`people`) finds people and tells their emotions."""
    group = sub.add_argument_group("scene models (BENet)")
    group.add_argument("--flip", action="store_true", help="average with the mirrored picture: twice the time")
    group.add_argument(
        "--size", type=int, metavar="PIXELS", help="working size, a multiple of 32; default: the model's"
    )
    text = "compute what the original computes, faults included: whole-number boxes, at most 15 people"
    group.add_argument("--published", action="store_true", help=text)
    if not people:
        return
    text = "from this probability on every emotion counts as present; default: the checkpoint's, one per emotion"
    group.add_argument("--threshold", type=float, metavar="P", help=text)
    text = "value of the heatmap above which there is a person; default: the checkpoint's"
    group.add_argument("--person-threshold", type=float, metavar="P", help=text)
    text = "at most so many in a picture, the strongest; default: 300, with --published 15"
    group.add_argument("--people", type=int, metavar="N", help=text)
    text = "a person is where the heatmap is highest within so many pixels of the network's input; odd, default: 5"
    group.add_argument("--window", type=int, metavar="PIXELS", help=text)


def _face_options(sub: argparse.ArgumentParser) -> None:
    """Which faces are found, and which of them are read."""
    which = ("all", "largest", "closest-to-centre")  # as faces.SELECTIONS
    sub.add_argument("--faces", choices=which, default="all", help="default: %(default)s")
    text = "mtcnn (default), haar, dlib, or as the original ESR esr-optimised, esr-standard, esr-haar; with =FILE a "
    sub.add_argument("--detector", metavar="NAME[=FILE]", help=text + "cascade, or the file of dlib's CNN")


def _video_options(sub: argparse.ArgumentParser) -> None:
    text = "frames of a video: a number per second, all, or F/30 (the original ESR's rule); default: 10, or all for "
    text += "recurrent models; models of voice and face: decisions per second, or faithful (the original's rule)"
    sub.add_argument("--fps", metavar="N|F/30|all", help=text)
    text = "search every N-th of these frames for faces; between them boxes move on evenly; default: %(default)s"
    sub.add_argument("--detect-every", type=int, default=1, metavar="N", help=text)
    text = "smooth the numbers of videos with this time constant; default: 0, not at all"
    sub.add_argument("--smooth", type=float, default=0.0, metavar="SECONDS", help=text)


def _data(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Commands that make files out of data sets and films."""
    text = "cut the faces (and voices) of a data set out, once, for training and evaluation"
    more = "A run that was stopped goes on when the same command is given again."
    sub = command("prepare", "prepare:run", text, more)
    sets = ("ravdess", "clips", "affectnet", "ckplus")
    sub.add_argument("set", choices=sets, help="clips: your own, from a CSV table (file, label, ...)")
    sub.add_argument("source", type=Path, metavar="SOURCE", help="folder or zip archive of the set, or the table")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the prepared folder")
    text = "prepare clips for this model; default: as the original does"
    sub.add_argument("--model", metavar="NAME|FOLDER", help=text)
    text = "of affectnet; may be given repeatedly; default: all that are there"
    sub.add_argument("--split", action="append", choices=("train", "valid", "automatic"), help=text)
    text = "of ckplus, haar as in the paper; default: %(default)s"
    sub.add_argument("--detector", choices=("mtcnn", "haar", "dlib"), default="mtcnn", help=text)

    text = "cut the aligned face out of every frame of videos, or of folders of frames"
    more = "For every film a folder of numbered pictures and keypoints.csv; films that have theirs are left out."
    sub = command("align", "align:run", text, more)
    sub.add_argument("source", type=Path, metavar="PATH", help="a video, or a folder with videos or frames")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the folders go")
    sub.add_argument("--size", type=int, default=112, help="side of the faces in pixels; default: %(default)s")
    text = "eyes and mouth in a square (FG-2020's script) or OpenFace's (its API); default: %(default)s"
    sub.add_argument("--crop", choices=("five_point", "openface"), default="five_point", help=text)
    sub.add_argument("--no-rotation", action="store_true", help="leave the eyes as they are; with five_point")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")

    text = "make tables, sound files and challenge submissions from the Aff-Wild2 data set (ABAW 2)"
    more = "annotations: one CSV and plot per task; test-list: one CSV per task; sound: WAV files; predict: submission."
    sub = command("affwild2", "affwild2:run", text, more)
    sub.add_argument("what", choices=("annotations", "test-list", "sound", "predict"))
    sub.add_argument("source", type=Path, metavar="FOLDER", help="the data set")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the files go")
    tasks = ("expression", "action_units", "valence_arousal")
    sub.add_argument("--task", action="append", choices=tasks, help="may be given repeatedly; default: all")
    sub.add_argument("--model", default="emenet_v.affwild2", metavar="NAME|FOLDER", help="default: %(default)s")
    sub.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps ...; default: %(default)s")


def _checkpoints(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Commands about models."""
    sub = command("models", "models:run", "list the known models")
    sub.add_argument("--method", help="only models of this method")
    sub.add_argument("--task", help="only models that predict this, for example valence_arousal")
    sub.add_argument("--json", action="store_true", help="print every field as JSON")

    sub = command("info", "models:run_info", "show a model's card: licence, training data, figures, size")
    sub.add_argument("model", metavar="NAME|FOLDER")

    text = "turn original checkpoint files into a checkpoint folder"
    more = "Further options belong to the method, as --name value; an unknown one lists them."
    sub = command("import", "importing:run", text, more)
    sub.add_argument("method", metavar="METHOD", help=", ".join(registry.METHODS))
    sub.add_argument("source", type=Path, metavar="SOURCE", help="file, folder or archive as its authors published it")
    sub.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="the new checkpoint's folder")

    text = "send a checkpoint folder to a Hub, with a complete model card"
    more = "You must be logged in (`hf auth login`, or HF_TOKEN). A checkpoint without a licence is refused."
    sub = command("publish", "publishing:run", text, more)
    sub.add_argument("folder", type=Path, metavar="FOLDER", help="the checkpoint's folder")
    sub.add_argument("repo", metavar="OWNER/NAME", help="where to; made if there is none")
    sub.add_argument("--private", action="store_true", help="for nobody else to see")
    figures = "take the model card's figures from here: JSON files of `python -m eval run`; default: the project's own"
    sub.add_argument("--results", type=Path, metavar="FOLDER", help=figures)
    sub.add_argument("--dry-run", action="store_true", help="print what would be sent, and contact nobody")


if __name__ == "__main__":
    sys.exit(main())
