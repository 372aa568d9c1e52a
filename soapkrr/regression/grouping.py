"""Groups of structures that are left out together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from soapkrr.descriptors.base import Descriptor
from soapkrr.display import counted
from soapkrr.errors import InputError
from soapkrr.labels.lookup import config_type
from soapkrr.structures import Batch, split_by_atoms

#: Structures at least, of which one can be left out and the others still be told apart.
FEWEST = 3

#: Structures closer than this part of the median distance of all are of one cluster, as the mean of both clusters' distances.
CLUSTER = 0.2

#: Structures at most that are clustered: all distances between them, 8·n²/2 bytes, are held at once.
MOST = 20_000

#: Atoms described at once.
GROUP = 1024


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of structures.

    Attributes
    ----------
    index : (n_structures,) group of each structure.  names : what the groups are called.
    """

    index: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence) -> Groups:
        """From one value for each structure; groups in the order of their values."""
        texts = [str(value) for value in values]
        names = sorted(set(texts), key=lambda name: (len(name), name) if name.lstrip("-").isdigit() else (0, name))
        place = {name: g for g, name in enumerate(names)}
        return cls(np.array([place[text] for text in texts]), tuple(names))

    def __len__(self) -> int:
        return len(self.names)


def groups_by(by: Any, frames: list[Atoms], descriptors: Sequence[Descriptor], config: str = "config_type") -> Groups:
    """The groups that ``by`` means.

    Parameters
    ----------
    by : ``"structure"``, ``"config_type"``, ``"cluster"`` (see `clusters`), a name in `info`, or one value for each structure.
    config : name in `info` of the configuration type.

    Raises
    ------
    InputError : fewer than `FEWEST` structures, fewer than two groups, or ``by`` says nothing of some structure.
    """
    if len(frames) < FEWEST:
        raise InputError(f"leave-out needs at least {FEWEST} structures, received {counted(len(frames), 'structure')}.")
    groups = _groups(by, frames, descriptors, config)
    if len(groups) < 2:
        raise InputError(
            f"`by`={by if isinstance(by, str) else 'array'!r} puts all {len(frames)} structures into one group ({groups.names[0]!r}), and "
            "nothing is left to predict it from; leave-out needs at least two groups, for example `by`='structure'."
        )
    return groups


def _groups(by: Any, frames: list[Atoms], descriptors: Sequence[Descriptor], config: str) -> Groups:
    if not isinstance(by, str):
        return Groups.of(_values(by, len(frames)))
    if by == "structure":
        return Groups(np.arange(len(frames)), tuple(map(str, range(len(frames)))))
    if by == "config_type":
        return Groups.of([config_type(atoms, config) for atoms in frames])
    if by == "cluster":
        return Groups.of(clusters(frames, descriptors).tolist())
    missing = [index for index, atoms in enumerate(frames) if by not in atoms.info]
    if missing:
        known = sorted({name for atoms in frames for name in atoms.info})
        raise InputError(
            f"frame {missing[0]}: `info` has no {by!r}, by which `by` groups structures; it may be 'structure', 'config_type', 'cluster', "
            f"an array of one value for each structure, or a name that all have in `info`, where there are {known}."
        )
    return Groups.of([atoms.info[by] for atoms in frames])


def _values(by: Any, n: int) -> list:
    try:
        values = np.asarray(by)
    except ValueError as error:
        raise InputError(f"`by` must hold one value for each of the {n} structures, received {by!r}.") from error
    if values.shape != (n,):
        raise InputError(f"`by` must hold one value for each of the {n} structures, received an array of shape {values.shape}.")
    return values.tolist()


def clusters(frames: list[Atoms], descriptors: Sequence[Descriptor]) -> np.ndarray:
    """(n_structures,) cluster of near-identical structures, by average linkage.

    Structures are as far apart as their `mean_descriptors`. Two clusters are one while the mean distance of their members is below
    `CLUSTER` times the median distance of all pairs of structures.

    Raises
    ------
    InputError : more than `MOST` structures.
    """
    if len(frames) > MOST:
        raise InputError(f"`by`='cluster' takes at most {MOST:,} structures, received {len(frames):,}; give an array of groups instead.")
    distances = pdist(mean_descriptors(frames, descriptors))
    return fcluster(linkage(distances, "average"), CLUSTER * float(np.median(distances)), "distance") - 1


def mean_descriptors(frames: list[Atoms], descriptors: Sequence[Descriptor]) -> np.ndarray:
    """(n_structures, n) means of the descriptors of each species' atoms, those of all species and terms side by side.

    Means are over all atoms of a structure, so that two of another composition are far apart. Of several terms, each is divided by the
    root mean square of its means.
    """
    parts = []
    for descriptor in descriptors:
        means = []
        for first, some in split_by_atoms(frames, GROUP):
            batch = Batch.from_atoms(some, first)
            env = descriptor.environments(batch, np)
            placed = np.zeros((batch.n_atoms, descriptor.n_kinds, env.X.shape[1]))
            placed[np.arange(batch.n_atoms), env.kinds] = env.X
            sums = np.add.reduceat(placed.reshape(batch.n_atoms, -1), batch.offsets[:-1], axis=0)
            means.append(sums / batch.sizes[:, None])
        mean = np.concatenate(means)
        parts.append(mean / max(float(np.sqrt((mean**2).sum(axis=1).mean())), 1e-300))
    return np.concatenate(parts, axis=1)
