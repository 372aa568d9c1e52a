"""Prior means taken off labels: what is left to learn."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr.baselines.base import Baseline, total
from soapkrr.errors import DataWarning, InputError
from soapkrr.labels.labels import Labels
from soapkrr.structures import Batch, Mean, split_by_atoms

#: Atoms evaluated at once when labels are reduced.
GROUP = 4096

#: Structures without a prior mean that messages name.
NAMED = 3


def subtract(means: Sequence[Baseline], frames: list[Atoms], labels: list[Labels], threads: int | None = None) -> list[Labels]:
    """Labels less the prior means; of a structure that has no prior mean nothing is left.

    Raises
    ------
    InputError : no structure has a prior mean, or one has a stress where the prior mean gives none.
    """
    return reduced(means, frames, labels, threads)[0]


def reduced(
    means: Sequence[Baseline], frames: list[Atoms], labels: list[Labels], threads: int | None = None
) -> tuple[list[Labels], dict[int, str]]:
    """See `subtract`; and {index: reason} of the structures that have no prior mean."""
    if not means:
        return labels, {}
    failed = prepared(means, frames, threads)
    if len(failed) == len(frames):
        raise InputError(f"no structure has a prior mean: {left_out_text(failed)}.")
    kept, out = [s for s in range(len(frames)) if s not in failed], list(labels)
    for s in failed:
        out[s] = replace(labels[s], energy=np.nan, forces=None, stress=None)
    for first, group in split_by_atoms([frames[s] for s in kept], GROUP):
        batch = Batch.from_atoms(group, first)
        mean = total(means, batch)
        for s, (a, b) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
            own, index = Mean(mean.energies[a:b], mean.forces[a:b], mean.strain[s] / batch.volumes[s]), kept[first + s]
            out[index] = _reduced(labels[index], own, index)
    return out, failed


def prepared(means: Sequence[Baseline], frames: list[Atoms], threads: int | None = None) -> dict[int, str]:
    """Compute ahead what the prior means will be asked for; {index: reason} of structures for which one of them fails."""
    failed: dict[int, str] = {}
    for mean in means:
        failed = {**mean.prepare(frames, threads), **failed}
    return failed


def warn_left_out(failed: Mapping[int, str], n_structures: int) -> None:
    """Say in a `DataWarning` which structures of a fit have no prior mean."""
    if failed:
        said = f"{len(failed)} of {n_structures} structures have no prior mean and are left out of the fit"
        warnings.warn(f"{said}: {left_out_text(failed)}.", DataWarning, stacklevel=4)


def left_out_text(failed: Mapping[int, str]) -> str:
    """The first structures without a prior mean, with reasons."""
    said = [f"frame {s}: {failed[s]}" for s in sorted(failed)[:NAMED]]
    more = f"; and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
    return "; ".join(said) + more


def _reduced(label: Labels, mean: Mean, index: int) -> Labels:
    if label.stress is not None and not np.isfinite(mean.strain).all():
        raise InputError(f"frame {index} has a stress, but `baseline` gives none; take another calculator or leave out the stress labels.")
    return replace(
        label,
        energy=label.energy - mean.energies.sum(),
        forces=None if label.forces is None else label.forces - mean.forces,
        stress=None if label.stress is None else label.stress - mean.strain,
    )
