"""Work of a session: what stops it is told in words; long work has progress, time left, and a way to stop it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import gradio as gr

from emotion.errors import UserError

Done = TypeVar("Done")
Progress = Callable[[float, float], bool]  # told what is done of how much; answers whether to go on
EVERY = 0.3  # seconds between two reports


Update = dict[Any, Any]  # component -> what it shows now


def guarded(steps: Iterator[Update], failed: Callable[[str], Update]) -> Iterator[Update]:
    """Pass updates on; a problem becomes the last one, made from its words. Unforeseen errors are also logged."""
    try:
        yield from steps
    except UserError as problem:
        yield failed(str(problem))
    except Exception:
        yield failed("an error in this program; the server's log has the details")
        raise


@contextmanager
def answering() -> Iterator[None]:
    """In API functions: what a user can mend is answered as an error, and not logged."""
    try:
        yield
    except UserError as problem:
        raise gr.Error(str(problem), print_exception=False) from problem


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


def limited(longest: float, progress: Progress = lambda done, total: True) -> Progress:
    """Progress that ends after some seconds, for films whose header does not tell how long they are."""
    return lambda done, total: progress(done, total) and done <= longest


def told(
    work: Generator[tuple[float, float], None, Done], doing: str, busy: Callable[..., Update]
) -> Generator[Update, None, Done]:
    """Pass the reports of `watched` work in seconds on as updates, returns its result.

    Args:
        work: what runs.
        doing: it in words.
        busy: (words, share done or None, stoppable=True) -> update.
    """
    started = time.monotonic()
    yield busy(f"{doing}…", None, stoppable=True)
    while True:
        try:
            done, total = next(work)
        except StopIteration as end:
            return end.value
        where = f"{doing}: {done:.1f} of {total:.1f} s" if total else f"{doing}: {done:.1f} s"
        words = left(started, done, total)
        yield busy(f"{where}{', ' if words else ''}{words}", done / total if total else None, stoppable=True)


def left(started: float, done: float, total: float) -> str:
    """How long it will still take, in words; "" while nobody can know."""
    spent = time.monotonic() - started
    if done <= 0 or total <= 0 or spent < 1:
        return ""
    seconds = spent * max(0.0, total - done) / done
    return f"about {seconds:.0f} s left" if seconds < 90 else f"about {seconds / 60:.0f} min left"
