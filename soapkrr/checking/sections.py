"""What a report says of a model, section by section."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from ase import Atoms

from soapkrr import plot
from soapkrr.checking.figures import png
from soapkrr.checking.page import Image, Section, Table
from soapkrr.display import Tabular, counted
from soapkrr.errors import InputError
from soapkrr.labels import KINDS, Observations, read_labels
from soapkrr.metrics import calibration_table, comparisons, error_table
from soapkrr.prediction import Prediction

#: Groups and pairs of species that a table names at most, the commonest first.
NAMED = 25

#: Structures of which maps are drawn, and predictions timed on one of at most so many atoms.
TIMED = 200

#: Levels of the table of intervals.
LEVELS = (50, 68, 90, 95)


def table_of(shown: Tabular, caption: str = "") -> Table:
    """What shows as a table, in a page; without columns that say nothing."""
    columns, rows = list(shown._columns()), [list(row) for row in shown._rows()]
    kept = [k for k in range(len(columns)) if not rows or any(row[k] != "-" for row in rows)]
    return Table([columns[k] for k in kept], [[row[k] for k in kept] for row in rows], caption)


def data_section(model: Any, frames: list[Atoms] | None, observations: Observations | None, what: str) -> Section:
    """Composition, groups, labels and distances."""
    tables = []
    if frames is not None:
        labels, name = read_labels(frames, observations), "config_type" if observations is None else observations.config_type
        tables.append(Table(["", "structures", "atoms", *KINDS, "energy per atom (eV)", "RMS force (eV/Å)"], _groups(frames, labels, name)))
        formulas = Counter(atoms.symbols.get_chemical_formula(empirical=True) for atoms in frames)
        rows = [[formula, f"{n:,}"] for formula, n in formulas.most_common(NAMED)]
        tables.append(Table(["composition", "structures"], rows, _rest(len(formulas), "compositions")))
    domain = getattr(model, "domain_", None)
    if domain is not None:
        pairs = sorted(domain.shortest, key=lambda pair: -domain.counts[pair])[:NAMED]
        rows = [[pair, f"{domain.shortest[pair]:.3f}" if domain.counts[pair] else "-", f"{domain.counts[pair]:,}"] for pair in pairs]
        tables.append(Table(["pair", "shortest (Å)", f"distances below {domain.r_cut:g} Å"], rows, "Distances in the data of the fit"))
    numbers = ", ".join(f"{n:,} {kind}" for kind, n in model.n_observations_.items())
    return Section(
        "Data", [f"Labels of the fit: {numbers}.", *([f"Errors are those of structures {what}."] if frames is not None else [])], tables
    )


def _rest(n: int, noun: str) -> str:
    return f"The commonest {NAMED} of {n:,} {noun}" if n > NAMED else ""


def _groups(frames: list[Atoms], labels: Sequence, name: str) -> list[list[str]]:
    """A row for all structures and, where there are several, each configuration type."""
    types = Counter(str(atoms.info.get(name, "default")) for atoms in frames)
    members = {
        kind: [s for s, atoms in enumerate(frames) if str(atoms.info.get(name, "default")) == kind] for kind, _ in types.most_common(NAMED)
    }
    groups = {"all": list(range(len(frames))), **(members if len(types) > 1 else {})}
    return [[group, *_row([frames[s] for s in some], [labels[s] for s in some])] for group, some in groups.items()]


def _row(frames: list[Atoms], labels: Sequence) -> list[str]:
    energies = [label.energy / len(atoms) for atoms, label in zip(frames, labels, strict=True) if label.has("energy")]
    forces = [np.ravel(label.forces) for label in labels if label.has("forces")]
    flat = np.concatenate(forces) if forces else np.array([])
    flat = flat[np.isfinite(flat)]
    spread = f"{min(energies):.4f} to {max(energies):.4f}" if energies else "-"
    counts = [f"{sum(label.has(kind) for label in labels):,}" for kind in KINDS]
    rms = f"{np.sqrt(np.mean(flat**2)):.3g}" if len(flat) else "-"
    return [f"{len(frames):,}", f"{sum(map(len, frames)):,}", *counts, spread, rms]


def choices_section(model: Any) -> Section:
    """What was chosen and why, and what was fitted."""
    rows = [[c.name, _value(c.value), c.reason] for c in getattr(model, "choices_", ())]
    why = [Table(["chosen", "value", "why"], rows, "Chosen by the fit")] if rows else []
    fitted = [row for row in model.summary()._rows() if not row[0].startswith("chosen: ")]
    return Section("Model", tables=[*why, Table(["", ""], fitted, "What was fitted")])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def errors_section(frames: list[Atoms], prediction: Prediction, observations: Observations | None, what: str) -> Section:
    """Errors, coverage and scores of error bars, over all and by group and species."""
    tables = [table_of(error_table(frames, prediction, observations=observations), "All")]
    group = "config_type" if observations is None else observations.config_type
    if len({str(atoms.info.get(group, "default")) for atoms in frames}) > 1:
        tables.append(table_of(error_table(frames, prediction, by=group, observations=observations), f"By {group}"))
    found = comparisons(frames, prediction, observations)
    if "forces" in found and len({z for atoms in frames for z in atoms.numbers}) > 1:
        tables.append(table_of(error_table(frames, prediction, by="species", observations=observations), "Forces by species"))
    if any(part.std is not None for part in found.values()):
        tables.append(_calibration(calibration_table(frames, prediction, observations=observations)))
    return Section("Errors and error bars", [f"Of {counted(len(frames), 'structure')} {what}."], tables)


def _calibration(scores: Mapping) -> Table:
    """Do the intervals hold what they promise?"""
    rows = []
    for kind in KINDS:
        part = scores.get(kind)
        if part is not None:
            cells = [f"{100 * part[key]:.0f} %" if (key := f"coverage_{level}") in part else "-" for level in LEVELS]
            rest = [f"{part[key]:.3g}" if key in part else "-" for key in ("miscalibration_area", "ence", "nll", "rank_correlation")]
            rows.append([kind, f"{part['n']:,}", *cells, *rest])
    heads = [f"within {level} %" for level in LEVELS]
    caption = (
        "Intervals: the part of the labels within; area of miscalibration (0 is best), ENCE, negative log likelihood, rank correlation"
    )
    return Table(["", "labels", *heads, "area", "ENCE", "NLL", "rank"], rows, caption)


def figures_section(model: Any, frames: list[Atoms], prediction: Prediction, observations: Observations | None) -> Section:
    """Parity, errors by group, reliability and a map; a line where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return Section("Figures", ["There are none, as matplotlib is not installed."])
    kinds = list(comparisons(frames, prediction, observations))
    given: dict[str, Any] = {"observations": observations}
    images = [_image(plot.parity, f"Parity, {kind}", (frames, prediction, kind), given, 6.8) for kind in kinds]
    forces = "forces" if "forces" in kinds else kinds[0]
    group = "config_type" if observations is None else observations.config_type
    n = len({str(atoms.info.get(group, "default")) for atoms in frames})
    if 1 < n <= NAMED:
        images.append(_image(plot.residuals, f"Errors by {group}", (frames, prediction, forces, group), given, 0.42 * n + 1.5))
    images.append(_image(plot.reliability, "Reliability", (frames, prediction), given, 4.6))
    images.append(_image(plot.error_vs_std, f"Errors and standard deviations, {forces}", (frames, prediction, forces), given, 4.6))
    if getattr(prediction, "novelty", None) is not None:
        images.append(_image(plot.novelty, "Novelty", (frames, prediction, "forces" if forces == "forces" else "energy"), given, 4.6))
    if forces == "forces":
        images.append(_image(plot.data_map, "Map of the environments", (model, frames, prediction, "error"), given, 4.6))
    return Section("Figures", images=[image for image in images if image is not None])


def _image(draw: Any, title: str, args: tuple, given: dict[str, Any], height: float) -> Image | None:
    """One figure; None where there is nothing to draw, such as forces that all vanish by symmetry."""
    try:
        return Image(title, png(partial(_drawn, draw, args, given), 4.9, height), title)
    except InputError:
        return None


def _drawn(draw: Any, args: tuple, given: dict[str, Any], ax: Any) -> None:
    draw(*args, ax=ax, **given)


def cost_section(model: Any, frames: list[Atoms]) -> Section:
    """Wall time of predictions on this machine."""
    usual = sorted((atoms for atoms in frames if len(atoms) <= TIMED) or frames, key=len)
    atoms = usual[len(usual) // 2]
    model.predict(atoms, uncertainty=True)
    rows = []
    for name, wanted in (("energy, forces, stress", False), ("and std of energies", "energy"), ("and std of forces and stress", True)):
        start = time.perf_counter()
        model.predict(atoms, uncertainty=wanted)
        seconds = time.perf_counter() - start
        rows.append([name, f"{1e3 * seconds:.1f} ms", f"{1e6 * seconds / len(atoms):,.0f} µs"])
    return Section(
        "Cost", [f"Of {atoms.symbols.get_chemical_formula()}, alone, on this machine."], [Table(["", "structure", "atom"], rows)]
    )
