"""The examples of the documents for programs, as written, against a served page; the functions for language models."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")

from emotion.labels import FERPLUS
from emotion.media import read_image
from emotion.ui import pieces
from tests import browser as web
from tests.films import TWO

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/page.md")
ADDRESS = "http://127.0.0.1:7860"  # in the documents
BUNDLED = "esr_compact.ferplus"


def blocks(word: str) -> list[str]:
    """The documents' code blocks with this word in them."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS]
    found = [block for text in texts for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    return [block for block in found if word in block]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with web.served([]) as address:
        yield address.rstrip("/")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the files that the examples name is the working directory."""
    shutil.copy(web.EXAMPLES / "officer.jpg", tmp_path / "photo.jpg")
    shutil.copy(TWO, tmp_path / "clip.mp4")
    monkeypatch.chdir(tmp_path)


def shown(code: str) -> list[Any]:
    """Run code; the values of its lines that are expressions, as an interactive interpreter shows them."""
    names: dict[str, Any] = {}
    values = []
    for line in ast.parse(code).body:
        if isinstance(line, ast.Expr):
            values.append(eval(compile(ast.Expression(line.value), "example", "eval"), names))
        else:
            exec(compile(ast.Module([line], []), "example", "exec"), names)
    return values


def test_python_examples(address: str, files: None) -> None:
    examples = blocks("gradio_client")
    assert examples
    for code in examples:
        for value in shown(code.replace(ADDRESS, address)):  # a label, labels by model, or probabilities by label
            values = list(value.values()) if isinstance(value, dict) else [value]
            assert sum(values) == pytest.approx(1) if isinstance(values[0], float) else set(values) <= set(FERPLUS)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_shell_examples(address: str, files: None) -> None:
    examples = blocks("curl ")
    assert examples
    for code in examples:
        done = subprocess.run(
            ["sh", "-euc", code.replace(ADDRESS, address)], capture_output=True, text=True, check=True
        )
        event, data = done.stdout.strip().split("\n")[-2:]
        (document,) = json.loads(data.removeprefix("data: "))
        assert event == "event: complete" and document["schema"] == "emotion/1" and document["model"] == BUNDLED
        assert len(document["frames"][0]["faces"]) == 1


def test_language_models_find_and_call_the_functions() -> None:
    pytest.importorskip("mcp")
    from mcp import ClientSession
    from mcp.client.streamable_http import streamablehttp_client

    (url,) = re.findall(rf"`{ADDRESS}(/\S+)`", (ROOT / "docs/page.md").read_text(encoding="utf-8"))

    async def use(address: str) -> tuple[dict[str, Any], Any, Any]:
        async with (
            streamablehttp_client(address.rstrip("/") + url) as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            tools = {tool.name: tool for tool in (await session.list_tools()).tools}
            photo = pieces.data_uri(read_image(web.EXAMPLES / "officer.jpg"))
            right = await session.call_tool("analyze_image", {"image": photo})
            wrong = await session.call_tool("analyze_image", {"image": photo, "model": "none"})
            return tools, right, wrong

    with web.served([], mcp=True) as address:
        tools, right, wrong = asyncio.run(use(address))
    assert {"analyze_image", "analyze_video", "compare", "leaderboard"} <= set(tools)
    assert all(tool.description for tool in tools.values())
    assert set(tools["analyze_image"].inputSchema["properties"]) == {"image", "model"}
    assert not right.isError and ast.literal_eval(right.content[0].text)["model"] == BUNDLED
    assert wrong.isError and "no model 'none'" in wrong.content[0].text
