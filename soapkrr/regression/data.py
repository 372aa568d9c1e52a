"""What every fit of a potential starts from: checked structures in a canonical order, labels less prior means, reference energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from soapkrr.baselines import reduced, reference_energies, split_baseline
from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError, require_positive
from soapkrr.labels import Labels
from soapkrr.lazy import cached_property
from soapkrr.regression.domain import Domain
from soapkrr.selection.specifications import Sites
from soapkrr.structures import Batch, split_by_atoms

#: Kinds of observation and the noise each has when `noise` does not name it: eV/atom, eV/Å, eV/Å³.
DEFAULT_NOISE = {"energy": 0.002, "forces": 0.05, "stress": 0.002}


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Structures in canonical order with what is to be learnt of them.

    Attributes
    ----------
    frames : the structures.  labels : theirs less the prior means, not the reference energies.
    references : reference energies {symbol: eV}.  order : (n_structures,) place of each in the list that the user gave.
    without_prior : {index in that list: reason} of structures that have no prior mean, and therefore no labels left.
    """

    frames: list[Atoms]
    labels: list[Labels]
    references: dict[str, float]
    order: np.ndarray
    without_prior: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, frames: list[Atoms], labels: list[Labels], baseline, threads: int | None = None) -> TrainingData:
        """From checked structures and their labels; ``baseline`` as in `SparseGP`, computed with so many threads or processes."""
        reference, means = split_baseline(baseline)
        labels, without = reduced(means, frames, labels, threads)
        order = canonical_order(frames, labels)
        frames, labels = [frames[i] for i in order], [labels[i] for i in order]
        return cls(frames, labels, reference_energies(frames, labels, reference), order, without)

    @cached_property
    def sizes(self) -> np.ndarray:
        """(n_structures,) numbers of atoms."""
        return np.array([len(atoms) for atoms in self.frames])

    @cached_property
    def sites(self) -> Sites:
        """Where every atom is, frames counted as the user gave them."""
        given = [self.frames[i] for i in np.argsort(self.order)]
        frame, atom, _ = Sites.of(self.frames)
        return Sites(self.order[frame], atom, given)

    def some(self, indices: list[int]) -> TrainingData:
        """Part of the structures, same references."""
        return TrainingData([self.frames[i] for i in indices], [self.labels[i] for i in indices], self.references, self.order[indices])

    def folds(self, n: int, seed: int = 0) -> list[TrainingData]:
        """``n`` parts of the structures, drawn at random (fewer where there are fewer structures; at least two are needed)."""
        if len(self.frames) < 2:
            raise InputError("`optimize`='cross-validation' needs at least two structures.")
        order = np.random.default_rng(seed).permutation(len(self.frames))
        return [self.some(sorted(order[k::n].tolist())) for k in range(min(n, len(order)))]

    def labelled(self) -> TrainingData:
        """The structures that have any label to fit."""
        return self.some([i for i, label in enumerate(self.labels) if not label.empty])


def check_structures(frames: list[Atoms], descriptors: Sequence[Descriptor], pairs: bool = True) -> Domain:
    """The domain of structures; raises on the first one, by its place in the list, that cannot be described, and with ``pairs`` where no
    two atoms are within a cutoff.
    """

    def batches():
        for first, group in split_by_atoms(frames, 1024):
            batch = Batch.from_atoms(group, first)
            for descriptor in descriptors:
                descriptor.indices_of(batch)
            yield batch

    if len({d.kind_names for d in descriptors}) > 1 and any(d.n_kinds != len(d.species) for d in descriptors):
        raise InputError(
            "one term couples centres of different species, another does not: give all the same `Coupled`, or keep a term's species apart "
            "by `Coupled(descriptor, numpy.eye(n_species))`."
        )
    domain = Domain.of(batches(), max(d.r_cut for d in descriptors))
    for d in descriptors:
        if pairs and d.needs_pairs and min(domain.shortest.values()) >= d.r_cut:
            raise InputError(f"`r_cut`={d.r_cut}: no two atoms of the data are that close; {type(d).__name__} needs a larger one.")
    return domain


def canonical_order(frames: list[Atoms], labels: list[Labels]) -> np.ndarray:
    """Indices that sort structures by content, so that the order in which they were given changes nothing, not even the rounding."""

    def content(index):
        atoms, label = frames[index], labels[index]
        arrays = (atoms.numbers, atoms.cell.array, atoms.positions, np.float64(label.energy))
        return len(atoms), tuple(np.asarray(a).tobytes() for a in arrays)

    return np.array(sorted(range(len(frames)), key=content))


def checked_noise(noise: Mapping[str, float] | None) -> dict[str, float]:
    """Noise of every kind of observation, defaults filled in."""
    if not (noise is None or isinstance(noise, Mapping)):
        raise InputError(f"`noise` must be a mapping such as {DEFAULT_NOISE} (eV per atom, eV/Å, eV/Å³) or None, received {noise!r}.")
    levels = {**DEFAULT_NOISE, **(noise or {})}
    unknown = sorted(set(levels) - set(DEFAULT_NOISE))
    if unknown:
        raise InputError(f"`noise` has unknown keys {unknown}; it takes {sorted(DEFAULT_NOISE)}.")
    require_positive(**{f"noise['{kind}']": level for kind, level in levels.items()})
    return levels


def check_tolerance(tolerance: float) -> None:
    """A fraction of the largest eigenvalue."""
    require_positive(tolerance=tolerance)
    if not tolerance < 1:
        raise InputError(f"`tolerance` is a fraction of the largest eigenvalue and must be below 1, received {tolerance!r}.")
