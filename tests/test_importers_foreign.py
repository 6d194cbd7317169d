"""Tensors of strange shapes, types and names in originals' files: a network or one message, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from emotion import hub, importers
from emotion.__main__ import main
from emotion.errors import UserError
from emotion.importers import files
from tests.originals import FIXTURES, ORIGINALS, Original, write

State = dict[str, Any]
KINDS = ("ESR-4", "Multitask-CNN-RNN", "fusion lt", "EfficientFace", "BENet, extra data", "EMENet-V",
         "EMENet-V, Transformer", "EMENet-VA", "MobileFaceNet", "MarbleNet")  # fmt: skip
LARGE = 10_000_000  # numbers; networks with more are tried less often


def zeros(original: Original) -> dict[str, Tensor]:
    """Tensors of the published names, shapes and types; step counters moved."""
    rows = json.loads((FIXTURES / original.keys).read_text(encoding="utf-8"))
    return {name: torch.full(shape, int(not shape), dtype=getattr(torch, dtype)) for name, shape, dtype in rows}


BAD = {
    "bias without axis": ("EMENet-V", {"tmodels.0.decoder.bias": torch.tensor(1.0)}),
    "recurrent weights with one axis": ("EMENet-V", {"tmodels.0.rnn.weight_ih_l0": torch.zeros(384)}),
    "decoder without columns": ("EMENet-V", {"tmodels.0.decoder.weight": torch.zeros(7, 0)}),
    "no decoder": ("EMENet-V", {"tmodels.0.decoder.weight": None}),
    "classifier without axis": ("BENet", {"classifier.2.weight": torch.tensor(1.0)}),
    "counter of three": ("BENet", {"bn1.num_batches_tracked": torch.ones(3)}),
    "classes without axis": ("EfficientFace", {"fc.weight": torch.tensor(1.0)}),
    "fusion's classes without axis": ("fusion it", {"classifier_1.0.weight": torch.tensor(1.0)}),
}


@pytest.mark.parametrize(("name", "changes"), BAD.values(), ids=BAD)
def test_the_command_ends_with_one_message(
    name: str, changes: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What shapes make Python raise is told in one line, with the file's name and exit code 2."""
    original = ORIGINALS[name]
    small = {k: v for k, v in zeros(original).items() if v.numel() < 200_000}  # that readers look at are all small
    tensors = {k: v for k, v in (small | changes).items() if v is not None}
    source = write(original, tmp_path / "original", tensors)
    assert main(["import", original.method, str(source), "-o", str(tmp_path / "ours")]) == 2
    text = capsys.readouterr().err.strip()
    assert "\n" not in text and source.name in text and "Error: " in text
    assert [p.name for p in tmp_path.iterdir()] == ["original"]


def test_a_wrong_option_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="layers"):
        importers.read("emenet", tmp_path, layers=3)


def test_more_layers_than_any_network_has_are_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names cost a file nothing; the network that they describe would fill the memory."""
    monkeypatch.setattr(hub.limits, "PARAMETERS", 5_000_000)
    original = ORIGINALS["EMENet-V, Transformer"]
    names = {f"tmodels.0.transformer_encoder.layers.{i}.norm1.bias": torch.zeros(0) for i in range(3000)}
    source = write(original, tmp_path, zeros(original) | names)
    with pytest.raises(UserError, match="it would have more than"):
        importers.convert("emenet", source, tmp_path / "ours")


@pytest.mark.parametrize("kind", [torch.bits8, torch.bits16, torch.float4_e2m1fn_x2, torch.uint16])
def test_types_that_no_operation_knows(kind: torch.dtype, tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4, dtype=torch.uint8).view(kind)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match="a is no plain tensor"):
        files.state_dict(tmp_path / "a.pth")


CHANGES: dict[str, Callable[[State, str], Any]] = {
    "gone": lambda state, k: state.pop(k),
    "no axis": lambda state, k: state.update({k: torch.tensor(3.0)}),
    "one axis": lambda state, k: state.update({k: state[k].flatten()}),
    "one axis more": lambda state, k: state.update({k: state[k][None]}),
    "axes exchanged": lambda state, k: state.update({k: state[k].movedim(0, -1) if state[k].ndim else state[k]}),
    "no rows": lambda state, k: state.update({k: state[k].reshape(-1)[:0]}),
    "no columns": lambda state, k: state.update({k: torch.zeros(*state[k].shape[:1], 0)}),
    "one row more": lambda state, k: state.update({k: torch.zeros(len(state[k]) + 1 if state[k].ndim else 2)}),
    "booleans": lambda state, k: state.update({k: state[k].bool()}),
    "whole numbers": lambda state, k: state.update({k: state[k].int()}),
    "complex": lambda state, k: state.update({k: torch.zeros(2, dtype=torch.complex64)}),
    "bits": lambda state, k: state.update({k: torch.zeros(4, dtype=torch.uint8).view(torch.bits8)}),
    "NaN": lambda state, k: state.update({k: torch.full((2, 2), float("nan"))}),
    "text": lambda state, k: state.update({k: "text"}),
    "nothing": lambda state, k: state.update({k: None}),
    "a list": lambda state, k: state.update({k: [1.0]}),
    "a number as name": lambda state, k: state.update({7: state.pop(k)}),
    "another name": lambda state, k: state.update({f"{k}.extra": state.pop(k)}),
    "another number": lambda state, k: state.update({k.replace("0", "9").replace("1", "8"): state.pop(k)}),
}


@pytest.mark.parametrize("name", KINDS)
def test_whatever_the_tensors_are_there_is_a_network_or_one_message(name: str, tmp_path: Path) -> None:
    """Up to three changes anywhere, more often to the first tensor of every shape: shapes are what readers go by."""
    original, whole = ORIGINALS[name], zeros(ORIGINALS[name])
    first = list({tuple(v.shape): k for k, v in reversed(whole.items())}.values())
    keys = st.one_of(st.sampled_from(first), st.sampled_from(list(whole)))
    changes = st.lists(st.tuples(st.sampled_from(list(CHANGES)), keys), min_size=1, max_size=3)
    source = tmp_path / (original.file or "Net-Base-Shared_Representations.pt").replace(".nemo", ".ckpt")
    source.touch()
    large = sum(v.numel() for v in whole.values()) > LARGE

    @settings(max_examples=5 if large else 20, suppress_health_check=[HealthCheck.too_slow])
    @given(changes)
    def holds(changes: list[tuple[str, str]]) -> None:
        state: State = dict(whole)
        for change, key in changes:
            if isinstance(state.get(key), Tensor):
                CHANGES[change](state, key)
        networks, message = [], ""

        def save(model: Any, method: str, folder: Path, card: hub.Card, readme: str) -> hub.Card:
            networks.append(model)
            return card

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "load_pickle", _instead(original, state, tmp_path))
            patch.setattr(hub, "save", save)
            try:
                importers.convert(original.method, source, tmp_path / "ours", **original.options)
            except UserError as error:
                message = str(error)
        assert bool(message) != bool(networks) and len(message) < 800
        assert all(v.isfinite().all() for network in networks for v in network.state_dict().values())

    holds()


def _instead(original: Original, state: State, folder: Path) -> Callable[..., Any]:
    """`load_pickle` for a file that would hold this state; ESR's lie in several."""
    if original.method != "esr":
        return lambda file, where="": {"state_dict": state} if original.wrapped else state
    parts: dict[str, State] = {}
    for key, value in state.items():
        part, _, rest = str(key).partition(".")
        branch = f"Net-Branch_{part.removeprefix('branch_')}.pt"
        name = "Net-Base-Shared_Representations.pt" if part == "base" else branch
        parts.setdefault(name, {})[rest or key] = value
    for name in parts:
        (folder / name).touch()
    return lambda file, where="": parts[Path(file).name]
