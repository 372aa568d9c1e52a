"""Forks while other threads predict: every child predicts the same numbers, and none hangs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import numpy as np
from harness import RIGHT, Attempt, Hang, Wrong
from small import crystals, small_gp

#: Threads that predict meanwhile; seconds until a child counts as hanging.
THREADS, PATIENCE = 3, 20.0


def attempts(n: int, seed: int = 0) -> Iterator[Attempt]:
    """n forks at random times."""
    if not hasattr(os, "fork"):
        return
    model, frames, rng, stop = small_gp(threads=2).fit(crystals(4)), crystals(3, seed=5), np.random.default_rng(seed), threading.Event()
    expected = model.predict(frames, uncertainty=True)

    def busy():
        while not stop.is_set():
            model.predict(frames, uncertainty=True)

    threads = [threading.Thread(target=busy, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        for k in range(n):
            yield Attempt("fork", f"fork {seed}/{k}", forked(model, frames, expected, rng.uniform(0, 0.02)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def forked(model, frames, expected, delay: float):
    def action():
        time.sleep(delay)
        pid = os.fork()
        if not pid:
            p = model.predict(frames, uncertainty=True)
            same = np.array_equal(p.energy, expected.energy) and np.array_equal(p.forces_std[0], expected.forces_std[0])
            os._exit(0 if same else 3)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                if status:
                    raise Wrong(f"the child ends with {os.waitstatus_to_exitcode(status)}")
                return RIGHT
            time.sleep(0.002)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise Hang

    return action
