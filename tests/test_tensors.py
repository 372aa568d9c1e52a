"""Tensors: couplings against an independent code, turning and mirrors, the posterior against the formula, enantiomers, files, bad input."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii
from scipy.spatial.transform import Rotation

import soapkrr
from soapkrr import SOAP, DotProduct, InputError, LabelError, TensorGP
from soapkrr.descriptors.equivariant import Equivariants, clebsch_gordan, coupling, equivariants
from soapkrr.regression.tensor.process import covariance
from soapkrr.regression.tensor.ranks import RANKS, as_rank
from soapkrr.structures import Batch

PARTS = [(0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1), (3, 1)]
TURN = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()


def soap(names=("H", "C", "O")):
    return SOAP(names, r_cut=4.0, n_max=3, l_max=3)


def methanols(n, seed=0):
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = molecule("CH3OH")
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        frames.append(atoms)
    return frames


def turned(atoms, matrix):
    moved = atoms.copy()
    moved.positions = atoms.positions @ matrix.T
    moved.cell = atoms.cell.array @ matrix.T
    return moved


def charges_times_positions(atoms):
    """A dipole of fixed charges that do not depend on the origin's place: their sum is zero."""
    charge = np.where(atoms.numbers == 1, 0.2, np.where(atoms.numbers == 6, -0.2, -0.6))
    return (charge - charge.mean()) @ atoms.positions


@pytest.mark.parametrize(
    ("l1", "m1", "l2", "m2", "l", "square"),
    [
        (1, 0, 1, 0, 2, 2 / 3),
        (1, 1, 1, -1, 0, 1 / 3),
        (1, 0, 1, 0, 0, -1 / 3),
        (1, 1, 1, 0, 1, 1 / 2),
        (1, 0, 1, 1, 1, -1 / 2),
        (2, 0, 2, 0, 2, -2 / 7),
        (2, 1, 1, 1, 2, -1 / 3),
        (2, 2, 1, -1, 1, 3 / 5),
        (2, 0, 1, 0, 3, 3 / 5),
    ],
)
def test_clebsch_gordan_coefficients_are_those_of_the_tables(l1, m1, l2, m2, l, square):
    """Squares with the signs of the coefficients (Particle Data Group's tables)."""
    c = clebsch_gordan(l1, l2, l)[l + m1 + m2, l1 + m1, l2 + m2]
    assert np.sign(c) * c**2 == pytest.approx(square, abs=1e-14)


@pytest.mark.parametrize(("l1", "l2", "l"), [(1, 1, 0), (1, 1, 1), (1, 2, 2), (2, 3, 1)])
def test_couplings_are_orthonormal(l1, l2, l):
    C = coupling(l1, l2, l)
    np.testing.assert_allclose(np.einsum("amn,bmn->ab", C, C), np.eye(2 * l + 1), atol=1e-13)


def test_the_coupling_of_two_vectors_is_their_product():
    a, b = np.random.default_rng(0).normal(size=(2, 3))
    y, z, x = 0, 1, 2
    xyz = [x, y, z]
    cross = np.cross(a[xyz], b[xyz])[[1, 2, 0]]
    np.testing.assert_allclose(np.abs(coupling(1, 1, 1) @ b @ a), np.abs(cross) / np.sqrt(2), atol=1e-14)
    assert abs(coupling(1, 1, 0)[0] @ b @ a) == pytest.approx(abs(a @ b) / np.sqrt(3))


@pytest.mark.parametrize(("degree", "parity"), PARTS)
def test_tensors_turn_and_mirror_as_they_should(degree, parity):
    frames, parts = methanols(3), equivariants(soap(), degree, parity)
    X, P, _ = parts.compute(Batch.from_atoms(frames))
    Y, Q, _ = parts.compute(Batch.from_atoms([turned(a, TURN) for a in frames]))
    _, M, _ = parts.compute(Batch.from_atoms([turned(a, -np.eye(3)) for a in frames]))
    flat = [T.transpose(0, 2, 1).reshape(-1, 2 * degree + 1) for T in (P, Q)]
    D = np.linalg.lstsq(*flat, rcond=None)[0]
    np.testing.assert_allclose(X, Y, atol=1e-12)
    np.testing.assert_allclose(D @ D.T, np.eye(2 * degree + 1), atol=1e-10)
    np.testing.assert_allclose(flat[0] @ D, flat[1], atol=1e-12)
    np.testing.assert_allclose(M, parity * (-1) ** degree * P, atol=1e-12)
    assert P.shape[2] == parts.n_features and np.abs(P).max() > 1e-4


def test_the_products_are_those_of_all_pairs_of_channels():
    """Σ over kept pairs of p p′ is that over all ordered pairs of channels (l a, l′ b)."""
    parts, (frame,) = Equivariants(soap(["H", "C", "O"]), 2, 1), methanols(1)
    env = parts.soap.environments(Batch.from_atoms([frame]))
    X, (c, norms) = env.values
    every = []
    for l1 in range(4):
        for l2 in range(4):
            if abs(l1 - l2) <= 2 <= l1 + l2 and (l1 + l2) % 2 == 0:
                a, b = c[:, l1**2 : (l1 + 1) ** 2], c[:, l2**2 : (l2 + 1) ** 2]
                product = np.einsum("umn,ima,inb->iuab", coupling(l1, l2, 2), a, b)
                every.append(product.reshape(len(c), 5, -1))
    full = np.concatenate(every, axis=2) * (np.sqrt(8 * np.pi**2) / norms)[:, None, None]
    P = parts.compute(Batch.from_atoms([frame]))[1]
    np.testing.assert_allclose(np.einsum("iuf,jvf->iujv", P, P), np.einsum("iuf,jvf->iujv", full, full), atol=1e-12)


@pytest.mark.parametrize("rank", sorted(RANKS))
@pytest.mark.parametrize("target", ["extensive", "atom"])
def test_predictions_turn_with_the_structure(rank, target):
    rng, frames, shape = np.random.default_rng(1), methanols(4), RANKS[rank].shape
    y = [rng.normal(size=((len(a),) if target == "atom" else ()) + shape) for a in frames]
    y = [v + v.swapaxes(-1, -2) for v in y] if rank == "polarisability" else y
    model = TensorGP(soap(), DotProduct(zeta=1), rank=rank, target=target, noise=0.1).fit(frames, y)
    here = model.predict(frames[:2], uncertainty=True)
    for matrix in (TURN, -TURN):
        sign = np.linalg.det(matrix) if rank.startswith("pseudo") else 1.0
        expected = {0: lambda t: t, 1: lambda t, R=matrix: t @ R.T, 2: lambda t, R=matrix: R @ t @ R.T}[len(shape)](here.values)
        there = model.predict([turned(a, matrix) for a in frames[:2]], uncertainty=True)
        np.testing.assert_allclose(there.values, sign * expected, atol=1e-10)
        np.testing.assert_allclose(np.trace(there.covariance, axis1=1, axis2=2), np.trace(here.covariance, axis1=1, axis2=2), atol=1e-10)


def test_with_all_environments_it_is_the_exact_process():
    frames, test = methanols(6), methanols(2, seed=9)
    y = np.array([charges_times_positions(a) for a in frames])
    model = TensorGP(soap(), DotProduct(zeta=2), noise=0.01, signal=0.7, tolerance=1e-14).fit(frames, y)
    parts = equivariants(soap(), 1, 1)

    def block(a, b):
        """(3, 3) covariance of two dipoles, atom by atom."""
        (X, P, s), (Y, Q, t) = (parts.compute(Batch.from_atoms([atoms])) for atoms in (a, b))
        same = (s[:, None] == t)[:, None, :, None]
        return 0.49 * (covariance(DotProduct(2), (X, P), (Y, Q)).reshape(len(X), 3, len(Y), 3) * same).sum(axis=(0, 2))

    K, cross = (np.block([[block(a, b) for b in frames] for a in those]) for those in (frames, test))
    noisy = K + np.kron(np.eye(6), 0.01**2 * 6 * np.eye(3))
    basis = RANKS["dipole"].parts[0][1]
    mean = (cross @ np.linalg.solve(noisy, (y @ basis.T).ravel())).reshape(2, 3) @ basis
    prior = np.block([[block(a, b) for b in test] for a in test])
    left = prior - cross @ np.linalg.solve(noisy, cross.T)
    p = model.predict(test, uncertainty=True)
    np.testing.assert_allclose(p.values, mean, atol=1e-8)
    np.testing.assert_allclose(p.covariance[0], basis.T @ left[:3, :3] @ basis, atol=1e-8)
    likelihood = -0.5 * ((y @ basis.T).ravel() @ np.linalg.solve(noisy, (y @ basis.T).ravel()) + np.linalg.slogdet(2 * np.pi * noisy)[1])
    assert model.log_likelihood_ == pytest.approx(likelihood, rel=1e-5)


def test_more_data_make_dipoles_better_and_error_bars_smaller():
    frames, test = methanols(40), methanols(10, seed=5)
    y, errors, bars = [charges_times_positions(a) for a in frames], [], []
    for n in (5, 40):
        model = TensorGP(soap(), DotProduct(zeta=1), noise=1e-3, n_sparse=60).fit(frames[:n], y[:n], optimize=True)
        p = model.predict(test, uncertainty=True)
        errors.append(np.abs(p.values - [charges_times_positions(a) for a in test]).mean())
        bars.append(p.std.mean())
    assert errors[1] < 0.3 * errors[0] and bars[1] < bars[0]


def test_samples_scatter_as_the_posterior_says():
    frames = methanols(8)
    model = TensorGP(soap(), DotProduct(zeta=1), noise=0.01).fit(frames, [charges_times_positions(a) for a in frames])
    p, drawn = model.predict(frames[:3], uncertainty=True), model.sample(frames[:3], 4000, seed=1)
    np.testing.assert_allclose(drawn.mean(axis=0), p.values, atol=5 * p.std.max() / np.sqrt(4000))
    np.testing.assert_allclose(drawn.std(axis=0), p.std, rtol=0.08)


def chiral(hand):
    """CHFClBr with its ligands at the corners of a tetrahedron, and its mirror image."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3) * [hand, 1, 1]
    numbers = [1, 9, 17, 35]
    lengths = [covalent_radii[6] + covalent_radii[z] for z in numbers]
    return Atoms([6, *numbers], np.concatenate([np.zeros((1, 3)), corners * np.array(lengths)[:, None]]))


def test_pseudo_scalars_tell_enantiomers_apart_where_soap_cannot():
    rng, frames, y = np.random.default_rng(3), [], []
    descriptor = SOAP(["H", "C", "F", "Cl", "Br"], r_cut=4.0, n_max=2, l_max=2)
    for k in range(12):
        hand = 1 if k % 2 else -1
        atoms = turned(chiral(hand), Rotation.random(random_state=k).as_matrix())
        atoms.positions += rng.normal(scale=0.03, size=(5, 3))
        frames.append(atoms)
        y.append(float(hand))
    left, right = (turned(chiral(hand), TURN) for hand in (1, -1))
    np.testing.assert_allclose(descriptor.create(left), descriptor.create(right), atol=1e-12)
    model = TensorGP(descriptor, DotProduct(zeta=1), rank="pseudoscalar", noise=0.01, signal=10.0).fit(frames, y)
    p = model.predict([left, right])
    assert p.values[0] > 0.8
    assert p.values[1] == pytest.approx(-p.values[0], abs=1e-10)
    scalar = TensorGP(descriptor, DotProduct(zeta=1), rank="scalar", noise=0.01).fit(frames, y).predict([left, right]).values
    assert scalar[0] == pytest.approx(scalar[1], abs=1e-10)


def test_a_saved_model_predicts_the_same(tmp_path):
    rng, frames = np.random.default_rng(2), methanols(4)
    y = [rng.normal(size=(3, 3)) for _ in frames]
    model = TensorGP(soap(), DotProduct(zeta=1), rank="polarisability", n_sparse=9).fit(frames, [v + v.T for v in y])
    model.save(tmp_path / "m.soapkrr")
    again = soapkrr.load(tmp_path / "m.soapkrr")
    p, q = (m.predict(frames, uncertainty=True) for m in (model, again))
    np.testing.assert_array_equal(p.values, q.values)
    np.testing.assert_array_equal(p.std, q.std)
    assert "tensors of 4 structures" in repr(p)


def test_labels_are_found_by_name():
    frames = methanols(3)
    for atoms in frames:
        atoms.info["mu"] = charges_times_positions(atoms)
        atoms.arrays["born"] = np.zeros((len(atoms), 9)) + np.eye(3).ravel()
    by_name = TensorGP(soap(), DotProduct(1)).fit(frames, "mu").predict(frames).values
    np.testing.assert_array_equal(
        by_name, TensorGP(soap(), DotProduct(1)).fit(frames, [a.info["mu"] for a in frames]).predict(frames).values
    )
    born = TensorGP(soap(), DotProduct(1), rank="born", target="atom")
    with pytest.raises(LabelError, match="shape"):
        born.fit(frames, [np.zeros((2, 3, 3))] * 3)
    assert born.fit(frames, [a.arrays["born"].reshape(-1, 3, 3) for a in frames]).predict(frames[0]).values.shape == (6, 3, 3)


def test_scores_are_those_of_all_components():
    frames = methanols(10)
    y = [charges_times_positions(a) for a in frames]
    assert TensorGP(soap(), DotProduct(1), noise=1e-3).fit(frames, y).score(frames, y) > 0.99


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"rank": "tripole"}, "rank"),
        ({"rank": (9, 1)}, "rank"),
        ({"rank": (1, 2)}, "rank"),
        ({"target": "molar"}, "target"),
        ({"n_sparse": 0}, "n_sparse"),
        ({"noise": -1.0}, "noise"),
        ({"kernel": "rbf"}, "kernel"),
        ({"descriptor": soapkrr.Pair(["H", "C", "O"], 4.0)}, "descriptor"),
        ({"descriptor": SOAP(["H", "C", "O"], 4.0, n_max=2, l_max=0)}, "l_max"),
    ],
)
def test_impossible_parameters(parameters, named):
    given = {"descriptor": soap(), "kernel": DotProduct(1)} | parameters
    with pytest.raises(InputError, match=f"`{named}`"):
        TensorGP(**given).fit(methanols(1), [[0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("rank", "y", "named"),
    [
        ("dipole", [[0.0, 1.0]], "shape"),
        ("dipole", [[0.0, np.nan, 1.0]], "finite"),
        ("dipole", [[0.0, 0.0, 1.0]] * 2, "one tensor"),
        ("dipole", "mu", "has no 'mu'"),
        ("polarisability", [[[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]], "symmetric"),
    ],
)
def test_impossible_labels(rank, y, named):
    with pytest.raises(LabelError, match=named):
        TensorGP(soap(), DotProduct(1), rank=rank).fit(methanols(1), y)


def test_a_tensor_that_symmetry_forbids_is_said():
    lone = Atoms("O")
    with pytest.raises(InputError, match="by symmetry the values are zero"):
        TensorGP(soap(["O"]), DotProduct(1)).fit([lone], [[0.0, 0.0, 0.0]])


def test_spherical_components_by_degree_and_parity():
    assert as_rank((2, -1)).shape == (5,)
    frames = methanols(3)
    y = np.random.default_rng(0).normal(size=(3, 5))
    assert TensorGP(soap(), DotProduct(1), rank=(2, -1)).fit(frames, y).predict(frames).values.shape == (3, 5)
