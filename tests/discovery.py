"""Every estimator, descriptor and kernel of the package, found by walking it; no list of classes is kept by hand.

A class that cannot be built from its defaults (descriptors: from species and cutoff) needs one line in `EXAMPLES`; the tests of a new
class without one fail and say so.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from inspect import isabstract

import extension  # noqa: F401  a descriptor and a kernel from outside of the package
import numpy as np
from sklearn.base import BaseEstimator
from systems import R_CUT, small_soap

import soapkrr
from soapkrr import DotProduct, SquaredExponential
from soapkrr.baselines import ZBL, CoreRepulsion, Coulomb, NamedBaseline, PairSpline, ScaledBaseline
from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.cutoff import Cosine
from soapkrr.descriptors.quip import QuipPair, QuipSOAP
from soapkrr.kernels import Kernel
from soapkrr.specification import Specification


def _matrix(rows: int, columns: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(rows).normal(size=(rows, rows)))[0][:, :columns]


def _projected(names):
    soap = small_soap(names)
    return soapkrr.Projected(soap, _matrix(soap.n_features, 7))


def _weighted(names):
    soap = small_soap(names)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, (len(soap.species), soap.l_max + 1, soap.n_channels))
    return soapkrr.WeightedSOAP(**soap.get_params(deep=False), weights=weights)


def _standardized(names):
    acsf = soapkrr.ACSF(names, r_cut=R_CUT, g2_params=[(1.0, 1.5)])
    return soapkrr.Standardized(acsf, tuple(np.full(acsf.n_features, 0.1)), tuple(np.linspace(0.5, 2.0, acsf.n_features)))


def _dscribe(names):
    from dscribe.descriptors import SOAP

    return soapkrr.DScribe(SOAP(species=names, r_cut=3.5, n_max=2, l_max=2, sigma=0.4, periodic=True))


#: How to build classes whose constructor needs more: descriptors and estimators from chemical symbols, everything else from nothing.
EXAMPLES = {
    "SOAP": small_soap,
    "CompressedSOAP": lambda names: soapkrr.CompressedSOAP(names, r_cut=R_CUT, n_max=3, l_max=2, compression="mu1nu1"),
    "WeightedSOAP": _weighted,
    "Compressed": lambda names: soapkrr.Compressed(small_soap(names), n_components=5),
    "Projected": _projected,
    "CoupledSum": lambda names: soapkrr.CoupledSum(small_soap(names), _matrix(len(names) + 1, 2)[: len(names)], 0.3),
    "Coupled": lambda names: soapkrr.Coupled(small_soap(names), _matrix(len(names) + 1, 2)[: len(names)]),
    "DScribe": _dscribe,
    "Sum": lambda: DotProduct(2) + SquaredExponential(0.7),
    "Product": lambda: DotProduct(2) * SquaredExponential(0.7),
    "Scaled": lambda: 2.5 * DotProduct(3),
    "Standardized": _standardized,
    "ACSF": lambda names: soapkrr.ACSF(names, r_cut=R_CUT, g2_params=[(1.0, 0.0), (2.0, 1.5)], g4_params=[(0.1, 2.0, -1.0)]),
    "NamedBaseline": lambda: NamedBaseline("zbl"),
    "ScaledBaseline": lambda: ScaledBaseline(ZBL(), 1.1),
    "Coulomb": lambda: Coulomb({"Na": 1.0, "Cl": -1.0}),
    "CoreRepulsion": lambda: CoreRepulsion({"Si-Si": 1.9}, {"Si-Si": 50.0}),
    "PairSpline": lambda: PairSpline([("Si-Si", (1.0, 1.5, 2.0), (8.0, 1.0, 0.0), (-30.0, 0.0))]),
    "QuipPair": lambda names: QuipPair(names, R_CUT, cutoff=Cosine(2.0), curves=[(0.9, (1.5, 2.5), (1.0, -0.5)), (1.2, (2.0,), (1.0,))]),
    "QuipSOAP": lambda names: QuipSOAP(names, r_cut=R_CUT, n_max=3, l_max=2, central_weight=0.5, central_everywhere=True),
    "GivenPoints": lambda: soapkrr.selection.GivenPoints([(0, 1), (2, 0)]),
    "Featurizer": lambda names: soapkrr.Featurizer(small_soap(names)),
    "Term": lambda: soapkrr.Term(small_soap(["Si"]), DotProduct(2), n_sparse=5),
}


@cache
def found(base: type) -> tuple[type, ...]:
    """Concrete classes of the package below ``base``, by name."""
    for module in pkgutil.walk_packages(soapkrr.__path__, "soapkrr."):
        if ".backends.gpu" not in module.name and not module.name.endswith("__main__"):
            import_module(module.name)
    kinds = [base]
    for kind in kinds:
        kinds += [k for k in kind.__subclasses__() if k not in kinds]
    own = {k for k in kinds if k.__module__.startswith(("soapkrr.", "extension")) and not isabstract(k) and not k.__name__.startswith("_")}
    return tuple(sorted(own - {base}, key=lambda k: k.__name__))


def estimators() -> tuple[type, ...]:
    return found(BaseEstimator)


def descriptors() -> tuple[type, ...]:
    return found(Descriptor)


def kernels() -> tuple[type, ...]:
    return found(Kernel)


def specifications() -> tuple[type, ...]:
    """All but the one that holds a calculator, which is no value and goes into no file (see test_baselines)."""
    return tuple(kind for kind in found(Specification) if kind is not soapkrr.CalculatorBaseline)


def example(kind: type, names=("Si",)):
    """An instance: from `EXAMPLES`, or from defaults."""
    names = list(names)
    needs_names = issubclass(kind, (Descriptor, BaseEstimator))
    if kind.__name__ in EXAMPLES:
        return EXAMPLES[kind.__name__](names) if needs_names else EXAMPLES[kind.__name__]()
    try:
        if issubclass(kind, Descriptor):
            return kind(species=names, r_cut=R_CUT)
        if issubclass(kind, BaseEstimator):
            return kind(small_soap(names), DotProduct(2))
        return kind()
    except TypeError as error:
        raise AssertionError(f"{kind.__name__} needs a line in EXAMPLES of tests/discovery.py: {error}") from error


def learnt(descriptor, frames):
    """The descriptor as a fitted model uses it."""
    return descriptor.fitted(descriptor.create(frames)) if descriptor.learns else descriptor
