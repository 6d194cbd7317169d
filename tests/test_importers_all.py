"""Every importer on every published kind of file: what is read, forms of storage, damage, malice."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from emotion import hub, importers
from emotion.errors import UserError
from emotion.importers.files import find_files, open_file, state_dict
from tests.originals import ORIGINALS, Original, document, facts, state, write

State = dict[str, Tensor]
ONE_EACH = {o.method: o for o in reversed(ORIGINALS.values())}
LARGE = ("benet", "fg2020", "esr")


def each(*large: str) -> list[Any]:
    """The methods; the large ones are slow."""
    return [pytest.param(m, marks=pytest.mark.slow if m in large else ()) for m in ONE_EACH]


@pytest.fixture(scope="module")
def states() -> Callable[[Original], State]:
    """Tensors of an original; only the last are kept, as some are large."""
    kept: dict[str, State] = {}

    def get(original: Original) -> State:
        if original.keys not in kept:
            kept.clear()
            kept[original.keys] = state(original)
        return kept[original.keys]

    return get


def fitted(original: Original, source: Path) -> torch.nn.Module:
    imported = importers.read(original.method, source, **original.options)
    model = hub.model_class(original.method)(imported.config).eval()
    hub.fit(model, imported.tensors)
    return model


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if o.method in LARGE else ()) for n, o in ORIGINALS.items()],
)
def test_everything_is_read_or_said_to_be_left_out(name: str, tmp_path: Path, states: Any) -> None:
    """Every number of the original reaches the model, but for counters, constants and what is told."""
    original = ORIGINALS[name]
    tensors = states(original)
    imported = importers.read(original.method, write(original, tmp_path, tensors), **original.options)
    hub.fit(hub.model_class(original.method)(imported.config), imported.tensors)
    kept = {v.double().sum().item() for v in imported.tensors.values()}
    for key, value in tensors.items():
        told = any(fnmatch(key, pattern) or key.startswith(f"{pattern}.") for pattern in imported.dropped)
        assert told != (value.double().sum().item() in kept), key


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if o.method in LARGE else ()) for n, o in ORIGINALS.items()],
)
def test_documented_as_they_are(name: str) -> None:
    """docs/importers.md says what the importers do; `python -m tests.originals` writes it."""
    text = (Path(__file__).parents[1] / "docs" / "importers.md").read_text(encoding="utf-8")
    cells, reasons = facts(name, ORIGINALS[name])
    row = next(line for line in text.splitlines() if line.startswith(f"| {name}:"))
    assert row.startswith(f"| {' | '.join(cells)} | ") and " comparisons |" in row
    assert all(f"- `{pattern}`: {why}" in text for pattern, why in reasons.items())


@pytest.mark.parametrize("method", each(*LARGE))
def test_forms_of_storage(method: str, tmp_path: Path, states: Any) -> None:
    """Half precision, double precision, the legacy format, other prefixes: the same network."""
    original = ONE_EACH[method]
    tensors = states(original)
    plain = fitted(original, write(original, tmp_path / "plain", tensors)).state_dict()

    def assert_same(source: Path, tolerance: float = 0.0) -> None:
        for name, value in fitted(original, source).state_dict().items():
            torch.testing.assert_close(value, plain[name], rtol=tolerance, atol=tolerance)

    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 1e-2), (torch.float64, 0.0)):
        other = {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}
        assert_same(write(original, tmp_path / "precision", other), tolerance)
    assert_same(write(original, tmp_path / "legacy", tensors, _use_new_zipfile_serialization=False))


def changed(change: Callable[[State], State]) -> Callable[[Original, Path, State], Path]:
    return lambda original, folder, tensors: write(original, folder, change(dict(tensors)))


def with_value(value: float) -> Callable[[State], State]:
    def change(tensors: State) -> State:
        name = next(k for k in tensors if k.endswith("weight"))
        return tensors | {name: torch.full_like(tensors[name], value)}

    return change


def cut(original: Original, folder: Path, tensors: State) -> Path:
    source = write(original, folder, tensors)
    path = max(source.iterdir()) if source.is_dir() else source
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return source


class Bomb:
    """Makes a folder when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


def mined(original: Original, folder: Path, tensors: State) -> Path:
    name = next(k for k in tensors if k.endswith("weight"))
    return write(original, folder, tensors | {name: Bomb(folder.parent / "marker")})


ODD = "odd_layer.weight"
DAMAGE = {
    "cut off": (cut, "complete"),
    "code": (mined, "is refused: .*code that would run"),
    "NaN": (changed(with_value(float("nan"))), "is damaged: .*not finite"),
    "infinite": (changed(with_value(float("inf"))), "is damaged: .*not finite"),
    "one missing": (changed(lambda t: {k: v for i, (k, v) in enumerate(t.items()) if i != 3}), "."),
    "one too many": (changed(lambda t: t | {_beside(t): torch.zeros(2)}), ODD.split(".")[0]),
    "another method's": (changed(lambda t: {"base.a" if "base." in next(iter(t)) else "a": torch.zeros(2)}), "."),
    "empty": (changed(lambda t: {}), "."),
}


def _beside(tensors: State) -> str:
    """Where an additional layer would be: in ESR's base, elsewhere at the top."""
    return f"base.{ODD}" if next(iter(tensors)).startswith("base.") else ODD


@pytest.mark.parametrize("method", ONE_EACH)
def test_damage_gives_one_message_and_leaves_nothing(method: str, tmp_path: Path, states: Any) -> None:
    original = ONE_EACH[method]
    for name, (damage, message) in DAMAGE.items():
        source = damage(original, tmp_path / "original", states(original))
        with pytest.raises(UserError, match=message) as caught:
            importers.convert(method, source, tmp_path / "ours", **original.options)
        text, names = str(caught.value), {source.name, *(p.name for p in (tmp_path / "original").iterdir())}
        assert "\n" not in text and len(text) < 600 and any(n in text for n in names), f"{name}: {text}"
        assert [p.name for p in tmp_path.iterdir()] == ["original"], name
        for path in (tmp_path / "original").iterdir():
            path.unlink()


# -- malice that needs no particular method ---------------------------------------------------------------------------


def bare(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def saved(value: object, **options: Any) -> Callable[[Path], object]:
    return lambda path: torch.save(value, path, **options)


class Calls:
    """Unpickles to the call of any function."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def compressed(path: Path) -> None:
    """A PyTorch file whose 64 MB of zeros are packed into some kilobytes."""
    content = io.BytesIO()
    torch.save({"a": torch.zeros(16_000_000)}, content)
    with zipfile.ZipFile(content) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for member in plain.infolist():
            packed.writestr(member.filename, plain.read(member))


REFUSED = {
    "os.system": (bare(pickle.dumps(Calls(os.system, "false"))), "code that would run"),
    "eval, protocol 0": (bare(pickle.dumps(Calls(eval, "1"), protocol=0)), "code that would run"),
    "exec in a state dict": (saved({"a": Calls(exec, "pass")}), "code that would run"),
    "getattr": (saved({"a": Calls(getattr, "a", "format")}), "code that would run"),
    "torch.load": (saved({"a": Calls(torch.load, "other.pth")}), "code that would run"),
    "numpy.load": (saved({"a": Calls(__import__("numpy").load, "x.npy")}), "code that would run"),
    "a whole module": (saved(torch.nn.Linear(2, 2)), "code that would run"),
    "in the legacy format": (
        saved({"a": Calls(os.system, "false")}, _use_new_zipfile_serialization=False),
        "code that would run",
    ),
    "compressed tensors": (compressed, "is compressed, which PyTorch's files never are"),
    "larger than its data": (
        saved({"a": torch.zeros(1).expand(10**6, 10**6)}),
        "a claims to be larger than its data",
    ),
    "sparse": (saved({"a": torch.eye(3).to_sparse()}), "a is no plain tensor"),
    "complex": (saved({"a": torch.zeros(2, dtype=torch.complex64)}), "a is no plain tensor"),
    "on the meta device": (saved({"a": torch.zeros(2, device="meta")}), "a is no plain tensor"),
    "a double that float32 cannot hold": (saved({"a": torch.tensor(1e300, dtype=torch.float64)}), "not finite"),
    "with and without prefix": (saved({"a": torch.zeros(1), "module.a": torch.ones(1)}), "holds tensors twice"),
    "numbers as names": (saved({1: torch.zeros(1)}), "no state dict"),
    "no tensors": (saved({"state_dict": {}}), "no state dict"),
    "a list": (saved([torch.zeros(1)]), "no state dict"),
    "text": (bare(b"<html>Sign in to download</html>"), "complete"),
    "nothing": (bare(b""), "complete"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_malicious_and_odd_files(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    make(path)
    for file in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(UserError, match=message) as caught:
            state_dict(file, path)
        assert "\n" not in str(caught.value) and "file.pth" in str(caught.value)


def test_every_cut_and_many_changed_bytes_give_a_message() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {"a.weight": torch.rand(3, 2), "a.num_batches_tracked": torch.tensor(7)}
    for legacy in (True, False):
        content = io.BytesIO()
        torch.save({"state_dict": tensors, "epoch": 1}, content, _use_new_zipfile_serialization=not legacy)
        whole = content.getvalue()
        broken = [whole[:length] for length in range(0, len(whole), 23)]
        for _ in range(150):
            changed = bytearray(whole)
            place, value = (
                torch.randint(len(whole), (1,), generator=generator),
                torch.randint(256, (1,), generator=generator),
            )
            changed[place] = int(value)
            broken.append(bytes(changed))
        for damaged in broken:
            try:
                state_dict(io.BytesIO(damaged), "x")
            except UserError as error:
                assert "\n" not in str(error)


# -- archives ---------------------------------------------------------------------------------------------------------


def packed(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    """A zip or tar, by the path's name; links are symbolic and only a tar has them as such."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
            for name, target in (links or {}).items():
                info = zipfile.ZipInfo(name)
                info.external_attr = 0o120777 << 16
                archive.writestr(info, target)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize("method", [p for p in each(*LARGE) if p.values[0] != "marblenet"])  # whose file is one
def test_whole_archives(method: str, kind: str, tmp_path: Path, states: Any) -> None:
    """The published file in a folder in an archive; nothing is left on the disk."""
    original = ONE_EACH[method]
    source = write(original, tmp_path / "published", states(original))
    files = source.iterdir() if source.is_dir() else [source]
    members = {f"release/v1/{p.name}": p for p in files}
    archive = tmp_path / f"release.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name, path in members.items():
                file.write(path, name)
    else:
        with tarfile.open(archive, "w:gz", compresslevel=1) as file:
            for name, path in members.items():
                file.add(path, name)
    fitted(original, archive)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["published", archive.name]


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_members_that_point_outside(kind: str, tmp_path: Path) -> None:
    for name in ("../model_best.pth.tar", "/tmp/model_best.pth.tar", "a/../../model_best.pth.tar"):
        archive = packed(tmp_path / f"a.{kind}", {name: b"x"})
        with pytest.raises(UserError, match="points out of the archive"):
            importers.read("benet", archive)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_links_in_archives_lead_nowhere(kind: str, tmp_path: Path) -> None:
    torch.save({"classifier.2.weight": torch.zeros(1)}, tmp_path / "secret.pth")
    archive = packed(tmp_path / f"a.{kind}", {}, {"model_best.pth.tar": str(tmp_path / "secret.pth")})
    with pytest.raises(UserError, match=r"complete|holds no file"):
        importers.read("benet", archive)


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_not_unpacked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emotion.importers.files.LIMIT", 100_000)
    archive = packed(tmp_path / f"a.{kind}", {"model_best.pth.tar": bytes(200_000)})
    with pytest.raises(UserError, match="unpacks to more than"):
        importers.read("benet", archive)


def test_several_candidates_are_named(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", {f"{n}/model_best.pth.tar": b"" for n in ("emotic_bu", "emotic_bu_det")})
    with pytest.raises(UserError, match=r"emotic_bu/model_best\.pth\.tar, emotic_bu_det/model_best\.pth\.tar; give"):
        importers.read("benet", archive)


def test_encrypted_zip(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.zip", {"model_best.pth.tar": b"x" * 100})
    content = bytearray(archive.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    archive.write_bytes(content)
    with pytest.raises(UserError, match="encrypted"):
        importers.read("benet", archive)


def test_a_pytorch_file_is_no_archive_of_files(tmp_path: Path) -> None:
    """Both are zips; so is a file called .pth that holds other files."""
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.zip")
    assert state_dict(tmp_path / "a.zip").keys() == {"a"}
    packed(tmp_path / "b.zip", {"x/data.txt": b"1"})
    assert [str(p) for p in find_files(tmp_path / "b.zip", "*.txt")] == ["x/data.txt"]
    assert open_file(tmp_path / "b.zip", find_files(tmp_path / "b.zip", "*")[0]).read() == b"1"


def test_documents_are_what_the_training_runs_wrote() -> None:
    original = ORIGINALS["fusion lt"]
    names = document(original, {"a": torch.zeros(1)})["state_dict"]
    assert list(names) == ["module.a"]
