"""Checkpoints to a Hub and back, bit for bit; model cards; the names that users of a Hub expect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants

from emotion import hub, registry
from emotion.__main__ import main
from emotion.errors import UserError
from emotion.hub import publishing
from emotion.hub.pretrained import Pretrained
from emotion.models import benet, esr
from emotion.models.base import FaceInput
from emotion.ui import pieces
from eval import results
from tests.hub_server import WRITER, Fault, Hub, connect

CARD = hub.Card(
    name="esr.tiny",
    licence="MIT",
    commercial=True,
    trained_on=("FER+",),
    metrics={"FER+/valid/accuracy": 0.125, "FER+/valid/mean_recall": 0.25, "loss": 1.5},
    source="trained for a test",
)
README = (
    "---\nlicense: other\nlicense_name: old\nthumbnail: a.png\ntags: [small, esr]\n---\n# Tiny\n\nOnly for tests.\n"
)


@pytest.fixture(scope="module")
def model() -> esr.ESR:
    torch.manual_seed(0)
    blocks = (esr.Block(4, kernel=5, pool=True), esr.Block(4, pool=True))
    return esr.ESR(esr.ESRConfig(FaceInput((48, 48)), base=blocks, branch=(esr.Block(4),), branches=2)).eval()


@pytest.fixture
def folder(model: esr.ESR, tmp_path: Path) -> Path:
    hub.save(model, "esr", tmp_path / "tiny", CARD, README)
    return tmp_path / "tiny"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's retries
    with Hub() as running:
        connect(monkeypatch, running.url, tmp_path / "home", WRITER)
        yield running


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    names = {k for k in left if "num_batches" not in k}
    return names <= right.keys() and all(torch.equal(left[k], right[k]) for k in names)


def test_published_then_loaded_bit_for_bit(server: Hub, folder: Path, model: esr.ESR) -> None:
    url = publishing.publish(folder, "me/tiny")
    published = server.repos["model", "me/tiny"]
    assert url.startswith(f"{server.url}/me/tiny/commit/") and not published.private
    for name in (hub.CONFIG, hub.WEIGHTS):
        assert published.files[name] == (folder / name).read_bytes()
    for name in ("me/tiny", "hf://me/tiny", "hf://me/tiny@main", f"me/tiny@{published.refs['main']}"):
        loaded = hub.load(name)
        assert same(model, loaded) and loaded.config == model.config and loaded.card == hub.load(folder).card
    assert (hub.find("me/tiny") / hub.CARD).read_bytes() == published.files[hub.CARD]


def test_known_names_are_looked_up_only_where_the_user_says(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publishing.publish(folder, "me/esr9.affectnet")
    server.seen.clear()
    with pytest.raises(UserError, match="are not part of this package"):
        hub.load("esr9.affectnet")
    assert main(["models", "--json", "--method", "esr"]) == 0
    assert weights(capsys)["esr9.affectnet"] == "to import" and server.seen == []
    monkeypatch.setenv("EMOTION_HUB", "me")
    assert main(["models", "--json", "--method", "esr"]) == 0
    assert weights(capsys)["esr9.affectnet"] == "Hub: me/esr9.affectnet" and server.seen == []
    assert hub.load("esr9.affectnet").card.name == "esr.tiny"
    server.seen.clear()
    assert main(["models", "--json", "--method", "esr"]) == 0
    assert weights(capsys)["esr9.affectnet"] == "cached" and server.seen == []
    with pytest.raises(UserError, match="no model is called 'nosuch'"):
        hub.load("nosuch")


def test_a_known_name_at_a_revision(server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publishing.publish(folder, "me/esr9.affectnet")
    repository = server.repos["model", "me/esr9.affectnet"]
    repository.refs["v1"] = repository.refs["main"]
    repository.commit({"README.md": b""})
    monkeypatch.setenv("EMOTION_HUB", "me")
    assert hub.load("esr9.affectnet", revision="v1").card.name == "esr.tiny"
    for revision, message in (("v2", "it has no revision v2"), (None, "holds no checkpoint"), ("..", "is no branch")):
        with pytest.raises(UserError, match=message):
            hub.load("esr9.affectnet", revision=revision)


def test_an_entry_may_pin_a_repository(server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its commit and with its checksum, whatever becomes of the repository; EMOTION_HUB still comes first."""
    publishing.publish(folder, "us/tiny")
    repository = server.repos["model", "us/tiny"]
    pinned = replace(
        registry.get("esr9.affectnet"),
        repo="us/tiny",
        revision=repository.refs["main"],
        sha256=hub.load(folder).card.sha256,
    )
    monkeypatch.setattr(registry, "entries", lambda: {"esr9.affectnet": pinned})
    repository.commit({"README.md": b""})
    assert hub.load("esr9.affectnet").card.name == "esr.tiny"
    monkeypatch.setenv("EMOTION_HUB", "me")
    with pytest.raises(UserError, match=r"cannot load me/esr9\.affectnet"):
        hub.load("esr9.affectnet")


def weights(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    return {row["name"]: row["weights"] for row in json.loads(capsys.readouterr().out)}


def test_the_page_offers_models_of_a_hub_and_none_under_a_bundled_name(
    server: Hub, folder: Path, model: esr.ESR
) -> None:
    publishing.publish(folder, "me/tiny")
    hub.save(model, "esr", folder, replace(CARD, name=registry.DEFAULT), README)
    publishing.publish(folder, "you/posing")
    offered = pieces.Models(["me/tiny", "hf://you/posing@main"])
    assert offered.names()[:2] == ["esr.tiny", "hf://you/posing@main"]
    assert offered.places[registry.DEFAULT] == registry.DEFAULT
    with pytest.raises(UserError, match="there is no such repository"):
        pieces.Models(["me/nothing"])


def test_the_registry_pins_the_weights_of_known_names(
    server: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing.publish(folder, "me/esr9.affectnet")
    monkeypatch.setenv("EMOTION_HUB", "me")
    entries = registry.entries() | {"esr9.affectnet": replace(registry.get("esr9.affectnet"), sha256="0" * 64)}
    monkeypatch.setattr(registry, "entries", lambda: entries)
    with pytest.raises(UserError, match=r"is not the file it should be .*expected 0000.*hf cache rm"):
        hub.load("esr9.affectnet")


def test_a_file_that_was_changed_on_the_way_is_refused(server: Hub, folder: Path) -> None:
    publishing.publish(folder, "me/tiny")
    server.faults = [Fault("GET /storage", "wrong")]
    with pytest.raises(UserError, match="is not the file it should be"):
        hub.load("me/tiny")
    server.faults.clear()
    assert hub.load("me/tiny", force_download=True).card.name == "esr.tiny"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": "emotion-checkpoint/9"}, "has schema 'emotion-checkpoint/9'"),
        ({"method": "vgg"}, "unknown method 'vgg'"),
        ({"config": {"branches": 3}}, "esr config: field"),
    ],
)
def test_a_foreign_configuration_is_refused(server: Hub, folder: Path, change: dict, message: str) -> None:
    files = contents(folder)
    server.add("you/odd", files | {hub.CONFIG: json.dumps(json.loads(files[hub.CONFIG]) | change).encode()})
    with pytest.raises(UserError, match=message):
        hub.load("you/odd")


def test_model_card_is_complete(folder: Path) -> None:
    card = ModelCard(publishing.contents(folder, "me/tiny")[hub.CARD].decode())
    data = card.data.to_dict()
    assert (data["license"], data["library_name"], data["thumbnail"]) == ("mit", "emotion", "a.png")
    assert data["tags"] == ["small", "esr", "emotion-recognition"] and "license_name" not in data
    results = {(r.dataset_name, r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results}
    expected = {("FER+", "valid", "accuracy"): 0.125, ("FER+", "valid", "mean_recall"): 0.25}
    assert results == expected | {("not stated", None, "loss"): 1.5}
    assert card.data.model_name == "esr.tiny"
    text = " ".join(card.text.split())
    for part in ("# Tiny Only for tests.", "Not for medical", 'emotion.load("me/tiny")', "Siqueira, Magg, Wermter"):
        assert text.count(part) == 1
    again = publishing.model_card(CARD, "esr", card.content, "me/tiny")
    assert again == card.content


def test_figures_in_the_card_stay() -> None:
    measured = [{"name": "x", "results": [{"task": {"type": "a"}, "dataset": {"name": "b"}, "metrics": []}]}]
    readme = "---\n" + yaml.safe_dump({"model-index": measured}) + "---\n# X\n"
    assert publishing.split(publishing.model_card(CARD, "esr", readme))[0]["model-index"] == measured
    bare = publishing.model_card(replace(CARD, metrics={}), "esr", "")
    assert "model-index" not in bare and "- Trained on: FER+" in bare and "# esr.tiny" in bare


def test_evaluations_of_these_weights_are_the_cards_figures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A result that `python -m eval run` wrote, once for these weights and once for others."""
    source = next(results.FOLDER.glob("esr_compact.ferplus--ferplus--*.json"))
    document = json.loads(source.read_text())
    sha = hub.read_config(folder)["card"]["sha256"]
    for name, digest in (("mine.json", sha), ("other.json", "0" * 64)):
        (tmp_path / name).write_text(json.dumps(document | {"model": document["model"] | {"sha256": digest}}))
    command = ["publish", str(folder), "me/tiny", "--dry-run", "--results"]
    assert main([*command, str(tmp_path)]) == 0
    assert "interval95" in capsys.readouterr().out
    text = publishing.contents(folder, "me/tiny", tmp_path)[hub.CARD].decode()
    card = ModelCard(text)
    found = {(r.dataset_name, r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results}
    expected = {
        (document["data"]["name"], document["data"]["split"], metric): round(figure["value"], 6)
        for task in document["tasks"].values()
        for metric, figure in task["metrics"].items()
    }
    assert found == expected and "interval95" in text
    other = document["data"] | {"protocol": "another"}
    (tmp_path / "again.json").write_text(json.dumps(json.loads((tmp_path / "mine.json").read_text()) | {"data": other}))
    both = ModelCard(publishing.contents(folder, "me/tiny", tmp_path)[hub.CARD].decode()).data.eval_results
    assert {r.dataset_config for r in both} == {document["data"]["protocol"], "another"}
    assert len({r.unique_identifier for r in both}) == 2 * len({r.unique_identifier for r in card.data.eval_results})
    (tmp_path / "other.json").write_text("{}")
    assert main([*command, str(tmp_path)]) == 2 and "other.json" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "nowhere")]) == 2 and "no folder of results" in capsys.readouterr().err


def test_bundled_models_have_cards_with_their_measured_figures() -> None:
    for entry in registry.entries().values():
        if not entry.bundled or not list(results.FOLDER.glob(f"{entry.name}--*.json")):
            continue
        data = ModelCard(publishing.contents(entry.folder, "me/model")[hub.CARD].decode()).data
        assert {r.dataset_name for r in data.eval_results}, entry.name


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("CC-BY-NC-SA-4.0", {"license": "cc-by-nc-sa-4.0"}),
        ("terms of NVIDIA NGC", {"license": "other", "license_name": "terms-of-nvidia-ngc"}),
        (
            "original weights, no commercial use",
            {"license": "other", "license_name": "original-weights-no-commercial-use"},
        ),
    ],
)
def test_licences(licence: str, fields: dict[str, str]) -> None:
    head = publishing.front_matter(replace(CARD, licence=licence, commercial=False), "esr")
    assert {k: v for k, v in head.items() if k.startswith("license")} == fields
    assert "no-commercial-use" in head["tags"]


LICENCES = (
    *(
        "MIT",
        "Apache-2.0",
        "Unlicense",
        "CC0-1.0",
        "CC BY-NC-SA 4.0 (RAVDESS); no commercial use",
        "terms of NVIDIA NGC",
    ),
    *("original weights, no commercial use", "research only: ask the owners of the training data", "EULA", "GPL"),
    "MIT; FER2013's pictures were published for research, commercial use is not cleared",
    "not available for commercial use; research only",
    "other, see the authors' terms",
)
NO_LICENCES = (
    *("", " ", "-", "?", "...", "n/a", "N.A.", "NA", "nil", "null", "None", "none.", "(none)", "TBD", "todo", "other"),
    *("unknown", "Unlicensed", "unlicenced", "UNLICENSED", "NOASSERTION", "unspecified", "terms unclear", "undefined"),
    *("no license", "without licence", "without any license", "no licence text with the released weights"),
    *(
        "licence not stated",
        "not specified",
        "license: not yet decided",
        "not known",
        "not licensed",
        "licence missing",
    ),
    *("no licence stated with the weights; research use only", "weights released without a licence", "not\navailable"),
)


@pytest.mark.parametrize("licence", LICENCES)
def test_what_is_a_licence(licence: str) -> None:
    assert not publishing.NONE.search(licence)


@pytest.mark.parametrize("licence", NO_LICENCES)
def test_what_is_no_licence(licence: str) -> None:
    assert publishing.NONE.search(" ".join(licence.split()))


@pytest.mark.parametrize("licence", ["", "n/a", "no licence text with the released weights", "license:\n not stated"])
def test_without_a_licence_nothing_is_sent(server: Hub, folder: Path, model: esr.ESR, licence: str) -> None:
    hub.save(model, "esr", folder, replace(CARD, licence=licence), README)
    with pytest.raises(UserError, match=r"has no licence .* ask their owners"):
        publishing.publish(folder, "me/tiny")
    assert server.seen == []


def test_a_damaged_checkpoint_is_not_sent(server: Hub, folder: Path) -> None:
    (folder / hub.WEIGHTS).write_bytes((folder / hub.WEIGHTS).read_bytes()[:-1])
    with pytest.raises(UserError, match="cannot read"):
        publishing.publish(folder, "me/tiny")
    (folder / hub.CARD).write_text("---\na: [\n---\n")
    assert server.seen == []


def test_front_matter_that_is_no_yaml() -> None:
    with pytest.raises(UserError, match=r"front matter of README\.md is no YAML"):
        publishing.split("---\na: [\n---\n# x\n")


def test_command(server: Hub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["publish", str(folder), "me/tiny", "--private", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "me/tiny (private) would get:" in out and "model.safetensors" in out and "license: mit" in out
    assert server.seen == []
    assert main(["publish", str(folder), "me/tiny", "--private"]) == 0
    assert f"Published: {server.url}/me/tiny/commit/" in capsys.readouterr().out
    assert server.repos["model", "me/tiny"].private
    assert main(["publish", str(folder), "tiny"]) == 2
    assert "write OWNER/NAME" in capsys.readouterr().err


def test_names_that_hub_users_expect(server: Hub, model: esr.ESR, folder: Path, tmp_path: Path, capsys) -> None:
    loaded = esr.ESR.from_pretrained(folder)
    assert loaded.push_to_hub("me/pushed", private=True).startswith(server.url)
    again = esr.ESR.from_pretrained("me/pushed", revision="main", token=WRITER)
    assert same(model, again) and again.card == loaded.card and not again.training
    again.save_pretrained(tmp_path / "saved")
    assert contents(tmp_path / "saved")[hub.WEIGHTS] == (folder / hub.WEIGHTS).read_bytes()
    assert "license: mit" in (tmp_path / "saved" / hub.CARD).read_text()
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="is of class ESR, not BENet"):
        benet.BENet.from_pretrained(folder)
    with pytest.raises(UserError, match="has no card yet"):
        esr.ESR(model.config).save_pretrained(tmp_path / "new")
    extra = loaded.state_dict() | {"extra": torch.ones(1)}
    with pytest.raises(UserError, match="unexpected: extra"):
        hub.fit(loaded, extra)


def test_what_hub_users_say_when_they_push(server: Hub, folder: Path, tmp_path: Path) -> None:
    loaded = esr.ESR.from_pretrained(folder)
    loaded.push_to_hub("me/pushed", commit_message="First")
    repository = server.repos["model", "me/pushed"]
    first = repository.refs["main"]
    assert repository.messages[first] == "First"
    loaded.push_to_hub("me/pushed", branch="v2", commit_message="Second")
    assert repository.refs["main"] == first and repository.messages[repository.refs["v2"]] == "Second"
    assert loaded.push_to_hub("me/pushed", create_pr=True).startswith(f"{server.url}/me/pushed/commit/")
    assert repository.refs["main"] == first and [ref for ref in repository.refs if ref.startswith("refs/pr/")]
    with pytest.raises(UserError, match="give branch or create_pr, not both"):
        loaded.push_to_hub("me/pushed", branch="v2", create_pr=True)
    assert loaded.save_pretrained(tmp_path / "plain") is None
    url = loaded.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="me/saved", commit_message="Both")
    saved = server.repos["model", "me/saved"]
    assert url.endswith(saved.refs["main"]) and saved.messages[saved.refs["main"]] == "Both"
    with pytest.raises(UserError, match="'nameless' is no name of a repository; write OWNER/NAME"):
        loaded.save_pretrained(tmp_path / "nameless", push_to_hub=True)


def test_figures_do_not_outlive_the_weights_they_are_of(tmp_path: Path) -> None:
    loaded = hub.load("emenet_v.open_student")
    loaded.save_pretrained(tmp_path / "same")
    head, body = publishing.split((tmp_path / "same" / hub.CARD).read_text())
    assert head["model-index"] and "## Measured" in body and hub.load(tmp_path / "same").card.metrics
    with torch.no_grad():
        next(loaded.parameters()).mul_(1.01)
    loaded.save_pretrained(tmp_path / "tuned")
    head, body = publishing.split((tmp_path / "tuned" / hub.CARD).read_text())
    assert "model-index" not in head and "## Measured" not in body and "Trained further than" in body
    assert "## Not for" in body and hub.load(tmp_path / "tuned").card.metrics == {}
    loaded.card = hub.Card("mine", "MIT", True, metrics={"mine/test/accuracy": 0.5})
    loaded.save_pretrained(tmp_path / "own")
    assert hub.load(tmp_path / "own").card.metrics == {"mine/test/accuracy": 0.5}


def test_a_loaded_models_card_is_kept(server: Hub, folder: Path, tmp_path: Path) -> None:
    loaded = esr.ESR.from_pretrained(folder)
    loaded.save_pretrained(tmp_path / "saved")
    head, body = publishing.split((tmp_path / "saved" / hub.CARD).read_text())
    assert head["thumbnail"] == "a.png" and "small" in head["tags"] and "Only for tests." in body
    esr.ESR.from_pretrained(tmp_path / "saved").push_to_hub("me/pushed")
    assert b"Only for tests." in server.repos["model", "me/pushed"].files[hub.CARD]
    (folder / hub.CARD).write_bytes(b"\xff no text")
    assert hub.load(folder).readme.endswith(" no text")
    (folder / hub.CARD).unlink()
    assert hub.load(folder).readme == ""


def test_every_method_has_these_names() -> None:
    assert all(issubclass(hub.model_class(method), Pretrained) for method in registry.METHODS)


def test_whole_circle_in_processes_of_their_own(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings are environment variables here, as users have them."""
    code = "import emotion, sys; print(emotion.load(sys.argv[1]).card.name)"
    with Hub() as running:
        settings = {
            **{"HF_ENDPOINT": running.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": WRITER},
            **{"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1,localhost"},
        }
        environment = os.environ | settings

        def run(*command: str, **more: str) -> str:
            done = subprocess.run(command, env=environment | more, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout

        run(sys.executable, "-m", "emotion", "publish", str(folder), "me/esr4.ckplus")
        assert run(sys.executable, "-c", code, "esr4.ckplus", EMOTION_HUB="me") == "esr.tiny\n"
    assert run(sys.executable, "-c", code, "me/esr4.ckplus", HF_HUB_OFFLINE="1") == "esr.tiny\n"
    assert not Path(constants.HF_HUB_CACHE, "models--me--esr4.ckplus").exists()
