"""Properties of structures and atoms: equal to scikit-learn with the same kernel matrix, named or given, saved, searched, optimised."""

import zipfile

import numpy as np
import pytest
from ase import Atoms
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel as ScikitKernel
from sklearn.kernel_ridge import KernelRidge as ScikitRidge
from sklearn.model_selection import GridSearchCV, cross_val_score
from systems import build, labelled, small_soap, species, variations

import soapkrr
from soapkrr import (
    DotProduct,
    GaussianProcess,
    InputError,
    KernelRidge,
    LabelError,
    ModelFileError,
    PropertyGP,
    PropertyRidge,
    SquaredExponential,
    Term,
)
from soapkrr.regression.scalar import posterior, sums

TARGETS = ("extensive", "intensive", "atom")

NAMES = species("alloy")

ZERO = dict.fromkeys(NAMES, 0.0)


def _frames(n=6, seed=0):
    """Structures of unequal size and composition."""
    frames = variations("alloy", n, seed, rattle=0.2)
    for atoms in frames[1::3]:
        del atoms[[1]]
    for atoms in frames[2::3]:
        del atoms[[0, 4]]
    return [labelled(atoms) for atoms in frames]


def _values(frames, target, seed=3):
    """Smooth values of the size of 1, as one flat array."""
    X = [small_soap(NAMES).create(atoms) for atoms in frames]
    direction = np.random.default_rng(seed).normal(size=X[0].shape[1])
    f = [np.sin(3 * x @ direction) for x in X]
    return np.concatenate(f) if target == "atom" else np.array([v.sum() / (len(v) if target == "intensive" else 1) for v in f])


def _operator(frames, target):
    """(n_values, n_atoms) weights of atoms, by the definition."""
    sizes = [len(atoms) for atoms in frames]
    if target == "atom":
        return np.eye(sum(sizes))
    rows = np.zeros((len(frames), sum(sizes)))
    for k, n in enumerate(sizes):
        rows[k, sum(sizes[:k]) : sum(sizes[: k + 1])] = 1 / n if target == "intensive" else 1
    return rows


def _matrix(frames, target, signal=1.0, kernel=None, soap=None):
    """Kernel matrix of values, dense."""
    kernel, soap = kernel or DotProduct(2), soap or small_soap(NAMES)
    X, z = np.concatenate([soap.create(atoms) for atoms in frames]), np.concatenate([atoms.numbers for atoms in frames])
    W = _operator(frames, target)
    return signal**2 * W @ (kernel(X) * (z[:, None] == z[None, :])) @ W.T


def _asked(model, frames):
    """Values and standard deviations."""
    p = model.predict(frames, uncertainty=True)
    return p.values, p.std


def _noise(frames, target, noise):
    return noise * (np.sqrt([len(atoms) for atoms in frames]) if target == "extensive" else np.ones(len(_operator(frames, target))))


class Lookup(ScikitKernel):
    """A kernel of scikit-learn that reads a matrix; data are row numbers."""

    def __init__(self, K):
        self.K = K

    def __call__(self, X, Y=None, eval_gradient=False):
        rows, columns = (np.asarray(v)[:, 0].astype(int) for v in (X, X if Y is None else Y))
        return self.K[np.ix_(rows, columns)]

    def diag(self, X):
        return self.K[np.asarray(X)[:, 0].astype(int), np.asarray(X)[:, 0].astype(int)]

    def is_stationary(self):
        return False


# --- scikit-learn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_kernel_ridge_is_scikit_learns(target):
    train, test, alpha = _frames(), _frames(3, seed=1), 1e-2
    y = _values(train, target)
    model = PropertyRidge(small_soap(NAMES), DotProduct(2), alpha=alpha, target=target, baseline=ZERO).fit(train, y)
    K, n = _matrix(train + test, target), len(y)
    # A weight w divides the regularisation of a row: those of extensive properties have α N.
    weight = alpha / np.square(_noise(train, target, np.sqrt(alpha)))
    expected = ScikitRidge(kernel="precomputed", alpha=alpha).fit(K[:n, :n], y, sample_weight=weight).predict(K[n:, :n])
    np.testing.assert_allclose(model.predict(test).values, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("target", TARGETS)
def test_gaussian_process_is_scikit_learns(target):
    train, test, noise = _frames(), _frames(3, seed=1), 0.05
    y = _values(train, target)
    model = PropertyGP(small_soap(NAMES), DotProduct(2), noise=noise, signal=1.5, target=target, baseline=ZERO).fit(train, y)
    mean, std = _asked(model, test)
    K, n = _matrix(train + test, target, 1.5), len(y)
    theirs = GaussianProcessRegressor(Lookup(K), alpha=np.square(_noise(train, target, noise)), optimizer=None)
    theirs.fit(np.arange(n)[:, None], y)
    expected, expected_std = theirs.predict(np.arange(n, len(K))[:, None], return_std=True)
    np.testing.assert_allclose(mean, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(std**2, expected_std**2, rtol=0, atol=1e-10)
    np.testing.assert_allclose(model.log_likelihood_, theirs.log_marginal_likelihood_value_, rtol=1e-10)


def test_energies_are_scikit_learns():
    """Potentials fitted to energies alone: prediction and standard deviation of the total energy."""
    train, test = [labelled(atoms, ("energy",)) for atoms in _frames()], _frames(3, seed=1)
    y, n = np.array([atoms.calc.results["energy"] for atoms in train]), len(train)
    K = _matrix(train + test, "extensive")
    ridge = KernelRidge(small_soap(NAMES), DotProduct(2), alpha=1e-2, baseline=ZERO).fit(train)
    theirs = ScikitRidge(kernel="precomputed", alpha=1.0).fit(K[:n, :n], y, sample_weight=1 / _noise(train, "extensive", 0.1) ** 2)
    np.testing.assert_allclose(ridge.predict(test).energy, theirs.predict(K[n:, :n]), rtol=0, atol=1e-10)
    model = GaussianProcess(small_soap(NAMES), DotProduct(2), noise={"energy": 0.1}, signal=1.0, baseline=ZERO).fit(train)
    theirs = GaussianProcessRegressor(Lookup(K), alpha=_noise(train, "extensive", 0.1) ** 2, optimizer=None).fit(np.arange(n)[:, None], y)
    expected, std = theirs.predict(np.arange(n, len(K))[:, None], return_std=True)
    p = model.predict(test, uncertainty="energy")
    np.testing.assert_allclose(p.energy, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(p.energy_std**2, std**2, rtol=0, atol=1e-10)


def test_energies_are_an_extensive_property():
    """With least-squares reference energies too."""
    train, test = [labelled(atoms, ("energy",)) for atoms in _frames(8)], _frames(3, seed=1)
    potential = GaussianProcess(small_soap(NAMES), DotProduct(2), noise={"energy": 0.02}, signal=1.0).fit(train)
    model = PropertyGP(small_soap(NAMES), DotProduct(2), noise=0.02, signal=1.0, target="extensive").fit(train, "energy")
    mean, std = _asked(model, test)
    p = potential.predict(test, uncertainty="energy")
    np.testing.assert_allclose(mean, p.energy, rtol=0, atol=1e-9)
    np.testing.assert_allclose(std, p.energy_std, rtol=0, atol=1e-9)
    np.testing.assert_allclose(list(model.reference_energies_.values()), list(potential.reference_energies_.values()), rtol=1e-9)


# --- what a property is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target, factor", [("extensive", 2.0), ("intensive", 1.0)])
def test_supercells(target, factor):
    train = _frames()
    model = PropertyGP(small_soap(NAMES), DotProduct(2), noise=0.05, target=target).fit(train, _values(train, target))
    atoms = build("alloy")
    one, std_one = _asked(model, atoms)
    two, std_two = _asked(model, atoms.repeat((1, 2, 1)))
    np.testing.assert_allclose(two, factor * one, rtol=0, atol=1e-9)
    np.testing.assert_allclose(std_two, factor * std_one, rtol=0, atol=1e-7)


@pytest.mark.parametrize("target", TARGETS)
def test_order_of_the_atoms_and_orientation_do_not_matter(target):
    train = _frames()
    model = PropertyRidge(small_soap(NAMES), DotProduct(2), target=target).fit(train, _values(train, target))
    atoms, order = build("alloy"), np.random.default_rng(0).permutation(5)
    other = atoms[order]
    other.rotate(50, (1, 2, 3), rotate_cell=True)
    p, q = model.predict(atoms), model.predict(other)
    p, q = p.by_structure()[0], q.by_structure()[0]
    np.testing.assert_allclose(q, p[order] if target == "atom" else p, rtol=0, atol=1e-9)


@pytest.mark.parametrize("target", TARGETS)
def test_shapes(target):
    train = _frames()
    model = PropertyGP(small_soap(NAMES), DotProduct(2), noise=0.1, target=target).fit(train, _values(train, target))
    p, sizes = model.predict(train, uncertainty=True), [len(atoms) if target == "atom" else 1 for atoms in train]
    assert p.values.shape == p.std.shape == (len(p),) == (sum(sizes),)
    assert [len(values) for values in p.by_structure()] == p.sizes.tolist() == sizes
    np.testing.assert_array_equal(np.asarray(p), p.values)
    assert model.predict(train).std is None
    assert model.n_observations_ == {target: len(_values(train, target))}


def test_values_far_from_zero_need_no_offset():
    """The default baseline is a value for each species: shieldings of 200 and 30 ppm with a signal of 3."""
    train, test = _frames(), _frames(2, seed=1)
    y = [np.where(atoms.numbers == 8, 200.0, 30.0) for atoms in train]
    model = PropertyGP(small_soap(NAMES), DotProduct(2), noise=0.1, target="atom").fit(train, y)
    assert model.reference_energies_ == pytest.approx({"O": 200.0, "Ti": 30.0, "Sr": 30.0})
    np.testing.assert_allclose(model.predict(test).values, [200.0 if z == 8 else 30.0 for a in test for z in a.numbers], atol=1e-6)


def test_a_sum_of_terms():
    train, test = _frames(), _frames(2, seed=1)
    y, n = _values(train, "intensive"), len(train)
    short = small_soap(NAMES, r_cut=3.0, l_max=1)
    terms = [Term(small_soap(NAMES), DotProduct(2), signal=1.2), Term(short, SquaredExponential(0.5), signal=0.4)]
    model = PropertyGP(terms, noise=0.05, target="intensive", baseline=ZERO).fit(train, y)
    K = _matrix(train + test, "intensive", 1.2) + _matrix(train + test, "intensive", 0.4, SquaredExponential(0.5), short)
    expected = K[n:, :n] @ np.linalg.solve(K[:n, :n] + 0.05**2 * np.eye(n), y)
    np.testing.assert_allclose(model.predict(test), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("elements", [1, 40, 300])
@pytest.mark.parametrize("target", TARGETS)
def test_size_of_the_tiles_does_not_matter(target, elements, monkeypatch):
    train, test = _frames(), _frames(3, seed=1)
    model = PropertyGP(small_soap(NAMES), DotProduct(2), noise=0.1, target=target, threads=2)
    y = _values(train, target)
    expected = [np.hstack(v) for v in _asked(model.fit(train, y), test)]
    for module in (posterior, sums):
        monkeypatch.setattr(module, "ELEMENTS", elements)
    for got, want in zip(_asked(model.fit(train, y), test), expected, strict=True):
        np.testing.assert_allclose(np.hstack(got), want, rtol=0, atol=1e-9)


# --- where values come from ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_by_name_or_as_values(target):
    train = _frames()
    y = _values(train, target)
    parts = np.split(y, np.cumsum([len(a) for a in train])[:-1]) if target == "atom" else list(y)
    for atoms, value in zip(train, parts, strict=True):
        (atoms.arrays if target == "atom" else atoms.info)["polarity"] = value
    model = PropertyRidge(small_soap(NAMES), DotProduct(2), target=target)
    p, q, r = (model.fit(train, given).predict(train).values for given in ("polarity", y, parts))
    np.testing.assert_array_equal(p, q)
    np.testing.assert_array_equal(p, r)
    assert model.score(train, "polarity") == model.score(train, y) > 0.9


@pytest.mark.parametrize("target", TARGETS)
def test_cross_validation_and_search(target):
    train = _frames(9)
    y = _values(train, target)
    y = np.split(y, np.cumsum([len(a) for a in train])[:-1]) if target == "atom" else y
    model = PropertyRidge(small_soap(NAMES), DotProduct(2), alpha=1e-3, target=target)
    assert cross_val_score(model, train, y, cv=3).shape == (3,)
    search = GridSearchCV(model, {"kernel__zeta": [1, 3], "alpha": [1e-6, 1e-1]}, cv=3).fit(train, y)
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])
    assert np.isfinite(search.best_score_)


# --- evidence and files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1 / 30, 1.0, 30.0])
def test_noise_is_found_by_evidence(factor):
    """Values of the size of 1e5 with a noise of 5e3, started 30 times off."""
    train, rng = _frames(25), np.random.default_rng(4)
    clean = 1e5 * _values(train, "atom")
    y = clean + 5e3 * rng.normal(size=len(clean))
    model = PropertyGP(small_soap(NAMES), DotProduct(3), noise=5e3 * factor, signal=1e5, target="atom").fit(train, y, optimize=True)
    assert 3.5e3 < model.noise_ < 7e3
    # An error of the mean below that of a label.
    assert np.sqrt(np.mean((model.predict(train).values - clean) ** 2)) < 5e3


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", [PropertyGP, PropertyRidge])
def test_predictions_come_back_bit_for_bit(kind, target, tmp_path):
    train, test = _frames(), _frames(3, seed=1)
    model = kind(small_soap([*NAMES, "Au"]), DotProduct(2.5), target=target)
    model = (model.set_params(noise=0.1) if kind is PropertyGP else model).fit(train, _values(train, target))
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    assert loaded.get_params() == model.get_params()
    for name in ("reference_energies_", "noise_", "signals_", "n_observations_", "log_likelihood_"):
        assert getattr(loaded, name) == getattr(model, name)
    for a, b in zip(_asked(model, test), _asked(loaded, test), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["weights", "factor", "parts.0.points.0", "parts.0.data.1"])
def test_a_file_without_one_of_its_arrays(name, tmp_path):
    train = _frames()
    PropertyRidge(small_soap(NAMES), DotProduct(2), target="atom").fit(train, _values(train, "atom")).save(tmp_path / "m.soapkrr")
    with zipfile.ZipFile(tmp_path / "m.soapkrr") as old, zipfile.ZipFile(tmp_path / "damaged", "w") as new:
        for member in set(old.namelist()) - {f"state.process.{name}.npy"}:
            new.writestr(member, old.read(member))
        assert len(new.namelist()) == len(old.namelist()) - 1
    with pytest.raises(ModelFileError):
        soapkrr.load(tmp_path / "damaged")


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, y, message",
    [
        (dict(target="tensor"), 1.0, "`target` must be one of"),
        (dict(noise=None), 1.0, "`noise` must be a number"),
        (dict(noise={"energy": 0.1}), 1.0, "`noise` must be a number"),
        (dict(noise=-1.0), 1.0, "`noise`"),
        (dict(baseline="isolated"), 1.0, "`baseline`"),
        (dict(baseline={"O": 1.0}), 1.0, "`baseline` must give.*missing.*Ti"),
        (dict(baseline=soapkrr.ZBL()), 1.0, "`baseline`"),
        (dict(), None, "`y` must hold"),
        (dict(), "charge", "frame 0 has no 'charge'"),
        (dict(), np.nan, "frame 0.*nan"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(changes, y, message):
    train = _frames(3)
    model = PropertyGP(small_soap(NAMES), DotProduct(2), noise=0.1, target="intensive").set_params(**changes)
    with pytest.raises(InputError, match=message):
        model.fit(train, np.full(3, y) if isinstance(y, float) else y)


def test_properties_and_potentials_are_siblings():
    """Neither has the methods or parameters of the other."""
    assert not hasattr(PropertyGP, "calculator") and not issubclass(PropertyGP, GaussianProcess)
    assert not issubclass(KernelRidge, GaussianProcess) and not issubclass(PropertyRidge, PropertyGP)
    with pytest.raises(TypeError, match="target"):
        GaussianProcess(small_soap(NAMES), DotProduct(2), target="intensive")


def test_wrong_numbers_of_values_and_unknown_species():
    train = _frames(3)
    model = PropertyRidge(small_soap([*NAMES, "Au"]), DotProduct(2), target="extensive")
    with pytest.raises(LabelError, match="2 values, expected 3"):
        model.fit(train, [1.0, 2.0])
    model.fit(train, [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="frame 1: species Au"):
        model.predict([train[0], Atoms("Au")])
    with pytest.raises(InputError, match="`species`"):
        model.predict(Atoms("Ge"))
