"""Observations as representers: all of them are the exact process, some of them lie in between, and everything around works as before."""

import zipfile

import numpy as np
import pytest
from systems import build, labelled, small_soap, species, variations
from taylor import assert_derivative

import soapkrr
from soapkrr import (
    DotProduct,
    GaussianProcess,
    InputError,
    ModelFileError,
    Observations,
    SparseGP,
    SquaredExponential,
    Term,
)
from soapkrr.baselines import ZBL
from soapkrr.regression.exact.subset import pivoted_cholesky

NOISE = {"energy": 0.02, "forces": 0.2, "stress": 0.02}

KINDS = ("energy", "forces", "stress")


def _model(names=("Si",), n_sparse=10**6, **changes):
    settings = {"noise": NOISE, "signal": 1.0, "baseline": dict.fromkeys(names, 0.0), "threads": 1, **changes}
    return SparseGP(small_soap(names), DotProduct(2), n_sparse=n_sparse, representers="observations", **settings)


def _everything(p):
    std = [p.energy_std, *p.energies_std, *map(np.ravel, p.forces_std), p.stress_std.ravel()]
    values = np.concatenate([p.energy, *p.energies, *map(np.ravel, p.forces), p.stress.ravel(), *std])
    return values[np.isfinite(values)]


def _assert_same(p, q):
    """Means to 1e-6 of the largest force, variances to 1e-6 of the largest.

    Whitening keeps eigenvalues of the covariance, in units of its noise, from 1e7 down to 1e-15 of that: what it drops, 1e-8 of a noise
    variance, and the rounding of what it keeps, 1e-8 of it, do not show.
    """
    for mean, std in (("energy", "energy_std"), ("energies", "energies_std"), ("forces", "forces_std"), ("stress", "stress_std")):
        a, b = (np.concatenate([np.ravel(x) for x in getattr(r, mean)]) for r in (p, q))
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-6 * max(1.0, np.nanmax(np.abs(a), initial=0)), err_msg=mean)
        a, b = (np.concatenate([np.ravel(x) for x in getattr(r, std)]) ** 2 for r in (p, q))
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6 * np.nanmax(a, initial=0), err_msg=std)


# --- all of them -----------------------------------------------------------------------------------------------------

LABELS = {
    "energies": [("energy",)] * 3,
    "everything": [KINDS] * 2,
    "missing": [("energy", "stress"), ("forces",), (), ("energy", "forces"), ("stress",)],
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("name", ["primitive", "alloy", "molecule"])
def test_all_observations_are_the_exact_process(name, labels):
    names = species(name)
    frames = [labelled(atoms, kinds) for atoms, kinds in zip(variations(name, len(LABELS[labels])), LABELS[labels], strict=True)]
    settings = dict(noise=NOISE, signal=1.0, baseline=dict.fromkeys(names, 0.0))
    exact = GaussianProcess(small_soap(names), DotProduct(2), **settings).fit(frames)
    model = _model(names, tolerance=1e-15).fit(frames)
    test = [build(name), *variations(name, 2, seed=1)]
    _assert_same(exact.predict(test, uncertainty=True), model.predict(test, uncertainty=True))
    assert model.n_observations_ == exact.n_observations_
    np.testing.assert_allclose(model.log_likelihood_, exact.log_likelihood_, rtol=1e-6)


def test_all_observations_with_noise_of_their_own_and_a_mask():
    rng, frames = np.random.default_rng(3), variations("vacancy", 2)
    for atoms in frames:
        atoms.info |= {"energy_noise": 0.02 * rng.uniform(0.3, 3), "weight": rng.uniform(0.5, 2)}
        atoms.arrays["forces_noise"] = 0.2 * rng.uniform(0.3, 3, size=(len(atoms), 3))
    frames[1].arrays["force_mask"] = np.arange(7) == 2
    settings = dict(noise=NOISE, signal=1.0, baseline={"Si": 0.0}, observations=Observations())
    exact = GaussianProcess(small_soap(["Si"]), DotProduct(2), **settings).fit(frames)
    model = _model(tolerance=1e-15, observations=Observations()).fit(frames)
    test = variations("vacancy", 2, seed=1)
    _assert_same(exact.predict(test, uncertainty=True), model.predict(test, uncertainty=True))


def _terms():
    short = Term(small_soap(["Si"], r_cut=3.0), SquaredExponential(0.5), signal=0.4)
    return [Term(small_soap(["Si"]), DotProduct(2), signal=1.0), short]


def test_all_observations_of_a_sum_of_terms_on_prior_means():
    frames, test = variations("vacancy", 2), variations("vacancy", 2, seed=1)
    settings = dict(noise=NOISE, baseline=["least-squares", ZBL()])
    exact = GaussianProcess(_terms(), **settings).fit(frames)
    model = SparseGP(_terms(), n_sparse=10**6, tolerance=1e-15, representers="observations", **settings).fit(frames)
    assert model.reference_energies_ == exact.reference_energies_
    _assert_same(exact.predict(test, uncertainty=True), model.predict(test, uncertainty=True))


# --- some of them ----------------------------------------------------------------------------------------------------


def test_pivots_are_the_largest_remaining_variances():
    """Against the textbook: condition on what was picked, take the largest of what is left."""
    rng = np.random.default_rng(0)
    B, scale = rng.normal(size=(20, 12)), rng.uniform(0.5, 2, size=20)
    K, picked = B @ B.T, []
    for _ in range(8):
        known = K[np.ix_(picked, picked)]
        left = np.diag(K) - np.einsum("ip,pi->i", K[:, picked], np.linalg.solve(known, K[picked])) if picked else np.diag(K)
        picked.append(int(np.argmax(left / scale**2)))
    np.testing.assert_array_equal(pivoted_cholesky(K, scale, 8, 1e-12), picked)


def test_pivots_end_at_the_rank_and_at_the_tolerance():
    B = np.random.default_rng(1).normal(size=(20, 6))
    assert len(pivoted_cholesky(B @ B.T, np.ones(20), 20, 1e-12)) == 6
    diagonal = np.diag(10.0 ** -np.arange(8))
    np.testing.assert_array_equal(pivoted_cholesky(diagonal, np.ones(8), 8, 1e-4), range(4))


@pytest.fixture(scope="module")
def crystal():
    frames = [*variations("vacancy", 4), *variations("primitive", 4)]
    return frames, _model(n_sparse=40).fit(frames)


def test_numbers_of_representers(crystal):
    _, model = crystal
    assert sum(model.n_sparse_.values()) == 40
    assert set(model.n_sparse_) <= set(KINDS)
    assert model.rank_ <= 40
    assert model.n_observations_ == {"energy": 8, "forces": 3 * (4 * 7 + 4 * 2), "stress": 48}
    assert model.condition_ >= 1
    assert model.noise_ == NOISE


def test_more_representers_come_closer_to_the_exact_process(crystal):
    """Labels precise enough that every observation tells something."""
    frames, _ = crystal
    test = variations("vacancy", 3, seed=1, rattle=0.3)
    settings = dict(noise={kind: 1e-3 * level for kind, level in NOISE.items()}, signal=1.0, baseline={"Si": 0.0})
    exact = GaussianProcess(small_soap(["Si"]), DotProduct(4), **settings).fit(frames).predict(test)
    errors = []
    for n in (5, 15, 45, 110):
        model = SparseGP(small_soap(["Si"]), DotProduct(4), n_sparse=n, representers="observations", tolerance=1e-14, **settings)
        p = model.fit(frames).predict(test)
        errors.append(np.sqrt(np.mean((np.concatenate(p.forces) - np.concatenate(exact.forces)) ** 2)))
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 0.05 * errors[0]


def test_variances_are_below_the_prior(crystal):
    _, model = crystal
    test = variations("vacancy", 3, seed=1)
    prior = [np.sqrt(((x @ x.T) ** 2).sum()) for x in map(small_soap(["Si"]).create, test)]
    assert np.all(model.predict(test, uncertainty="energy").energy_std < prior)


def test_forces_are_the_derivative_of_the_energy(crystal):
    _, model = crystal
    atoms, u = build("vacancy"), np.random.default_rng(0).normal(size=(7, 3))

    def energy(t):
        moved = atoms.copy()
        moved.positions += t * u
        return model.predict(moved).energy[0]

    assert_derivative(energy, -np.vdot(model.predict(atoms).forces[0], u))


def test_order_of_the_structures_and_number_of_threads_do_not_matter(crystal):
    frames, model = crystal
    test = variations("vacancy", 2, seed=5)
    expected = _everything(model.predict(test, uncertainty=True))
    shuffled = [frames[k] for k in np.random.default_rng(3).permutation(len(frames))]
    np.testing.assert_array_equal(_everything(_model(n_sparse=40, threads=2).fit(shuffled).predict(test, uncertainty=True)), expected)


def test_duplicates_are_no_trouble(crystal):
    frames, _ = crystal
    model = _model(n_sparse=10**6).fit(frames[:2] * 3)
    once = _model(n_sparse=10**6, noise={kind: value / np.sqrt(3) for kind, value in NOISE.items()}).fit(frames[:2])
    test = variations("vacancy", 1, seed=5)
    np.testing.assert_allclose(
        _everything(model.predict(test, uncertainty=True)), _everything(once.predict(test, uncertainty=True)), atol=1e-4
    )


# --- around it -------------------------------------------------------------------------------------------------------


def test_predictions_come_back_bit_for_bit(tmp_path):
    frames = [labelled(atoms, kinds) for atoms, kinds in zip(variations("vacancy", 5), LABELS["missing"], strict=True)]
    settings = dict(n_sparse=30, representers="observations", baseline=["least-squares", ZBL()])
    model = SparseGP(_terms(), **settings).fit(frames)
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    assert loaded.get_params() == model.get_params()
    for name in ("n_sparse_", "rank_", "condition_", "n_observations_", "noise_", "log_likelihood_", "reference_energies_"):
        assert getattr(loaded, name) == getattr(model, name)
    test = [*frames, build("primitive")]
    np.testing.assert_array_equal(_everything(loaded.predict(test, uncertainty=True)), _everything(model.predict(test, uncertainty=True)))


@pytest.mark.parametrize("name", ["picked", "transform", "posterior.factor", "structures.numbers"])
def test_a_file_without_one_of_its_arrays(crystal, tmp_path, name):
    crystal[1].save(tmp_path / "m.soapkrr")
    with zipfile.ZipFile(tmp_path / "m.soapkrr") as old, zipfile.ZipFile(tmp_path / "damaged", "w") as new:
        for member in set(old.namelist()) - {f"state.process.{name}.npy"}:
            new.writestr(member, old.read(member))
        assert len(new.namelist()) == len(old.namelist()) - 1
    with pytest.raises(ModelFileError):
        soapkrr.load(tmp_path / "damaged")


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(representers="atoms"), "`representers` must be one of .*'environments', 'observations'.*'atoms'"),
        (dict(n_sparse={"Si": 5}), "`n_sparse` must be a positive integer with `representers`='observations'"),
        (dict(n_sparse=0), "`n_sparse` must be"),
        (dict(n_sparse=2.5), "`n_sparse` must be"),
        (dict(tolerance=1.0), "`tolerance`"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        _model().set_params(**changes).fit(variations("vacancy", 2))
