"""Results in a model card: the `model-index` of a checkpoint's README.md, which the Hub shows as a table."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import yaml

from emotion.cli.console import show, table
from emotion.errors import UserError
from eval import results
from eval.results import Figure, Result

TASKS = {  # ours -> the Hub's names
    "expression": ("image-classification", "Facial expression recognition"),
    "valence_arousal": ("image-classification", "Valence and arousal"),
    "action_units": ("image-classification", "Facial action unit detection"),
    "audiovisual": ("audio-classification", "Audiovisual expression recognition"),
    "emotions": ("image-classification", "Emotion recognition in context"),
    "detection": ("object-detection", "Person detection"),
}
CARD = "README.md"


def run(args: argparse.Namespace) -> int:
    """`card`: write the results of a checkpoint's weights into its model card, or print those that it has."""
    from emotion import hub

    folder = hub.find(args.model)
    if args.read:
        shown = table("task", "data set", "split", "protocol", "figure", "value")
        for key, value in read(folder / CARD).items():
            shown.add_row(*key, f"{value:.4f}")
        show(shown)
        return 0
    digest = hub.load(args.model).card.sha256
    found, _ = results.read_all([results.FOLDER, *args.results])
    mine = [r for r in found if r.model.sha256 == digest]
    if not mine:
        raise UserError(f"no result is of these weights (sha256 {digest[:12]}...); make one: python -m eval run")
    write(folder / CARD, mine)
    show(f"{len(mine)} results written to {folder / CARD}")
    return 0


def model_index(found: list[Result]) -> list[dict[str, Any]]:
    """The results of one model in the Hub's form."""
    return [{"name": found[0].model.name, "results": rows(found)}]


def rows(found: list[Result]) -> list[dict[str, Any]]:
    """One row of a `model-index` per result and task; `dataset.config` is the protocol."""
    out = []
    for result in found:
        data = result.data
        dataset = {"name": data.name, "type": data.name, "config": data.protocol, "split": data.split}
        for task, measured in result.tasks.items():
            kind, title = TASKS[task]
            metrics = [_metric(name, figure, data.protocol) for name, figure in measured.metrics.items()]
            out.append({"task": {"type": kind, "name": title}, "dataset": dict(dataset), "metrics": metrics})
    return out


def _metric(name: str, figure: Figure, protocol: str) -> dict[str, Any]:
    """A figure; the Hub shows its `name`."""
    row = {"type": name, "value": round(figure.value, 6), "name": f"{name} ({protocol})"}
    limits = None not in (figure.low, figure.high) and [round(figure.low, 6), round(figure.high, 6)]
    return row | ({"args": {"interval95": limits}} if limits else {})


def write(path: Path, found: list[Result]) -> None:
    """Put the results into a card's front matter; everything else stays as it is.

    Raises:
        UserError: the card cannot be read, or its front matter is no YAML.
    """
    head, body = _parts(path)
    head["model-index"] = model_index(found)
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=120)
    results.replace_file(path, f"---\n{front}---\n{body}".encode())


def read(path: Path) -> dict[tuple[str, str, str, str, str], float]:
    """A card's figures: (task, data set, split, protocol, metric) -> value.

    Raises:
        UserError: the card cannot be read, or holds no such table.
    """
    head, _ = _parts(path)
    try:
        return {
            _key(row["task"], row["dataset"], metric): float(metric["value"])
            for model in head["model-index"]
            for row in model["results"]
            for metric in row["metrics"]
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} has no model-index of the usual form ({error!r})") from error


def _key(task: dict[str, Any], data: dict[str, Any], metric: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """What a figure is of. Cards without `config` have the protocol behind the figure's name, in brackets."""
    name = metric["type"]
    said = metric.get("name", "").removeprefix(name).strip().removeprefix("(").removesuffix(")")
    return task.get("name", task["type"]), data["type"], data.get("split", ""), data.get("config", said), name


def _parts(path: Path) -> tuple[dict[str, Any], str]:
    """Front matter and body of a card."""
    try:
        text = path.read_text(encoding="utf-8")
        if not text.startswith("---\n"):
            return {}, text
        front, _, body = text[4:].partition("\n---\n")
        head = yaml.safe_load(front) or {}
        if not isinstance(head, dict):
            raise UserError(f"{path}: the front matter is no table of fields")
        return head, body
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
