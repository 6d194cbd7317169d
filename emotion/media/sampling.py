"""Which frames of a video are processed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from emotion.errors import UserError

# Asked for every frame in order, with its number (from 0) and its seconds: is it processed?
Rule = Callable[[int, float], bool]

Rate = float | str | Rule | None  # what users say, see `rule`
DEFAULT = 10.0  # frames per second: expressions last longer than this sees, and a CPU keeps up


def rule(rate: Rate) -> Rule | None:
    """The rule that a user means; None for every frame.

    Args:
        rate: frames per second (also as text), "all" (or None), "F/30" for `of_30`, or a rule.

    Raises:
        UserError: anything else.
    """
    if rate is None or callable(rate):
        return rate
    text = str(rate)
    if text == "all":
        return None
    try:
        number = int(text.removesuffix("/30")) if text.endswith("/30") else float(text)
    except ValueError as error:
        raise UserError(f"frames are taken by a number per second, F/30 or all, not {text!r}") from error
    return of_30(number) if text.endswith("/30") else pace(number)


def of_30(per_30: int = 5) -> Rule:
    """The original ESR's rule, "process F of every 30 frames".

    The last frame of every group of floor(30 / F) is taken, an incomplete group at the end is dropped. The 30 is fixed
    whatever the frame rate.

    Args:
        per_30: F, 1 to 30.

    Raises:
        UserError: F outside 1 to 30.
    """
    if not 1 <= per_30 <= 30:
        raise UserError(f"frames per 30 must lie in 1 to 30, not {per_30}")
    step = 30 // per_30
    return lambda index, _: index % step == step - 1


def original_frames(total: int, per_30: int = 5) -> list[int]:
    """Indices of the frames that `of_30` takes of a video of `total` frames; the original's time is index / rate."""
    take = of_30(per_30)
    return [index for index in range(total) if take(index, 0.0)]


def pace(fps: float) -> Rule:
    """`fps` true frames per second, a rule for one video of increasing timestamps (it remembers where it is).

    The first frame at or after every multiple of 1 / fps seconds since the first frame is taken; none twice, so a
    video with a lower frame rate gives all its frames.

    Raises:
        UserError: fps is not positive.
    """
    if not 0 < fps < float("inf"):
        raise UserError(f"frames per second must be positive, not {fps}")
    start: float | None = None
    due = 0

    def take(_: int, seconds: float) -> bool:
        nonlocal start, due
        start = seconds if start is None else start
        slot = (seconds - start) * fps + 1e-6  # timestamps come rounded
        if slot < due:
            return False
        due = int(slot) + 1
        return True

    return take


def at_rate(timestamps: Iterable[float], fps: float) -> Iterator[int]:
    """Indices of the frames that `pace` takes, from a stream of increasing timestamps."""
    take = pace(fps)
    return (index for index, seconds in enumerate(timestamps) if take(index, seconds))
