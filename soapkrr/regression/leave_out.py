"""Every label of a fit as predicted without its own group of structures: one result, whatever the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from soapkrr.display import Tabular, counted
from soapkrr.execution.resources import Resources
from soapkrr.labels import KINDS, Labels
from soapkrr.regression.data import TrainingData
from soapkrr.regression.fit import Fit
from soapkrr.regression.grouping import Groups, groups_by
from soapkrr.regression.known import KnownLabels, unpredicted
from soapkrr.regression.without import Partition, without_groups

#: Units of a table, with factors from eV per atom, eV/Å, eV/Å³.
UNITS = {"energy": ("meV/atom", 1e3), "forces": ("meV/Å", 1e3), "stress": ("meV/Å³", 1e3)}


@dataclass(frozen=True, eq=False, repr=False)
class LeaveOut(Tabular, KnownLabels):
    """Labels as predicted by a model without their own group; energies are those of whole structures.

    The model's hyper-parameters, representers and reference energies are those of all data. Energies of isolated atoms are left out of
    the list: the others are measured by them, and nothing predicts them. Shows as a table of errors.

    Attributes
    ----------
    kind : index into ``("energy", "forces", "stress")``.  structure : index of the structure, as it was given to the fit.
    component : place in the ravelled label: 3·atom + axis of a force, Voigt component of a stress.
    given : the label, eV, eV/Å, eV/Å³.  sigma : its noise in the same unit, of an energy σ√N.
    mean, variance : predicted, in that unit and its square; the variance is of the value itself, without the noise of the label.
    fitted : what the model itself predicts, which knows the label.
    group : index into ``names``.  names : of the groups.  sizes : (n_structures,) numbers of atoms.
    exact : whether these are the numbers that refits without each group would give; otherwise they are estimated.
    """

    ARRAYS = (*KnownLabels.ARRAYS, "mean", "variance", "fitted", "group")

    mean: np.ndarray
    variance: np.ndarray
    fitted: np.ndarray
    group: np.ndarray
    names: tuple[str, ...]
    sizes: np.ndarray
    exact: bool = True

    @property
    def error(self) -> np.ndarray:
        """Predicted less given."""
        return self.mean - self.given

    @property
    def std(self) -> np.ndarray:
        """Posterior standard deviation, without the noise of the label."""
        return np.sqrt(np.maximum(self.variance, 0.0))

    @property
    def z(self) -> np.ndarray:
        """Errors over √(variance + sigma²): normal with standard deviation 1 where the model is right."""
        return self.error / np.sqrt(self.variance + self.sigma**2)

    def rmse(self, kind: str) -> float:
        """Root mean square error of one kind: eV per atom, eV/Å, eV/Å³; NaN of none."""
        mine = self.of_kind(kind)
        errors = mine.error / (self.sizes[mine.structure] if kind == "energy" else 1.0)
        return float(np.sqrt(np.mean(errors**2))) if len(mine) else np.nan

    def squares(self) -> dict[str, np.ndarray]:
        """{kind: (n_structures,) sum of squared errors}, NaN of structures that have none; energies per atom."""
        found = {}
        for kind in self.errors():
            mine = self.of_kind(kind)
            errors = mine.error / (self.sizes[mine.structure] if kind == "energy" else 1.0)
            found[kind] = np.full(len(self.sizes), np.nan)
            there = np.unique(mine.structure)
            found[kind][there] = np.bincount(mine.structure, errors**2, minlength=len(self.sizes))[there]
        return found

    def errors(self) -> dict[str, float]:
        """{kind: `rmse`} of the kinds that there are."""
        return {kind: self.rmse(kind) for k, kind in enumerate(KINDS) if (self.kind == k).any()}

    def with_labels(self, labels: Sequence[Labels]) -> LeaveOut:
        """The same with these labels of all structures in place of ``given``, and errors as they are: prior means put back."""
        given = self.values_of(labels, self.sizes)
        return replace(self, given=given, mean=given + self.error, fitted=given + (self.fitted - self.given))

    def _title(self) -> str:
        how = "" if self.exact else ", estimated"
        return f"Leave-out of {counted(len(self.names), 'group')} of {counted(len(self.sizes), 'structure')}{how}"

    def _columns(self) -> list[str]:
        return ["kind", "labels", "RMSE", "unit", "RMS z", "|z| < 1", "|z| < 2"]

    def _rows(self) -> list[list[str]]:
        return [self._row(kind) for k, kind in enumerate(KINDS) if (self.kind == k).any()]

    def _row(self, kind: str) -> list[str]:
        z, (unit, factor) = np.abs(self.of_kind(kind).z), UNITS[kind]
        parts = [f"{100 * np.mean(z < k):.0f} %" for k in (1, 2)]
        return [kind, f"{len(z):,}", f"{factor * self.rmse(kind):.4g}", unit, f"{np.sqrt(np.mean(z**2)):.2f}", *parts]


def leave_out(fit: Fit, data: TrainingData, groups: Groups, resources: Resources) -> LeaveOut:
    """Labels of a fit's data, prior means left out, without their own group.

    ``groups`` counts structures as the user gave them, and so does the result.
    """
    of_data = groups.index[data.order]
    # By their first structures, so that neither names nor the order in which structures were given change the rounding.
    members = sorted((np.flatnonzero(of_data == g) for g in range(len(groups))), key=lambda structures: structures[0])
    partition = Partition(data, fit.noise, members, resources, fit.rows)
    without = without_groups(fit.process, partition)
    labels = partition.labels
    found = LeaveOut(
        **{name: getattr(labels, name) for name in labels.ARRAYS},
        mean=labels.given - labels.sigma * without.errors,
        variance=labels.sigma**2 * without.variances,
        fitted=labels.given - labels.sigma * without.residuals,
        group=of_data[labels.structure],
        names=groups.names,
        sizes=data.sizes[np.argsort(data.order)],
        exact=without.exact,
    )
    found = replace(found, structure=data.order[labels.structure]).some(~unpredicted(data, labels))
    return found.some(np.lexsort((found.component, found.structure, found.kind)))


def structures_left_out(fit: Fit, data: TrainingData, labels: Sequence[Labels], resources: Resources) -> LeaveOut:
    """Every label without its own structure; ``labels``: of the structures as the user gave them, prior means not taken off."""
    frames = [data.frames[s] for s in np.argsort(data.order)]
    return leave_out(fit, data, groups_by("structure", frames, fit.process.descriptors), resources).with_labels(labels)
