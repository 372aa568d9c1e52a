"""A fit without knobs: descriptor, kernel, regressor, noise and scales chosen from the data, and said in one table."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from soapkrr.descriptors.cutoff import RadialScaling
from soapkrr.descriptors.projection import Compressed
from soapkrr.descriptors.soap import SOAP
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.estimators.gaussian_process import GaussianProcess
from soapkrr.estimators.sparse_gp import SparseGP
from soapkrr.execution.memory import format_memory, parse_memory
from soapkrr.kernels import DotProduct
from soapkrr.labels import Labels, read_labels
from soapkrr.structures import Batch, as_frames, species_name, split_by_atoms

logger = logging.getLogger(__name__)

#: Structures from which distances are read, spread evenly over the data.
SAMPLE = 100

#: Observations up to which every one is a representer: whatever the sizes of the structures, and where all are small.
EXACT, EXACT_SMALL = 4_000, 30_000

#: Atoms of the largest structure that counts as small: the covariance of two structures costs the product of their sizes.
SMALL = 32

#: Features kept for the exact model of a large set.
COMPONENTS = 400

#: Memory that a fit and its predictions may take.
MEMORY_LIMIT = "8GB"

#: Sparse points at least and at most; in between, a quarter of the environments.
SPARSE = (300, 2_000)


@dataclass(frozen=True)
class Choice:
    """One thing chosen: its name, its value and the reason."""

    name: str
    value: object
    reason: str


def fit(
    frames: list[Atoms], *, threads: int | None = None, progress: bool = False, memory_limit: int | str | None = MEMORY_LIMIT
) -> Potential:
    """Fit a potential to labelled structures, with nothing else to give.

    Small sets become an exact Gaussian process (`GaussianProcess`), larger ones a sparse one (`SparseGP`); the SOAP's cutoff and widths
    come from the distances in the data, noise levels and signal from the evidence or, for the sparse one, cross-validation.

    Parameters
    ----------
    frames : structures with energies, forces or stresses (`atoms.calc.results`).
    threads : as in the estimators.  progress : draw bars on a terminal.
    memory_limit : as in the estimators. What the exact process would take is planned before; where it is more, a sparse one is fitted.
        The choice does not depend on the machine.

    Returns
    -------
    The fitted estimator; ``choices_`` lists what was chosen and why, and `summary` makes a table of it.

    Raises
    ------
    InputError : a structure or a label cannot be used; the message names it.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import soapkrr
    >>> frames = [bulk("Cu", a=a) for a in (3.5, 3.55, 3.6, 3.65, 3.7)]
    >>> for atoms in frames:
    ...     atoms.calc = EMT()
    ...     _ = atoms.get_potential_energy()
    >>> model = soapkrr.fit(frames)
    >>> type(model).__name__
    'GaussianProcess'
    """
    frames = as_frames(frames)
    Batch.from_atoms(frames)
    labels = read_labels(frames)
    choices = _describe(frames)
    model = _estimator(frames, labels, choices, threads, memory_limit)
    way = "evidence" if isinstance(model, GaussianProcess) else "cross-validation"
    model.fit(frames, optimize=way, progress=progress)
    for kind, unit in (("energy", "eV/atom"), ("forces", "eV/Å"), ("stress", "eV/Å³")):
        if model.n_observations_.get(kind):
            choices.append(Choice(f"noise, {kind}", float(f"{model.noise_[kind]:.3g}"), f"{unit}, {way}"))
    choices.append(Choice("signal", float(f"{model.signals_[0]:.3g}"), "eV, evidence"))
    model.choices_ = choices
    logger.info("%s", summary(model))
    return model


def summary(model: Potential) -> str:
    """Table of what `fit` chose for a model."""
    if not hasattr(model, "choices_"):
        raise InputError("this model was not made by `soapkrr.fit`: there is no list of choices.")
    rows = [(c.name, str(c.value), c.reason) for c in model.choices_]
    widths = [max(len(row[k]) for row in rows) for k in range(2)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {reason}" for name, value, reason in rows)


def _describe(frames: list[Atoms]) -> list[Choice]:
    """The descriptor's parameters from species and distances."""
    species = sorted({int(z) for atoms in frames for z in atoms.numbers})
    sample = frames[:: max(1, len(frames) // SAMPLE)]
    periodic = any(atoms.pbc.any() for atoms in frames)
    nearest = nearest_distance(sample)
    if periodic:
        r_cut, why = float(np.clip(round(2.35 * nearest, 1), 4.0, 6.5)), f"2.35 × {nearest:.2f} Å, the usual distance of nearest neighbours"
    else:
        r_cut, why = 6.0, "molecules: nearly everything sees everything"
    hydrogen = 1 in species
    return [
        Choice("species", [species_name(z) for z in species], "in the data"),
        Choice("r_cut", r_cut, why),
        Choice("sigma", 0.4 if hydrogen else 0.5, "Å, with hydrogen" if hydrogen else "Å, without hydrogen"),
        Choice("n_max", 6 if len(species) > 1 else 8, "radial functions; fewer where there are several species"),
        Choice("l_max", 6, "angular functions"),
        Choice("scaling", RadialScaling(r0=3.0, m=4.0) if periodic else RadialScaling(r0=2.0, m=2.0), "near neighbours count more"),
        Choice("zeta", 4 if len(species) == 1 else 3, "sharper for one species"),
    ]


def nearest_distance(frames: list[Atoms]) -> float:
    """Median distance of an atom's nearest neighbour, Å; 3 where no atom has one within 8 Å."""
    shortest = []
    for first, group in split_by_atoms(frames, 4096):
        batch = Batch.from_atoms(group, first)
        pairs = batch.pairs(8.0)
        r = np.full(batch.n_atoms, np.inf)
        np.minimum.at(r, pairs.i, np.linalg.norm(pairs.vectors, axis=1))
        shortest.append(r[np.isfinite(r)])
    shortest = np.concatenate(shortest)
    return float(np.median(shortest)) if len(shortest) else 3.0


def _estimator(frames: list[Atoms], labels: list[Labels], choices: list[Choice], threads: int | None, memory_limit) -> Potential:
    """Exact or sparse, by the number of observations and the memory that an exact one would take; appends to ``choices``."""
    given = {c.name: c.value for c in choices}
    soap = SOAP(**{name: given[name] for name in ("species", "r_cut", "n_max", "l_max", "sigma", "scaling")})
    kernel, limit = DotProduct(zeta=given["zeta"]), parse_memory(memory_limit)
    n = sum(np.isfinite(label.energy) + sum(v.size for v in (label.forces, label.stress) if v is not None) for label in labels)
    largest = max(map(len, frames))
    if n <= EXACT or (largest <= SMALL and n <= EXACT_SMALL):
        compressed = n > EXACT and soap.n_features > COMPONENTS
        descriptor = Compressed(soap, n_components=COMPONENTS) if compressed else soap
        need = GaussianProcess(descriptor, kernel, threads=1).plan(frames).enough
        if limit is None or need <= limit:
            choices.append(Choice("regressor", "exact Gaussian process", f"{n} observations, each a representer"))
            if compressed:
                choices.append(Choice("features", COMPONENTS, f"principal components of {soap.n_features}: time"))
            return GaussianProcess(descriptor, kernel, threads=threads, memory_limit=memory_limit)
        why = f"an exact one of {n} observations needs {format_memory(need)}, `memory_limit` is {format_memory(limit)}"
    else:
        why = f"{n} observations, up to {largest} atoms in a structure: an exact one would take long"
    environments = sum(map(len, frames))
    n_sparse = int(np.clip(environments // 4, *SPARSE))
    choices.append(Choice("regressor", "sparse Gaussian process", why))
    choices.append(Choice("n_sparse", n_sparse, f"of {environments} environments"))
    return SparseGP(soap, kernel, n_sparse=n_sparse, threads=threads, memory_limit=memory_limit)
