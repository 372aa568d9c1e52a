"""Attempts at breaking things: run, timed, and counted by what came of them."""

from __future__ import annotations

import faulthandler
import gc
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from soapkrr import InputError

RIGHT, REFUSED, UNCHECKED = "right", "InputError", "unchecked"
WRONG, OTHER, SLOW, LARGE, HANG = "wrong", "other exception", "too slow", "too large", "hang"

#: What may come of an attempt, and what of that must not.
OUTCOMES = (RIGHT, REFUSED, UNCHECKED, WRONG, OTHER, SLOW, LARGE, HANG)
BAD = OUTCOMES[3:]


class Wrong(Exception):
    """A number that is wrong, a refusal of what is sound, a file half written: whatever nobody would notice, or be told."""


class Hang(BaseException):
    """An attempt that did not end."""


@dataclass(frozen=True)
class Attempt:
    """``judge(action())`` is an outcome, or raises `Wrong`; the action alone is timed, and may raise `InputError`."""

    kind: str
    name: str
    action: Callable
    judge: Callable = lambda value: value


@dataclass(frozen=True)
class Limits:
    """Time of an attempt by ``clock`` (of the processor: others may be busy too) and until it counts as hanging, s; memory it may add
    to the process, bytes."""

    seconds: float = 2.0
    patience: float = 60.0
    memory: float = 1e9
    clock: Callable[[], float] = time.process_time


@dataclass
class Result:
    """What came of an attempt."""

    attempt: Attempt
    outcome: str
    seconds: float
    detail: str = ""

    @property
    def bad(self) -> bool:
        return self.outcome in BAD


def tried(attempt: Attempt, limits: Limits) -> Result:
    """One attempt, run in the main thread."""
    gc.collect(0)
    before = _peak(reset=True)
    start = limits.clock()
    try:
        with _patience(limits.patience):
            try:
                value = attempt.action()
            finally:
                seconds, grown = limits.clock() - start, _peak() - before
    except InputError:
        value, outcome = None, REFUSED
    except Hang:
        return Result(attempt, HANG, limits.patience, f"not done after {limits.patience:g} s")
    except Wrong as error:
        return Result(attempt, WRONG, seconds, str(error))
    except Exception as error:  # anything else is what is looked for
        return Result(attempt, OTHER, seconds, "".join(traceback.format_exception(error)[-3:]))
    else:
        outcome = None
    try:
        outcome = attempt.judge(value) if outcome is None else outcome
    except Wrong as error:
        return Result(attempt, WRONG, seconds, str(error))
    except Exception as error:  # the judge could not read what was left
        return Result(attempt, OTHER, seconds, "".join(traceback.format_exception(error)[-3:]))
    if seconds > limits.seconds:
        return Result(attempt, SLOW, seconds, f"{seconds:.1f} s")
    if grown > limits.memory:
        return Result(attempt, LARGE, seconds, f"{grown / 1e9:.1f} GB")
    return Result(attempt, outcome, seconds)


def _peak(reset: bool = False) -> float:
    """Largest resident memory since the last reset, bytes; zero where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024.0 * int(line.split()[1])


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Raise `Hang` after so many seconds, where the system has such signals; what does not return to Python ends the process later."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def late(number, frame):
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, seconds)  # again and again, should something swallow it
    faulthandler.dump_traceback_later(4 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Table:
    """Results counted by kind of attempt."""

    title: str
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    bad: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count a result."""
        kind = result.attempt.kind
        row = self.rows.setdefault(kind, dict.fromkeys(OUTCOMES, 0))
        row[result.outcome] += 1
        self.worst[kind] = max(self.worst.get(kind, 0.0), result.seconds)
        if result.bad:
            self.bad.append(result)

    def total(self) -> dict[str, int]:
        """Counts of all kinds together."""
        return {outcome: sum(row[outcome] for row in self.rows.values()) for outcome in OUTCOMES}

    def __str__(self) -> str:
        width = max([len(self.title), *map(len, self.rows), 12])
        shown = [(name[:15], 1 + max(len(name[:15]), 7)) for name in OUTCOMES]
        head = f"{self.title:<{width}} {'tried':>7}" + "".join(f"{name:>{w}}" for name, w in shown) + f"{'worst (s)':>11}"
        lines = [head, "-" * len(head)]
        for kind, row in [*self.rows.items(), ("all", self.total())]:
            worst = self.worst[kind] if kind in self.worst else max(self.worst.values(), default=0.0)
            counts = "".join(f"{row[name]:>{w}}" for name, (_, w) in zip(OUTCOMES, shown, strict=True))
            lines.append(f"{kind:<{width}} {sum(row.values()):>7}{counts}{worst:>11.2f}")
        return "\n".join(lines)


def run(title: str, attempts: Iterable[Attempt], limits: Limits | None = None, told: Callable | None = None) -> Table:
    """The table of all attempts, up to Ctrl-C; ``told`` is called with each bad result as it comes."""
    table = Table(title)
    for attempt in attempts:
        try:
            result = tried(attempt, limits or Limits())
        except KeyboardInterrupt:
            table.title += ", interrupted"
            break
        table.add(result)
        if told is not None and result.bad:
            told(result)
    return table


def failures(table: Table) -> str:
    """What a test says of a table with bad results; empty without."""
    return "\n".join(f"{r.attempt.name}: {r.outcome}: {r.detail}" for r in table.bad)
