"""Posterior variances: positive, consistent among themselves, falling with data, back at the prior far from it.

Equality with dense Gaussian processes stands in test_sparse_gp.py.
"""

import numpy as np
import pytest
from ase import Atoms
from reference import Observables, covariances
from small import crystals, soap
from systems import SYSTEMS, build, labelled, small_soap, species, variations

from soapkrr import DotProduct, Energy, Force, GaussianProcess, SparseGP, SquaredExponential, Stress, Term

SETTINGS = dict(n_sparse=20, noise={"energy": 0.01, "forces": 0.1, "stress": 0.01}, baseline={"Si": 0.0})


def _fit(frames, kinds=("energy", "forces", "stress"), **changes):
    frames = [labelled(atoms.copy(), kinds) for atoms in frames]
    return SparseGP(small_soap(["Si"]), DotProduct(2), **{**SETTINGS, **changes}).fit(frames)


def _all_std(p):
    parts = [p.energy_std, *p.energies_std, *map(np.ravel, p.forces_std), p.stress_std.ravel()]
    return np.concatenate(parts)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_std_is_finite_and_not_negative(name, fitted):
    p = fitted(name).predict([build(name), *variations(name, 2, seed=1)], uncertainty=True)
    std = np.concatenate([p.energy_std, *p.energies_std, *map(np.ravel, p.forces_std)])
    assert np.isfinite(std).all()
    assert (std >= 0).all()
    np.testing.assert_array_equal(np.isfinite(p.stress_std), np.isfinite(p.stress))


@pytest.mark.parametrize("name", SYSTEMS)
def test_training_structures_are_known_better_than_the_prior(name, fitted):
    model, frames = fitted(name), variations(name, 4)
    p = model.predict(frames, uncertainty="energy")
    for atoms, std in zip(frames, p.energy_std, strict=True):
        X = [model.descriptor.create(atoms)[atoms.numbers == z] for z in set(atoms.numbers)]
        prior = np.sqrt(sum(((x @ x.T) ** 2).sum() for x in X))
        assert std < prior


@pytest.mark.parametrize("name", ["atom"])
def test_total_of_one_atom_is_its_own(name, fitted):
    p = fitted(name).predict(build(name), uncertainty=True)
    # Both are differences of priors of 9 eV², which are rounded.
    np.testing.assert_allclose(p.energy_std**2, p.energies_std[0] ** 2, rtol=1e-12, atol=1e-14)


def test_one_atom_cell():
    """A total energy that is one atom's: the two ways to its variance agree."""
    frames = [Atoms("Si", cell=[a, a, a + 0.2], pbc=True) for a in (2.3, 2.5, 2.7)]
    p = _fit(frames, ("energy", "stress")).predict(Atoms("Si", cell=[2.4, 2.6, 2.6], pbc=True), uncertainty=True)
    # Variances far below the prior (1 eV²) carry its rounding of 1e-16, amplified by whitening (1e5).
    np.testing.assert_allclose(p.energy_std**2, p.energies_std[0] ** 2, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", ["molecule", "alloy", "vacancy", "dimer"])
def test_total_is_within_the_sum_of_the_atoms(name, fitted):
    """Cauchy-Schwarz: std of a sum is at most the sum of the stds."""
    p = fitted(name).predict(variations(name, 3, seed=4), uncertainty="energy")
    for total, atoms in zip(p.energy_std, p.energies_std, strict=True):
        assert total <= atoms.sum() * (1 + 1e-9)


def test_more_labels_of_the_same_structures_lower_every_variance():
    """Same structures, hence the same sparse points and prior: more observations can only narrow the posterior."""
    frames, test = variations("vacancy", 4), variations("vacancy", 3, seed=5)
    energy, forces, everything = (
        _all_std(_fit(frames, kinds).predict(test, uncertainty=True))
        for kinds in (("energy",), ("energy", "forces"), ("energy", "forces", "stress"))
    )
    # Differences of rounding: 1e-9 of the std.
    assert np.all(forces <= energy * (1 + 1e-9))
    assert np.all(everything <= forces * (1 + 1e-9))
    assert forces.sum() < 0.9 * energy.sum()


def test_more_structures_lower_every_variance():
    """The added structures have no labels in the first fit, so the sparse points are the same in both."""
    frames, more, test = variations("vacancy", 3), variations("vacancy", 5, seed=6), variations("vacancy", 3, seed=5)
    few = SparseGP(small_soap(["Si"]), DotProduct(2), **SETTINGS).fit(frames + [atoms.copy() for atoms in more])
    many = SparseGP(small_soap(["Si"]), DotProduct(2), **SETTINGS).fit(frames + more)
    few, many = (_all_std(model.predict(test, uncertainty=True)) for model in (few, many))
    assert np.all(many <= few * (1 + 1e-9))
    assert many.sum() < 0.9 * few.sum()


def test_noisier_labels_raise_every_variance():
    frames, test = variations("vacancy", 4), variations("vacancy", 2, seed=5)
    precise = _all_std(_fit(frames).predict(test, uncertainty=True))
    noisy = _all_std(_fit(frames, noise={"energy": 0.1, "forces": 1.0, "stress": 0.1}).predict(test, uncertainty=True))
    assert np.all(noisy >= precise * (1 - 1e-9))


def test_variances_do_not_depend_on_the_labels_values():
    """For given hyperparameters a Gaussian process's variance knows where it was observed, not what."""
    frames, test = variations("vacancy", 4), build("vacancy")
    model = _fit(frames)
    other = [labelled(atoms.copy()) for atoms in frames]
    for atoms in other:
        atoms.calc.results = {kind: -3.0 * np.asarray(value) for kind, value in atoms.calc.results.items()}
    again = SparseGP(small_soap(["Si"]), DotProduct(2), **SETTINGS).fit(other)
    a, b = (_all_std(m.predict(test, uncertainty=True)) for m in (model, again))
    np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:the labels are suspicious:soapkrr.errors.DataWarning")
def test_scaling_energies_noise_and_signal_scales_the_prediction():
    frames, test, scale = variations("vacancy", 4), build("vacancy"), 27.2
    model = _fit(frames)
    scaled = [labelled(atoms.copy()) for atoms in frames]
    for atoms in scaled:
        atoms.calc.results = {kind: scale * np.asarray(value) for kind, value in atoms.calc.results.items()}
    noise = {kind: scale * value for kind, value in SETTINGS["noise"].items()}
    again = SparseGP(small_soap(["Si"]), DotProduct(2), **{**SETTINGS, "noise": noise, "signal": scale * model.signal}).fit(scaled)
    p, q = model.predict(test, uncertainty=True), again.predict(test, uncertainty=True)
    np.testing.assert_allclose(q.energy, scale * p.energy, rtol=1e-9)
    np.testing.assert_allclose(_all_std(q), scale * _all_std(p), rtol=1e-7)


@pytest.mark.parametrize("signal", [0.5, 3.0])
def test_far_from_the_data_the_prior_returns(signal):
    """A sharp kernel and an environment unlike any seen: per-atom std δ, mean zero, forces' prior."""
    soap = small_soap(["Si"], sigma=0.3, rbf="bessel")
    dimers = [labelled(Atoms("Si2", positions=[[0, 0, 0], [0, 0, d]]), ("energy", "forces")) for d in (2.2, 2.3, 2.4)]
    kernel = DotProduct(zeta=100)
    model = SparseGP(soap, kernel, n_sparse=6, signal=signal, baseline={"Si": 0.0}).fit(dimers)
    test = build("vacancy")
    likeness = (soap.create(test) @ soap.create(dimers).T).max()
    assert likeness**100 < 1e-9
    p = model.predict(test, uncertainty=True)
    # The data explain at most κ² of the prior variance.
    np.testing.assert_allclose(p.energies_std[0], signal, rtol=1e-6)
    np.testing.assert_allclose(p.energies[0], 0, atol=1e-3)
    forces = Observables(soap, test).forces()
    prior = np.diag(covariances(forces, forces, 100, signal)).reshape(-1, 3)
    # Numerical derivatives of the reference, raised to a steep power.
    np.testing.assert_allclose(p.forces_std[0] ** 2, prior, rtol=1e-5)


def test_close_to_the_data_the_std_is_small(fitted):
    frames = variations("vacancy", 4)
    model = fitted("vacancy")
    near, far = model.predict(frames[0], uncertainty=True), model.predict(build("primitive").repeat(2), uncertainty=True)
    assert near.energies_std[0].max() < 0.1 * model.signal
    assert near.energies_std[0].mean() < far.energies_std[0].mean()


def test_truth_lies_within_the_error_bars():
    """Labels of a smooth potential in a good basis: forces within two standard deviations at least as often as a normal law says."""
    rng_frames = variations("vacancy", 25, rattle=0.15)
    soap = small_soap(["Si"], n_max=5, l_max=4)
    model = SparseGP(soap, DotProduct(2), n_sparse=120, noise={"energy": 0.005, "forces": 0.05, "stress": 0.005}).fit(rng_frames)
    test = variations("vacancy", 6, seed=7, rattle=0.15)
    p = model.predict(test, uncertainty=True)
    z = np.concatenate([np.ravel((f - a.calc.results["forces"]) / s) for f, s, a in zip(p.forces, p.forces_std, test, strict=True)])
    assert np.mean(np.abs(z) < 2) > 0.9


@pytest.mark.parametrize(
    "asked, given",
    [
        (False, []),
        (True, ["energy", "energies", "forces", "stress"]),
        ("energy", ["energy", "energies"]),
        (["forces"], ["forces"]),
        (("energy", "stress"), ["energy", "energies", "stress"]),
    ],
)
def test_only_what_was_asked_for(asked, given, fitted):
    model, atoms = fitted("vacancy"), build("vacancy")
    p, everything = model.predict(atoms, uncertainty=asked), model.predict(atoms, uncertainty=True)
    got = {kind for kind in ("energy", "energies", "forces", "stress") if getattr(p, f"{kind}_std") is not None}
    assert got == set(given)
    for kind in given:
        np.testing.assert_array_equal(getattr(p, f"{kind}_std"), getattr(everything, f"{kind}_std"))
    # The means come from the same pass whether or not variances were asked for.
    np.testing.assert_allclose(p.energy, everything.energy, rtol=1e-14)
    np.testing.assert_array_equal(p.forces[0], everything.forces[0])


@pytest.mark.parametrize("name", SYSTEMS)
def test_shapes(name, fitted):
    frames = [build(name), build(name).repeat(np.where(build(name).pbc, 2, 1))]
    p = fitted(name).predict(frames, uncertainty=True)
    assert len(p) == 2
    assert p.energy.shape == p.energy_std.shape == (2,)
    assert p.stress.shape == p.stress_std.shape == (2, 6)
    for atoms, energies, e_std, forces, f_std in zip(frames, p.energies, p.energies_std, p.forces, p.forces_std, strict=True):
        assert energies.shape == e_std.shape == (len(atoms),)
        assert forces.shape == f_std.shape == (len(atoms), 3)
    assert np.isnan(p.stress).all() == (not build(name).pbc.all())
    assert set(species(name)) == set(fitted(name).n_sparse_)


@pytest.mark.parametrize("kind", [SparseGP, GaussianProcess])
def test_standard_deviations_of_single_atoms_alone(kind):
    frames = crystals(4)
    model = kind(soap(), DotProduct(zeta=2)).fit(frames)
    alone, both = model.predict(frames, uncertainty="energies"), model.predict(frames, uncertainty="energy")
    assert alone.energy_std is None and both.energy_std is not None
    np.testing.assert_array_equal(np.concatenate(alone.energies_std), np.concatenate(both.energies_std))


@pytest.mark.parametrize("name", ["alloy", "vacancy"])
def test_variances_by_one_product_are_those_by_features(name, monkeypatch):
    """|κ D|² against |φ|² − |R⁻ᵀφ|², by panels narrower than a species has features, and sums of terms."""
    monkeypatch.setattr("soapkrr.regression.sparse.variances.PANEL", 5)
    s, noise = small_soap(species(name)), {"energy": 0.02, "forces": 0.2, "stress": 0.02}
    terms = [
        Term(s, DotProduct(2), n_sparse=12),
        Term(small_soap(species(name), r_cut=3.0), SquaredExponential(0.7), n_sparse=9, signal=0.4),
    ]
    process = SparseGP(terms, noise=noise, threads=1).fit(variations(name, 4)).process_
    rng = np.random.default_rng(0)
    for species_index in (0, None):
        kernels = [[rng.random((7, len(x))) for x in t.points] for t in process.terms]
        if species_index is not None:
            kernels = [[k if s == 0 else 0 * k for s, k in enumerate(of_term)] for of_term in kernels]
        phi = np.concatenate([t.whiten(k) for t, k in zip(process.terms, kernels, strict=True)], axis=1)
        rows = np.concatenate([k for of_term in kernels for s, k in enumerate(of_term) if species_index in (None, s)], axis=1)
        prior = 2 * (phi**2).sum(axis=1)
        expected = prior - (phi**2).sum(axis=1) + process.posterior.variance(phi)
        np.testing.assert_allclose(process.reduction(species_index).variance(prior, rows), expected, rtol=1e-8)


def test_species_that_are_not_there_change_nothing():
    """Structures of one species under a model of two, whose standard deviations are those of the joint posterior."""
    model = SparseGP(small_soap(species("alloy")), DotProduct(2), n_sparse=12, threads=1).fit(variations("alloy", 4))
    atoms = variations("alloy", 1, seed=5)[0]
    atoms.numbers[:] = atoms.numbers[0]
    p = model.predict(atoms, uncertainty=True)
    observables = [Energy(atoms), *Force.all(atoms).ravel(), *(Stress(atoms, v) for v in range(6))]
    expected = model.posterior(observables).std
    np.testing.assert_allclose(np.concatenate([p.energy_std, p.forces_std[0].ravel(), p.stress_std[0]]), expected, rtol=1e-5)
