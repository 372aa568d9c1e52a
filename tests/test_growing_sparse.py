"""Sparse models that grow by rows, and by sparse points, are those that are fitted to everything at once."""

import copy

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from small import assert_same_predictions, lennard_jones, soap
from small import crystals as near

import soapkrr
from soapkrr import DotProduct, GaussianProcess, InputError, Pair, SparseGP, Term
from soapkrr.estimators.growing import Addition
from soapkrr.kernels import Linear
from soapkrr.labels import read_labels
from soapkrr.regression.data import TrainingData
from soapkrr.regression.exact.compositions import ObservedStructures
from soapkrr.regression.exact.covariance import covariance
from soapkrr.regression.growing import novel_points
from soapkrr.regression.layout import Layout
from soapkrr.regression.targets import observation_targets
from soapkrr.selection import GivenPoints
from soapkrr.structures import Batch

NOISE = {"energy": 1e-3, "forces": 1e-2}


def terms(points):
    return [
        Term(soap(), DotProduct(zeta=2), selection=GivenPoints(points)),
        Term(Pair(["Ar"], r_cut=5.0, n_basis=5), Linear(), signal=0.3),
    ]


def model(points, **options):
    return SparseGP(terms(points), baseline={"Ar": -0.1}, noise=NOISE, observations=soapkrr.Observations(), **options)


def subset():
    both = [Term(soap(), DotProduct(zeta=2)), Term(Pair(["Ar"], r_cut=5.0, n_basis=5), Linear(), signal=0.3)]
    options = {"baseline": {"Ar": -0.1}, "noise": NOISE, "observations": soapkrr.Observations()}
    return SparseGP(both, representers="observations", n_sparse=8, **options)


def crystals(n):
    """Crystals so far from the perfect one that few environments are alike."""
    rng, frames = np.random.default_rng(7), near(n)
    for atoms in frames:
        atoms.positions += rng.uniform(-0.5, 0.5, atoms.positions.shape)
    return [lennard_jones(atoms, "energy", "forces", "stress") for atoms in frames]


def varied(n):
    """Crystals, some with a mask, some without stress, some with a σ of their own."""
    frames = crystals(n)
    for k in range(0, n, 3):
        mask = np.zeros(len(frames[k]), dtype=bool)
        mask[k % 4] = True
        frames[k].set_array("force_mask", mask)
        frames[k].info["energy_noise"] = 5e-3
    for k in range(1, n, 3):
        results = {name: frames[k].calc.results[name] for name in ("energy", "forces")}
        frames[k].calc = SinglePointCalculator(frames[k], **results)
    return frames


def same(one, other, frames):
    assert_same_predictions(one, other, frames)
    assert one.n_observations_ == other.n_observations_
    assert one.log_likelihood_ == pytest.approx(other.log_likelihood_, abs=1e-8 * abs(other.log_likelihood_))


POINTS = [(0, 0), (1, 1), (1, 2), (2, 3), (3, 0), (3, 1)]


@pytest.mark.parametrize("parts", [[6], [1, 2, 3], [1] * 6], ids=str)
def test_growing_is_fitting_all(parts):
    frames = varied(12)
    grown, start = model(POINTS).fit(frames[:4]), 4
    for n in parts:
        grown.update(frames[start : start + n])
        start += n
    whole = model(POINTS).fit(frames[:10])
    same(grown, whole, frames[8:])
    assert grown.domain_.shortest == whole.domain_.shortest and grown.domain_.counts == whole.domain_.counts


def observations_of(frames, terms, references):
    """Covariance K of all observations of structures, their targets and noise (NaN where there is no label), slowly."""
    labels = read_labels(frames, soapkrr.Observations(), {"stress": 2e-3, **NOISE})
    data = TrainingData(frames, labels, references, np.arange(len(frames)))
    seen = ObservedStructures.of(data).whole()
    K = sum(t.signal**2 * covariance(t.kernel, seen.compositions(t.descriptor)) for t in terms)
    return K, *observation_targets(data, {"stress": 2e-3, **NOISE})


def test_a_subset_of_observations_grows():
    """The equations of the deterministic training conditional, with the representers that were picked of the first structures."""
    frames = varied(12)
    grown = subset().fit(frames[:5]).update(frames[5]).update(frames[6:10])
    before = grown.process_.structures.frames
    order = [next(k for k, frame in enumerate(frames) if np.array_equal(frame.positions, atoms.positions)) for atoms in before]
    ordered = [frames[k] for k in order] + frames[5:]
    K, y, sigma = observations_of(ordered, subset().descriptor, {"Ar": -0.1})
    layout = Layout([4] * 12, [True] * 12, [bool("stress" in atoms.calc.results) for atoms in ordered])
    new = int(layout.offsets[10])
    n, m = np.flatnonzero(np.isfinite(sigma[:new])), grown.process_.picked
    unit = 1 / np.sqrt(np.diagonal(K)[m])
    L = np.linalg.cholesky(unit[:, None] * K[np.ix_(m, m)] * unit)
    features = np.linalg.solve(L, (K[:, m] * unit).T).T  # of independent weights
    rows = features[n] / sigma[n, None]
    R = np.linalg.qr(np.vstack([rows, np.eye(len(m))]), mode="r")
    half = np.linalg.solve(R.T, features[new:].T).T
    mean = half @ np.linalg.solve(R.T, rows.T @ (y[n] / sigma[n]))
    variance = np.diagonal(K)[new:] - np.sum(features[new:] ** 2, axis=1) + np.sum(half**2, axis=1)
    p = grown.predict(ordered[10:], uncertainty=True)
    np.testing.assert_allclose(p.energy, mean[layout.energy[10:] - new] - 4 * 0.1, rtol=0, atol=1e-8)
    np.testing.assert_allclose(p.energy_std, np.sqrt(variance[layout.energy[10:] - new]), rtol=0, atol=1e-8)
    np.testing.assert_allclose(np.concatenate(p.forces), mean[layout.forces[40:] - new], rtol=0, atol=1e-8)
    np.testing.assert_allclose(np.concatenate(p.forces_std), np.sqrt(variance[layout.forces[40:] - new]), rtol=0, atol=1e-8)
    C = features[n] @ features[n].T + np.diag(sigma[n] ** 2)
    evidence = -0.5 * (y[n] @ np.linalg.solve(C, y[n]) + np.linalg.slogdet(C)[1] + len(n) * np.log(2 * np.pi))
    assert grown.log_likelihood_ == pytest.approx(evidence, abs=1e-7 * abs(evidence))
    assert sum(grown.n_observations_.values()) == len(n)


@pytest.mark.parametrize("make", [lambda: model(POINTS), subset], ids=["environments", "observations"])
def test_models_from_files_grow_and_grown_ones_are_stored(make, tmp_path):
    frames = varied(9)
    grown = make().fit(frames[:5]).update(frames[5:])
    make().fit(frames[:5]).save(tmp_path / "before.soapkrr")
    from_file = soapkrr.load(tmp_path / "before.soapkrr").update(frames[5:])
    same(from_file, grown, frames)
    grown.save(tmp_path / "after.soapkrr")
    same(soapkrr.load(tmp_path / "after.soapkrr"), grown, frames)


def test_new_sparse_points_are_those_of_a_fit_with_them():
    frames = varied(10)
    start = model(POINTS).fit(frames[:4])
    more = Addition.of(start, frames[4:], start.reference_energies_)
    points = novel_points(start.process_, more.data, 5e-5, start._resources(None, False, None))
    chosen = places_of(points[0][0], frames)
    assert 3 < len(chosen) < 24 and not len(points[1][0])  # some of 24 atoms; the other term has all of its features
    start.update(frames[4:], novelty=5e-5, training=frames[:4])
    assert start.n_sparse_[0]["Ar"] == len(POINTS) + len(chosen)
    same(start, model([*POINTS, *chosen]).fit(frames), frames)


def places_of(points, frames):
    """(frame, atom) of environments."""
    X = [soap().environments(Batch.from_atoms([atoms])).X for atoms in frames]
    return [next((k, a) for k, x in enumerate(X) for a in range(len(x)) if np.array_equal(x[a], point)) for point in points]


def test_what_is_left_of_the_prior_is_below_the_threshold():
    """δ²(k_xx − k_x·K⁻¹k_x) of every new environment, with the points that were taken and by solving with them."""
    frames = crystals(10)
    start = model(POINTS).fit(frames[:4]).update(frames[4:], novelty=3e-4, training=frames[:4])
    term = start.process_.terms[0]
    X = np.concatenate([soap().environments(Batch.from_atoms([atoms])).X for atoms in frames[4:]])
    cross = term.kernel(X, term.points[0])
    left = term.kernel.diagonal(X) - np.sum(cross * np.linalg.solve(term.kernel(term.points[0]), cross.T).T, axis=1)
    assert len(POINTS) < len(term.points[0]) and term.signal * np.sqrt(left.max()) <= 3e-4 * (1 + 1e-3)
    start.update(crystals(11)[10], novelty=0.9)  # of known surroundings, nothing else is needed
    assert len(start.process_.terms[0].points[0]) == len(term.points[0])


def test_the_data_are_known_where_they_are_given():
    frames = crystals(8)
    grown = model(POINTS).fit(frames[:4]).update(frames[4:6], novelty=3e-4, training=frames[:4])
    assert grown.calibration_ is None and not grown.left_out_errors_
    assert np.isfinite(grown.leave_out(frames[:6]).mean).all()
    grown.update(frames[6:], novelty=3e-4, training=frames[:6])
    with pytest.raises(InputError, match="are not those"):
        grown.leave_out(frames[:7])
    with pytest.raises(InputError, match="after an `update`"):
        grown.update(frames[0]).leave_out(frames)


def test_nothing_else_changes():
    frames = crystals(6)
    fitted = model(POINTS).fit(frames[:4])
    before = fitted.predict(frames, uncertainty=True)
    triangles = {kind: triangle.copy() for kind, triangle in fitted.triangles_.items()}
    other = copy.copy(fitted)
    other.update(frames[4:], novelty=3e-4, training=frames[:4])
    after = fitted.predict(frames, uncertainty=True)
    np.testing.assert_array_equal(before.energy, after.energy)
    np.testing.assert_array_equal(before.energy_std, after.energy_std)
    assert all(np.array_equal(triangles[kind], fitted.triangles_[kind]) for kind in triangles)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: model(POINTS), {"novelty": 1e-5}, "new sparse points, whose columns need"),
        (lambda: model(POINTS), {"novelty": np.nan}, "novelty"),
        (lambda: model(POINTS), {"novelty": -1.0}, "novelty"),
        (lambda: model(POINTS), {"training": crystals(3)}, "are not those"),
        (subset, {"novelty": 1e-4}, "representers of this model are observations"),
        (lambda: model(POINTS).set_params(observations=soapkrr.Observations(balance=True)), {}, "weighs every structure"),
    ],
)
def test_what_is_refused_leaves_the_model_as_it_was(make, options, message):
    frames = crystals(6)
    fitted = make().fit(frames[:4])
    before = fitted.predict(frames).energy
    with pytest.raises(InputError, match=message):
        fitted.update(frames[4:], **options)
    np.testing.assert_array_equal(fitted.predict(frames).energy, before)


def test_structures_without_labels_are_refused():
    frames = crystals(5)
    frames[4].calc = None
    with pytest.raises(InputError, match="to fit"):
        model(POINTS).fit(frames[:4]).update(frames[4])


def test_configuration_types_of_a_few_structures():
    """Noise of types that the new structures do not have is no mistake."""
    frames = crystals(6)
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = "hot" if k % 2 else "cold"
    observations = soapkrr.Observations(config_noise={"hot": {"forces": 0.1}, "cold": {"forces": 0.02}})
    options = {"baseline": {"Ar": -0.1}, "noise": NOISE, "observations": observations}
    sparse = [SparseGP(terms(POINTS), **options).fit(frames[:4]).update(frames[4]), SparseGP(terms(POINTS), **options).fit(frames[:5])]
    same(*sparse, frames)
    exact = [
        GaussianProcess(terms(POINTS), **options).fit(frames[:4]).update(frames[4]),
        GaussianProcess(terms(POINTS), **options).fit(frames[:5]),
    ]
    same(*exact, frames)
