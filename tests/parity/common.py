"""What all parity tests share: fixtures, deterministic weights and inputs, comparison.

The originals' checkpoints are not at hand, so both sides were run on tensors made from a random generator that is
seeded with the tensor's own name. Everything that may vary (seeds, salts, shapes, tolerances, files) is read from
`<PARITY_DIR>/<method>/cases.json`; the environment variable PARITY_DIR may name another folder of the same layout.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

DIFFERENCES: list[float] = []  # largest of every comparison, for the tables of `tests.originals`
PARITY_DIR = Path(os.environ.get("PARITY_DIR") or Path(__file__).parent / "fixtures")


def load(method: str, file: str) -> Any:
    """One fixture file: .json as Python values, .npz as a dict of arrays."""
    path = PARITY_DIR / method / file
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    with np.load(path) as arrays:
        return dict(arrays)


def cases(method: str, **wanted: Any) -> list[dict[str, Any]]:
    """The cases of a method, in order, whose fields equal all of `wanted`."""
    return [c for c in load(method, "cases.json")["cases"] if all(c.get(k) == v for k, v in wanted.items())]


def case(method: str, name: str) -> dict[str, Any]:
    """The one case with this name."""
    (found,) = (c for c in cases(method) if case_name(c) == name)
    return found


def params(method: str, prefix: str = "", **wanted: Any) -> list[Any]:
    """The cases as arguments of `pytest.mark.parametrize`, those whose name starts with `prefix`."""
    chosen = [c for c in cases(method, **wanted) if case_name(c).startswith(prefix)]
    return [pytest.param(c, id=case_name(c)) for c in chosen]


def case_name(case: dict[str, Any]) -> str:
    """A case's name, under either key in use."""
    return case.get("name") or case["case"]


def tensor(name: str, shape: list[int], dtype: str = "float32", salt: int = 0) -> np.ndarray:
    """The value of the original's tensor `name`; counters are zero, variances positive, kernels scaled by fan-in."""
    if "int" in dtype or name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    noise = np.random.default_rng(zlib.crc32(name.encode()) + salt).standard_normal(shape)
    if name.endswith("running_var"):
        noise = 1 + 0.1 * np.abs(noise)
    elif name.endswith("running_mean") or (len(shape) < 2 and not name.endswith("weight")):
        noise = 0.1 * noise
    elif len(shape) >= 2:
        noise = noise / math.sqrt(math.prod(shape[1:]))
    else:
        noise = 1 + 0.1 * noise
    return noise.astype(np.float32)


def state_dict(method: str, keys: str, salt: int = 0) -> dict[str, np.ndarray]:
    """Every tensor listed in the fixture file `keys` ([name, shape, dtype] rows), in order."""
    return {name: tensor(name, shape, dtype, salt) for name, shape, dtype in load(method, keys)}


def array(shape: list[int], seed: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """float32 values drawn evenly from [low, high)."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def blocks(shape: list[int], n: int, seed: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """[N, C, H, W] of n x n flat patches: a picture with large structures."""
    height, width = shape[-2:]
    coarse = array([*shape[:-2], n, n], seed, low, high)
    return coarse.repeat(height // n, axis=-2).repeat(width // n, axis=-1)


def u8_blocks(h: int, w: int, n: int, seed: int) -> np.ndarray:
    """uint8 [h, w, 3] of n x n flat patches, for sizes that n need not divide."""
    coarse = np.floor(array([n, n, 3], seed, 0, 256)).astype(np.uint8)
    return coarse[np.arange(h) * n // h][:, np.arange(w) * n // w]


def make_input(spec: dict[str, Any]) -> np.ndarray:
    """The array that an input's description stands for: kinds "plain" (or none), "blocks" and "u8blocks"."""
    kind = spec.get("kind", "plain")
    maker, names = {
        "plain": (array, ("shape", "seed", "low", "high")),
        "blocks": (blocks, ("shape", "n", "seed", "low", "high")),
        "u8blocks": (u8_blocks, ("h", "w", "n", "seed")),
    }[kind]
    return maker(**{k: spec[k] for k in names if k in spec})


def assert_close(actual: Any, expected: Any, tolerance: dict[str, Any], what: str = "") -> None:
    """Equal shapes, and values within the `rtol` and `atol` of a case (or of its "tolerance" field)."""
    tolerance = tolerance.get("tolerance", tolerance)
    actual = np.asarray(actual.detach().cpu() if hasattr(actual, "detach") else actual)
    assert actual.shape == np.shape(expected), f"{what}: shape {actual.shape}, expected {np.shape(expected)}"
    DIFFERENCES.append(float(np.abs(actual.astype(np.float64) - expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=tolerance["rtol"], atol=tolerance["atol"], err_msg=what)
