"""What a clone and a wheel consist of: dependencies, contents, make targets, documented commands."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from emotion import __main__, registry

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OURS = {"emotion", "eval", "train", "tests", "app"}

# Files -> groups of dependencies that are there when they run; dlib is imported where a user asks for it, `spaces`
# (group space) where it is installed.
GROUPS = {
    "core": ("core", "dlib", "space"),
    "demo": ("core", "demo"),
    "eval": ("core", "demo", "eval"),
    "train": ("core", "train"),
    "test": ("core", "demo", "eval", "train", "test"),
}
# Used without a plain import: as a program, a plug-in, by a subprocess, or on old Pythons only.
PROGRAMS = {"pytest-xdist", "ruff", "setuptools", "tensorboard", "tomli"}
PROVIDERS = {"dlib": ["dlib-bin"]} | packages_distributions()  # dlib may not be installed


def declared(group: str) -> dict[str, Requirement]:
    rows = PROJECT["dependencies"] if group == "core" else PROJECT["optional-dependencies"][group]
    requirements = [Requirement(row) for row in rows]
    return {canonicalize_name(r.name): r for r in requirements}


def files(group: str) -> list[Path]:
    library, page = sorted((ROOT / "emotion").rglob("*.py")), sorted((ROOT / "emotion" / "ui").rglob("*.py"))
    return {
        "core": [p for p in library if p not in page],
        "demo": [*page, *ROOT.glob("app.py")],
        "eval": sorted((ROOT / "eval").rglob("*.py")),
        "train": sorted((ROOT / "train").rglob("*.py")),
        "test": sorted((ROOT / "tests").rglob("*.py")),
    }[group]


def imported(paths: list[Path]) -> dict[str, Path]:
    """Top-level modules of other projects -> a file that imports it, at its head or in a function."""
    found = {}
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            found |= {name.split(".")[0]: path.relative_to(ROOT) for name in names}
    return {k: v for k, v in found.items() if k not in sys.stdlib_module_names | OURS}


@pytest.mark.parametrize("group", GROUPS)
def test_every_import_is_a_declared_dependency(group: str) -> None:
    known = {name for g in GROUPS[group] for name in declared(g)}
    for module, path in imported(files(group)).items():
        names = {canonicalize_name(name) for name in PROVIDERS.get(module, [module])}
        assert names & known, f"{path} imports {module}, which pyproject.toml does not list for {group}"


def test_every_declared_dependency_is_imported() -> None:
    modules = imported([path for group in GROUPS for path in files(group)])
    used = {canonicalize_name(name) for m in modules for name in PROVIDERS.get(m, [m])}
    for group in GROUPS:
        assert set(declared(group)) <= used | PROGRAMS, f"{group}: {set(declared(group)) - used - PROGRAMS} unused"


@pytest.mark.parametrize("group", GROUPS)
def test_dependencies_have_both_bounds(group: str) -> None:
    for requirement in declared(group).values():
        operators = {s.operator for s in requirement.specifier}
        assert operators in ({">=", "<"}, {"=="}), f"{requirement} needs a lower and an upper bound"


def test_wheel_holds_the_packages_their_data_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__", "*.part")
    for name in ("emotion", "eval", "train", "tests", "spaces"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (source / "spaces" / "demo").mkdir(parents=True, exist_ok=True)
    (source / "spaces" / "demo" / "app.py").write_text("", encoding="utf-8")
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(source.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"emotion", "eval", "train"}
    for package in ("emotion", "eval", "train"):
        modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / package).rglob("*.py")}
        assert modules <= names, f"not in the wheel: {modules - names}"
    assert {"emotion/registry.yaml", "emotion/py.typed"} <= names
    for entry in registry.entries().values():
        if entry.bundled:
            files = {f"emotion/weights/{entry.name}/{f}" for f in ("config.json", "model.safetensors", "README.md")}
            assert files <= names, f"{entry.name} is bundled but not in the wheel"
    recipes = {p.relative_to(ROOT).as_posix() for p in (ROOT / "train" / "recipes").rglob("*") if p.is_file()}
    assert recipes <= names


def test_spaces_folder_is_never_a_package() -> None:
    assert not list((ROOT / "spaces").rglob("__init__.py"))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_says_what_is_wrong_with_the_interpreter(tmp_path: Path) -> None:
    command = ["make", "demo", "PYTHON=false", f"VENV={tmp_path / 'venv'}"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and "Python 3.10 or newer is needed" in run.stderr
    assert not (tmp_path / "venv").exists()


def test_readme_names_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    assert {"demo", "test"} <= set(re.findall(r"^make ([a-z]+)", README, re.M)) <= targets
    lines = re.findall(r"^python -m emotion (.+?)(?:  #.*)?$", README, re.M)
    assert len(lines) >= 4
    for line in lines:
        __main__._parser().parse_known_args(line.split())
    for model in re.findall(r"--model ([\w.]+)|info ([\w.]+)", "\n".join(lines)):
        assert "".join(model) in registry.entries()
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), f"README.md links to {target}, which is missing"
