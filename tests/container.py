"""The Dockerfile without a container engine: its steps in a scratch copy of this system, then the page, read-only.

    python -m tests.container [--build-arg NAME=VALUE] [--scratch FOLDER]     (as root, on Linux)

An overlay over this system's root stands for the base image, an empty virtual environment for the image's Python; what
the steps write lands in the scratch folder. Then the root is made read-only, /tmp empty, and the entry point is run as
the image's user until the health check passes and a picture has been analysed. Takes minutes and some GB.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHON = "/usr/local/stand-in"  # the virtual environment
NETWORK = re.compile(r"(PIP|UV|SSL|REQUESTS|CURL)_|\w+_proxy$", re.IGNORECASE)  # this machine's way to the index
PICTURE = ROOT / "emotion" / "ui" / "examples" / "officer.jpg"


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions; continued lines are one."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


def kept() -> set[str]:
    """The names at the top that .dockerignore lets through."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    return {line[1:] for line in lines if line.startswith("!")}


class Container:
    """A root directory in which the instructions are carried out; made inside a mount namespace of its own."""

    def __init__(self, scratch: Path, arguments: dict[str, str]) -> None:
        self.root, self.arguments = scratch / "root", arguments
        network = {k: v for k, v in os.environ.items() if NETWORK.match(k)}
        self.environment = {
            "PATH": f"{PYTHON}/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            **network,
        }
        self.folder, self.user, self.health, self.entry = "/", "0", [], []
        for name in ("root", "upper", "work"):
            (scratch / name).mkdir(parents=True)
        layers = f"lowerdir=/,upperdir={scratch / 'upper'},workdir={scratch / 'work'}"
        mount("-t", "overlay", "overlay", "-o", layers, self.root)
        mount("--bind", "/proc", self.root / "proc")
        mount("--rbind", "/dev", self.root / "dev")
        mount("-t", "tmpfs", "tmpfs", self.root / "tmp")
        self.base_image()

    def base_image(self) -> None:
        """No users but root; an empty Python that all may run; pip, or uv in its place where there is one: faster."""
        for name, line in {
            "passwd": "root:x:0:0::/root:/bin/sh",
            "group": "root:x:0:",
            "shadow": "root:*::::::",
        }.items():
            (self.root / "etc" / name).write_text(f"{line}\n")
        interpreter = Path(sys.executable).resolve()
        for parent in interpreter.parents:
            (self.root / parent.relative_to("/")).chmod(0o755)
        uv = shutil.which("uv")
        self.run(f"{interpreter} -m venv {'--without-pip' if uv else ''} {PYTHON}")
        if uv:
            install = f"{uv} pip install --link-mode copy --python {PYTHON}/bin/python"
            command = f'#!/bin/sh\nshift\nHOME={Path.home()} exec {install} "$@"\n'
            pip = self.root / PYTHON[1:] / "bin" / "pip"
            pip.write_text(command)
            pip.chmod(0o755)

    def run(self, command: str | list[str], wait: bool = True, quiet: bool = False) -> subprocess.Popen[bytes]:
        """Carry out a command in the root; where it is waited for, failing raises `CalledProcessError`."""
        shell = ["/bin/sh", "-c", f'cd {self.folder} && exec "$@"', "sh"]
        words = [*shell, "/bin/sh", "-ec", command] if isinstance(command, str) else [*shell, *command]
        user = [] if self.user == "0" else ["setpriv", f"--reuid={self.user}", f"--regid={self.user}", "--clear-groups"]
        started = subprocess.Popen(
            [shutil.which("chroot"), str(self.root), *user, *words],
            env=self.environment,
            stderr=subprocess.DEVNULL if quiet else None,
        )
        if wait and (code := started.wait()):
            raise subprocess.CalledProcessError(code, command)
        return started

    def build(self) -> None:
        """Carry out the instructions."""
        for kind, rest in instructions():
            print(f"{kind} {rest}", flush=True)
            if kind == "ARG":
                name, _, default = rest.partition("=")
                self.environment[name] = self.arguments.get(name, self.expanded(default))
            elif kind == "ENV":
                self.environment |= dict(part.split("=", 1) for part in self.expanded(rest).split())
            elif kind == "WORKDIR":
                self.folder = rest
                (self.root / rest[1:]).mkdir(parents=True)
            elif kind == "COPY":
                self.copy(*rest.split())
            elif kind == "RUN":
                self.run(rest)
            elif kind == "USER":
                self.user = rest
            elif kind == "HEALTHCHECK":
                self.health = json.loads(rest.split("CMD ")[1])
            elif kind == "ENTRYPOINT":
                self.entry = json.loads(rest)

    def expanded(self, text: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda match: self.environment[match[1]], text)

    def copy(self, *names: str) -> None:
        *sources, target = names
        for name in sources:
            assert name in kept(), f"{name} is not in the build's context"
            place = self.root / self.folder[1:] / (name if target == "./" else target)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)

    def serve(self) -> None:
        """Run the entry point on a read-only root with an empty /tmp; analyse a picture; end it."""
        mount("-t", "tmpfs", "tmpfs", self.root / "tmp")
        mount("-o", "remount,ro", self.root)
        started = time.monotonic()
        server = self.run(self.entry, wait=False)
        try:
            while self.run(self.health, wait=False, quiet=True).wait():
                assert server.poll() is None, "the page ended"
                time.sleep(1)
            print(f"healthy after {time.monotonic() - started:.1f} s", flush=True)
            from gradio_client import Client, handle_file

            client = Client("http://127.0.0.1:7860/", verbose=False)
            result = client.predict(handle_file(str(PICTURE)), api_name="/analyze_image")
            assert len(result["frames"][0]["faces"]) == 1, result
            print(f"a picture was analysed after {time.monotonic() - started:.1f} s", flush=True)
        finally:
            server.terminate()
            server.wait()


def mount(*words: object) -> None:
    """`mount`, for this process only."""
    subprocess.run(["mount", *map(str, words)], check=True)


def main() -> None:
    """Build and serve, in a mount namespace whose mounts are gone at the end."""
    parser = argparse.ArgumentParser(prog="python -m tests.container", description=__doc__.splitlines()[0])
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--scratch", type=Path, help="an empty folder on a disk with some GB; default: below /tmp")
    args = parser.parse_args()
    if "EMOTION_CONTAINER" not in os.environ:
        with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
            inside = {"EMOTION_CONTAINER": scratch}
            command = ["unshare", "--mount", sys.executable, "-m", "tests.container", *sys.argv[1:]]
            sys.exit(subprocess.run(command, cwd=ROOT, env=os.environ | inside).returncode)
    arguments = dict(part.split("=", 1) for part in args.build_arg)
    container = Container(Path(os.environ["EMOTION_CONTAINER"]), arguments)
    container.build()
    container.serve()


if __name__ == "__main__":
    main()
