"""The estimators: what a user fits, predicts with, saves and searches parameters of."""

from soapkrr.estimators.base import Potential
from soapkrr.estimators.gaussian_process import GaussianProcess
from soapkrr.estimators.kernel_ridge import KernelRidge
from soapkrr.estimators.property import PropertyGP, PropertyRidge
from soapkrr.estimators.sparse_gp import SparseGP
from soapkrr.estimators.tensor import TensorGP

__all__ = ["GaussianProcess", "KernelRidge", "Potential", "PropertyGP", "PropertyRidge", "SparseGP", "TensorGP"]
