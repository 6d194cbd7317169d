"""Put a Space together, and show, write or send it: `python spaces/deploy.py demo --repo OWNER/NAME --dry-run`.

From a clone only files that git knows are sent, so that nothing private goes along that lies beside them; from a copy
without git all files of the folders, without those whose names start with a dot, links that lead out, and caches.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # what is sent is what lies here, whatever is installed

from emotion import remote  # noqa: E402
from emotion.cli.console import report, show  # noqa: E402
from emotion.errors import UserError, listed  # noqa: E402

SPACES = ("demo", "leaderboard")
LEFT_OUT = ("__pycache__", ".part", "predictions")  # ends of names; as .gitignore has them
FILE_LIMIT, LIMIT = 100_000_000, 500_000_000  # bytes; a Space's repository may have 1 GB in all


def assemble(space: str) -> dict[str, bytes]:
    """The files of a Space, path -> content: its own folder, and what it runs or shows.

    Raises:
        UserError: a file is missing, or the Space would be too large.
    """
    files = _folder(ROOT / "spaces" / space)
    if space == "demo":
        for name in packages():
            files |= {f"{name}/{path}": content for path, content in _folder(ROOT / name).items()}
    else:
        from eval import leaderboard, render

        with tempfile.TemporaryDirectory() as folder:
            write(_folder(ROOT / "eval" / "results"), Path(folder))
            tables, problems = leaderboard.tables_of([Path(folder)])
        if problems:
            raise UserError(problems[0])
        names = {"html": "index.html", "csv": "leaderboard.csv", "json": "leaderboard.json"}
        files |= {name: render.FORMATS[form](tables).encode() for form, name in names.items()}
    files["LICENSE"] = (ROOT / "LICENSE").read_bytes()
    for path, content in files.items():
        if len(content) > FILE_LIMIT:
            raise UserError(
                f"{path} has {len(content) / 1e6:.0f} MB, more than the {FILE_LIMIT / 1e6:.0f} MB of a file"
            )
    if (size := sum(map(len, files.values()))) > LIMIT:
        raise UserError(f"the Space has {size / 1e6:.0f} MB, more than {LIMIT / 1e6:.0f} MB")
    return dict(sorted(files.items()))


def packages(first: str = "emotion") -> list[str]:
    """The packages of this project that the page runs: `first`, and those that it imports, directly or not."""
    wanted, found = [first], []
    while wanted:
        found.append(wanted.pop())
        for path in (ROOT / found[-1]).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and not node.level:
                    modules = [node.module]
                tops = {module.split(".")[0] for module in modules} - {*found, *wanted}
                wanted += sorted(top for top in tops if (ROOT / top / "__init__.py").is_file())
    return found


def _folder(folder: Path) -> dict[str, bytes]:
    """A folder's files that may be sent, path in it -> content."""
    paths = _git(folder) if (ROOT / ".git").exists() else [p.relative_to(folder) for p in folder.rglob("*")]
    return {p.as_posix(): (folder / p).read_bytes() for p in paths if _public(folder, p)}


def _public(folder: Path, path: Path) -> bool:
    real = (folder / path).resolve()
    hidden = any(part.startswith(".") or part.endswith(LEFT_OUT) for part in path.parts)
    return real.is_file() and real.is_relative_to(ROOT.resolve()) and not hidden


def _git(folder: Path, *options: str) -> list[Path]:
    """The files of a folder that git knows, relative to it."""
    try:
        run = subprocess.run(
            ["git", "ls-files", "-z", *options], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = " ".join(getattr(error, "stderr", "").split()) or error
        raise UserError(f"cannot ask git which files of {folder} may be sent: {reason}") from error
    return [Path(name) for name in run.stdout.split("\0") if name]


def unknown(space: str) -> list[str]:
    """Files that are not sent because git does not know them; none outside a clone."""
    if not (ROOT / ".git").exists():
        return []
    folders = [
        ROOT / "spaces" / space,
        *(ROOT / name for name in (packages() if space == "demo" else ["eval/results"])),
    ]
    new = ((folder, path) for folder in folders for path in _git(folder, "--others", "--exclude-standard"))
    return [(folder / path).relative_to(ROOT).as_posix() for folder, path in new if _public(folder, path)]


def write(files: dict[str, bytes], folder: Path) -> None:
    """Write a Space's files into a new or empty folder.

    Raises:
        UserError: the folder is not empty, or it cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} is not empty")
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python spaces/deploy.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("space", nargs="?", choices=SPACES, default="demo", help="default: %(default)s")
    parser.add_argument("--repo", metavar="OWNER/NAME", help="the Space; made if there is none")
    parser.add_argument("--private", action="store_true", help="for nobody else to see")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dry-run", action="store_true", help="print what would be sent, and contact nobody")
    what.add_argument("--push", action="store_true", help="send it")
    what.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="write it here")
    args = parser.parse_args(argv)
    if args.push and not args.repo:
        parser.error("--push needs --repo OWNER/NAME")
    try:
        files = assemble(args.space)
        if args.output:
            write(files, args.output)
        elif args.push:
            sdk = "gradio" if args.space == "demo" else "static"
            message = f"Update the {args.space}"
            url = remote.push(args.repo, files, message, sdk=sdk, private=args.private, only=True)
            show(f"Sent: {url}")
        else:
            show(*(f"{len(content) / 1e3:10.1f} kB  {path}" for path, content in files.items()))
        show(f"{len(files)} files, {sum(map(len, files.values())) / 1e6:.1f} MB")
        if new := unknown(args.space):
            show(f"Left out, because git does not know them (`git add` makes it): {listed(new)}")
    except UserError as error:
        report(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
