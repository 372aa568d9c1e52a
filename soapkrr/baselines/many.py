"""Results of many structures: from the disk, computed here, or by processes that share the work.

Processes are started afresh, never forked, without the user's main module (joblib's loky), with one thread each. Whether they are depends
on how long the first structures take; results do not: each structure is computed by itself.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from functools import cache
from time import perf_counter
from typing import Protocol

import threadpoolctl
from ase.calculators.calculator import BaseCalculator
from joblib import Parallel, delayed, parallel_config

from soapkrr.baselines.results import Result, Structure, calculated
from soapkrr.baselines.store import Store
from soapkrr.threads import threads_for

logger = logging.getLogger(__name__)

#: Seconds of work for which processes are started: starting them takes a few.
WORTH = 5.0

#: Seconds of work that a process is given at once.
PORTION = 0.5

#: What is said of a structure on which a process ends.
ENDED = "ends its process"


class Makes(Protocol):
    """What makes a calculator, in this process or another; equal ones make the same."""

    def make_calculator(self) -> BaseCalculator:
        """A calculator of its own."""
        ...


def many(maker: Makes, structures: Sequence[Structure], store: Store | None, threads: int | None = None) -> list[Result | str]:
    """Results of structures in their order, or why there is none; each is kept in the ``store`` as soon as it is there."""
    found: dict[int, Result | str] = {}
    if store is not None:
        found = {s: result for s, structure in enumerate(structures) if (result := store.read(structure)) is not None}
    missing = [s for s in range(len(structures)) if s not in found]
    if missing:
        found |= _computed(maker, structures, missing, store, threads)
    return [found[s] for s in range(len(structures))]


def _computed(maker: Makes, structures, missing: list[int], store, threads) -> dict[int, Result | str]:
    """One after the other, as long as what is left would not take processes less time."""
    calculator, found = calculator_of(maker), {}
    processes = 1 if multiprocessing.current_process().daemon else threads_for(threads)
    start = perf_counter()
    with one_openmp_thread(maker):
        for count, s in enumerate(missing, start=1):
            found[s] = _one(calculator, structures[s], store)
            each = (perf_counter() - start) / count
            if processes > 1 and each * (len(missing) - count) > WORTH:
                return found | _shared(maker, structures, missing[count:], store, processes, each)
    return found


def _one(calculator: BaseCalculator, structure: Structure, store: Store | None) -> Result | str:
    result = calculated(calculator, structure, afresh=True)
    if store is not None and isinstance(result, Result):
        store.write(structure, result)
    return result


@cache
def calculator_of(maker: Makes) -> BaseCalculator:
    """The calculator of this process."""
    return maker.make_calculator()


@cache
def _openmp(maker: Makes) -> threadpoolctl.ThreadpoolController:
    """The OpenMP libraries of this process, once the calculator has loaded its own."""
    return threadpoolctl.ThreadpoolController().select(user_api="openmp")


def one_openmp_thread(maker: Makes):
    """One OpenMP thread of this thread inside: a team of them does not survive a fork, and small structures gain nothing by it."""
    return _openmp(maker).limit(limits=1)


def _shared(maker, structures, missing: list[int], store, processes: int, each: float) -> dict[int, Result | str]:
    """By processes, in portions; a portion on which one ends is done again, structure by structure."""
    size = max(1, min(int(PORTION / each), -(-len(missing) // processes)))
    portions = [missing[k : k + size] for k in range(0, len(missing), size)]
    logger.info("%d structures by %d processes, about %.0f s", len(missing), processes, each * len(missing) / processes)
    found: dict[int, Result | str] = {}
    try:
        for indices, results in _by_processes(maker, structures, portions, store, processes):
            found |= dict(zip(indices, results, strict=True))
    except BrokenExecutor:
        for s in missing:
            if s not in found:
                found[s] = _alone(maker, structures[s], store)
    return found


def _by_processes(maker, structures, portions: list[list[int]], store, processes: int) -> Iterator[tuple[list[int], list[Result | str]]]:
    tasks = (delayed(_portion)(maker, [structures[s] for s in indices], store) for indices in portions)
    with parallel_config(backend="loky", n_jobs=processes, inner_max_num_threads=1):
        yield from zip(portions, Parallel(return_as="generator", max_nbytes=None)(tasks), strict=True)


def _alone(maker, structure: Structure, store) -> Result | str:
    """One structure in a process that may end."""
    if store is not None and (result := store.read(structure)) is not None:
        return result
    try:
        return next(_by_processes(maker, [structure], [[0]], store, processes=2))[1][0]
    except BrokenExecutor:
        return ENDED


def _portion(maker: Makes, structures: list[Structure], store: Store | None) -> list[Result | str]:
    """In a process: several structures."""
    calculator = calculator_of(maker)
    with one_openmp_thread(maker):
        return [_one(calculator, structure, store) for structure in structures]
