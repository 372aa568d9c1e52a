"""What the energy of an atom is made of: terms, pairs of species, and how much its surroundings matter.

A model knows energies of structures; how it shares them among atoms is its own choice (a gauge): reference energies, kernel and cutoff
decide it, and no experiment or calculation says which is right. Compare atoms of one model, never values of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms

from soapkrr import backends
from soapkrr.baselines import baseline_energies
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.pair import Pair
from soapkrr.descriptors.soap import SOAP
from soapkrr.display import Tabular, counted
from soapkrr.kernels import DotProduct, Kernel, Linear
from soapkrr.regression.process import Predictor
from soapkrr.structures import Batch, species_name, split_by_atoms

#: Atoms whose descriptors are held at once.
GROUP = 1024

#: Descriptors whose lengths differ from 1 by no more than rounding are on the unit sphere.
ROUNDING = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class Contributions(Tabular):
    """Parts of atoms' energies, and their sensitivity to the surroundings; lists of one array for each structure. Shows means as a table.

    .. warning:: Energies of atoms are a choice of gauge: only sums over structures are learnt and can be right or wrong. What is moved
        from one atom to another, or from one term to another that can express it, changes nothing that is observed.

    Attributes
    ----------
    names : of the terms, descriptor and kernel.
    references : (n_atoms,) reference energies e(z_i), eV.  prior : (n_atoms,) prior means, eV.
    terms : (n_terms, n_atoms) energy of each term, eV; with the two above they sum to the energies that `predict` gives.
    pairs : {name: (n_atoms,)} eV: parts of terms that are linear in features of known species, whose sum is that of those terms.
        ``"Cu-O"`` is the pair potential of these two (`Pair`), ``"Cu: Cu-O"`` what a centre Cu has from Cu and O around it (`SOAP`).
    saliency : (n_atoms,) |∂E_i/∂x_i|, eV per unit of the descriptor, x_i all descriptors of the atom together. Of normalised descriptors
        without the direction of x_i, in which they cannot move.
    """

    names: tuple[str, ...]
    references: list[np.ndarray]
    prior: list[np.ndarray]
    terms: list[np.ndarray]
    pairs: list[dict[str, np.ndarray]]
    saliency: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.terms)

    @property
    def energies(self) -> list[np.ndarray]:
        """(n_atoms,) energies of atoms, eV, as `predict` gives them."""
        return [e + p + t.sum(axis=0) for e, p, t in zip(self.references, self.prior, self.terms, strict=True)]

    def _title(self) -> str:
        n = sum(map(len, self.saliency))
        return f"{counted(len(self), 'structure')}, {counted(n, 'atom')}: means per atom, a choice of gauge"

    def _columns(self) -> Sequence[str]:
        return "part", "mean (eV/atom)", "std over atoms (eV)"

    def _rows(self) -> Sequence[Sequence[str]]:
        terms = np.concatenate(self.terms, axis=1)
        rows = [("reference energies", np.concatenate(self.references)), ("prior means", np.concatenate(self.prior))]
        rows += list(zip(self.names, terms, strict=True))
        labels = list(dict.fromkeys(label for of in self.pairs for label in of))
        for label in labels:
            values = [of.get(label, np.zeros(len(s))) for of, s in zip(self.pairs, self.saliency, strict=True)]
            rows.append((f"  {label}", np.concatenate(values)))
        return [[name, f"{values.mean():.4f}", f"{values.std():.4f}"] for name, values in rows]


def contributions(predictor: Predictor, frames: list[Atoms]) -> Contributions:
    """`Contributions` of structures to the energies of a fitted model."""
    parts: list = predictor.placed.parts  # type: ignore[attr-defined]  # every process of a potential has them
    kernels = [part.term.kernel if hasattr(part, "term") else part.kernel for part in parts]
    names = tuple(f"{type(part.descriptor).__name__}, {kernel!r}" for part, kernel in zip(parts, kernels, strict=True))
    batches = [Batch.from_atoms(group, first) for first, group in split_by_atoms(frames, GROUP)]
    found = [made for batch in batches for made in _of_batch(predictor, parts, kernels, batch)]
    references, prior, terms, pairs, saliency = (list(column) for column in zip(*found, strict=True))
    return Contributions(names, references, prior, terms, pairs, saliency)


def _of_batch(predictor: Predictor, parts: list, kernels: list[Kernel], batch: Batch) -> list[tuple]:
    """References, prior means, terms, pairs and saliency of each structure of a batch."""
    both = predictor.prior(batch).energies
    references = baseline_energies(predictor.references, batch.numbers, batch.frame)
    terms, squared, pairs = np.empty((len(parts), batch.n_atoms)), np.zeros(batch.n_atoms), {}
    for k, (part, kernel) in enumerate(zip(parts, kernels, strict=True)):
        X, terms[k], G = _evaluated(part, batch)
        squared += _tangent(X, G)
        labels = _species_of_features(part.descriptor) if kernel == Linear() or kernel == DotProduct(zeta=1) else None
        for name, values in _by_species(X * G, batch, labels) if labels else ():
            pairs[name] = pairs.get(name, 0.0) + values
    cut = [np.split(values, batch.inner_bounds, axis=-1) for values in (references, both - references, terms, np.sqrt(squared))]
    parted = {name: np.split(values, batch.inner_bounds) for name, values in pairs.items()}
    return [
        (cut[0][s], cut[1][s], cut[2][s], {name: v[s] for name, v in parted.items() if v[s].any()}, cut[3][s]) for s in range(len(batch))
    ]


def _evaluated(part: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Descriptors (n, d), energies (n,) and ∂E/∂x (n, d) of a term, as NumPy arrays."""
    environments = part.descriptor.environments(batch, part.xp)
    X, kinds = environments.X, environments.kinds
    energies, G = part.xp.zeros(len(X)), part.xp.zeros_like(X)
    for s in range(part.descriptor.n_kinds):
        here = part.xp.flatnonzero(kinds == s)
        if len(here):
            energies[here], G[here] = part.evaluate(s, X[here])
    return backends.host(X), backends.host(energies), backends.host(G)


def _tangent(X: np.ndarray, G: np.ndarray) -> np.ndarray:
    """|∂E/∂x|² of each atom, on the unit sphere where all descriptors are there."""
    squares = np.einsum("nd,nd->n", G, G)
    if np.abs(np.einsum("nd,nd->n", X, X) - 1).max() > ROUNDING:
        return squares
    return np.maximum(squares - np.einsum("nd,nd->n", X, G) ** 2, 0.0)


def _species_of_features(descriptor: Descriptor) -> list[str] | None:
    """Neighbours' species of each feature, ``"O"`` or ``"Cu-O"``; None where a feature belongs to no species."""
    if isinstance(descriptor, Pair):
        return [str(s) for s in descriptor.species for _ in range(descriptor.n_features // len(descriptor.species))]
    if type(descriptor) is SOAP:
        channels = [name.split()[:2] for name in descriptor.feature_names()]
        return ["-".join(sorted(channel.split(":")[0] for channel in pair)) for pair in channels]
    return None


def _by_species(values: np.ndarray, batch: Batch, labels: list[str]):
    """(name, (n_atoms,) sum) of contributions (n_atoms, d) of features, by centre and the species of the feature."""
    labels_of = np.array(labels)
    for z in np.unique(batch.numbers):
        centre, here = species_name(z), batch.numbers == z
        for label in dict.fromkeys(labels):
            name = f"{centre}: {label}" if "-" in label else "-".join(sorted((centre, label)))
            yield name, np.where(here, values[:, labels_of == label].sum(axis=1), 0.0)
