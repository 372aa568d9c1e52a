"""Published data sets: errors stay where they were, and what must not matter does not, at a realistic size.

The files are not part of the package. They are looked for in a folder ``shared/data`` beside the repository: extended XYZ with energy,
forces and, for the solids, stress: silicon and lithium of the mlearn data sets (Zuo et al. 2020, doi 10.1021/acs.jpca.9b08723), ethanol of
the revised MD17 (Christensen and von Lilienfeld 2020, doi 10.1088/2632-2153/abba6f).
"""

from pathlib import Path

import numpy as np
import pytest
from ase.io import read

import soapkrr.estimators.base
import soapkrr.regression.sparse.posterior
import soapkrr.regression.sparse.triangles
from soapkrr import SOAP, DotProduct, RadialScaling, SparseGP
from soapkrr.metrics import error_table

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

pytestmark = pytest.mark.skipif(not (DATA / "si_train.xyz").exists(), reason="published data sets are not beside the repository")

SOLID_NOISE = {"energy": 0.002, "forces": 0.05, "stress": 0.002}


def _solid(symbol, **changes):
    soap = SOAP(species=[symbol], r_cut=5.0, n_max=6, l_max=4, sigma=0.5)
    return SparseGP(soap, DotProduct(zeta=4), **{"n_sparse": 300, "noise": SOLID_NOISE, **changes})


def _read(name, index):
    return read(DATA / name, index)


@pytest.fixture(scope="module")
def silicon():
    """(training structures, test structures, model fitted to every fourth training structure)."""
    train = _read("si_train.xyz", "::4")
    return train, _read("si_test.xyz", ":"), _solid("Si").fit(train)


def _assert_below(table, bounds):
    worse = {key: (table[key], bound) for key, bound in bounds.items() if not table[key] < bound}
    assert not worse, f"errors above their bounds: {worse}"


# Bounds are about 1.3 times what was measured when the test was written.


def test_errors_for_silicon(silicon):
    _, test, model = silicon
    table = error_table(test, model.predict(test))
    _assert_below(table, {"energy_mae_mev_per_atom": 4.1, "forces_mae_ev_per_angstrom": 0.111, "stress_mae_gpa": 0.58})


def test_errors_for_lithium():
    test = _read("li_test.xyz", ":")
    table = error_table(test, _solid("Li").fit(_read("li_train.xyz", "::4")).predict(test))
    _assert_below(table, {"energy_mae_mev_per_atom": 1.12, "forces_mae_ev_per_angstrom": 0.0177, "stress_mae_gpa": 0.069})


def test_errors_for_fifty_ethanol_molecules():
    soap = SOAP(species=["H", "C", "O"], r_cut=5.0, n_max=6, l_max=4, sigma=0.4, scaling=RadialScaling(r0=2.0, m=4))
    model = SparseGP(soap, DotProduct(zeta=2), n_sparse=450, noise={"energy": 0.0005, "forces": 0.01})
    test = _read("ethanol_test.xyz", "::20")
    table = error_table(test, model.fit(_read("ethanol_train.xyz", ":50")).predict(test))
    _assert_below(table, {"energy_mae_mev_per_atom": 1.88, "forces_mae_ev_per_angstrom": 0.075})


def test_error_bars_for_silicon_are_of_the_right_size(silicon):
    """With a prior of 10 eV per atom: 0.83 and 0.90 of the force components and 0.92 and 1.0 of the energies lie within 1 and 2 std.

    The errors are those of a prior of 1 eV, whose error bars are five times too small (0.15 and 0.32 of the force components).
    """
    train, test, _ = silicon
    model = _solid("Si", signal=10.0).fit(train)
    table = error_table(test, model.predict(test, uncertainty=("energy", "forces")))
    _assert_below(table, {"energy_mae_mev_per_atom": 4.9, "forces_mae_ev_per_angstrom": 0.111})
    assert 0.6 < table["forces_within_1_std"] < 0.95
    assert table["forces_within_2_std"] > 0.8
    assert 0.6 < table["energy_within_1_std"]


# --- what must not matter --------------------------------------------------------------------------------------------


def _assert_same(p, q):
    """Predictions agree to 1e-9 eV per atom and 1e-9 eV/Å; totals of 64 atoms to ten times that.

    The sparse coefficients add up to 2e5 eV in absolute value, so per-atom energies carry a rounding of 1e-10 that is common to the
    atoms of a crystal: totals of the test structures were found to differ by 5e-10 to 9e-10 eV.
    """
    for name, atol in (("energies", 1e-9), ("forces", 1e-9), ("energy", 1e-8), ("stress", 1e-9)):
        a, b = (np.concatenate([np.ravel(x) for x in getattr(r, name)]) for r in (p, q))
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=name)


def test_order_of_the_training_structures(silicon):
    train, test, model = silicon
    order = np.random.default_rng(0).permutation(len(train))
    _assert_same(_solid("Si").fit([train[k] for k in order]).predict(test), model.predict(test))


def test_order_of_the_predicted_structures(silicon):
    _, test, model = silicon
    p, q = model.predict(test), model.predict(test[::-1])
    np.testing.assert_allclose(q.energy[::-1], p.energy, rtol=0, atol=1e-9)


def test_number_of_threads(silicon):
    train, test, model = silicon
    p, q = model.predict(test), _solid("Si", threads=1).fit(train).predict(test)
    np.testing.assert_array_equal(p.energy, q.energy)
    np.testing.assert_array_equal(np.concatenate(p.forces), np.concatenate(q.forces))


@pytest.mark.parametrize("max_atoms", [97, 5000])
def test_size_of_the_groups(silicon, monkeypatch, max_atoms):
    train, test, model = silicon
    expected = model.predict(test)
    split = soapkrr.structures.split_by_atoms
    for module in (soapkrr.regression.sparse.triangles, soapkrr.estimators.base):
        monkeypatch.setattr(module, "split_by_atoms", lambda frames, _: split(frames, max_atoms))
    _assert_same(_solid("Si").fit(train).predict(test), expected)


@pytest.mark.parametrize("block", [7, 1000])
def test_size_of_the_blocks_of_a_prediction(silicon, monkeypatch, block):
    _, test, model = silicon
    expected = model.predict(test, uncertainty="energy")
    monkeypatch.setattr(soapkrr.backends.cpu, "EVALUATED", block)
    p = model.predict(test, uncertainty="energy")
    _assert_same(p, expected)
    np.testing.assert_allclose(p.energy_std, expected.energy_std, rtol=1e-7)
