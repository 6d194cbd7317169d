"""Configs that strangers wrote: whatever numbers stand in them, one clear message, before memory is taken."""

from __future__ import annotations

import copy
import dataclasses
import json
import resource
import threading
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from emotion import hub
from emotion.errors import UserError
from emotion.hub import limits
from emotion.models import avfusion, benet, efficientface, emenet, esr, marblenet, mobilefacenet
from emotion.models.base import ClipInput, VectorInput
from emotion.models.fg2020 import fg2020
from tests.tiny import tiny_fg2020

MEGABYTES = 900  # that refusing a config may take: limits.PARAMETERS, and a little
CONFIGS = {
    "esr": esr.esr9(),
    "fg2020": tiny_fg2020().config,
    "benet": benet.benet_small(),
    "emenet": emenet.emenet_va(),
    "mobilefacenet": mobilefacenet.MobileFaceNetConfig(landmarks=68),
    "marblenet": marblenet.MarbleNetConfig(),
    "efficientface": efficientface.EfficientFaceConfig(),
    "avfusion": avfusion.AVFusionConfig(ClipInput(VectorInput(("a", "b")), frames=2)),
}
NAN, MANY = float("nan"), 10**9


def plain(method: str) -> dict[str, Any]:
    """The config as it is read from JSON."""
    return json.loads(json.dumps(dataclasses.asdict(CONFIGS[method])))


def places(fields: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    """Every value of plain fields with its path; of lists the first element."""
    if isinstance(fields, dict):
        return [p for key, value in fields.items() for p in places(value, (*path, key))]
    if isinstance(fields, list):
        return [(path, fields), *(places(fields[0], (*path, 0)) if fields else [])]
    return [(path, fields)]


def changed(fields: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    out = copy.deepcopy(fields)
    place = out
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return out


def refusal(method: str, fields: Any) -> str:
    """The message that a config is refused with, which must take no memory; "" where a network is built."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = ""
    try:
        hub.build(method, fields)
    except UserError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 500
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < MEGABYTES, f"{grown:.0f} MB for {fields}"
    return message


NUMBERS = [
    (method, path)
    for method in CONFIGS
    for path, value in places(plain(method))
    if isinstance(value, (int, float)) and not isinstance(value, bool)
]
# These make no network larger, or belong to parts that these networks have not.
HUGE_IS_FINE = {
    "margin",
    "shift",
    "scale",
    "mean",
    "std",
    "temperature",
    "person_threshold",
    "thresholds",
    "attention",
    "dropout",
}


@pytest.mark.parametrize(("method", "path"), NUMBERS, ids=lambda v: v if isinstance(v, str) else ".".join(map(str, v)))
def test_senseless_numbers(method: str, path: tuple[str | int, ...]) -> None:
    fields = plain(method)
    for value in (NAN, float("inf"), "many", [[1]], {"a": 1}, None):
        assert refusal(method, changed(fields, path, value)), value
    huge = [refusal(method, changed(fields, path, value)) for value in (MANY, 10**30)]
    if not HUGE_IS_FINE & set(path):
        assert all(huge)


@pytest.mark.parametrize("method", CONFIGS)
def test_senseless_shapes(method: str) -> None:
    fields = plain(method)
    for whole in ([], "config", None, 3, [fields], {}):
        message = refusal(method, whole)
        assert message or whole == {}
    for path, value in places(fields):
        if isinstance(value, list):
            assert refusal(method, changed(fields, path, [[[[1]]]])), path
    for deep in (json.loads("[" * 500 + "]" * 500), json.loads('{"a":' * 500 + "1" + "}" * 500)):
        assert refusal(method, fields | {"labels" if "labels" in fields else "members": deep})


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("esr", {"branches": 3_000_000}),
        ("esr", {"branches": -1}),
        ("esr", {"base": [{"out": 100_000}, {"out": 100_000}]}),
        ("esr", {"base": [{"out": -64}]}),
        ("esr", {"base": [{"out": 1}] * 100_000}),
        ("esr", {"base": [{"out": 64, "padding": MANY}]}),
        ("esr", {"base": [{"out": 64, "kernel": 97}]}),
        ("fg2020", {"members": [str(i) for i in range(100_000)]}),
        ("fg2020", {"backbone": "hf_hub:somebody/anything"}),
        ("fg2020", {"embedding": -8}),
        ("benet", {"blocks": MANY}),
        ("benet", {"modules": [1, MANY, 1]}),
        ("emenet", {"members": MANY}),
        ("emenet", {"layers": MANY}),
        ("emenet", {"temporal": "transformer", "attention": 0}),
        ("avfusion", {"heads": 0}),
    ],
    ids=str,
)
def test_networks_too_large_or_none_at_all(method: str, changes: dict[str, Any]) -> None:
    assert f"{method} " in refusal(method, plain(method) | changes)


def test_checkpoints_are_refused_before_their_weights_are_read(tmp_path: Path) -> None:
    card = dataclasses.asdict(hub.Card("esr.test", "MIT", True))
    document = {"schema": hub.SCHEMA, "method": "esr", "config": plain("esr") | {"branches": MANY}, "card": card}
    for method in ("esr", ["esr"], {"esr": 1}, None):
        (tmp_path / hub.CONFIG).write_text(json.dumps(document | {"method": method}))
        with pytest.raises(UserError, match=r"method|tensors"):
            hub.load(tmp_path)
    for text in ('{"a":' * 100_000, json.dumps(document)[:-1] + ', "config": ' + "9" * 10_000 + "}"):
        (tmp_path / hub.CONFIG).write_text(text)
        with pytest.raises(UserError, match="cannot read"):
            hub.load(tmp_path)


def test_limits_count_one_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PARAMETERS", 100)
    with limits.limited():
        elsewhere = threading.Thread(target=lambda: built.append(nn.Linear(50, 50)))
        built: list[nn.Module] = []
        elsewhere.start()
        elsewhere.join()
        nn.Linear(9, 9)
        with pytest.raises(ValueError, match="more than 100 parameters"):
            nn.Linear(9, 9)
    assert built and nn.Linear(50, 50).weight.numel() == 2500


def test_what_is_published_fits_the_limits() -> None:
    for config in (fg2020(members=tuple("abcde"), frames=32), fg2020("sfew", frames=16)):
        assert sum(p.numel() for p in hub.build("fg2020", dataclasses.asdict(config)).parameters()) > 2e7
