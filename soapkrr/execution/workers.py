"""Groups of structures worked on by dask.distributed: the only module that knows dask.

Every result on a worker is that of a task, a pure function of others' results and of what was sent with it, so that dask makes again
what a lost worker held. Each task has one thread: a worker of n threads runs n tasks at a time.
"""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from ase import Atoms

from soapkrr.errors import InputError, installing
from soapkrr.execution.pools import tree
from soapkrr.progress import track
from soapkrr.threads import one_thread

logger = logging.getLogger(__name__)

#: Seconds after which a wait for workers is looked into.
PATIENCE = 20.0


def _dask():
    try:
        from dask import distributed
    except ImportError as error:
        raise InputError(f"`client` needs dask.distributed ({error}); {installing('distributed')}.") from error
    return distributed


class Workers:
    """The workers of a `dask.distributed.Client`, with the methods of `pools.Threads`.

    Parameters
    ----------
    client : connected, not asynchronous; soapkrr must be installed where its workers are.

    Raises
    ------
    InputError : it is no such client, or dask.distributed is not installed.
    """

    #: See `pools.Threads`.
    remote = True

    def __init__(self, client):
        self._dask = _dask()
        if not isinstance(client, self._dask.Client) or client.asynchronous:
            raise InputError(f"`client` must be a dask.distributed.Client that is not asynchronous, received {client!r}.")
        self._client = client
        self._shared: dict[int, tuple] = {}

    def frames(self, frames: list[Atoms]) -> list[Atoms]:
        """Copies without calculators, labels and other baggage, which need not survive the journey."""
        return [Atoms(numbers=a.numbers, positions=a.positions, cell=a.cell, pbc=a.pbc) for a in frames]

    def share(self, value):
        """A future of ``value``: sent once, fetched by every worker that needs it, from another or, when all are lost, again."""
        if id(value) not in self._shared:
            self._shared[id(value)] = (value, self.submit(_same, value))
        return self._shared[id(value)][1]

    def submit(self, function: Callable, *arguments, priority: int = 0):
        """A future of ``function(*arguments)``, of which some may be futures."""
        with warnings.catch_warnings():
            # Data that a task carries can be sent again when a worker is lost; data scattered beforehand could not.
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            key = f"{function.__name__.strip('_')}-{uuid4().hex}"
            return self._client.submit(_run, function, *arguments, key=key, priority=priority)

    def gather(self, futures: list) -> list:
        """The results; the first error among them, in order, is raised."""
        self._dask.wait(futures)
        for future in futures:
            if future.status != "finished":
                future.result()
        results: Any = self._client.gather(futures)
        return results

    def map(self, function: Callable, items: Iterable, *common, label: str = "", progress: bool = False) -> Iterator:
        """Yield ``function(*common, item)`` in order."""
        futures = deque([self.submit(function, *common, item) for item in items])
        return track(self._in_order(futures), len(futures), label, progress)

    def _in_order(self, futures: deque) -> Iterator:
        with self._watched():
            yield from self._ready(futures)

    def _ready(self, futures: deque) -> Iterator:
        while futures:
            self._dask.wait([futures[0]])
            ready = [futures.popleft()]
            while futures and futures[0].done():
                ready.append(futures.popleft())
            yield from self.gather(ready)

    def reduce(self, function: Callable, merge: Callable, items: Iterable, *common, label: str = "", progress: bool = False):
        """``function(*common, item)`` of all items, merged on the workers by the `tree` of `pools`; the root alone comes here."""
        leaves = [self.submit(function, *common, item) for item in items]
        # Merges come first, so that few leaves wait.
        root = tree(lambda a, b: self.submit(merge, a, b, priority=1), leaves)
        done, count = self._dask.as_completed(leaves), len(leaves)
        del leaves  # a leaf is forgotten once it is merged
        with self._watched():
            for leaf in track(done, count, label, progress):
                if leaf.status != "finished":
                    leaf.result()
            return root.result()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """While results are waited for, say what keeps workers from working, every `PATIENCE` seconds."""
        over = Event()

        def watch():
            while not over.wait(PATIENCE):
                trouble = self.trouble()
                if trouble:
                    logger.warning("`client`: %s", trouble)

        watcher = Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()

    def trouble(self) -> str | None:
        """What keeps the workers from working, in words; None where nothing does."""
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, TimeoutError) as error:
            return f"the scheduler does not answer ({type(error).__name__}: {error})."
        if not workers:
            where = getattr(self._client.scheduler, "address", "the scheduler")
            return f"no worker is connected to {where}; start some, or check why those of the queue do not come."
        paused = [address for address, worker in workers.items() if worker.get("status") == "paused"]
        if paused:
            return f"{len(paused)} of {len(workers)} workers are paused, short of memory ({', '.join(paused[:3])}); give each more."
        return None


def _run(function: Callable, *arguments):
    with one_thread():
        return function(*arguments)


def _same(value):
    return value
