"""What models that take more data share: further structures as the fit reads them, and what is known of a model after it grew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ase import Atoms

from soapkrr.baselines import warn_left_out
from soapkrr.errors import InputError, require_positive
from soapkrr.execution.resources import Resources
from soapkrr.labels import KINDS, Labels, Observations, read_labels
from soapkrr.labels.noise import of_more
from soapkrr.regression.data import TrainingData, check_structures
from soapkrr.regression.domain import Domain
from soapkrr.regression.fit import Fit
from soapkrr.regression.growing import absorbed, extended, novel_points
from soapkrr.regression.origin import data_hash, origin
from soapkrr.regression.process import Process
from soapkrr.regression.sparse.posterior import SparseProcess


@dataclass(frozen=True, eq=False)
class Addition:
    """Structures that a fitted model grows by: as given, their labels, as it learns them, and their domain."""

    frames: list[Atoms]
    labels: list[Labels]
    data: TrainingData
    domain: Domain

    @classmethod
    def of(cls, model, frames: list[Atoms], references: Mapping[str, float]) -> Addition:
        """Structures with labels as the fit of ``model`` would read them, less its prior means, with these reference energies.

        Raises
        ------
        InputError : a structure cannot be described, or the fit balanced the weights of all structures. `LabelError` for labels.
        """
        fitted, process = model._as_fitted(), model.process_
        domain = check_structures(frames, process.descriptors, pairs=False)
        labels = read_labels(frames, _observations(fitted.observations, frames), fitted._noise())
        data = TrainingData.of(frames, labels, [references, *model.prior_means_], model.threads)
        warn_left_out(data.without_prior, len(frames))
        if all(label.empty for label in data.labels):
            raise InputError("`frames` have no label that the model learns from, expected energies, forces or stresses.")
        return cls(frames, labels, data.labelled(), domain)

    def after(self, model, training: list[Atoms]) -> Addition:
        """These behind the structures that the model was fitted to; raises `InputError` unless ``training`` are those."""
        model._data_of_the_fit(model._as_fitted(), training)
        return Addition.of(model, [*training, *self.frames], model.reference_energies_)

    def origin(self) -> dict[str, str]:
        """Of a fit to these."""
        return origin(data_hash(self.frames, map(Labels.numbers, self.labels)))

    def noted(self, model) -> None:
        """Keep in a model that has learnt these what is known of its data; error bars that were learnt are those of others."""
        model.domain_ = None if model.domain_ is None else model.domain_.joined(self.domain)
        model.calibration_, model.left_out_errors_, model.left_out_squares_, model.origin_ = None, {}, {}, origin()
        vars(model).pop("test_errors_", None)


def grown_fit(model, more: Addition, everything: Addition | None, novelty: float | None, resources: Resources) -> Fit:
    """The fit of a sparse model with more structures; see `SparseGP.update`."""
    before = Fit(model.process_, model.noise_, model.n_observations_, model.log_likelihood_, model.triangles_, front=model.front_)
    points = [] if novelty is None else novel_points(_with_sparse_points(model.process_), more.data, _checked(novelty), resources)
    n = sum(len(x) for of_term in points for x in of_term)
    if not n:
        return absorbed(model.process_, before, more.data, resources)
    if everything is None:
        raise InputError(
            f"`novelty`={novelty} asks for {n} new sparse points, whose columns need the structures of the fit: give these as `training`, "
            "or leave `novelty` out."
        )
    return extended(model.process_, points, before, everything.data, model.fitted_parameters_["tolerance"], resources)


def _checked(novelty: float) -> float:
    """A standard deviation, eV."""
    require_positive(novelty=novelty)
    return float(novelty)


def _with_sparse_points(process: Process) -> SparseProcess:
    if not isinstance(process, SparseProcess):
        raise InputError("`novelty` makes environments sparse points; the representers of this model are observations, and stay.")
    return process


def _observations(observations: Observations | None, frames: list[Atoms]) -> Observations | None:
    """Of a few structures: noise of configuration types that none of them has is no slip of the pen."""
    if observations is None:
        return None
    if observations.balance:
        raise InputError("`balance`=True weighs every structure by all others: fit again with all structures.")
    return of_more(frames, observations)


def counted(before: Mapping[str, int], more: Mapping[str, int]) -> dict[str, int]:
    """{kind: number of observations} of two sets of data together."""
    return {kind: n for kind in KINDS if (n := before.get(kind, 0) + more.get(kind, 0))}
