"""Fixtures shared by the tests: small fitted models, each fitted once per session."""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from device import MODULES
from systems import small_soap, species, variations
from threadpoolctl import threadpool_limits

from soapkrr import SOAP, DotProduct, SparseGP, backends


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    """The tests' matrices are small: threads of BLAS would only wait for each other on a busy machine."""
    with threadpool_limits(1, user_api="blas"):
        yield


def pytest_collection_modifyitems(config, items):
    """Tests on a real GPU run when asked for by their marker, and never otherwise."""
    if "gpu" not in config.getoption("markexpr"):
        on_gpu = [item for item in items if item.get_closest_marker("gpu")]
        config.hook.pytest_deselected(items=on_gpu)
        items[:] = [item for item in items if item not in on_gpu]


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.gpu)])
def cuda(request, monkeypatch):
    """CuPy on a simulated device (see `device`), and with ``pytest -m gpu`` the real one: the module ``cupy``."""
    _forget_gpu_loops()
    if request.param == "simulated":
        for name, module in MODULES.items():
            monkeypatch.setitem(sys.modules, name, module)
        yield MODULES["cupy"]
    else:
        try:
            cupy = import_module("cupy")
            assert cupy.cuda.runtime.getDeviceCount() > 0
        except Exception as error:
            pytest.fail(f"tests of the GPU need CuPy and a GPU: {type(error).__name__}: {error}")
        yield cupy
    _forget_gpu_loops()


def _forget_gpu_loops():
    """The loops hold the CuPy that they were imported with."""
    vars(backends).pop("gpu", None)
    for name in [name for name in sys.modules if name.startswith("soapkrr.backends.gpu")]:
        del sys.modules[name]


@cache
def _fitted(name: str) -> SparseGP:
    model = SparseGP(small_soap(species(name)), DotProduct(zeta=2), n_sparse=12, threads=1)
    return model.fit(variations(name, 4))


@pytest.fixture(scope="session")
def fitted():
    """``fitted(name)``: a model of one system of the list, fitted to four variations of it."""
    return _fitted


def emt_copper(n: int, seed: int = 0):
    """Rattled and strained copper cells of four and eight atoms with energies, forces and stresses of EMT."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        atoms = bulk("Cu", a=rng.uniform(3.4, 3.9), cubic=True).repeat((1 + k % 2, 1, 1))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.12, rng=rng)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="session")
def copper():
    """A potential for copper fitted to EMT: good to a few meV, used by the calculator's tests."""
    soap = SOAP(species=["Cu"], r_cut=5.0, n_max=5, l_max=3, sigma=0.6)
    model = SparseGP(soap, DotProduct(zeta=3), n_sparse=120, noise={"energy": 0.001, "forces": 0.02, "stress": 0.001})
    return model.fit(emt_copper(30))
