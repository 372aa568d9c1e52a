"""Kernels between descriptor vectors, with the derivatives that forces and their variances need."""

from soapkrr.display import only_public
from soapkrr.kernels.base import Jet, Kernel, Product, Scaled, Sum, mixed_products, mixed_total, squares
from soapkrr.kernels.functions import (
    DotProduct,
    Linear,
    Matern32,
    Matern52,
    RationalQuadratic,
    SquaredExponential,
    Stationary,
)

__all__ = [
    "DotProduct",
    "Jet",
    "Kernel",
    "Linear",
    "Matern32",
    "Matern52",
    "Product",
    "RationalQuadratic",
    "Scaled",
    "SquaredExponential",
    "Stationary",
    "Sum",
    "mixed_products",
    "mixed_total",
    "squares",
]

__dir__ = only_public(__name__)
