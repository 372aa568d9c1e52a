"""SOAP: values against DScribe, sphericart and quadrature; derivatives by order of convergence."""

import numpy as np
import pytest
import sphericart
from ase import Atoms
from ase.build import bulk, molecule
from dscribe.descriptors import SOAP as DScribeSOAP
from reference import expansions, power_spectrum, real_harmonics
from systems import SYSTEMS, build, distort, small_soap, species
from taylor import assert_derivative

from soapkrr import SOAP, RadialScaling
from soapkrr.backends.cpu.basis import harmonics, harmonics_gradient
from soapkrr.backends.cpu.simd import WIDTH
from soapkrr.descriptors.cutoff import Cosine, Polynomial, Smoothstep
from soapkrr.descriptors.soap import harmonic_norms
from soapkrr.structures import Batch, forces_and_strain

# --- harmonics -------------------------------------------------------------------------------------------------------


def _solid_harmonics(l_max, vectors):
    """Y (n, n_lm) and its gradients (3, n, n_lm) of n vectors, as many at once as the loops take."""
    n_k, vectors = (l_max + 1) ** 2, np.asarray(vectors)
    Y, dY = np.empty((len(vectors), n_k)), np.empty((3, len(vectors), n_k))
    for first in range(0, len(vectors), WIDTH):
        here = slice(first, min(first + WIDTH, len(vectors)))
        n = here.stop - here.start
        u, q, y, dy = np.zeros((3, WIDTH)), np.empty((n_k, WIDTH)), np.empty((n_k, WIDTH)), np.empty((3, n_k, WIDTH))
        u[:, :n] = vectors[here].T
        harmonics(u, l_max, harmonic_norms(l_max), q, y)
        harmonics_gradient(u, l_max, harmonic_norms(l_max), q, dy)
        Y[here], dY[:, here] = y[:, :n].T, dy[:, :, :n].swapaxes(1, 2)
    return Y, dY


def _vectors(n=40, seed=0):
    axes = np.concatenate([np.eye(3), -np.eye(3), [[1, 1, 0], [0, 1, -1], [1e-9, 0, 1]]])
    return np.concatenate([np.random.default_rng(seed).normal(size=(n, 3)), axes])


@pytest.mark.parametrize("l_max", [0, 1, 2, 6, 12, 20])
def test_solid_harmonics_equal_sphericart(l_max):
    vectors = _vectors()
    expected = sphericart.SolidHarmonics(l_max).compute(vectors)
    # Recursions of l_max steps on numbers that grow as r^l.
    scale = np.linalg.norm(vectors, axis=1)[:, None] ** np.repeat(np.arange(l_max + 1), 2 * np.arange(l_max + 1) + 1)
    np.testing.assert_allclose(_solid_harmonics(l_max, vectors)[0] / scale, expected / scale, atol=1e-12)


def test_solid_harmonics_equal_legendre_functions():
    vectors = _vectors()[:-1]  # not the one 1e-9 off the pole, where cos θ rounds to one and the reference loses sin θ
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    np.testing.assert_allclose(_solid_harmonics(9, vectors)[0], real_harmonics(9, vectors), atol=1e-12)


@pytest.mark.parametrize("axis", range(3))
def test_gradients_of_solid_harmonics(axis):
    vectors = _vectors(4)
    gradient = _solid_harmonics(7, vectors)[1][axis]
    assert_derivative(lambda t: _solid_harmonics(7, vectors + t * np.eye(3)[axis])[0], gradient)


# --- values ----------------------------------------------------------------------------------------------------------


def _environments(soap, atoms):
    batch = Batch.from_atoms([atoms])
    return batch, batch.pairs(soap.r_cut), soap.environments(batch)


def _by_blocks(soap, X):
    """{(Z1, Z2, l): (n_atoms, n_max, n_max)} of unweighted products from our packed triangle."""
    n, kinds = soap.n_max, len(soap.species)
    blocks, f = {}, 0
    for l in range(soap.l_max + 1):
        full = np.empty((len(X), kinds * n, kinds * n))
        for a in range(kinds * n):
            for b in range(a, kinds * n):
                full[:, a, b] = full[:, b, a] = X[:, f] / (1 if a == b else np.sqrt(2))
                f += 1
        for s in range(kinds):
            for t in range(s, kinds):
                blocks[soap.species[s], soap.species[t], l] = full[:, s * n : (s + 1) * n, t * n : (t + 1) * n]
    return blocks


def _dscribe_order(soap, X, location):
    """The same numbers in DScribe's order: species pairs as `get_location` says, then l, n, n′ (n′ ≥ n for equal species)."""
    blocks = _by_blocks(soap, X)
    out = np.full((len(X), sum(s.stop - s.start for s in {str(v): v for v in location.values()}.values())), np.nan)
    for s in soap.species:
        for t in soap.species[soap.species.index(s) :]:
            a, b = np.triu_indices(soap.n_max) if s == t else np.indices((soap.n_max, soap.n_max)).reshape(2, -1)
            out[:, location[s, t]] = np.concatenate([blocks[s, t, l][:, a, b] for l in range(soap.l_max + 1)], axis=1)
    return out


def _mixed_crystal():
    atoms = bulk("NaCl", "rocksalt", a=5.2, cubic=True)
    atoms.symbols[[1, 4]] = "K"
    atoms.rattle(0.15, seed=3)
    atoms.wrap()
    return atoms


def _rattled_silicon():
    atoms = bulk("Si")
    atoms.rattle(0.2, seed=1)
    atoms.wrap()
    return atoms


def _ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=2)
    return atoms


DSCRIBE_CASES = {
    "silicon": (_rattled_silicon, dict(r_cut=5.0, n_max=8, l_max=6, sigma=0.5), 2),
    "silicon, wide, many l": (_rattled_silicon, dict(r_cut=4.0, n_max=4, l_max=9, sigma=0.9), 2),
    "silicon, m=1": (_rattled_silicon, dict(r_cut=4.0, n_max=4, l_max=3, sigma=0.5), 1),
    "silicon, m=3, one channel": (_rattled_silicon, dict(r_cut=6.0, n_max=1, l_max=0, sigma=0.3), 3),
    "three species, periodic": (_mixed_crystal, dict(r_cut=4.5, n_max=4, l_max=4, sigma=0.4), 2),
    "ethanol": (_ethanol, dict(r_cut=3.5, n_max=6, l_max=5, sigma=0.35), 2),
    "ethanol, all in sight": (_ethanol, dict(r_cut=7.0, n_max=5, l_max=3, sigma=1.0), 2),
}


@pytest.mark.parametrize("case", DSCRIBE_CASES)
def test_gto_values_equal_dscribe(case):
    """DScribe's "poly" weighting with r0 = r_cut, c = 1 is our `Polynomial(m)`; it neither normalises nor weights by √2."""
    builder, settings, m = DSCRIBE_CASES[case]
    atoms = builder()
    soap = SOAP(species=set(atoms.get_chemical_symbols()), cutoff=Polynomial(m=m), rbf="gto", **settings)
    weighting = {"function": "poly", "r0": settings["r_cut"], "c": 1, "m": m}
    theirs = DScribeSOAP(species=list(soap.species), periodic=bool(atoms.pbc.any()), weighting=weighting, rbf="gto", **settings)
    expected = theirs.create(atoms)
    _, _, env = _environments(soap, atoms)
    location = {(s, t): theirs.get_location((s, t)) for s in soap.species for t in soap.species}
    got = _dscribe_order(soap, env.X * env.state[1][:, None], location)
    assert got.shape == expected.shape
    # Spline table (1e-10) against closed formulas, and the condition number of the GTO overlap. The weight with m = 1 ends with a
    # jump of its curvature, which the table (zero curvature at r_cut, so that forces have no kink) rounds off over the last knot.
    tolerance = {1: 1e-6}.get(m, 1e-8)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * np.abs(expected).max())


QUADRATURE_CASES = {
    "molecule": (lambda: _ethanol()[[0, 2, 5]], dict(r_cut=3.0, n_max=4, l_max=4, sigma=0.5)),
    "periodic": (lambda: build("primitive"), dict(r_cut=3.4, n_max=5, l_max=3, sigma=0.4)),
    "more radial functions than lanes": (lambda: _ethanol()[[0, 2, 5]], dict(r_cut=4.0, n_max=9, l_max=1, sigma=0.5)),
    "wire": (lambda: build("wire-z")[:2], dict(r_cut=3.5, n_max=3, l_max=6, sigma=0.7)),
}


@pytest.mark.parametrize("rbf", ["gto", "bessel"])
@pytest.mark.parametrize("case", QUADRATURE_CASES)
def test_values_equal_quadrature_of_the_density(case, rbf):
    builder, settings = QUADRATURE_CASES[case]
    atoms = builder()
    cutoff, scaling = Smoothstep(width=1.2), RadialScaling(r0=2.0, m=4)
    symbols = sorted(set(atoms.get_chemical_symbols()), key=lambda s: Atoms(s).numbers[0])
    soap = SOAP(species=symbols, cutoff=cutoff, scaling=scaling, rbf=rbf, **settings)
    _, _, env = _environments(soap, atoms)
    c = expansions(atoms, symbols, lambda r: cutoff(r, soap.r_cut)[0] * scaling(r)[0], rbf=rbf, **settings)
    p = power_spectrum(c, soap.l_max)
    # The quadrature is converged to 1e-10; the spline table follows to 1e-10 of each function's largest value.
    np.testing.assert_allclose(env.X * env.state[1][:, None], p, rtol=0, atol=1e-8 * np.abs(p).max())
    np.testing.assert_allclose(env.state[1], np.linalg.norm(p, axis=1), rtol=1e-8)


@pytest.mark.parametrize("name", SYSTEMS)
def test_vectors_are_normalised_and_products_are_those_of_the_full_tensors(name):
    soap = small_soap(species(name))
    _, _, env = _environments(soap, build(name))
    np.testing.assert_allclose(np.linalg.norm(env.X, axis=1), 1, rtol=1e-14)
    c = env.state[0]
    tensor = np.zeros((len(c), soap.l_max + 1, soap.n_channels, soap.n_channels))
    for l in range(soap.l_max + 1):
        part = c[:, l * l : (l + 1) ** 2]
        tensor[:, l] = np.sqrt(8 * np.pi**2 / (2 * l + 1)) * np.einsum("ika,ikb->iab", part, part)
    full = tensor.reshape(len(tensor), -1)
    full /= np.linalg.norm(full, axis=1)[:, None]
    np.testing.assert_allclose(env.X @ env.X.T, full @ full.T, atol=1e-13)


def test_an_isolated_atom_is_its_own_density():
    soap = small_soap(["Ar", "Si"])
    X = soap.create(Atoms("Ar"))
    np.testing.assert_allclose(np.linalg.norm(X), 1, rtol=1e-14)
    np.testing.assert_array_equal(X, soap.create(Atoms("Ar", positions=[[1e4, -7, 2]], cell=[50, 50, 50], pbc=True)))


@pytest.mark.parametrize("cutoff", [Smoothstep(), Cosine(), Polynomial()], ids=repr)
@pytest.mark.parametrize("rbf", ["gto", "bessel"])
def test_nothing_jumps_when_an_atom_comes_into_sight(rbf, cutoff):
    """|X(r_cut − h) − X(without the atom)| and its slope fall at least as h² and h: value and first derivative are continuous."""
    soap = small_soap(["C"], rbf=rbf, cutoff=cutoff)

    def frame(h):
        return Atoms("C3", positions=[[0, 0, 0], [1.2, 0.4, 0], [0, 0.1, np.sqrt(soap.r_cut**2 - 0.01) - h]])

    outside = soap.create(frame(-1e-9))[0]
    h = 0.2 * 0.5 ** np.arange(5)
    change = [np.linalg.norm(soap.create(frame(x))[0] - outside) for x in h]
    slope = [np.linalg.norm(soap.create(frame(x + 1e-4))[0] - soap.create(frame(x - 1e-4))[0]) for x in h]
    assert np.polyfit(np.log(h), np.log(change), 1)[0] > 1.95
    assert np.polyfit(np.log(h), np.log(slope), 1)[0] > 0.95


# --- derivatives -----------------------------------------------------------------------------------------------------


def _moved(atoms, u, t):
    moved = atoms.copy()
    moved.positions += t * u
    return moved


def _strained(atoms, strain, t):
    return distort(atoms.copy(), np.eye(3) + t * strain)


def _symmetric(rng):
    strain = rng.normal(size=(3, 3))
    return 0.5 * (strain + strain.T)


def _voigt_dot(derivative, strain):
    """Σ_ab ∂f/∂ε_ab ε_ab from six derivatives in Voigt order: off-diagonal strains occur twice."""
    return np.tensordot(derivative, [*np.diag(strain), 2 * strain[1, 2], 2 * strain[0, 2], 2 * strain[0, 1]], axes=(-1, 0))


def _soap_for(name, rbf):
    scaling = RadialScaling() if rbf == "bessel" else None
    return small_soap(species(name), rbf=rbf, scaling=scaling, cutoff=Smoothstep(width=2.0))


def _linear_energy(soap, atoms, w):
    """E = Σ_i w_i·X_i with its forces and strain derivative through `pullback`."""
    batch, pairs, env = _environments(soap, atoms)
    gradient = np.empty((len(pairs.j), 3))
    soap.pullback(0, batch.n_atoms, env.pairs, env.X, env.state, w, gradient)
    return np.vdot(w, env.X), *forces_and_strain(batch, pairs, gradient)


@pytest.mark.parametrize("rbf", ["gto", "bessel"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_pullback_gives_forces(name, rbf):
    atoms, soap, rng = build(name), _soap_for(name, rbf), np.random.default_rng(1)
    w, u = rng.normal(size=(len(atoms), soap.n_features)), rng.normal(size=(len(atoms), 3))
    _, forces, _ = _linear_energy(soap, atoms, w)
    assert_derivative(lambda t: np.vdot(w, soap.create(_moved(atoms, u, t))), -np.vdot(forces, u))


@pytest.mark.parametrize("rbf", ["gto", "bessel"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_pullback_gives_the_strain_derivative(name, rbf):
    atoms, soap, rng = build(name), _soap_for(name, rbf), np.random.default_rng(2)
    w, strain = rng.normal(size=(len(atoms), soap.n_features)), _symmetric(rng)
    _, _, derivative = _linear_energy(soap, atoms, w)
    assert_derivative(lambda t: np.vdot(w, soap.create(_strained(atoms, strain, t))), _voigt_dot(derivative[0], strain))


@pytest.mark.parametrize("name", SYSTEMS)
def test_pullback_of_a_part_of_the_atoms_is_that_part_of_the_whole(name):
    atoms, soap = build(name).repeat(np.where(build(name).pbc, 2, 1)), small_soap(species(name))
    batch, pairs, env = _environments(soap, atoms)
    w = np.random.default_rng(3).normal(size=env.X.shape)
    whole, parts = np.empty((len(pairs.j), 3)), np.empty((len(pairs.j), 3))
    soap.pullback(0, batch.n_atoms, env.pairs, env.X, env.state, w, whole)
    for a in range(0, batch.n_atoms, 3):
        here = slice(a, min(a + 3, batch.n_atoms))
        soap.pullback(here.start, here.stop, env.pairs, env.X[here], tuple(part[here] for part in env.state), w[here], parts)
    np.testing.assert_array_equal(whole, parts)


def _feature_change(soap, atoms, u):
    """dX = Σ_a ∂X/∂r_a · u_a (n_atoms, n_features) from the Jacobian of every displaced atom."""
    batch, pairs, env = _environments(soap, atoms)
    n_pairs, n = len(pairs.j), batch.n_atoms
    out = np.empty((n_pairs + n, 3, soap.n_features))
    soap.jacobian(0, n, env, np.arange(n_pairs + n), out)
    change = np.zeros_like(env.X)
    np.add.at(change, pairs.j, np.einsum("pbf,pb->pf", out[:n_pairs], u[pairs.i]))
    return change + np.einsum("abf,ab->af", out[n_pairs:], u)


@pytest.mark.parametrize("rbf", ["gto", "bessel"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_jacobian_is_the_derivative_of_the_features(name, rbf):
    atoms, soap = build(name), _soap_for(name, rbf)
    u = np.random.default_rng(4).normal(size=(len(atoms), 3))
    assert_derivative(lambda t: soap.create(_moved(atoms, u, t)), _feature_change(soap, atoms, u))


@pytest.mark.parametrize("rbf", ["gto", "bessel"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_strain_jacobian_is_the_derivative_of_the_features(name, rbf):
    atoms, soap = build(name), _soap_for(name, rbf)
    strain = _symmetric(np.random.default_rng(5))
    batch, _, env = _environments(soap, atoms)
    out = np.empty((batch.n_atoms, 6, soap.n_features))
    soap.strain_jacobian(0, batch.n_atoms, env, out)
    derivative = np.einsum("ivf,v->if", out, _voigt_dot(np.eye(6), strain))
    assert_derivative(lambda t: soap.create(_strained(atoms, strain, t)), derivative)


@pytest.mark.parametrize("n_max", [9, 16])
def test_derivatives_with_more_radial_functions_than_lanes(n_max):
    atoms, rng = _ethanol(), np.random.default_rng(8)
    soap = SOAP(species=["H", "C", "O"], r_cut=4.0, n_max=n_max, l_max=2, sigma=0.5, rbf="bessel")
    w, u = rng.normal(size=(len(atoms), soap.n_features)), rng.normal(size=(len(atoms), 3))
    assert_derivative(lambda t: np.vdot(w, soap.create(_moved(atoms, u, t))), -np.vdot(_linear_energy(soap, atoms, w)[1], u))
    assert_derivative(lambda t: soap.create(_moved(atoms, u, t)), _feature_change(soap, atoms, u))


def test_lone_atoms_between_others():
    """Pairs are taken several at a time, whatever their centres; centres without pairs come between."""
    soap, ethanol = small_soap(["H", "C", "O"]), _ethanol()
    lone = Atoms("HCO", positions=[[40, 0, 0], [50, 0, 0], [60, 0, 0]])
    atoms = lone[:2] + ethanol[:3] + lone[2:] + ethanol[3:]
    order = [0, 1, 5, 2, 3, 4, *range(6, len(atoms))]
    w = np.random.default_rng(9).normal(size=(len(atoms), soap.n_features))
    _, forces, _ = _linear_energy(soap, atoms, w)
    _, apart, _ = _linear_energy(soap, ethanol, w[order[3:]])
    np.testing.assert_allclose(soap.create(atoms)[order], np.concatenate([soap.create(lone), soap.create(ethanol)]), atol=1e-13)
    np.testing.assert_allclose(forces[order], np.concatenate([np.zeros((3, 3)), apart]), atol=1e-11)


@pytest.mark.parametrize("name", SYSTEMS)
def test_jacobian_and_pullback_agree(name):
    atoms, soap, rng = build(name), small_soap(species(name)), np.random.default_rng(6)
    w, u = rng.normal(size=(len(atoms), soap.n_features)), rng.normal(size=(len(atoms), 3))
    _, forces, _ = _linear_energy(soap, atoms, w)
    jacobian = np.vdot(w, _feature_change(soap, atoms, u))
    # Two orders of summation of some 10^4 products of order one.
    np.testing.assert_allclose(jacobian, -np.vdot(forces, u), rtol=0, atol=1e-11 * np.abs(w).sum())


@pytest.mark.parametrize("name", SYSTEMS)
def test_features_do_not_depend_on_rotation_translation_or_order(name):
    atoms, soap, rng = build(name), small_soap(species(name)), np.random.default_rng(7)
    X = soap.create(atoms)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turned = distort(atoms.copy(), rotation)
    turned.positions += rng.normal(scale=3, size=3)
    order = rng.permutation(len(atoms))
    wrapped = atoms.copy()
    wrapped.wrap()
    # Rounding of positions of tens of Å through smooth functions.
    np.testing.assert_allclose(soap.create(turned), X, atol=1e-12)
    np.testing.assert_allclose(soap.create(atoms[order]), X[order], atol=1e-12)
    np.testing.assert_allclose(soap.create(wrapped), X, atol=1e-12)


def test_features_of_a_list_are_those_of_its_structures():
    names = ["primitive", "vacancy", "skewed"]
    soap, frames = small_soap(["Si"]), [build(name) for name in names]
    np.testing.assert_array_equal(soap.create(frames), np.concatenate([soap.create(atoms) for atoms in frames]))


def test_species_that_are_absent_add_only_zeros():
    atoms = build("primitive")
    small, large = small_soap(["Si"]), small_soap(["C", "Si", "Ge"])
    np.testing.assert_allclose(large.create(atoms) @ large.create(atoms).T, small.create(atoms) @ small.create(atoms).T, atol=1e-14)
    assert np.count_nonzero(large.create(atoms)[0]) == small.n_features
