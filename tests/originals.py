"""Files as the authors of the five systems publish them, with the names and shapes of the parity fixtures.

`python -m tests.originals` writes docs/importers.md: what every importer reads, leaves out and agrees with.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import tarfile
import tempfile
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.parity import common

FIXTURES = Path(__file__).parent / "parity" / "fixtures"


@dataclass(frozen=True)
class Original:
    """One published kind of file.

    Attributes:
        method: its importer; `keys` its tensors, as "method/fixture file"; `file` its published name.
        wrapped: whether the state dict lies under "state_dict" in the state of a training run.
        prefix: of every name, as DataParallel writes it.
        options: what its importer must be told.
        tests: the parity tests that compare the imported network with the original, as pytest names them.
    """

    method: str
    keys: str
    file: str
    tests: tuple[str, ...]
    wrapped: bool = True
    prefix: str = ""
    options: dict[str, Any] = field(default_factory=dict)


ESR, FG = "test_esr.py::test_network[{}", "test_fg2020.py::test_network[{}"
FUSION = ("test_avfusion.py::test_network[model_{}", "test_avfusion.py::test_missing_modality[missing_{}")
EMENET = ("test_emenet.py::test_one_frame[{}_", "test_emenet.py::test_state_goes_from_window_to_window[{}_")
ORIGINALS = {
    "ESR-9": Original("esr", "esr/keys_esr9.json", "", (ESR.format("esr9_"),), wrapped=False),
    "ESR-4": Original("esr", "esr/keys_esr4.json", "", (ESR.format("esr4_"),), wrapped=False),
    **{
        f"Multitask-{name}": Original(
            "fg2020", f"fg2020/keys_{keys}.json", "net_epoch_student_0_id_resnet50.pth", (FG.format(test),),
            wrapped=False,
        )
        for name, keys, test in (
            ("CNN", "cnn_ferplus", "cnn_ferplus_112]"),
            ("CNN, SFEW", "cnn_sfew", "cnn_sfew_112]"),
            ("CNN-RNN", "cnn_rnn_ferplus", "cnn_rnn_ferplus"),
        )
    },
    **{
        f"fusion {kind}": Original(
            "avfusion", f"avfusion/keys_{kind}.json", f"{kind}_1head_moddrop_2.pth",
            tuple(test.format(kind) for test in FUSION), prefix="module.",
        )
        for kind in ("lt", "it", "ia")
    },
    "EfficientFace": Original(
        "efficientface", "avfusion/keys_efficientface.json", "EfficientFace_Trained_on_AffectNet7.pth.tar",
        ("test_avfusion.py::test_efficientface",), prefix="module.",
    ),
    "BENet": Original(
        "benet", "benet/keys_emotic.json", "model_best.pth.tar", ("test_benet.py::test_network[net_full]",),
        wrapped=False,
    ),
    "BENet, extra data": Original(
        "benet", "benet/keys_heco.json", "checkpoint.pth.tar", ("test_benet.py::test_network[net_routed]",),
        prefix="module.",
    ),
    "EMENet-V": Original(
        "emenet", "emenet/keys_v.json", "net_epoch_4_student.pth", tuple(test.format("v") for test in EMENET)
    ),
    "EMENet-V, Transformer": Original(
        "emenet", "emenet/keys_v_transformer.json", "net_epoch_4_student.pth",
        ("test_emenet.py::test_clips_as_in_training[v_transformer]",),
    ),
    "EMENet-VA": Original(
        "emenet", "emenet/keys_va_checkpoint.json", "net_epoch_4_student.pth",
        tuple(test.format("va") for test in EMENET),
    ),
    "MobileFaceNet": Original(
        "mobilefacenet", "emenet/keys_fa.json", "mobilefacenet_model_best.pth.tar",
        ("test_emenet.py::test_face_alignment",),
    ),
    "MarbleNet": Original(
        "marblenet", "emenet/keys_marblenet_checkpoint.json", "vad_marblenet.nemo",
        ("test_emenet.py::test_voice_activity",), wrapped=False,
    ),
}  # fmt: skip


def state(original: Original) -> dict[str, Tensor]:
    """Its tensors; step counters are those of a finished training, constants of the sound's front end are right."""
    rows = json.loads((FIXTURES / original.keys).read_text(encoding="utf-8"))
    tensors = {name: torch.from_numpy(common.tensor(name, shape, dtype)) for name, shape, dtype in rows}
    return {k: _value(k, v) for k, v in tensors.items()}


def _value(name: str, value: Tensor) -> Tensor:
    from emotion.importers.marblenet import CONSTANTS, PREPROCESSOR
    from emotion.models.marblenet import MFCC

    if name.endswith("num_batches_tracked"):
        return value + 1000
    ours = CONSTANTS.get(name.partition(PREPROCESSOR)[2])
    return getattr(MFCC(), ours) if ours else value


def write(original: Original, folder: Path, tensors: dict[str, Tensor] | None = None, **options: Any) -> Path:
    """Write it as it is published; returns what the importer is given (a folder for ESR, else the file)."""
    tensors = state(original) if tensors is None else tensors
    folder.mkdir(parents=True, exist_ok=True)
    if original.method == "esr":
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            part, _, name = key.partition(".")
            parts.setdefault(part, {})[name] = value
        for part, values in parts.items():
            branch = f"Net-Branch_{part.removeprefix('branch_')}.pt"
            file = "Net-Base-Shared_Representations.pt" if part == "base" else branch
            torch.save(values, folder / file, **options)
        return folder
    path = folder / original.file
    torch.save(document(original, tensors), path, **options)
    if path.suffix == ".nemo":
        content = path.read_bytes()
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("./model_weights.ckpt")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def document(original: Original, tensors: dict[str, Tensor]) -> Any:
    """What lies in the file: the state dict alone, or the state of a training run with a numpy number in it."""
    named = {original.prefix + k: v for k, v in tensors.items()}
    run = {"epoch": 3, "best_prec1": 50.0, "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.04)}]}}
    return {**run, "state_dict": named} if original.wrapped else named


def imported(original: Original) -> tuple[dict[str, Tensor], Any]:
    """Its tensors, and what its importer made of them."""
    from emotion import importers

    with tempfile.TemporaryDirectory() as folder:
        tensors = state(original)
        return tensors, importers.read(original.method, write(original, Path(folder), tensors), **original.options)


HEAD = """# Importers

`python -m emotion import METHOD SOURCE -o FOLDER` turns files as their authors published them into a checkpoint folder.
The file may lie in a folder, a zip or a tar; names may begin with `module.`; the state dict may stand alone or under
`state_dict`; half, double and single precision are understood. Everything is read as data: code in a file is refused,
never run. Every tensor must be there, fit and be finite, and a forward pass must give finite numbers before anything is
written.

The weights behind the parity figures are not the published ones, which only people can download: the original's code
and ours were run on the same generated weights, written in the original's form and read by these importers.
`python -m tests.originals` writes this page.

| file | command | tensors in it | taken over | not taken over | largest difference of outputs |
|---|---|---|---|---|---|
"""


def page(differences: dict[str, list[float]]) -> str:
    """docs/importers.md, from what the importers do; `differences` are those of every parity test."""
    rows, reasons = [], {}
    for name, original in ORIGINALS.items():
        cells, why = facts(name, original)
        compared = [d for test, values in differences.items() if test.startswith(original.tests) for d in values]
        parity = f"{max(compared):.0e} in {len(compared)} comparisons"
        rows.append(f"| {' | '.join((*cells, parity))} |")
        reasons |= why
    why = [f"- `{name}`: {reason}" for name, reason in sorted(reasons.items())]
    told = [f"- `{method}`: {_options(method)}" for method in dict.fromkeys(o.method for o in ORIGINALS.values())]
    return HEAD + "\n".join([*rows, "", "## Why not", "", *why, "", "## Options and defaults", "", *told]) + "\n"


def facts(name: str, original: Original) -> tuple[list[str], dict[str, str]]:
    """A row's cells but for the last, and reasons for what is left out."""
    tensors, found = imported(original)
    reasons = {k: why for k, why in found.dropped.items() if any(fnmatch(t, k) for t in tensors)}
    left = sum(any(fnmatch(t, k) for k in reasons) for t in tensors)
    file = original.file or "Net-Base-Shared_Representations.pt, Net-Branch_N.pt"
    numbers = [str(len(tensors)), str(len(tensors) - left)]
    patterns = ", ".join(f"`{k}`" for k in reasons)
    return [f"{name}: `{file}`", f"`import {original.method}`", *numbers, patterns], reasons


def _options(method: str) -> str:
    """Options and defaults of a method's importer, as on the command line."""
    read = importlib.import_module(f"emotion.importers.{method}").read
    parameters = list(inspect.signature(read).parameters.values())[1:]
    defaults = {p.name: ",".join(p.default) if isinstance(p.default, tuple) else p.default for p in parameters}
    shown = (f"--{k.replace('_', '-')} {'...' if v in (None, '') else v}" for k, v in defaults.items())
    return ", ".join(f"`{text}`" for text in shown)


def measure() -> dict[str, list[float]]:
    """Run the parity tests of `ORIGINALS`; test -> differences of its comparisons.

    Raises:
        SystemExit: one of them failed.
    """
    import pytest

    found: dict[str, list[float]] = {}

    class Collect:
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            wanted = tuple(test for original in ORIGINALS.values() for test in original.tests)
            items[:] = [item for item in items if item.nodeid.removeprefix("tests/parity/").startswith(wanted)]

        def pytest_runtest_setup(self, item: Any) -> None:
            common.DIFFERENCES.clear()

        def pytest_runtest_teardown(self, item: Any) -> None:
            found[item.nodeid.removeprefix("tests/parity/")] = list(common.DIFFERENCES)

    if code := pytest.main(["-q", "-p", "no:cacheprovider", str(FIXTURES.parent)], plugins=[Collect()]):
        raise SystemExit(code)
    return found


def main() -> None:
    """Write the page; takes some minutes."""
    os.chdir(FIXTURES.parents[2])
    Path("docs/importers.md").write_text(page(measure()), encoding="utf-8")


if __name__ == "__main__":
    main()
