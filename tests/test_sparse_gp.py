"""The sparse Gaussian process: equal to dense references, forces and stress are derivatives of the energy, nothing hidden matters."""

import numpy as np
import pytest
from reference import Observables, dtc, exact_gp
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from systems import BULK, SYSTEMS, build, distort, labelled, small_soap, species, variations
from taylor import assert_derivative

import soapkrr.estimators.base
import soapkrr.regression.sparse.triangles
from soapkrr import DotProduct, SparseGP

# --- dense references ------------------------------------------------------------------------------------------------

NOISE = {"energy": 0.02, "forces": 0.2, "stress": 0.02}


def _zero(name):
    return dict.fromkeys(species(name), 0.0)


def _functionals(system: Observables):
    """Total energy, per-atom energies, forces and (periodic) stress of a structure, in that order."""
    stress = system.stress() if np.isfinite(system.volume) else []
    return [system.energy(), *map(system.atom, range(system.n)), *system.forces(), *stress]


def _in_that_order(p, s=0, std=False):
    energy, energies, forces, stress = (
        (p.energy_std, p.energies_std, p.forces_std, p.stress_std) if std else (p.energy, p.energies, p.forces, p.stress)
    )
    known = stress[s][np.isfinite(stress[s])]
    return np.concatenate([[energy[s]], energies[s], forces[s].ravel(), known])


@pytest.mark.parametrize("zeta", [2, 4, 2.5])
@pytest.mark.parametrize("name", ["primitive", "mixed", "alloy", "molecule"])
def test_equals_the_exact_gp_on_energies_when_every_environment_is_sparse(name, zeta):
    """Trained on energies alone, mean and variance of every quantity are those of the dense Gaussian process."""
    soap, signal = small_soap(species(name), n_max=4), 1.3
    frames = [labelled(atoms, ("energy",)) for atoms in variations(name, 4, rattle=0.25)]
    model = SparseGP(soap, DotProduct(zeta), n_sparse=10**6, noise=NOISE, signal=signal, baseline=_zero(name), tolerance=1e-14)
    model.fit(frames)
    test = variations(name, 1, seed=1, rattle=0.25)[0]
    wanted = _functionals(Observables(soap, test))
    observed = [Observables(soap, atoms, derivatives=False).energy() for atoms in frames]
    y = [atoms.calc.results["energy"] for atoms in frames]
    noise = [NOISE["energy"] * np.sqrt(len(atoms)) for atoms in frames]
    mean, variance = exact_gp(observed, y, noise, wanted, zeta, signal)
    p = model.predict(test, uncertainty=True)
    # The reference's derivatives are numerical (1e-9 relative). Eigenvalues of the kernel below 1e-14 of the largest are dropped and
    # those above known to 1e-16 of it, so whitened features are good to 1e-8 and variances, their squares' sums, to about 1e-7.
    np.testing.assert_allclose(_in_that_order(p), mean, rtol=0, atol=1e-7 * np.abs(mean).max())
    np.testing.assert_allclose(_in_that_order(p, std=True) ** 2, variance, rtol=1e-6, atol=1e-7 * variance.max())


@pytest.mark.parametrize("kinds", [("energy",), ("forces",), ("energy", "forces"), ("energy", "forces", "stress")], ids="+".join)
@pytest.mark.parametrize("name", ["primitive", "alloy"])
def test_equals_the_dense_sparse_regression(name, kinds):
    """A few sparse points and any mixture of labels: equations of the deterministic training conditional, solved densely."""
    soap, signal, zeta = small_soap(species(name)), 0.8, 3
    frames = [labelled(atoms, kinds) for atoms in variations(name, 2, rattle=0.25)]
    model = SparseGP(soap, DotProduct(zeta), n_sparse=6, noise=NOISE, signal=signal, baseline=_zero(name), tolerance=1e-14).fit(frames)
    observed, y, noise = [], [], []
    for atoms in frames:
        system = Observables(soap, atoms)
        rows = {"energy": [system.energy()], "forces": system.forces(), "stress": system.stress()}
        sigma = {**NOISE, "energy": NOISE["energy"] * np.sqrt(len(atoms))}
        for kind in kinds:
            observed += rows[kind]
            y += list(np.ravel(atoms.calc.results[kind]))
            noise += [sigma[kind]] * len(rows[kind])
    test = variations(name, 1, seed=1, rattle=0.25)[0]
    wanted = _functionals(Observables(soap, test))
    points = np.concatenate(model.process_.terms[0].points)
    kind_of_point = np.repeat(range(len(model.process_.terms[0].points)), [len(x) for x in model.process_.terms[0].points])
    numbers = np.array([build(name)[[a.symbol for a in build(name)].index(s)].number for s in soap.species])
    mean, variance = dtc(points, numbers[kind_of_point], observed, y, noise, wanted, zeta, signal)
    p = model.predict(test, uncertainty=True)
    # The reference solves normal equations: condition numbers of up to 1e7 cost it as many digits.
    np.testing.assert_allclose(_in_that_order(p), mean, rtol=0, atol=1e-7 * np.abs(mean).max())
    np.testing.assert_allclose(_in_that_order(p, std=True) ** 2, variance, rtol=1e-6, atol=1e-7 * variance.max())


# --- derivatives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_forces_are_the_derivative_of_the_energy(name, fitted):
    model, atoms = fitted(name), build(name)
    u = np.random.default_rng(0).normal(size=(len(atoms), 3))

    def energy(t):
        moved = atoms.copy()
        moved.positions += t * u
        return model.predict(moved).energy[0]

    assert_derivative(energy, -np.vdot(model.predict(atoms).forces[0], u))


@pytest.mark.parametrize("name", BULK)
def test_stress_is_the_strain_derivative_of_the_energy(name, fitted):
    model, atoms = fitted(name), build(name)
    strain = np.random.default_rng(1).normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)
    xx, yy, zz, yz, xz, xy = model.predict(atoms).stress[0]
    stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    derivative = atoms.get_volume() * np.vdot(stress, strain)
    assert_derivative(lambda t: model.predict(distort(atoms.copy(), np.eye(3) + t * strain)).energy[0], derivative)


@pytest.mark.parametrize("zeta", [1, 1.5, 2.5, 6])
def test_forces_for_other_exponents(zeta):
    model = SparseGP(small_soap(["Si"]), DotProduct(zeta), n_sparse=10).fit(variations("vacancy", 3))
    atoms = build("vacancy")
    u = np.random.default_rng(2).normal(size=(len(atoms), 3))

    def energy(t):
        moved = atoms.copy()
        moved.positions += t * u
        return model.predict(moved).energy[0]

    assert_derivative(energy, -np.vdot(model.predict(atoms).forces[0], u))


@pytest.mark.parametrize("name", SYSTEMS)
def test_atomic_energies_add_up(name, fitted):
    p = fitted(name).predict([build(name), *variations(name, 2, seed=5)])
    # A sum in another order.
    np.testing.assert_allclose([e.sum() for e in p.energies], p.energy, rtol=1e-13)


# --- labels that are missing, repeated or consistent -----------------------------------------------------------------


def test_small_noise_reproduces_the_labels():
    """More features than labels and a noise of 1e-5 eV: the potential passes through the energies to about that noise."""
    frames = [labelled(atoms, ("energy",)) for atoms in variations("vacancy", 6, rattle=0.2)]
    model = SparseGP(small_soap(["Si"]), DotProduct(4), n_sparse=42, noise={"energy": 1e-5}).fit(frames)
    errors = model.predict(frames).energy - [atoms.calc.results["energy"] for atoms in frames]
    assert np.abs(errors).max() < 1e-4


def test_every_label_may_be_missing_on_any_structure():
    kinds = [("energy",), ("forces",), ("stress",), ("energy", "stress"), ("forces", "stress"), ()]
    frames = [labelled(atoms, k) for atoms, k in zip(variations("vacancy", 6), kinds, strict=True)]
    model = SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=12).fit(frames)
    n = len(build("vacancy"))
    assert model.n_observations_ == {"energy": 2, "forces": 2 * 3 * n, "stress": 3 * 6}


def test_missing_labels_are_missing_and_not_zero():
    """Structures without labels may give sparse points; where all environments of the data are sparse points anyway, nothing changes."""
    frames = [labelled(atoms, ("energy",)) for atoms in variations("vacancy", 4)]
    bare = [atoms.copy() for atoms in variations("vacancy", 3, seed=9)]
    settings = dict(n_sparse=10**6, tolerance=1e-14, noise={"energy": 0.01}, baseline={"Si": 0.0})
    few = SparseGP(small_soap(["Si"]), DotProduct(4), **settings).fit(frames)
    many = SparseGP(small_soap(["Si"]), DotProduct(4), **settings).fit(frames + bare)
    assert few.n_observations_ == many.n_observations_ == {"energy": 4}
    # Whitened features are good to 1e-8 (eigenvalues are kept down to 1e-14 of the largest).
    np.testing.assert_allclose(many.predict(frames).energy, few.predict(frames).energy, rtol=1e-7)


def test_one_single_energy_is_enough():
    """One observation: the posterior mean is k (k + σ²N)⁻¹ y."""
    atoms = labelled(build("primitive"), ("energy",))
    soap = small_soap(["Si"])
    model = SparseGP(soap, DotProduct(2), n_sparse=2, noise={"energy": 0.3}, signal=1.0, baseline={"Si": 0.0}).fit([atoms])
    X = soap.create(atoms)
    k = ((X @ X.T) ** 2).sum()
    expected = atoms.calc.results["energy"] * k / (k + 0.3**2 * 2)
    # The two environments are alike, κ = 1 − 1e-3 or so: 1e-13 is kept of 1e-16.
    np.testing.assert_allclose(model.predict(atoms).energy, expected, rtol=1e-12)


def test_duplicate_structures_add_information_but_no_sparse_points():
    frames = variations("vacancy", 3)
    settings = dict(n_sparse=10**6, baseline={"Si": 0.0})
    once = SparseGP(small_soap(["Si"]), DotProduct(2), **settings).fit(frames)
    thrice = SparseGP(small_soap(["Si"]), DotProduct(2), **settings).fit(frames * 3)
    assert thrice.n_sparse_ == once.n_sparse_
    noisier = {kind: value * np.sqrt(3) for kind, value in {"energy": 0.002, "forces": 0.05, "stress": 0.002}.items()}
    same = SparseGP(small_soap(["Si"]), DotProduct(2), noise=noisier, **settings).fit(frames * 3)
    test = variations("vacancy", 2, seed=1)
    # Three equal measurements of variance 3σ² are one of variance σ²; the condition number of the fit is about 1e4.
    np.testing.assert_allclose(same.predict(test).energy, once.predict(test).energy, rtol=1e-8)


# --- what must not matter --------------------------------------------------------------------------------------------


def _everything(p):
    return np.concatenate([p.energy, *map(np.ravel, p.forces), p.stress[np.isfinite(p.stress)]])


@pytest.fixture(scope="module")
def crystal():
    frames = variations("vacancy", 8) + variations("primitive", 6) + variations("skewed", 4)
    model = SparseGP(small_soap(["Si"]), DotProduct(4), n_sparse=25, threads=1)
    test = variations("vacancy", 3, seed=2) + variations("skewed", 2, seed=2)
    return frames, test, model.fit(frames)


def test_order_of_the_structures_does_not_matter(crystal):
    frames, test, model = crystal
    other = clone(model).fit([frames[k] for k in np.random.default_rng(3).permutation(len(frames))])
    np.testing.assert_allclose(_everything(other.predict(test)), _everything(model.predict(test)), rtol=0, atol=1e-9)


def test_number_of_threads_does_not_matter_at_all(crystal):
    frames, test, model = crystal
    other = clone(model).set_params(threads=2).fit(frames)
    np.testing.assert_array_equal(_everything(other.predict(test)), _everything(model.predict(test)))


@pytest.mark.parametrize("max_atoms", [1, 17, 10**6])
def test_size_of_the_groups_does_not_matter(crystal, monkeypatch, max_atoms):
    frames, test, model = crystal
    expected = _everything(model.predict(test))
    split = soapkrr.structures.split_by_atoms
    for module in (soapkrr.regression.sparse.triangles, soapkrr.estimators.base):
        monkeypatch.setattr(module, "split_by_atoms", lambda frames, _: split(frames, max_atoms))
    np.testing.assert_allclose(_everything(clone(model).fit(frames).predict(test)), expected, rtol=0, atol=1e-9)


def test_fitting_twice_gives_the_same_bits(crystal):
    frames, test, model = crystal
    np.testing.assert_array_equal(_everything(clone(model).fit(frames).predict(test)), _everything(model.predict(test)))


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("selection", ["fps", "cur"])
def test_sparse_points_are_shared_among_species(selection):
    frames = variations("alloy", 6)
    model = SparseGP(small_soap(species("alloy")), DotProduct(2), n_sparse=20, selection=selection).fit(frames)
    assert model.n_sparse_ == {"O": 12, "Ti": 4, "Sr": 4}
    assert 3 <= model.rank_ <= 20


def test_sparse_points_by_species():
    wanted = {"O": 5, "Ti": 2, "Sr": 400}
    model = SparseGP(small_soap(species("alloy")), DotProduct(2), n_sparse=wanted).fit(variations("alloy", 6))
    assert model.n_sparse_ == {"O": 5, "Ti": 2, "Sr": 6}


def test_species_without_data_are_no_trouble():
    model = SparseGP(small_soap(["Si", "Ge"]), DotProduct(2), n_sparse=10).fit(variations("vacancy", 3))
    alone = SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=10).fit(variations("vacancy", 3))
    assert model.n_sparse_ == {"Si": 10, "Ge": 0}
    np.testing.assert_allclose(model.predict(build("vacancy")).energy, alone.predict(build("vacancy")).energy, rtol=1e-9)


def test_scikit_learn_conventions():
    model = SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=10)
    copy = clone(model.set_params(signal=2.0, kernel=DotProduct(3)))
    assert copy.get_params() == model.get_params()
    assert copy.signal == 2.0
    scores = cross_val_score(copy, variations("vacancy", 6), cv=3)
    assert scores.shape == (3,)
    assert np.all(scores < 0)
    assert not hasattr(model, "process_")


def test_fit_returns_the_estimator_and_states_its_condition():
    model = SparseGP(small_soap(["Si"]), DotProduct(2), n_sparse=10)
    assert model.fit(variations("vacancy", 2)) is model
    assert 1 <= model.condition_ < 1e12
    assert model.rank_ <= 10
