"""`python -m tests.benchmark_page`: how long the page takes to start, to open, and to show a first face.

The page is a process of its own, the browser headless Chromium on the same machine.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Browser

from tests import browser as web

ROUNDS = 5
PORT = 7997


def visit(browser: Browser, address: str) -> tuple[float, float]:
    """Seconds until a picture can be chosen, and from choosing an example to its answer."""
    start = time.perf_counter()
    page = web.open_page(browser, address, [])
    page.wait_for_selector("#em-picture input[type=file]", state="attached")
    opened = time.perf_counter()
    page.click("button[data-file='astronaut.jpg']")
    page.wait_for_selector("#em-details .em-big")
    answered = time.perf_counter()
    page.context.close()
    return opened - start, answered - opened


def main() -> None:
    """Print a table as Markdown."""
    start = time.perf_counter()
    command = [sys.executable, "app.py", "--port", str(PORT)]
    page = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
    try:
        address = next(found[0] for line in page.stdout if (found := re.search(r"http://[\w.:]+", line)))
        started = time.perf_counter() - start
        with web.chromium() as browser:
            (_, loading), *visits = (visit(browser, address) for _ in range(1 + ROUNDS))
    finally:
        page.terminate()
    opened, answered = (statistics.median(times) for times in zip(*visits))
    print(f"from the command to the address: {started:.1f} s")
    print(f"from the address to a page that can be used: {opened:.1f} s (median of {ROUNDS})")
    print(f"from an example to its answer: {answered:.1f} s; the very first, which loads the model: {loading:.1f} s")


if __name__ == "__main__":
    main()
