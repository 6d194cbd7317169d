"""Checkpoint folders: written whole, read strictly, every damage named in one message."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from emotion import hub, registry, remote
from emotion.errors import UserError
from emotion.models import benet, efficientface, emenet, esr, fg2020, marblenet

CONFIG = esr.esr4(branches=2)
CARD = hub.Card(name="esr4.test", licence="MIT", commercial=True, trained_on=("nothing",), metrics={"a/b/c": 0.5})


@pytest.fixture
def model():
    torch.manual_seed(0)
    return esr.ESR(CONFIG).eval()


@pytest.fixture
def folder(model, tmp_path):
    hub.save(model, "esr", tmp_path / "checkpoint", CARD, "# card\n")
    return tmp_path / "checkpoint"


def test_round_trip(model, folder):
    loaded = hub.load(folder)
    assert loaded.config == CONFIG and not loaded.training
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert loaded.card.sha256 and loaded.card == replace(CARD, sha256=loaded.card.sha256)
    assert hub.load(str(folder)).card == loaded.card


def test_half_precision_keeps_what_would_overflow(model, tmp_path):
    model.base[0].bn.running_var.fill_(1e6)
    hub.save(model, "esr", tmp_path / "half", CARD, "", half=True)
    hub.save(model, "esr", tmp_path / "full", CARD, "")
    loaded = hub.load(tmp_path / "half")
    sizes = [(tmp_path / n / hub.WEIGHTS).stat().st_size for n in ("half", "full")]
    assert sizes[0] < 0.55 * sizes[1]
    assert all(v.dtype == torch.float32 for v in loaded.parameters())
    assert (loaded.base[0].bn.running_var == 1e6).all()
    for k, v in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[k], v, rtol=1e-3, atol=1e-6)


def test_replacing_a_checkpoint_leaves_other_files(model, folder):
    (folder / "log.csv").write_text("epoch,loss\n")
    torch.nn.init.zeros_(model.branches[0].fc.weight)
    hub.save(model, "esr", folder, CARD, "# new\n")
    assert (folder / "log.csv").is_file() and (folder / "README.md").read_text() == "# new\n"
    assert (hub.load(folder).branches[0].fc.weight == 0).all()
    assert [p.name for p in folder.parent.iterdir()] == ["checkpoint"]


def test_saving_never_overwrites_something_else(model, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="holds other files"):
        hub.save(model, "esr", tmp_path / "other", CARD, "")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        hub.save(model, "esr", tmp_path / "file", CARD, "")
    with pytest.raises(UserError, match="cannot write"):
        hub.save(model, "esr", tmp_path / "file" / "inside", CARD, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "other"]


def test_a_failing_disk_leaves_nothing(model, tmp_path, monkeypatch):
    def full(self, *_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="No space left"):
        hub.save(model, "esr", tmp_path / "new", CARD, "")
    assert list(tmp_path.iterdir()) == []


def edit(**changes):
    def damage(folder):
        document = json.loads((folder / hub.CONFIG).read_text())
        for path, value in changes.items():
            *parents, last = path.split("__")
            place = document
            for key in parents:
                place = place[key]
            if value is None:
                del place[last]
            else:
                place[last] = value
        (folder / hub.CONFIG).write_text(json.dumps(document))

    return damage


def cut(name, keep):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def weights(change):
    """Change the stored tensors, with a matching sha256 in the config."""

    def damage(folder):
        tensors, _ = hub.read_weights(folder / hub.WEIGHTS)
        save_file(change(tensors), folder / hub.WEIGHTS)
        edit(card__sha256=hub.read_weights(folder / hub.WEIGHTS)[1])(folder)

    return damage


def drop(name):
    return lambda tensors: {k: v for k, v in tensors.items() if k != name}


BAD = {
    "no config": (lambda f: (f / hub.CONFIG).unlink(), "it has no config.json.*import"),
    "config cut off": (cut(hub.CONFIG, 100), r"cannot read .*config\.json"),
    "config not JSON": (lambda f: (f / hub.CONFIG).write_bytes(b"\xff\xfe\x00"), r"cannot read .*config\.json"),
    "config nested without end": (lambda f: (f / hub.CONFIG).write_text("[" * 100_000), r"cannot read .*config\.json"),
    "config of absurd size": (lambda f: (f / hub.CONFIG).write_text(" " * 2_000_000 + "{}"), "more than 1 MB"),
    "config a list": (lambda f: (f / hub.CONFIG).write_text("[]"), "has schema None"),
    "other schema": (edit(schema="emotion-checkpoint/9"), "has schema 'emotion-checkpoint/9'"),
    "field missing": (edit(card=None), "lacks card"),
    "unknown field": (edit(colour="red"), "unknown fields: colour"),
    "unknown method": (edit(method="vgg"), "unknown method 'vgg'"),
    "unknown config field": (edit(config__colour="red"), "esr config: unknown fields: colour"),
    "unknown nested field": (edit(config__input__colour="red"), "unknown fields: input.colour"),
    "config field missing": (edit(config__branches=None), "field branches"),
    "config field of a wrong type": (edit(config__branches="many"), "field branches"),
    "config field out of range": (edit(config__batchnorm="sometimes"), "batchnorm must be"),
    "no branches": (edit(config__branches=0), "at least one branch"),
    "unknown card field": (edit(card__colour="red"), "card: unknown fields: colour"),
    "card field missing": (edit(card__name=None), "card: field name"),
    "card no object": (edit(card="MIT"), "config.json, card"),
    "no weights": (lambda f: (f / hub.WEIGHTS).unlink(), r"cannot read .*model\.safetensors"),
    "weights cut off": (cut(hub.WEIGHTS, 5000), r"cannot read .*model\.safetensors.*complete"),
    "weights empty": (cut(hub.WEIGHTS, 0), r"cannot read .*model\.safetensors"),
    "weights are a pickle": (
        lambda f: torch.save({"a": torch.ones(1)}, f / hub.WEIGHTS),
        r"cannot read .*model\.safetensors",
    ),
    "other sha": (edit(card__sha256="0" * 64), "is not the file it should be"),
    "other network": (edit(config__branches=3), r"does not fit the model: .* missing: branches\.2"),
    "tensor missing": (weights(drop("base.0.conv.bias")), r"1 tensors missing: base\.0\.conv\.bias"),
    "tensor too many": (weights(lambda t: {**t, "extra": torch.ones(2)}), "1 tensors unexpected: extra"),
    "tensor misshapen": (
        weights(lambda t: {**t, "base.0.conv.bias": torch.ones(3)}),
        r"base\.0\.conv\.bias is \(3,\), expected \(32,\)",
    ),
    "negative variance": (
        weights(lambda t: {**t, "base.0.bn.running_var": -t["base.0.bn.running_var"]}),
        "1 tensors negative: base.0.bn.running_var",
    ),
    "NaN": (weights(lambda t: {**t, "base.0.conv.bias": torch.full((32,), torch.nan)}), "not finite: base.0.conv.bias"),
}


@pytest.mark.parametrize(("damage", "message"), BAD.values(), ids=BAD.keys())
def test_damaged_checkpoints_are_refused(damage, message, folder):
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        hub.load(folder)
    assert "\n" not in str(caught.value)


def test_weights_are_read_once(folder, monkeypatch):
    opened, real = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: opened.append(self.name) or real(self))
    hub.load(folder)
    assert opened.count(hub.WEIGHTS) == 1


def test_names_and_places():
    with pytest.raises(UserError, match=r"did you mean esr9\.affectnet"):
        hub.find("esr9.afectnet")
    with pytest.raises(UserError, match="python -m emotion import esr"):
        hub.find("esr9.affectnet")
    with pytest.raises(UserError, match="no checkpoint folder at nowhere/at/all"):
        hub.find("nowhere/at/all")
    with pytest.raises(UserError, match="no checkpoint folder at nowhere"):
        hub.find(Path("nowhere"))


@pytest.mark.parametrize("name", [registry.DEFAULT, Path(registry.DEFAULT), "checkpoint", Path("checkpoint")])
def test_only_a_hub_has_revisions(name, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (folder.parent / registry.DEFAULT).symlink_to(folder)
    with pytest.raises(UserError, match="has no revision 'v2'; only repositories on a Hub have some"):
        hub.load(name, revision="v2")


def test_a_folder_cannot_pose_as_a_bundled_model(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    folder.rename(registry.DEFAULT)
    assert hub.find(registry.DEFAULT) == registry.get(registry.DEFAULT).folder
    assert hub.find(Path(registry.DEFAULT)) == Path(registry.DEFAULT)


def test_a_folder_named_like_an_entry_to_import_is_used(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    folder.rename("esr4.ckplus")
    assert hub.load("esr4.ckplus").card.name == "esr4.test"


def test_unusable_device(folder):
    with pytest.raises(UserError, match="cannot use the device"):
        hub.load(folder, device="no-such-device")


def test_registry_entries_are_complete():
    for name, entry in registry.entries().items():
        assert entry.method in registry.METHODS and "." in name
        assert entry.tasks and entry.citation and entry.licence
        assert entry.bundled or (entry.original and entry.import_command)
        assert entry.input and entry.file == hub.WEIGHTS and set(entry.labels) == set(entry.tasks) - {"landmarks"}, name
        if entry.bundled:
            weights = entry.folder / entry.file
            assert (entry.sha256, entry.size) == (hub.read_weights(weights)[1], weights.stat().st_size), name
        if entry.repo or entry.revision:  # a name that can change what it means is no pin
            assert remote.repo(entry.repo) and remote.COMMIT.fullmatch(entry.revision) and entry.sha256 and entry.size
    assert registry.get(registry.DEFAULT).bundled


def test_import_commands_name_what_the_importers_take():
    recipes = {p.stem for p in (Path(__file__).parents[1] / "train" / "recipes").glob("*.yaml")}
    for name, entry in registry.entries().items():
        trained = re.findall(r"python -m train ([a-z][\w-]*)", entry.original)
        assert set(trained) <= recipes
        if entry.import_command:
            program, method, _, *options = shlex.split(entry.import_command.removeprefix("python -m emotion "))
            assert (program, method) == ("import", entry.method)
            rest = dict(zip(options[::2], options[1::2], strict=True))
            assert rest.pop("-o") == f"{name}/" and rest.get("--name", name) == name
            parameters = list(inspect.signature(importlib.import_module(f"emotion.importers.{method}").read).parameters)
            assert {option.removeprefix("--").replace("-", "_") for option in rest} <= set(parameters[1:])


def test_every_variant_of_the_five_systems_has_an_entry():
    names = set(registry.entries())
    assert {"esr9.affectnet", "esr9_discrete.ferplus", "esr9_discrete.affectnet", "efficientface.affectnet7"} <= names
    assert {"esr4.ckplus", *(f"esr4_level{level}.ckplus" for level in (1, 2, 4))} <= names  # esr4 itself has level 3
    members = ("students", "teacher", *(f"student_{i}" for i in range(5)))
    assert {f"{kind}.{member}" for kind in ("fg2020", "fg2020_rnn") for member in members} <= names
    assert {"fg2020_rnn16.students", "fg2020_rnn8.students", "fg2020_sfew.students"} <= names
    dropouts = ("", "_plain", "_noise")
    assert {f"avfusion_{fusion}{dropout}.ravdess" for fusion in ("lt", "it", "ia") for dropout in dropouts} <= names
    data = {c: "emotic_heco" if c.endswith("_ed") else "emotic" for c in benet.CONFIGURATIONS}
    assert {f"benet_{configuration}.{tag}" for configuration, tag in data.items()} <= names
    rounds = ("", "_teacher", "_round1", "_round2", "_round4")  # the published ones are those of round 3
    assert {f"emenet_{kind}{stage}.affwild2" for kind in ("v", "va") for stage in rounds} <= names
    assert {"emenet_v_transformer.affwild2", "mobilefacenet.landmarks", "marblenet.vad"} <= names


def count(network: type, config: object) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in network(config).parameters())


def test_inputs_and_labels_in_the_registry_are_those_of_the_networks():
    faces = {"gray": "grey", "rgb": "RGB", "bgr": "BGR"}
    networks = {
        "esr9.affectnet": (esr.ESR, esr.esr9()),
        "esr9_discrete.affectnet": (esr.ESR, esr.esr9(affect=False)),
        "esr4_level2.ckplus": (esr.ESR, esr.esr4(level=2)),
        "fg2020_rnn.teacher": (fg2020.FG2020, fg2020.fg2020("ferplus", ("teacher",), 32)),
        "fg2020_sfew.students": (fg2020.FG2020, fg2020.fg2020("sfew", ("teacher",))),
        "efficientface.affectnet7": (efficientface.EfficientFace, efficientface.EfficientFaceConfig()),
        "benet_bu.emotic": (benet.BENet, benet.benet("bu")),
        "emenet_v.affwild2": (emenet.EMENet, emenet.emenet_v()),
        "marblenet.vad": (marblenet.MarbleNet, marblenet.MarbleNetConfig()),
    }
    for name, (network, config) in networks.items():
        with torch.device("meta" if network in (esr.ESR, fg2020.FG2020, benet.BENet) else "cpu"):
            entry, model = registry.get(name), network(config)
        assert entry.labels == {task: tuple(names) for task, names in model.labels.items()}, name
        if hasattr(getattr(config, "input", None), "channels"):
            height, width = config.input.size
            assert f"{width} x {height} pixels, {faces[config.input.channels]}" in entry.input
    for entry in registry.entries().values():
        if entry.bundled:
            document = hub.read_config(entry.folder)
            assert entry.labels == dict(hub.build(entry.method, document["config"]).labels), entry.name


def test_sizes_in_the_registry_are_those_of_the_networks():
    """The table's sizes of what is not here; networks that compute constants are built for real, they are small."""
    networks = {
        "esr9.affectnet": lambda: count(esr.ESR, esr.esr9()),
        "esr9_discrete.ferplus": lambda: count(esr.ESR, esr.esr9(affect=False)),
        "esr4.ckplus": lambda: count(esr.ESR, esr.esr4()),
        **{f"esr4_level{n}.ckplus": lambda n=n: count(esr.ESR, esr.esr4(level=n)) for n in (1, 2, 4)},
        "fg2020.students": lambda: count(fg2020.FG2020, fg2020.fg2020("ferplus", fg2020.STUDENTS)),
        "fg2020_rnn.teacher": lambda: count(fg2020.FG2020, fg2020.fg2020("ferplus", ("teacher",), 32)),
        "benet_bu.emotic": lambda: count(benet.BENet, benet.benet("bu")),
        "benet_bu_det_pc_bg_ed.emotic_heco": lambda: count(benet.BENet, benet.benet("bu_det_pc_bg_ed")),
    }
    for name, size in networks.items():
        assert registry.get(name).parameters == size(), name
    assert [name for name, entry in registry.entries().items() if not entry.parameters] == []
