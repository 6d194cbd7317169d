"""Long work of one session: in a thread of its own, with progress, time left, and a way to stop it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Done = TypeVar("Done")
Progress = Callable[[float, float], bool]  # told what is done of how much; answers whether to go on
EVERY = 0.3  # seconds between two reports


class Stops:
    """The running work of every session, so that its visitor can stop it."""

    def __init__(self) -> None:
        self._running: dict[str, threading.Event] = {}

    def start(self, session: str) -> threading.Event:
        """A new piece of work that `stop` will stop."""
        self._running[session] = threading.Event()
        return self._running[session]

    def stop(self, session: str) -> None:
        """Stop the session's work, if there is any."""
        if session in self._running:
            self._running[session].set()

    def end(self, session: str) -> None:
        """Forget the session's work."""
        self._running.pop(session, None)


def watched(work: Callable[[Progress], Done], stop: threading.Event) -> Generator[tuple[float, float], None, Done]:
    """Run `work` in a thread; yields its reports, returns its result. Closing the generator stops the work.

    Args:
        work: is given the function to report to.
        stop: makes that function answer False.
    """
    reports: queue.SimpleQueue[tuple[float, float] | None] = queue.SimpleQueue()
    last = 0.0

    def progress(done: float, total: float) -> bool:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            reports.put((done, total))
        return not stop.is_set()

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(work, progress)
        job.add_done_callback(lambda _: reports.put(None))
        try:
            while (report := reports.get()) is not None:
                yield report
        except GeneratorExit:
            stop.set()
            raise
    return job.result()


def left(started: float, done: float, total: float) -> str:
    """How long it will still take, in words; "" while nobody can know."""
    spent = time.monotonic() - started
    if done <= 0 or total <= 0 or spent < 1:
        return ""
    seconds = spent * max(0.0, total - done) / done
    return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"
