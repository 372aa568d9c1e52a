"""Symmetries of the whole chain: what a rotation, a shift, an order, a cell or a batch may and may not change.

Energies of the small models are of order 1 to 30 eV. Whitening divides kernel rows by the square root of eigenvalues down to 1e-10, so
rounding of 1e-15 in positions and features becomes 1e-10 in features and energies; variances are compared, not their roots.
"""

import numpy as np
import pytest
from ase import Atoms
from systems import BULK, PERIODIC, R_CUT, SYSTEMS, build, distort, labelled, variations

from soapkrr.structures import VOIGT

ATOL = 1e-8

#: Off-diagonal Voigt components stand for two of the nine.
TWICE = np.array([1, 1, 1, 2, 2, 2])


def _check(p, q, order=None, energy_factor=1.0, force_rotation=None, copies=1):
    """Assert that prediction q is what p becomes."""
    order = np.arange(len(p.energies[0])) if order is None else order
    forces = p.forces[0] if force_rotation is None else p.forces[0] @ force_rotation.T
    np.testing.assert_allclose(q.energy, energy_factor * p.energy, rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.energies[0], np.tile(p.energies[0][order], copies), rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.forces[0], np.tile(forces[order], (copies, 1)), rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.energy_std**2, (energy_factor * p.energy_std) ** 2, rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.energies_std[0] ** 2, np.tile(p.energies_std[0][order] ** 2, copies), rtol=0, atol=ATOL)


def _check_components(p, q, order=None, copies=1):
    """Assert that standard deviations of force and stress components are the same too."""
    order = np.arange(len(p.energies[0])) if order is None else order
    np.testing.assert_allclose(q.forces_std[0] ** 2, np.tile(p.forces_std[0][order] ** 2, (copies, 1)), rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.stress_std**2, p.stress_std**2, rtol=0, atol=ATOL)
    np.testing.assert_allclose(q.stress, p.stress, rtol=0, atol=ATOL)


def _matrix(voigt):
    out = np.empty((3, 3))
    for value, (a, b) in zip(voigt, VOIGT, strict=True):
        out[a, b] = out[b, a] = value
    return out


@pytest.fixture(params=SYSTEMS)
def case(request, fitted):
    """(model, structure, its prediction with every standard deviation)."""
    model, atoms = fitted(request.param), build(request.param)
    return model, atoms, model.predict(atoms, uncertainty=True)


@pytest.mark.parametrize("handedness", [1, -1])
def test_rotation_and_reflection(case, handedness):
    """Forces rotate, stress rotates on both indices; variances of energies and the traces of force and stress covariances stay."""
    model, atoms, p = case
    Q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    Q *= handedness * np.linalg.det(Q)
    q = model.predict(distort(atoms.copy(), Q), uncertainty=True)
    _check(p, q, force_rotation=Q)
    np.testing.assert_allclose(_matrix(q.stress[0]), Q @ _matrix(p.stress[0]) @ Q.T, rtol=0, atol=ATOL)
    np.testing.assert_allclose((q.forces_std[0] ** 2).sum(axis=1), (p.forces_std[0] ** 2).sum(axis=1), rtol=0, atol=ATOL)
    np.testing.assert_allclose((q.stress_std**2) @ TWICE, (p.stress_std**2) @ TWICE, rtol=0, atol=ATOL)


def test_renaming_the_axes(case):
    """x → y → z → x permutes every component of mean and standard deviation."""
    model, atoms, p = case
    Q = np.roll(np.eye(3), 1, axis=0)
    q = model.predict(distort(atoms.copy(), Q), uncertainty=True)
    _check(p, q, force_rotation=Q)
    np.testing.assert_allclose(q.forces_std[0] ** 2, (p.forces_std[0] ** 2) @ Q.T, rtol=0, atol=ATOL)
    np.testing.assert_allclose(_matrix(q.stress_std[0]), Q @ _matrix(p.stress_std[0]) @ Q.T, rtol=0, atol=ATOL)


def test_translation(case):
    model, atoms, p = case
    moved = atoms.copy()
    moved.positions += [0.37, -11.1, 2.9]
    q = model.predict(moved, uncertainty=True)
    _check(p, q)
    _check_components(p, q)


def test_wrapping(case):
    model, atoms, p = case
    wrapped = atoms.copy()
    wrapped.wrap()
    q = model.predict(wrapped, uncertainty=True)
    _check(p, q)
    _check_components(p, q)


def test_any_images_of_the_atoms(case):
    model, atoms, p = case
    images = np.random.default_rng(1).integers(-3, 4, size=(len(atoms), 3)) * atoms.pbc
    moved = atoms.copy()
    moved.positions += images @ atoms.cell.array
    q = model.predict(moved, uncertainty=True)
    _check(p, q)
    _check_components(p, q)


def test_permutation_of_the_atoms(case):
    model, atoms, p = case
    order = np.random.default_rng(2).permutation(len(atoms))
    q = model.predict(atoms[order], uncertainty=True)
    _check(p, q, order=order)
    _check_components(p, q, order=order)


@pytest.mark.parametrize("name", PERIODIC)
def test_supercell(name, fitted):
    """Two cells have twice the energy and twice its standard deviation (the copies' errors are the same), the same forces and stress."""
    model, atoms = fitted(name), build(name)
    axis = int(np.argmax(atoms.pbc))
    double = atoms.repeat(np.where(np.arange(3) == axis, 2, 1))
    p, q = model.predict(atoms, uncertainty=True), model.predict(double, uncertainty=True)
    _check(p, q, energy_factor=2.0, copies=2)
    _check_components(p, q, copies=2)


@pytest.mark.parametrize("name", BULK)
def test_another_cell_of_the_same_lattice(name, fitted):
    model, atoms = fitted(name), build(name)
    a, b, c = atoms.cell.array
    other = atoms.copy()
    other.set_cell([a, b - a, c + 2 * b], scale_atoms=False)
    p, q = model.predict(atoms, uncertainty=True), model.predict(other, uncertainty=True)
    _check(p, q)
    _check_components(p, q)


@pytest.mark.parametrize("name", sorted(set(SYSTEMS) - set(BULK)))
def test_length_of_cell_vectors_along_open_axes_means_nothing(name, fitted):
    model, atoms = fitted(name), build(name)
    other = atoms.copy()
    cell = atoms.cell.array.copy()
    cell[~atoms.pbc] = (np.eye(3) * [31.0, 17.0, 23.0])[~atoms.pbc]
    other.set_cell(cell, scale_atoms=False)
    p, q = model.predict(atoms, uncertainty=True), model.predict(other, uncertainty=True)
    _check(p, q)
    _check_components(p, q)


def test_two_copies_out_of_sight_of_each_other(fitted):
    """Energies add; their errors are the same error, so standard deviations add too."""
    model, atoms = fitted("molecule"), build("molecule")
    far = atoms.copy()
    far.positions += [40.0, 3.0, 0.0]
    p, q = model.predict(atoms, uncertainty=True), model.predict(atoms + far, uncertainty=True)
    _check(p, q, energy_factor=2.0, copies=2)
    _check_components(p, q, copies=2)


def test_net_force_vanishes(case):
    _, atoms, p = case
    # Each pair adds and subtracts the same number.
    np.testing.assert_allclose(p.forces[0].sum(axis=0), 0, atol=1e-12 * (1 + np.abs(p.forces[0]).sum()))


def test_net_torque_on_a_molecule_vanishes(fitted):
    atoms = build("molecule")
    forces = fitted("molecule").predict(atoms).forces[0]
    np.testing.assert_allclose(np.cross(atoms.positions, forces).sum(axis=0), 0, atol=1e-9)


def test_an_isolated_atom_feels_nothing(fitted):
    p = fitted("molecule").predict(Atoms("O", positions=[[1, 2, 3]]), uncertainty=True)
    assert np.isfinite(p.energy).all()
    np.testing.assert_array_equal(p.forces[0], np.zeros((1, 3)))
    np.testing.assert_array_equal(p.forces_std[0], np.zeros((1, 3)))
    assert np.isnan(p.stress).all()


def test_an_atom_in_an_empty_box_has_no_stress(fitted):
    p = fitted("vacancy").predict(Atoms("Si", cell=[20, 20, 20], pbc=True), uncertainty=True)
    np.testing.assert_array_equal(p.stress, np.zeros((1, 6)))
    np.testing.assert_array_equal(p.stress_std, np.zeros((1, 6)))


def test_a_batch_is_its_structures_one_by_one(case):
    model, atoms, p = case
    others = [atoms.copy() for _ in range(3)]
    for k, other in enumerate(others):
        other.rattle(0.02 * (k + 1), seed=k)
    together = model.predict([others[0], atoms, *others[1:]], uncertainty=True)
    alone = [model.predict(a, uncertainty=True) for a in (others[0], atoms, *others[1:])]
    for name in ("energy", "energy_std", "stress", "stress_std"):
        np.testing.assert_allclose(getattr(together, name), np.concatenate([getattr(q, name) for q in alone]), rtol=1e-7, atol=1e-9)
    for name in ("energies", "energies_std", "forces", "forces_std"):
        for whole, q in zip(getattr(together, name), alone, strict=True):
            np.testing.assert_allclose(whole, getattr(q, name)[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("h", [0.05, 0.2])
def test_energy_forces_and_spread_come_in_smoothly(fitted, h):
    """A dimer at r_cut: energy and its standard deviation join those of two isolated atoms as h² or faster, the force as h."""
    model = fitted("dimer")
    apart = model.predict(Atoms("HCl", positions=[[0, 0, 0], [2 * R_CUT, 0, 0]]), uncertainty=True)
    steps = h * 0.5 ** np.arange(5)
    frames = [Atoms("HCl", positions=[[0, 0, 0], [R_CUT - x, 0, 0]]) for x in steps]
    p = model.predict(frames, uncertainty=True)

    def order(change):
        return np.polyfit(np.log(steps), np.log(np.abs(change)), 1)[0]

    assert order(p.energy - apart.energy) > 1.95
    assert order(p.energy_std**2 - apart.energy_std**2) > 1.95
    assert order([f[0, 0] for f in p.forces]) > 0.95
    np.testing.assert_array_equal(apart.forces[0], np.zeros((2, 3)))


def _snapshot(frames):
    return [
        (
            a.positions.copy(),
            a.cell.array.copy(),
            a.pbc.copy(),
            {k: v.copy() for k, v in a.arrays.items()},
            dict(a.info),
            a.calc,
            {k: np.copy(v) for k, v in a.calc.results.items()},
        )
        for a in frames
    ]


@pytest.mark.parametrize("name", SYSTEMS)
def test_inputs_are_left_alone(name, fitted):
    frames = [labelled(build(name)), *variations(name, 2, seed=3)]
    for k, atoms in enumerate(frames):
        atoms.info["tag"] = k
        atoms.arrays["mine"] = np.arange(len(atoms))
    before = _snapshot(frames)
    model = fitted(name)
    model.predict(frames, uncertainty=True)
    model.descriptor.create(frames)
    type(model)(**model.get_params(deep=False)).fit(frames)
    for old, new in zip(before, _snapshot(frames), strict=True):
        np.testing.assert_equal(new[:5], old[:5])
        assert new[5] is old[5]
        np.testing.assert_equal(new[6], old[6])
