"""A checkpoint folder as a repository on a Hub: its model card made complete, its files sent in one commit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from emotion import hub, registry, remote
from emotion.errors import UserError

# The licences that a Hub knows by name, as far as weights and data of this field carry them.
KNOWN = (
    *("afl-3.0", "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "gpl-3.0", "isc", "lgpl-3.0"),
    *("cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-4.0"),
    *("mit", "mpl-2.0", "openrail", "unlicense"),
)
NONE = re.compile(r"\s*$|no licen[cs]e|none|unknown|not stated", re.IGNORECASE)
LIMITS = (
    "Predictions are of expression as labelled by people, not of what somebody feels.\n"
    "Not for medical, hiring, policing or surveillance use."
)


def publish(folder: str | Path, repo: str, private: bool = False, token: str | bool | None = None) -> str:
    """Send a checkpoint folder to a Hub.

    Args:
        folder: the checkpoint; it is loaded first, so a damaged one is not published.
        repo: OWNER/NAME; made if there is none.
        private: only for the owner.
        token: instead of HF_TOKEN or the one stored on logging in.

    Returns:
        The commit's address.

    Raises:
        UserError: no usable checkpoint, no licence, or the Hub refuses.
    """
    files = contents(folder, repo)
    return remote.push(repo, files, "Publish the checkpoint", private=private, token=token)


def contents(folder: str | Path, repo: str) -> dict[str, Path | bytes]:
    """What is published of a checkpoint folder: its configuration, its weights, and the completed model card.

    Raises:
        UserError: no usable checkpoint, or no licence.
    """
    folder = Path(folder)
    document = hub.read_config(folder)
    card = hub.load(folder).card
    if NONE.match(card.licence):
        raise UserError(
            f"{folder} has no licence ({card.licence or 'empty'}), so nobody may use or pass on its weights; "
            f"ask their owners, then write it into {folder / hub.CONFIG}, card, licence"
        )
    try:
        readme = (folder / hub.CARD).read_text(encoding="utf-8") if (folder / hub.CARD).exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / hub.CARD}: {error}") from error
    text = model_card(card, document["method"], readme, repo)
    return {
        hub.CONFIG: folder / hub.CONFIG,
        hub.WEIGHTS: folder / hub.WEIGHTS,
        hub.CARD: text.encode(),
    }


def model_card(card: hub.Card, method: str, readme: str, repo: str = "") -> str:
    """A complete model card: `readme` with its front matter filled in, and what its text does not say yet.

    Args:
        card: what the checkpoint says about itself.
        method: key of `registry.METHODS`.
        readme: the folder's own model card; figures that are in its `model-index` stay.
        repo: where it will be found, OWNER/NAME.

    Raises:
        UserError: the front matter of `readme` is no YAML.
    """
    head, body = split(readme)
    ours = front_matter(card, method)
    tags = head["tags"] if isinstance(head.get("tags"), list) else []
    ours["tags"] = list(dict.fromkeys([*tags, *ours["tags"]]))
    head = {k: v for k, v in head.items() if k != "license_name"} | ours
    if index := head.pop("model-index", None) or model_index(card):
        head["model-index"] = index
    sections = [body.strip() or f"# {card.name}\n\n{_facts(card)}"]
    if "Not for" not in body:
        sections.append(f"## Not for\n\n{LIMITS}")
    if repo and repo not in body:
        sections.append(f'## Use\n\n```python\nimport emotion\n\nmodel = emotion.load("{repo}")\n```')
    citation = _citation(card.name, method)
    if citation and citation not in body:
        sections.append(f"## Citation\n\n{citation}")
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{front}---\n" + "\n\n".join(sections) + "\n"


def front_matter(card: hub.Card, method: str) -> dict[str, Any]:
    """The fields by which a Hub files a model; licences that it does not know by name are "other"."""
    licence = card.licence.strip().lower()
    named: dict[str, Any] = {"license": licence}
    if licence not in KNOWN:
        named = {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", licence).strip("-.")}
    tags = ["emotion-recognition", method, *([] if card.commercial else ["no-commercial-use"])]
    return {**named, "library_name": "emotion", "tags": tags}


def model_index(card: hub.Card) -> list[dict[str, Any]]:
    """The card's own figures, "data set/split/metric" -> value, in the form that a Hub shows as a table."""
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for name, value in card.metrics.items():
        *where, metric = name.split("/", 2)
        rows.setdefault(tuple(where), []).append({"type": metric, "value": value})
    return [{"name": card.name, "results": [_row(where, figures) for where, figures in rows.items()]}] if rows else []


def split(readme: str) -> tuple[dict[str, Any], str]:
    """Front matter and body of a model card.

    Raises:
        UserError: the front matter is no YAML.
    """
    if not readme.startswith("---\n"):
        return {}, readme
    front, _, body = readme[4:].partition("\n---\n")
    try:
        head = yaml.safe_load(front)
    except yaml.YAMLError as error:
        raise UserError(f"the front matter of {hub.CARD} is no YAML: {str(error).splitlines()[0]}") from error
    return head if isinstance(head, dict) else {}, body


def _row(where: tuple[str, ...], figures: list[dict[str, Any]]) -> dict[str, Any]:
    data, split, *_ = (*where, "", "")
    return {
        "task": {"type": "image-classification", "name": "Emotion recognition"},
        "dataset": {"name": data or "not stated", "type": data or "not stated", **({"split": split} if split else {})},
        "metrics": figures,
    }


def _facts(card: hub.Card) -> str:
    rows = {
        "Origin": card.source or "not stated",
        "Licence of the weights": f"{card.licence} (commercial use: {'yes' if card.commercial else 'no'})",
        "Trained on": ", ".join(card.trained_on) or "not stated",
        **{name: f"{value:g}" for name, value in card.metrics.items()},
    }
    return "\n".join(f"- {name}: {value}" for name, value in rows.items())


def _citation(name: str, method: str) -> str:
    """The paper of a known model, or of the first known one of the same method."""
    entries = registry.entries()
    known = [entries[name]] if name in entries else [e for e in entries.values() if e.method == method]
    return known[0].citation if known else ""
