"""Interatomic potentials with error bars from small quantum-mechanical data sets.

Descriptors (SOAP), kernels and sparse Gaussian-process regression of per-atom energies; forces, stress and the posterior variance of
each of them. Start with `SparseGP`; `load` reads a saved model.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOME = {
    "SOAP": "descriptors.soap",
    "CompressedSOAP": "descriptors.compression",
    "similarity_embedding": "descriptors.compression",
    "Compressed": "descriptors.projection",
    "Projected": "descriptors.projection",
    "DScribe": "descriptors.dscribe",
    "Featurizer": "descriptors.featurizer",
    "ACSF": "descriptors.acsf",
    "Pair": "descriptors.pair",
    "Standardized": "descriptors.transform",
    "ZBL": "baselines",
    "CalculatorBaseline": "baselines",
    "RadialScaling": "descriptors.cutoff",
    "DotProduct": "kernels",
    "Linear": "kernels",
    "SquaredExponential": "kernels",
    "Matern32": "kernels",
    "Matern52": "kernels",
    "RationalQuadratic": "kernels",
    "Term": "regression.terms",
    "GaussianProcess": "regression.exact",
    "KernelRidge": "regression.exact",
    "SparseGP": "regression.sparse_gp",
    "Observations": "observations",
    "Stratified": "selectors",
    "GivenPoints": "selectors",
    "RandomSelection": "selectors",
    "KMeans": "selectors",
    "Leverage": "selectors",
    "Prediction": "prediction",
    "fit": "auto",
    "load": "io",
    "InputError": "errors",
    "LabelError": "errors",
    "ModelFileError": "errors",
}
_MODULES = ("plot", "metrics", "selection", "kernels", "selectors", "structures")

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str):
    """Import on first use, so that ``import soapkrr`` is quick."""
    if name in _HOME:
        return getattr(import_module(f"soapkrr.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"soapkrr.{name}")
    raise AttributeError(f"module 'soapkrr' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
