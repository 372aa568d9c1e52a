"""A fit without knobs: descriptor, kernel, regressor, noise and scales chosen from the data, and said in one table."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ase import Atoms
from sklearn.base import clone

from soapkrr.automatic.learnt import check_learn, suits
from soapkrr.automatic.plans import MEMORY_LIMIT, Plan, Settings
from soapkrr.automatic.prior_mean import with_prior_mean
from soapkrr.automatic.search import check_score
from soapkrr.automatic.variants import of_species
from soapkrr.baselines import automatic_name, without_auto
from soapkrr.checking.fitting import checked_fit
from soapkrr.choices import Choice, advice, checked_test, choices_text, test_rows
from soapkrr.description import OF_DESCRIPTOR, described
from soapkrr.descriptors.projection import Compressed
from soapkrr.descriptors.soap import SOAP
from soapkrr.display import only_public
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential
from soapkrr.estimators.gaussian_process import GaussianProcess
from soapkrr.estimators.sparse_gp import SparseGP
from soapkrr.execution.memory import format_memory, parse_memory
from soapkrr.kernels import DotProduct
from soapkrr.labels import Labels, Observations, read_labels
from soapkrr.labels.observations import weighted
from soapkrr.metrics import error_table
from soapkrr.regression.data import check_structures, checked_noise
from soapkrr.regression.score import Score
from soapkrr.solids import VARIED as OF_SOLIDS
from soapkrr.solids import candidates as of_solids
from soapkrr.structures import Batch, as_frames

logger = logging.getLogger(__name__)

#: Observations up to which every one is a representer: whatever the sizes of the structures, and where all are small.
EXACT, EXACT_SMALL = 4_000, 30_000

#: Atoms of the largest structure that counts as small: the covariance of two structures costs the product of their sizes.
SMALL = 32

#: Features kept for the exact model of a large set.
COMPONENTS = 400

#: Sparse points at least and at most; in between, a quarter of the environments.
SPARSE = (300, 2_000)

#: What is given to the sparse model beside what is always chosen.
OF_SPARSE = ("n_sparse", "selection", "tolerance")

#: Everything that can be given in place of a choice.
NAMES = ("species", "r_cut", "sigma", "n_max", "l_max", "scaling", *OF_DESCRIPTOR, "zeta", *OF_SPARSE, "noise", "signal", "optimize")


#: Parameters of estimators, descriptors and kernels that messages may name and `fit` does not take.
CHOSEN = {*NAMES, "n_components"}


def fit(
    frames: list[Atoms],
    *,
    observations: Observations | None = None,
    baseline=None,
    test: list[Atoms] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    memory_limit: int | str | None = MEMORY_LIMIT,
    progress: bool = True,
    strict: bool = False,
    score: str | Mapping[str, float] = "balanced",
    search: bool = True,
    learn: str | bool | None = None,
    weights: str | None = None,
) -> Potential:
    """Fit a potential to labelled structures, with nothing else to give.

    Small sets become an exact Gaussian process (`GaussianProcess`), larger ones a sparse one (`SparseGP`); the SOAP's cutoff and widths
    come from the distances in the data, noise levels and signal from the evidence or, for the sparse one, cross-validation. Pairs closer
    than any in the data repel (`CoreRepulsion`), which changes no prediction of structures without such pairs; a
    `choose(frames, settings=Settings(repulsion=False))` has no such walls.

    Parameters
    ----------
    frames : structures with energies, forces or stresses (`atoms.calc.results`, or as ``observations`` names them).
    observations, baseline, device, threads : as in the estimators. A ``baseline`` may be, or hold, ``"auto"``: GFN2-xTB as prior mean of
        molecules where structures left out are predicted better with it, or ``"auto:NAME"``: so with another prior mean.
    progress : draw bars, on a terminal or in a notebook, of what takes more than two seconds; False: none.
    strict : make what a fit warns of labels (`DataWarning`) an error; `soapkrr.check` looks at them more closely.
    score : which errors of left-out structures are to be small where there is a choice, of variants and of noise by cross-validation:
        ``"balanced"`` (the geometric mean of those of energies, forces and stresses; noise levels keep each within 1.15 × the least that it
        could have alone, where they can), ``"energy"``, ``"forces"``, or weights {kind: w}.
    learn : ``"weights"``: learn channel weights (`learn_weights`), and keep them where structures that they were not learnt from are
        predicted better; False: do not; None: for 20 to 60 molecules with forces, where it takes up to two minutes, unless ``search`` is
        False.
    weights : ``"balanced"``: rare configuration types and species count as much as common ones (`Observations(balance=True)`).
    search : try variants of the recipe, and keep what does best on structures left out; False: the recipe alone, in less time.
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
        frames, observations = as_frames(frames), weighted(observations, weights)
        settings = Settings(observations, baseline, device, threads, memory_limit, score=score, search=search, learn=learn)
        plan = choose(frames, settings=settings)
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
    name, settings = automatic_name(settings.baseline), replace(settings, baseline=without_auto(settings.baseline))
    noise = checked_noise(given.get("noise"))
    labels = read_labels(frames, settings.observations, noise)
    choices = described(frames, given)
    model = _estimator(frames, labels, choices, given, settings)
    check_structures(frames, [model.descriptor])
    check_learn(settings.learn)
    score = Score.of(settings.score)
    check_score(score, labels)
    labelled = sum(not label.empty for label in labels)
    plan = _levels(model, choices, given, [kind for kind in noise if any(label.has(kind) for label in labels)], labelled)
    plan = replace(plan, walls=settings.repulsion, score=score)
    plan = replace(plan, variants=_variants(plan, frames, given)) if settings.search else plan
    # Unasked, either a prior mean is tried or weights are learnt: both would take long, and errors of 50 ethanol molecules left out, on top
    # of GFN2-xTB, went from 0.46 meV/atom and 23.6 meV/Å to 0.50 and 22.6.
    unasked = settings.search and name is None and suits(model, frames, labels)
    plan = with_prior_mean(plan, frames, name, given, settings.search)
    return replace(plan, learn=unasked if settings.learn is None else bool(settings.learn))


def _variants(plan: Plan, frames: list[Atoms], given: Mapping) -> dict[str, Plan]:
    """Plans with other descriptors, by what they do with the species; for solids, with other reach and sharpness where none was given."""
    descriptor = plan.model.descriptor
    soap = descriptor.descriptor if isinstance(descriptor, Compressed) else descriptor
    variants = {name: plan.with_descriptor(other) for name, other in of_species(soap)}
    if not set(given) & set(OF_SOLIDS):
        variants |= {name: plan.with_model(model) for name, model in of_solids(frames, plan.model)}
    return variants


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


__dir__ = only_public(__name__)
