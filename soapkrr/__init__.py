"""Interatomic potentials with error bars from small quantum-mechanical data sets.

Descriptors (SOAP, ACSF), kernels, sparse and exact Gaussian-process regression of per-atom energies; forces, stress and the posterior
variance of each of them. Start with `fit`, which chooses everything, or with `SparseGP`; `load` reads a saved model.
"""

from importlib import import_module

__version__ = "0.2.0"

_HOME = {
    "SOAP": "descriptors.soap",
    "CompressedSOAP": "descriptors.compression",
    "OptimalRadial": "descriptors.contraction",
    "similarity_embedding": "descriptors.compression",
    "element_similarity": "descriptors.elements",
    "element_embedding": "descriptors.elements",
    "Coupled": "descriptors.coupling",
    "CoupledSum": "descriptors.coupling",
    "WeightedSOAP": "descriptors.weighting",
    "Compressed": "descriptors.projection",
    "Projected": "descriptors.projection",
    "DScribe": "descriptors.dscribe",
    "Featurizer": "descriptors.featurizer",
    "ACSF": "descriptors.acsf",
    "Pair": "descriptors.pair",
    "Standardized": "descriptors.transform",
    "ZBL": "baselines",
    "CalculatorBaseline": "baselines",
    "CoreRepulsion": "baselines",
    "Coulomb": "baselines",
    "RadialScaling": "descriptors.cutoff",
    "DotProduct": "kernels",
    "Linear": "kernels",
    "SquaredExponential": "kernels",
    "Matern32": "kernels",
    "Matern52": "kernels",
    "RationalQuadratic": "kernels",
    "Term": "regression.terms",
    "GaussianProcess": "estimators.gaussian_process",
    "KernelRidge": "estimators.kernel_ridge",
    "PropertyGP": "estimators.property",
    "PropertyRidge": "estimators.property",
    "SparseGP": "estimators.sparse_gp",
    "TensorGP": "estimators.tensor",
    "TensorPrediction": "tensor_prediction",
    "Observations": "labels.observations",
    "Stratified": "selection.specifications",
    "GivenPoints": "selection.specifications",
    "RandomSelection": "selection.specifications",
    "KMeans": "selection.specifications",
    "Leverage": "selection.specifications",
    "Energy": "uncertainty",
    "energy_difference": "uncertainty",
    "Force": "uncertainty",
    "Stress": "uncertainty",
    "Observable": "uncertainty",
    "JointPosterior": "uncertainty",
    "Prediction": "prediction",
    "PropertyPrediction": "prediction",
    "LeaveOut": "regression.leave_out",
    "OnTheFly": "active.on_the_fly",
    "SurrogateNEB": "active.barrier",
    "SurrogateDimer": "active.dimer",
    "extrapolations": "active.extrapolation",
    "screen": "active.screening",
    "Campaign": "active.campaign",
    "check": "lint",
    "SurrogateRelaxation": "active.relaxation",
    "fit": "auto",
    "learn_weights": "learning.weights",
    "load": "loading",
    "load_gap": "gap.reading",
    "gap_structures": "gap.reading",
    "write": "exchange",
    "InputError": "errors",
    "DataWarning": "errors",
    "ConditionWarning": "errors",
    "LabelError": "errors",
    "ModelFileError": "errors",
    "ExtrapolationError": "errors",
    "ExtrapolationWarning": "errors",
}
_MODULES = ("auto", "plot", "metrics", "selection", "kernels", "similarity", "structures", "datasets", "observables")

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str):
    """Import on first use, so that ``import soapkrr`` is quick."""
    if name in _HOME:
        return getattr(import_module(f"soapkrr.{_HOME[name]}"), name)
    if name in _MODULES:
        return import_module(f"soapkrr.{name}")
    raise AttributeError(f"module 'soapkrr' has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
