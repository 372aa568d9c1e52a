"""A surrogate that meets species which it does not know: it is made again for all of them, from all labels that it has learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, cast

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from soapkrr.baselines import baseline_energies, total
from soapkrr.errors import InputError
from soapkrr.estimators.gaussian_process import GaussianProcess
from soapkrr.labels import Observations
from soapkrr.regression.exact.covariance import variances
from soapkrr.regression.exact.posterior import ExactProcess
from soapkrr.regression.terms import Term, as_terms
from soapkrr.structures import Batch

#: Variance of the noise of an observation below which rounding decides.
LEAST = 1e-16


def learnt_labels(model: GaussianProcess) -> list[Atoms]:
    """The structures that a model was fitted to, with labels and noise: targets plus reference energies and prior means."""
    process = cast(ExactProcess, model.process_)
    if process.targets is None:
        raise InputError("`model` does not state what it was fitted to, as files of earlier versions do not; start without one.")
    layout, values, sigma = process.structures.layout, np.full(process.structures.layout.size, np.nan), _noise(process)
    values[process.picked] = process.targets
    found = []
    for s, atoms in enumerate(process.structures.frames):
        own = slice(int(layout.offsets[s]), int(layout.offsets[s + 1]))
        found.append(_labelled(model, atoms, values[own], sigma[own], bool(layout.has_forces[s]), bool(layout.has_stress[s])))
    return found


def _noise(process: ExactProcess) -> np.ndarray:
    """σ of every observation, NaN where there was none: L Lᵀ = K + Σ less the prior variances."""
    rows = np.tril(process.factor)
    pairs = zip(process.parts, process.compositions, strict=True)
    prior = sum(part.signal**2 * variances(part.kernel, seen) for part, seen in pairs)
    found = np.full(process.structures.layout.size, np.nan)
    found[process.picked] = np.einsum("ij,ij->i", rows, rows) - np.asarray(prior)[process.picked]
    return np.sqrt(np.maximum(found, LEAST))


def _labelled(model: GaussianProcess, atoms: Atoms, values: np.ndarray, sigma: np.ndarray, forces: bool, stress: bool) -> Atoms:
    """One structure, from its part of the observations."""
    n, batch = len(atoms), Batch.from_atoms([atoms])
    prior = total(model.prior_means_, batch)
    made = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    results: dict[str, Any] = {}
    if np.isfinite(values[0]):
        results["energy"] = float(values[0] + baseline_energies(model.reference_energies_, atoms.numbers).sum() + prior.energies.sum())
        made.info["energy_noise"] = float(sigma[0] / np.sqrt(n))
    if forces:
        rows, known = values[1 : 1 + 3 * n].reshape(n, 3), np.isfinite(values[1 : 1 + 3 * n].reshape(n, 3)).all(axis=1)
        results["forces"] = np.where(known[:, None], rows + prior.forces, 0.0)
        made.set_array("force_mask", ~known)
        made.set_array("forces_noise", np.where(known, sigma[1 : 1 + 3 * n].reshape(n, 3).max(axis=1), 1.0))
    if stress:
        results["stress"] = values[-6:] + prior.strain[0] / batch.volumes[0]
        made.info["stress_noise"] = float(sigma[-6:].max())
    made.calc = SinglePointCalculator(made, **results)
    return made


def widened(model: GaussianProcess, species: Sequence[str], references: dict[str, float]) -> GaussianProcess:
    """A model like this one, of these species too, fitted to all that it has learnt; ``references`` for all species, eV.

    Raises
    ------
    InputError : its descriptors do not say for which species they are, or its labels are not known.
    """
    terms = [_of_species(term, species) for term in as_terms(model._terms())]
    baseline = [references, *(mean for mean in model.prior_means_ if mean is not None)]
    options: dict[str, Any] = {"noise": dict(model.noise_), "observations": Observations(), "solver": "cholesky"}
    made = GaussianProcess(terms, **options, baseline=baseline if len(baseline) > 1 else references)
    return made.learn(learnt_labels(model), False, False, check=False)


def _of_species(term: Term, species: Sequence[str]) -> Term:
    descriptor: Any = term.descriptor
    if not any(field.name == "species" and field.init for field in fields(descriptor)):
        name = type(descriptor).__name__
        raise InputError(f"`model` does not know all of {sorted(species)}, and its {name} cannot be made for others; start without one.")
    return replace(term, descriptor=replace(descriptor, species=sorted(species)))
