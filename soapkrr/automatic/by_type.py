"""Noise by configuration type: kept where types that are known better gain, and none loses.

A noise level is that of all structures: liquids, which no potential of its cutoff fits to the last meV, make that of strained crystals
too large. Left-out errors by type say how far. It often does not pay. A quarter of the silicon structures, noise in proportion to the
errors of each type: elastic deformations 15 → 2.4 meV/Å and 1.2 → 0.4 meV/atom, molecular dynamics 122 → 124 and 4.2 → 4.4; but of all
structures, where elastic deformations are known as well as that anyway, energies 4.6 → 5.3 meV/atom and forces 93 → 91 meV/Å, for few
surfaces pay. So types of few members, which may have most of the squared errors, are no measure of the others' noise, and one level stays
where anyone pays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from sklearn.base import clone

from soapkrr.automatic.search import MARGIN, SURE, WORSE
from soapkrr.estimators.base import Potential
from soapkrr.labels import Observations
from soapkrr.labels.lookup import config_type
from soapkrr.regression.known import lengths
from soapkrr.regression.score import Score

#: Structures of a type from which its errors say something.
MEMBERS = 8

#: Largest factor between the noise of a type and that of all, either way.
FARTHEST = 5.0

#: Ratios {type: {kind: σ of the type/σ of all}}.
Ratios = Mapping[str, Mapping[str, float]]


def type_ratios(model: Potential, frames: Sequence[Atoms], types: np.ndarray) -> dict[str, dict[str, float]]:
    """From errors of left-out structures of a fit to ``frames``, of the types with `MEMBERS` beside those of all of these together; empty
    where there are no two of them. Few structures of another type may have most of the squared errors, and say nothing of the noise.
    """
    names, counts = np.unique(types, return_counts=True)
    known = names[counts >= MEMBERS].tolist()
    sizes, ratios = np.array([len(atoms) for atoms in frames]), {}
    for name in known if len(known) > 1 else ():
        ratios[name] = {
            kind: float(np.clip(_rms(kind, squares, sizes, types == name) / error, 1 / FARTHEST, FARTHEST))
            for kind, squares in model.left_out_squares_.items()
            if np.isfinite(squares[types == name]).any() and (error := _rms(kind, squares, sizes, np.isin(types, known))) > 0
        }
    return ratios


def _rms(kind: str, squares: np.ndarray, sizes: np.ndarray, some: np.ndarray) -> float:
    some = some & np.isfinite(squares)
    return float(np.sqrt(squares[some].sum() / lengths(kind, sizes)[some].sum()))


def types_of(frames: Sequence[Atoms], observations: Observations | None) -> np.ndarray:
    """(n_structures,) configuration types."""
    return np.array([config_type(atoms, (observations or Observations()).config_type) for atoms in frames])


def with_ratios(model: Potential, fitted: Potential, ratios: Ratios) -> Potential:
    """An unfitted copy of the estimator that starts from noise and signal of a ``fitted`` one, with noise by type that has these ratios."""
    copy: Any = clone(model)
    levels = {name: {kind: ratio * fitted.noise_[kind] for kind, ratio in own.items()} for name, own in ratios.items()}
    observations = replace(copy.observations or Observations(), config_noise=levels)
    return copy.set_params(noise=dict(fitted.noise_), signal=fitted.signals_[0], observations=observations)


def ratios_text(ratios: Ratios) -> dict[str, str]:
    """{type: its ratios}, for a list of choices."""
    return {name: ", ".join(f"{kind} {ratio:.2g} ×" for kind, ratio in own.items()) for name, own in ratios.items()}


def pays(score: Score, types: np.ndarray, after: Potential, before: Potential) -> bool:
    """Whether errors of types become smaller, on average and by more than its standard error, and those of no kind and no type larger.

    The average is that of logarithms, in which a type of small errors counts as much as one of large errors.
    """
    one, other = after.left_out_squares_, before.left_out_squares_
    names, counts = np.unique(types, return_counts=True)
    by_type = [score.difference(*({k: s[types == name] for k, s in part.items()} for part in (one, other))) for name in names]
    differences, errors = np.array([part for part, n in zip(by_type, counts, strict=True) if n >= MEMBERS]).reshape(-1, 2).T
    if not len(differences):
        return False
    gain, error = differences.mean(), np.sqrt(np.sum(errors**2)) / len(errors)
    worse = [score.difference(one, other)[0], *differences]
    return bool(gain < -max(MARGIN, SURE * error) and max(worse) < np.log(WORSE))
