"""Reading original checkpoints: every rule of ESR's split files, and bad files, which must fail with one message."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections import OrderedDict

import pytest
import torch

from emotion import hub, importers
from emotion.errors import UserError
from emotion.models import esr

BASE = "Net-Base-Shared_Representations.pt"


def originals(model):
    """File name -> tensors, as the original framework would store `model`."""
    files = {}
    for name, value in model.state_dict().items():
        part, index, *rest = name.split(".")
        if part == "base":
            file, block, rest = BASE, int(index), rest
        else:
            file = f"Net-Branch_{int(index) + 1}.pt"
            block, rest = (int(rest[1]), rest[2:]) if rest[0] == "blocks" else (None, rest)
        old = f"{rest[0]}{block + 1}.{rest[1]}" if block is not None else ".".join(rest)
        files.setdefault(file, OrderedDict())[old.replace("affect.", "fc_dimensional.")] = value.clone()
    return files


def write(folder, files, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for name, tensors in files.items():
        torch.save(tensors, folder / name, **options)
    return folder


def network(config, seed=0):
    """A network whose batch norms have seen data, so that every tensor matters."""
    torch.manual_seed(seed)
    model = esr.ESR(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def same(model, other):
    x = torch.rand(2, *model.example().shape[1:])
    with torch.inference_mode():
        a, b = model(x), other(x)
    assert a.keys() == b.keys()
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def small():
    return network(esr.esr4(branches=2))


VARIANTS = {
    "esr9 with affect": esr.esr9(affect=True, branches=2),
    "esr9 discrete": esr.esr9(affect=False, branches=3),
    "one branch": esr.esr9(branches=1),
    **{f"esr4 level {n}": esr.esr4(level=n) for n in (1, 2, 3, 4)},
}


@pytest.mark.parametrize("legacy", [True, False], ids=["legacy", "zip"])
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_is_told_from_its_tensors(config, legacy, tmp_path):
    model = network(config)
    source = write(tmp_path / "original", originals(model), _use_new_zipfile_serialization=not legacy)
    imported = importers.convert("esr", source, tmp_path / "ours")
    assert imported.config == config
    loaded = hub.load(tmp_path / "ours")
    assert same(model, loaded)
    assert ("valence_arousal" in loaded.labels) == config.affect
    assert not loaded.card.commercial and "commercial" in (tmp_path / "ours" / "README.md").read_text()


def test_published_size_and_layout():
    """The counts of the paper's repository: 28 entries in the base, 32 in a branch, 20,349,546 parameters."""
    model = esr.ESR(esr.esr9())
    files = originals(model)
    assert sorted(files) == sorted([BASE, *(f"Net-Branch_{n}.pt" for n in range(1, 10))])
    assert {f: len(t) for f, t in files.items()} == {f: 28 if f == BASE else 32 for f in files}
    assert sum(p.numel() for p in model.parameters()) == 20_349_546


def test_each_file_is_read_once(small, tmp_path, monkeypatch):
    source = write(tmp_path / "original", originals(small))
    seen, real = [], torch.load

    def counting(file, *args, **kwargs):
        seen.append(str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(torch, "load", counting)
    importers.convert("esr", source, tmp_path / "ours")
    assert sorted(seen) == sorted(str(p) for p in source.iterdir())


def test_counters_are_optional_and_dataparallel_prefixes_fall_away(small, tmp_path):
    files = originals(small)
    files = {
        file: {f"module.{k}": v for k, v in tensors.items() if "num_batches_tracked" not in k}
        for file, tensors in files.items()
    }
    importers.convert("esr", write(tmp_path / "original", files), tmp_path / "ours")
    assert same(small, hub.load(tmp_path / "ours"))


def test_batchnorm_reading_is_an_option(small, tmp_path):
    source = write(tmp_path / "original", originals(small))
    importers.convert("esr", source, tmp_path / "ours", batchnorm="batch")
    assert hub.load(tmp_path / "ours").config.batchnorm == "batch"
    with pytest.raises(UserError, match="batchnorm"):
        importers.read("esr", source, batchnorm="both")


def test_a_registry_name_tells_the_training_data(tmp_path):
    source = write(tmp_path / "original", originals(network(esr.esr9(affect=False, branches=1))))
    assert importers.read("esr", source).card.trained_on == ()
    card = importers.read("esr", source, name="esr9_discrete.ferplus").card
    assert card.name == "esr9_discrete.ferplus" and card.trained_on == ("AffectNet", "FER+")


def test_training_output_gives_its_highest_stage(tmp_path):
    stages = {n: network(esr.esr4(branches=n), seed=n) for n in (1, 2, 10)}
    for n, model in stages.items():
        write(tmp_path / "run" / str(n), originals(model))
    assert importers.read("esr", tmp_path / "run").config.branches == 10
    assert importers.read("esr", tmp_path / "run", stage=2).config.branches == 2
    with pytest.raises(UserError, match="no folder 7"):
        importers.read("esr", tmp_path / "run", stage=7)


def test_two_sets_side_by_side_are_ambiguous(small, tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "run" / name, originals(small))
    with pytest.raises(UserError, match="several checkpoints: a, b"):
        importers.read("esr", tmp_path / "run")


@pytest.mark.parametrize("top", ["", "esr_4/", "training/2/"])
def test_zip_of_a_folder(small, top, tmp_path):
    source = write(tmp_path / "original", originals(small))
    with zipfile.ZipFile(tmp_path / "weights.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in source.iterdir():
            archive.write(path, top + path.name)
        archive.writestr("__MACOSX/._Net-Branch_1.pt", b"resource fork")
    importers.convert("esr", tmp_path / "weights.zip", tmp_path / "ours")
    assert same(small, hub.load(tmp_path / "ours"))


@pytest.mark.parametrize("member", ["../Net-Branch_1.pt", "/tmp/Net-Branch_1.pt", "a/../../Net-Branch_1.pt"])
def test_zip_that_points_outside_is_refused(small, member, tmp_path):
    with zipfile.ZipFile(tmp_path / "weights.zip", "w") as archive:
        archive.writestr(BASE, b"x")
        archive.writestr(member, b"x")
    with pytest.raises(UserError, match="points out of the archive"):
        importers.read("esr", tmp_path / "weights.zip")


def test_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr("emotion.importers.files.LIMIT", 10_000)
    with zipfile.ZipFile(tmp_path / "weights.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(BASE, bytes(20_000))
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(UserError, match="unpacks to more than"):
        importers.read("esr", tmp_path / "weights.zip")


def test_one_of_the_files_stands_for_its_folder(small, tmp_path):
    source = write(tmp_path / "original", originals(small))
    assert importers.read("esr", source / BASE).config == small.config


# -- bad checkpoints -------------------------------------------------------------------------------------------------


class Bomb:
    """Makes a folder when unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def lacks(name):
    return lambda folder, _: (folder / name).unlink()


def replace(name, change):
    def damage(folder, _):
        tensors = torch.load(folder / name, weights_only=True)
        torch.save(change(tensors), folder / name)

    return damage


def truncate(name, share):
    def damage(folder, _):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


def plant_code(protocol):
    def damage(folder, marker):
        path = folder / "Net-Branch_2.pt"
        if protocol == "torch":
            torch.save({"conv1.weight": Bomb(marker)}, path)
        elif protocol == "legacy":
            torch.save({"conv1.weight": Bomb(marker)}, path, _use_new_zipfile_serialization=False)
        else:
            path.write_bytes(pickle.dumps(Bomb(marker)))

    return damage


def set_value(name, value):
    def change(tensors):
        tensors[name].view(-1)[0] = value
        return tensors

    return change


BAD = {
    "no base": (lacks(BASE), f"lacks {BASE}"),
    "gap": (lacks("Net-Branch_2.pt"), r"lacks Net-Branch_2\.pt"),
    "first branch missing": (lacks("Net-Branch_1.pt"), r"lacks Net-Branch_1\.pt"),
    "empty folder": (lambda folder, _: [p.unlink() for p in folder.iterdir()], "holds no Net-Base"),
    "truncated zip": (truncate("Net-Branch_2.pt", 0.5), r"Net-Branch_2\.pt.*complete"),
    "truncated pickle": (
        lambda folder, _: (
            torch.save(
                torch.load(folder / BASE, weights_only=True), folder / BASE, _use_new_zipfile_serialization=False
            ),
            truncate(BASE, 0.5)(folder, _),
        ),
        f"{BASE}.*complete",
    ),
    "empty file": (truncate(BASE, 0), f"{BASE}.*complete"),
    "text": (lambda folder, _: (folder / BASE).write_text("<html>not found</html>"), f"{BASE} is refused"),
    "code": (plant_code("torch"), r"Net-Branch_2\.pt is refused.*code"),
    "code in legacy format": (plant_code("legacy"), r"Net-Branch_2\.pt is refused.*code"),
    "bare pickle with code": (plant_code("pickle"), r"Net-Branch_2\.pt is refused.*code"),
    "a tensor alone": (replace(BASE, lambda t: t["conv1.weight"]), "holds no state dict"),
    "training state": (replace(BASE, lambda t: {"epoch": 3, "model": t}), "holds no state dict"),
    "NaN": (replace("Net-Branch_3.pt", set_value("conv1.weight", float("nan"))), r"Net-Branch_3\.pt is damaged: conv1"),
    "infinite": (replace(BASE, set_value("bn1.running_var", float("inf"))), "damaged: bn1.running_var"),
    "another method": (replace(BASE, lambda t: {"backbone.weight": t["conv1.weight"]}), "no known ESR"),
    "unknown tensor": (replace(BASE, lambda t: {**t, "extra.weight": t["conv1.weight"]}), "extra.weight"),
    "missing tensor": (
        replace(BASE, lambda t: {k: v for k, v in t.items() if k != "bn2.bias"}),
        r"missing: base\.1\.bn\.bias",
    ),
    "wrong shape of a norm": (replace(BASE, lambda t: {**t, "bn1.bias": torch.zeros(5)}), "another shape"),
    "wrong width": (replace(BASE, lambda t: {**t, "conv2.weight": torch.zeros(99, 32, 3, 3)}), "no known ESR"),
    "one branch with affect head": (
        replace("Net-Branch_2.pt", lambda t: {**t, "fc_dimensional.weight": torch.zeros(2, 8)}),
        r"Net-Branch_2\.pt and Net-Branch_1\.pt are of different kinds",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), BAD.values(), ids=BAD.keys())
def test_bad_files_give_one_message_and_leave_nothing(damage, message, tmp_path):
    source = write(tmp_path / "original", originals(network(esr.esr4(branches=3))))
    damage(source, tmp_path / "marker")
    with pytest.raises(UserError, match=message) as caught:
        importers.convert("esr", source, tmp_path / "ours")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["original"]  # no output, no partial folder, no code run


def test_a_plain_load_would_have_run_the_code(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "marker")))
    assert (tmp_path / "marker").is_dir()


def test_bad_files_leave_an_existing_checkpoint_alone(small, tmp_path):
    source = write(tmp_path / "original", originals(small))
    importers.convert("esr", source, tmp_path / "ours")
    before = {p.name: p.read_bytes() for p in (tmp_path / "ours").iterdir()}
    truncate(BASE, 0.5)(source, None)
    with pytest.raises(UserError):
        importers.convert("esr", source, tmp_path / "ours")
    assert {p.name: p.read_bytes() for p in (tmp_path / "ours").iterdir()} == before


def test_output_folder_with_other_files_is_refused(small, tmp_path):
    source = write(tmp_path / "original", originals(small))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="holds other files"):
        importers.convert("esr", source, tmp_path / "photos")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["holiday.jpg"]


@pytest.mark.parametrize("kind", ["text file", "truncated zip", "nothing there"])
def test_sources_that_are_no_folder(small, kind, tmp_path):
    path = tmp_path / "weights.zip"
    if kind == "text file":
        path.write_text("hello")
    elif kind == "truncated zip":
        source = write(tmp_path / "original", originals(small))
        shutil.make_archive(str(path.with_suffix("")), "zip", source)
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"weights\.zip"):
        importers.read("esr", path)


def test_damaged_zip_member(small, tmp_path):
    source = write(tmp_path / "original", originals(small))
    shutil.make_archive(str(tmp_path / "weights"), "zip", source)
    content = bytearray((tmp_path / "weights.zip").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "weights.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*weights\.zip"):
        importers.read("esr", tmp_path / "weights.zip")


def test_unknown_method(tmp_path):
    with pytest.raises(UserError, match="no importer"):
        importers.read("vgg", tmp_path)
