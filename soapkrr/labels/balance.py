"""Importance weights by which rare species and rare configuration types count as much as common ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr.labels.labels import KINDS, Labels
from soapkrr.labels.lookup import config_type

#: Largest importance: a single structure should not be believed a thousand times as much as others.
MOST = 10.0


def balanced(frames: Sequence[Atoms], labels: Sequence[Labels], name: str) -> list[Labels]:
    """Labels whose rows have √w as a further factor.

    With n rows of k groups, n_g of them of group g, w_g = n/(k n_g), at most `MOST`: every group has the same weight in all. Groups are
    the values of the configuration type ``name`` in `info`, of labelled structures, and for forces the species of labelled atoms too.
    """
    types = [config_type(atoms, name) for atoms in frames]
    of_type = importance([t for t, label in zip(types, labels, strict=True) if not label.empty])
    known = [np.isfinite(label.forces).any(axis=1) for label in labels if label.forces is not None]
    forced = [atoms.numbers for atoms, label in zip(frames, labels, strict=True) if label.forces is not None]
    of_species = importance(np.concatenate([z[k] for z, k in zip(forced, known, strict=True)]).tolist() if forced else [])
    return [_weighted(a, label, of_type.get(t, 1.0), of_species) for a, label, t in zip(frames, labels, types, strict=True)]


def importance(groups: Sequence) -> dict:
    """{group: n/(k n_g), at most `MOST`} of one entry for each row."""
    names, counts = np.unique(np.array(groups), return_counts=True)
    return {name: min(MOST, len(groups) / (len(names) * n)) for name, n in zip(names.tolist(), counts.tolist(), strict=True)}


def _weighted(atoms: Atoms, label: Labels, weight: float, of_species: dict) -> Labels:
    scale = dict(label.scale)
    for kind in KINDS:
        if not label.has(kind):
            continue
        value = np.asarray(getattr(label, kind))
        factor = np.sqrt(weight * np.ones(value.shape))
        if kind == "forces":
            factor = factor * np.sqrt([of_species.get(int(z), 1.0) for z in atoms.numbers])[:, None]
        scale[kind] = np.asarray(scale.get(kind, 1.0)) * factor
    return replace(label, scale=scale)
