"""What a fit or a prediction will take: rows, operations, memory and time, known before anything large is allocated."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from soapkrr.display import html_lines, html_table, text_table
from soapkrr.execution.memory import format_memory
from soapkrr.threads import serial_blas

#: Part of the rate of a plain matrix product that each kind of work reaches on a CPU thread. Measured on silicon (13,233 atoms, 252
#: features, 1,000 sparse points) and ethanol (4,200 observations); loops are those of descriptors, Jacobians and scattered rows.
EFFICIENCY = {"products": 0.95, "blocks": 0.25, "factorisation": 0.65, "loops": 0.09}

#: The GPU of the estimates, and its published rates: floating-point operations a second in double precision, of matrix products on tensor
#: cores and of other code, and bytes a second.
CARD, CARD_PRODUCTS, CARD_LOOPS, CARD_BANDWIDTH = "H200", 67e12, 34e12, 4.8e12

#: Part of these rates that each kind of work is assumed to reach, and of the bandwidth.
CARD_PART = {"products": 0.5, "blocks": 0.2, "factorisation": 0.05, "loops": 0.1}
CARD_BANDWIDTH_PART = 0.5


#: Limits hold ``MARGIN`` times what is counted and ``SLACK`` bytes: small arrays, and what the allocator keeps.
MARGIN, SLACK = 1.15, 16e6


@dataclass(frozen=True)
class Step:
    """Work of one kind.

    Attributes
    ----------
    kind : ``"products"`` of large matrices, ``"blocks"`` of small ones, ``"factorisation"`` or ``"loops"``.
    flops : floating-point operations.  traffic : bytes that pass through memory on a GPU.
    parallel : whether the threads share it.
    """

    name: str
    kind: str
    flops: float
    traffic: float = 0.0
    parallel: bool = True

    def cpu_seconds(self, rate: float, threads: int) -> float:
        """At ``rate`` products' operations a second on one thread."""
        return self.flops / (rate * EFFICIENCY[self.kind] * (threads if self.parallel else 1))

    def gpu_seconds(self) -> float:
        """At the assumed part of the card's published rates."""
        rate = CARD_PART[self.kind] * (CARD_LOOPS if self.kind == "loops" else CARD_PRODUCTS)
        return max(self.flops / rate, self.traffic / (CARD_BANDWIDTH_PART * CARD_BANDWIDTH))


@dataclass(frozen=True, repr=False)
class Plan:
    """What a fit or a prediction will take; shown as a table, in notebooks too.

    Attributes
    ----------
    task : what is planned.
    n_structures, n_atoms : of the data.  n_pairs : of neighbours, of all terms; ``counted`` says how they are known.
    features : length of each term's descriptor.  representers : sparse points or observations, at most.
    rows : {kind of observation: number of rows}.
    steps : the work.  memory : {stage: {item: bytes}} of what stages hold at once.
    threads, group : threads used, and atoms that each handles at once (None: the work is not divided so).
    memory_limit : bytes, or None.  rate : matrix-product operations a second of one thread, measured here.
    notes : what else there is to say.  scratch : bytes that wait in the system's temporary folder, where it has twice as many.
    """

    task: str
    n_structures: int
    n_atoms: int
    n_pairs: float
    counted: str
    features: tuple[int, ...]
    representers: int
    rows: Mapping[str, int]
    steps: tuple[Step, ...]
    memory: Mapping[str, Mapping[str, float]]
    threads: int
    group: int | None
    memory_limit: int | None
    rate: float
    notes: tuple[str, ...] = ()
    scratch: float = 0.0

    @property
    def n_rows(self) -> int:
        return sum(self.rows.values())

    @property
    def flops(self) -> float:
        """Floating-point operations."""
        return sum(step.flops for step in self.steps)

    @property
    def peak_stage(self) -> str:
        """The stage that holds most."""
        return max(self.memory, key=lambda stage: sum(self.memory[stage].values()))

    @property
    def peak_memory(self) -> float:
        """Bytes held at once at most, beside Python, its libraries and the structures themselves."""
        return sum(self.memory[self.peak_stage].values())

    @property
    def enough(self) -> float:
        """Bytes of a ``memory_limit`` that holds the work as planned."""
        return MARGIN * self.peak_memory + SLACK

    @property
    def cpu_seconds(self) -> float:
        """Expected time on this machine, s."""
        return sum(step.cpu_seconds(self.rate, self.threads) for step in self.steps)

    @property
    def gpu_seconds(self) -> float:
        """Estimated time on one GPU (`CARD`) from its published rates, s: never measured."""
        return sum(step.gpu_seconds() for step in self.steps)

    def __str__(self) -> str:
        return "\n".join([*self._head(), "", *self._work(), "", *self._memory(), *(f"\n{note}" for note in self.notes)])

    def _head(self) -> list[str]:
        lines = [
            f"{self.task}: {self.n_structures:,} structures, {self.n_atoms:,} atoms, {self.n_pairs:,.0f} neighbour pairs ({self.counted})",
            f"features {' + '.join(f'{n:,}' for n in self.features)}; representers {self.representers:,} at most",
        ]
        if self.rows:
            kinds = " + ".join(f"{n:,} {kind}" for kind, n in self.rows.items())
            lines.append(f"rows {self.n_rows:,}: {kinds}")
        return lines

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        work = html_table(self._work_columns(), self._work_rows()) + html_lines(self._assumptions())
        memory = html_lines(self._memory_head()) + html_table(["stage", "memory", ""], self._memory_rows())
        return html_lines(self._head()) + work + memory + html_lines(self.notes)

    def _work_columns(self) -> tuple[str, ...]:
        return ("work", "Gflop", f"{self.threads} CPU thread{'s' * (self.threads > 1)}", f"{CARD}*")

    def _work_rows(self) -> list[tuple[str, ...]]:
        steps = [(step.name, step.flops, step.cpu_seconds(self.rate, self.threads), step.gpu_seconds()) for step in self.steps]
        steps.append(("total", self.flops, self.cpu_seconds, self.gpu_seconds))
        return [(name, f"{flops / 1e9:,.1f}", _seconds(cpu), _seconds(gpu)) for name, flops, cpu, gpu in steps]

    def _assumptions(self) -> list[str]:
        """What the times rest on."""
        parts = ", ".join(f"{100 * part:.0f}% in {kind}" for kind, part in CARD_PART.items())
        return [
            f"CPU: expected from {self.rate / 1e9:.0f} Gflop/s of a thread in matrix products, measured now.",
            f"* estimated, never measured: one {CARD} of published {CARD_LOOPS / 1e12:.0f}/{CARD_PRODUCTS / 1e12:.0f} Tflop/s (float64) "
            f"and {CARD_BANDWIDTH / 1e12:.1f} TB/s; assumed to reach {parts}, {100 * CARD_BANDWIDTH_PART:.0f}% of the bandwidth.",
        ]

    def _work(self) -> list[str]:
        """The table of the work as lines."""
        return [text_table(self._work_columns(), self._work_rows()), *self._assumptions()]

    def _memory_head(self) -> list[str]:
        limit = "no limit" if self.memory_limit is None else f"limit {format_memory(self.memory_limit)}"
        blocks = "" if self.group is None else f", groups of {self.group:,} atoms"
        disk = [f"on a disk, for the leave-out: {format_memory(self.scratch)} in the temporary folder (`TMPDIR`)"] if self.scratch else []
        return [
            *disk,
            f"peak memory {format_memory(self.peak_memory)} ({limit}; {self.threads} threads{blocks}), beside Python and the structures",
            f"`memory_limit` that holds it, with a margin for small arrays: {format_memory(self.enough)}",
        ]

    def _memory_rows(self) -> list[tuple[str, str, str]]:
        """Stages and what they hold: names, sizes, and a mark at the peak."""
        rows = []
        for stage, items in self.memory.items():
            rows.append((stage, format_memory(sum(items.values())), "  <- peak" if stage == self.peak_stage else ""))
            rows += [(f"  {name}", format_memory(size), "") for name, size in items.items() if size >= 1]
        return rows

    def _memory(self) -> list[str]:
        """The table of the memory as lines."""
        width = max(len(name) for stage in self.memory.values() for name in stage) + 2
        return [*self._memory_head(), *(f"{name:<{width}}  {size:>10}{mark}" for name, size, mark in self._memory_rows())]


def _seconds(value: float) -> str:
    for size, unit in ((3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if value >= 2 * size or unit == "s" and value >= 1:
            return f"{value / size:.1f} {unit}"
    return f"{1e3 * value:.3g} ms" if value >= 1e-4 else f"{1e6 * value:.3g} µs"


@lru_cache(maxsize=1)
def product_rate() -> float:
    """Floating-point operations a second of one thread in a matrix product, the best of five, in CPU time: other load does not count."""
    n = 512
    A = np.random.default_rng(0).random((n, n))
    with serial_blas():
        A @ A
        times = []
        for _ in range(5):
            start = time.thread_time()
            A @ A
            times.append(time.thread_time() - start)
    return 2 * n**3 / min(times)
