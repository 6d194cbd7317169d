"""A checkpoint folder as a repository on a Hub: its model card made complete, its files sent in one commit."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
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
# What people write where nothing is known: no word at all, a placeholder, or a sentence that says so.
NONE = re.compile(
    r"""^[\W\d_]*\w?\W*$
    |^\W*(n\W?a|nil|nan|null|none|nothing|noassertion|other|missing|tb[acd]|to[ ]?do)\W*$
    |\b(unknown|unlicen[cs]ed|unclear|unspecified|unstated|undefined|undetermined|undecided|undeclared)\b
    |\b(no|without|lacks?|lacking)[ ]((an?|any|the|explicit|known)[ ])*licen[cs]e\b
    |\b(not|never)[ ]((yet|been|be)[ ])*(stated|specified|declared|mentioned|found|decided|determined)\b
    |\b(not|never)[ ]((yet|been|be)[ ])*(given|known|available|applicable|clear|defined|licen[cs]ed|set|sure)\W*$
    |\blicen[cs]e\W+(is[ ])?(missing|pending|absent)\b""",
    re.IGNORECASE | re.VERBOSE,
)
MESSAGE = "Publish the checkpoint"
LIMITS = (
    "Predictions are of expression as labelled by people, not of what somebody feels.\n"
    "Not for medical, hiring, policing or surveillance use."
)


def publish(
    folder: str | Path,
    repo: str,
    private: bool = False,
    token: str | bool | None = None,
    results: str | Path | None = None,
    commit_message: str = MESSAGE,
    branch: str | None = None,
    create_pr: bool = False,
) -> str:
    """Send a checkpoint folder to a Hub.

    Args:
        folder: the checkpoint; it is loaded first, so a damaged one is not published.
        repo: OWNER/NAME; made if there is none.
        private: only for the owner.
        token: instead of HF_TOKEN or the one stored on logging in.
        results: folder of evaluations, as in `contents`.
        commit_message, branch, create_pr: of the commit, see `remote.push`.

    Returns:
        The commit's address.

    Raises:
        UserError: no usable checkpoint, no licence, or the Hub refuses.
    """
    files = contents(folder, repo, results)
    return remote.push(repo, files, commit_message, private=private, token=token, branch=branch, create_pr=create_pr)


def contents(folder: str | Path, repo: str, results: str | Path | None = None) -> dict[str, Path | bytes]:
    """What is published of a checkpoint folder: its configuration, its weights, and the completed model card.

    Args:
        folder: the checkpoint.
        repo: where it will be found, OWNER/NAME.
        results: folder of evaluations, as `python -m eval run` writes them; those of exactly these weights become the
            card's table of figures. Default: the project's own.

    Raises:
        UserError: no usable checkpoint, no licence, or a result that is damaged.
    """
    folder = Path(folder)
    document = hub.read_config(folder)
    card = hub.load(folder).card
    licence = " ".join(card.licence.split())
    if NONE.search(licence):
        raise UserError(
            f"{folder} has no licence ({licence or 'empty'}), so nobody may use or pass on its weights; "
            f"ask their owners, then write it into {folder / hub.CONFIG}, card, licence"
        )
    try:
        readme = (folder / hub.CARD).read_text(encoding="utf-8") if (folder / hub.CARD).exists() else ""
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {folder / hub.CARD}: {error}") from error
    text = model_card(card, document["method"], readme, repo, measured(card, results))
    return {
        hub.CONFIG: folder / hub.CONFIG,
        hub.WEIGHTS: folder / hub.WEIGHTS,
        hub.CARD: text.encode(),
    }


def model_card(card: hub.Card, method: str, readme: str, repo: str = "", results: Sequence[dict[str, Any]] = ()) -> str:
    """A complete model card: `readme` with its front matter filled in, and what its text does not say yet.

    Args:
        card: what the checkpoint says about itself.
        method: key of `registry.METHODS`.
        readme: the folder's own model card; figures that are in its `model-index` stay where `results` has none.
        repo: where it will be found, OWNER/NAME.
        results: rows of its `model-index`, see `measured`.

    Raises:
        UserError: the front matter of `readme` is no YAML.
    """
    head, body = split(readme)
    ours = front_matter(card, method)
    tags = head["tags"] if isinstance(head.get("tags"), list) else []
    ours["tags"] = list(dict.fromkeys([*tags, *ours["tags"]]))
    head = {k: v for k, v in head.items() if k != "license_name"} | ours
    ours_index = [{"name": card.name, "results": list(results)}] if results else []
    if index := ours_index or head.get("model-index") or model_index(card):
        head["model-index"] = index
    sections = [body.strip() or f"# {card.name}\n\n{_facts(card)}"]
    if "Not for" not in body:
        sections.append(f"## Not for\n\n{LIMITS}")
    if repo and repo not in body:
        sections.append(f'## Use\n\n```python\nimport emotion\n\nmodel = emotion.load("{repo}")\n```')
    citation = _citation(card.name, method)
    if citation and citation not in body:
        sections.append(f"## Citation\n\n{citation}")
    return headed(head, "\n\n".join(sections))


def unmeasured(card: hub.Card, readme: str) -> tuple[hub.Card, str]:
    """A card and its text without figures, for a model that was trained further; says so."""
    head, body = split(readme)
    head.pop("model-index", None)
    body = re.sub(r"(?ms)^## Measured$.*?(?=^## |\Z)", "", body).strip()
    note = f"Trained further than `{card.name}`, whose figures do not hold for these weights."
    body = f"{body}\n\n{note}" if body and note not in body else body
    return dataclasses.replace(card, metrics={}), headed(head, body) if readme else readme


def headed(head: dict[str, Any], body: str) -> str:
    """A model card from its front matter and its text."""
    front = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{front}---\n{body}\n"


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


def measured(card: hub.Card, folder: str | Path | None = None) -> list[dict[str, Any]]:
    """Rows of a `model-index` from the evaluations in a folder that were made with exactly these weights.

    Raises:
        UserError: no such folder, or a damaged result in it.
    """
    from eval import cards, results

    folder = results.FOLDER if folder is None else Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder of results at {folder}")
    found, problems = results.read_all([folder])
    if problems:
        raise UserError(problems[0])
    return cards.rows([result for result in found if result.model.sha256 == card.sha256])


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
