"""A fit without knobs: descriptor, kernel, regressor, noise and scales chosen from the data, and said in one table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from ase import Atoms
from sklearn.base import clone

from soapkrr.checking.fitting import checked_fit
from soapkrr.choices import Choice, advice, checked_test, choices_text, test_rows
from soapkrr.description import OF_DESCRIPTOR, described
from soapkrr.descriptors.projection import Compressed
from soapkrr.descriptors.soap import SOAP
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.estimators.gaussian_process import GaussianProcess
from soapkrr.estimators.sparse_gp import SparseGP
from soapkrr.estimators.summary import NOISE_UNITS
from soapkrr.execution.memory import format_memory, parse_memory
from soapkrr.kernels import DotProduct
from soapkrr.labels import Labels, Observations, read_labels
from soapkrr.metrics import error_table
from soapkrr.regression.data import check_structures, checked_noise
from soapkrr.repulsion import START, repulsion
from soapkrr.structures import Batch, as_frames

logger = logging.getLogger(__name__)

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

#: What is given to the sparse model beside what is always chosen.
OF_SPARSE = ("n_sparse", "selection", "tolerance")

#: Everything that can be given in place of a choice.
NAMES = ("species", "r_cut", "sigma", "n_max", "l_max", "scaling", *OF_DESCRIPTOR, "zeta", *OF_SPARSE, "noise", "signal", "optimize")


#: Parameters of estimators, descriptors and kernels that messages may name and `fit` does not take.
CHOSEN = {*NAMES, "n_components"}


@dataclass(frozen=True)
class Settings:
    """What a fit is given and does not choose: parameters of the estimators, and whether atoms repel each other below the distances of the
    data.
    """

    observations: Observations | None = None
    baseline: object = None
    device: str = "cpu"
    threads: int | None = None
    memory_limit: int | str | None = MEMORY_LIMIT
    repulsion: bool = True

    @property
    def parameters(self) -> dict:
        """As arguments of an estimator."""
        return {name: value for name, value in vars(self).items() if name != "repulsion"}


@dataclass(frozen=True)
class Plan:
    """An estimator chosen for some data, not fitted, and why it is this one.

    Attributes
    ----------
    model : the estimator.  choices : what was chosen and why.
    way : ``optimize`` of its fit: ``"evidence"``, ``"cross-validation"``, or False where noise and signal are given.
    levels, signal : {kind: σ} and δ that were given, and take the place of what the fit found.
    walls : whether atoms repel each other below the distances of the data.
    """

    model: Potential
    choices: tuple[Choice, ...]
    way: str | bool
    levels: Mapping[str, float] = field(default_factory=dict)
    signal: float | None = None
    walls: bool = True

    def fit(self, frames: list[Atoms], progress: bool = False, check: bool = True) -> Potential:
        """A fitted copy of the model with ``choices_``; levels that were given stand beside those that the fit found. ``check``: labels."""
        again = bool(self.way) and (bool(self.levels) or self.signal is not None)
        model = clone(self.model).learn(frames, self.way, progress, check=check and not again, calibrate=not again, stated=self.levels)
        if again:
            model.set_params(noise={**model.noise_, **self.levels}, signal=model.signals_[0] if self.signal is None else self.signal)
            model.learn(frames, False, progress, check=check, calibrate=True, stated=self.levels)
        choices = [*self.choices, *self._found(model)]
        if self.walls and (wall := repulsion(model)) is not None:
            model.put_on_top(wall)
            choices.append(Choice("repulsion", wall.distances, f"Å, below {START:g} × the shortest distances of the data"))
        model.choices_ = choices
        return model

    def _found(self, model: Potential) -> list[Choice]:
        way, levels = self.way or "default", self.levels
        found = [
            Choice(f"noise, {kind}", float(f"{model.noise_[kind]:.3g}"), f"{unit}, {'given' if kind in levels else way}")
            for kind, unit in NOISE_UNITS.items()
            if model.n_observations_.get(kind)
        ]
        source = "given" if self.signal is not None else "evidence" if self.way else "default"
        return [*found, Choice("signal", float(f"{model.signals_[0]:.3g}"), f"eV, {source}")]


def fit(
    frames: list[Atoms],
    *,
    observations: Observations | None = None,
    baseline=None,
    test: list[Atoms] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    memory_limit: int | str | None = MEMORY_LIMIT,
    progress: bool = False,
    strict: bool = False,
) -> Potential:
    """Fit a potential to labelled structures, with nothing else to give.

    Small sets become an exact Gaussian process (`GaussianProcess`), larger ones a sparse one (`SparseGP`); the SOAP's cutoff and widths
    come from the distances in the data, noise levels and signal from the evidence or, for the sparse one, cross-validation. Pairs closer
    than any in the data repel (`CoreRepulsion`), which changes no prediction of structures without such pairs; a
    `choose(frames, settings=Settings(repulsion=False))` has no such walls.

    Parameters
    ----------
    frames : structures with energies, forces or stresses (`atoms.calc.results`, or as ``observations`` names them).
    observations, baseline, device, threads : as in the estimators.  progress : draw bars on a terminal.
    strict : make what a fit warns of labels (`DataWarning`) an error; `soapkrr.check` looks at them more closely.
    test : labelled structures that are not fitted: ``test_errors_`` of the model is their `metrics.error_table`, which `summary` shows.
    memory_limit : as in the estimators. Where the exact process would take more, a sparse one is fitted, on whatever machine.

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
    with advice(CHOSEN):
        frames = as_frames(frames)
        plan = choose(frames, settings=Settings(observations, baseline, device, threads, memory_limit))
        test = None if test is None else checked_test(test, frames, observations)
        model = checked_fit(plan, frames, progress, strict)
    if test is not None:
        model.test_errors_ = error_table(test, model.predict(test, uncertainty=True), observations=observations)
        model.test_errors_["n_structures"] = len(test)
    logger.info("%s", summary(model))
    return model


def choose(frames: list[Atoms], given: Mapping | None = None, settings: Settings | None = None) -> Plan:
    """The estimator that `fit` takes for these structures.

    Parameters
    ----------
    given : what is not to be chosen, by its name in `NAMES`. ``n_sparse`` and ``selection`` mean the sparse model. ``noise`` may hold
        some of the kinds. ``optimize`` is that of `SparseGP.fit`: it starts from the noise and signal given.
    settings : what is never chosen.

    Raises
    ------
    InputError : a name is unknown, or the structures or labels cannot be used.
    """
    given, settings, frames = dict(given or {}), settings or Settings(), as_frames(frames)
    unknown = sorted(set(given) - set(NAMES))
    if unknown:
        raise InputError(f"`given` has unknown names {unknown}; it takes {list(NAMES)}.")
    Batch.from_atoms(frames)
    noise = checked_noise(given.get("noise"))
    labels = read_labels(frames, settings.observations, noise)
    choices = described(frames, given)
    model = _estimator(frames, labels, choices, given, settings)
    check_structures(frames, [model.descriptor])
    labelled = sum(not label.empty for label in labels)
    plan = _levels(model, choices, given, [kind for kind in noise if any(label.has(kind) for label in labels)], labelled)
    return replace(plan, walls=settings.repulsion)


def _levels(model: Potential, choices: list[Choice], given: Mapping, kinds: list[str], labelled: int) -> Plan:
    """How noise and signal are found, or that they are given; ``labelled`` structures have labels of these ``kinds``."""
    levels, signal = dict(given.get("noise") or {}), given.get("signal")
    automatic = "evidence" if isinstance(model, GaussianProcess) or labelled < 2 else "cross-validation"
    if given.get("optimize"):
        way = "evidence" if given["optimize"] is True else given["optimize"]
        start = {"noise": levels or None, **({} if signal is None else {"signal": signal})}
        return Plan(model.set_params(**start), tuple(choices), way)
    if signal is not None and set(kinds) <= set(levels):
        return Plan(model.set_params(noise=levels, signal=signal), tuple(choices), False, levels, signal)
    return Plan(model, tuple(choices), automatic, levels, signal)


def summary(model: Potential) -> str:
    """Table of what `fit` chose for a model, and of its errors on test structures."""
    if not hasattr(model, "choices_"):
        raise InputError("this model was not made by `soapkrr.fit`: there is no list of choices.")
    return choices_text([*model.choices_, *test_rows(getattr(model, "test_errors_", None))])


def _estimator(frames: list[Atoms], labels: list[Labels], choices: list[Choice], given: Mapping, settings: Settings) -> Potential:
    """Exact or sparse, by what is given, the number of observations and the memory that an exact one would take; appends to ``choices``."""
    values = {c.name: c.value for c in choices}
    soap = SOAP(**{name: value for name, value in values.items() if name != "zeta"})
    kernel = DotProduct(zeta=values["zeta"])
    named = [name for name in OF_SPARSE if name in given]
    exact, why = (None, f"{' and '.join(named)} given") if named else _exact(frames, labels, soap, kernel, settings)
    if exact is None:
        return _sparse(frames, soap, kernel, choices, given, settings, why)
    choices.append(Choice("regressor", "exact Gaussian process", why))
    if exact.descriptor is not soap:
        choices.append(Choice("features", COMPONENTS, f"principal components of {soap.n_features}: time"))
    return exact


def _exact(frames, labels, soap: SOAP, kernel: DotProduct, settings: Settings) -> tuple[GaussianProcess | None, str]:
    """An exact process and why, or None and why not."""
    values = [v for label in labels for v in (label.energy, label.forces, label.stress) if v is not None]
    n = sum(int(np.isfinite(v).sum()) for v in values)
    largest = max(map(len, frames))
    if n > EXACT and (largest > SMALL or n > EXACT_SMALL):
        return None, f"{n} observations, up to {largest} atoms in a structure: an exact one would take long"
    compressed = n > EXACT and soap.n_features > COMPONENTS
    descriptor = Compressed(soap, n_components=COMPONENTS) if compressed else soap
    model, limit = GaussianProcess(descriptor, kernel, **settings.parameters), parse_memory(settings.memory_limit)
    need = clone(model).set_params(threads=1, device="cpu", memory_limit=None).plan(frames).enough
    if limit is not None and need > limit:
        return None, f"an exact one of {n} observations needs {format_memory(need)}, `memory_limit` is {format_memory(limit)}"
    return model, f"{n} observations, each a representer"


def _sparse(frames, soap, kernel, choices: list[Choice], given: Mapping, settings: Settings, why: str) -> SparseGP:
    environments = sum(map(len, frames))
    n_sparse = int(np.clip(environments // 4, *SPARSE))
    choices.append(Choice("regressor", "sparse Gaussian process", why))
    n_sparse, why = (given["n_sparse"], "given") if "n_sparse" in given else (n_sparse, f"of {environments} environments")
    choices.append(Choice("n_sparse", n_sparse, why))
    choices += [Choice(name, given[name], "given") for name in ("selection", "tolerance") if name in given]
    own = {name: given[name] for name in ("selection", "tolerance") if name in given}
    return SparseGP(soap, kernel, n_sparse=n_sparse, **own, **settings.parameters)
