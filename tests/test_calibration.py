"""Calibrated error bars: from left-out labels, with intervals that hold, parts that add up, and no confidence far from the data."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from scipy.stats import norm
from small import crystals, labelled, small_gp

import soapkrr
from soapkrr import InputError, ModelFileError
from soapkrr.auto import choose
from soapkrr.student import student_loss
from soapkrr.threads import serial_blas
from soapkrr.uncertainty.calibrated import PARTS, CalibratedPrediction
from soapkrr.uncertainty.calibration import restored_calibration
from soapkrr.uncertainty.conformal import EVERY, KEPT, Scores, cells_of, quantiles
from soapkrr.uncertainty.novelty import Neighbourhood
from soapkrr.uncertainty.repeats import GIVEN, REPEATED, Noise
from soapkrr.uncertainty.scales import TotalScale, anisotropy, learnt_weights

KINDS = ("energy", "energies", "forces", "stress")


def copper(n: int, seed: int, rattle=(0.03, 0.15)) -> list:
    """Strained and rattled cells of copper and gold, labelled with EMT."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = bulk("Cu", a=3.75 + 0.1 * rng.standard_normal(), cubic=True)
        atoms.numbers[: rng.integers(0, 4)] = 79
        atoms.rattle(rng.uniform(*rattle), rng=rng)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        frames.append(labelled(atoms, **results))
    return frames


@pytest.fixture(scope="module")
def train():
    return copper(40, 0)


@pytest.fixture(scope="module")
def test():
    return copper(60, 1)


@pytest.fixture(scope="module")
def model(train):
    return soapkrr.fit(train)


@pytest.fixture(scope="module")
def prediction(model, test):
    return model.predict(test, uncertainty=True)


def within(p, frames, kind, coverage=0.9):
    """Fraction of the labels inside the intervals."""
    lower, upper = p.interval(kind, coverage)
    values = {"energy": lambda a: a.get_potential_energy(), "forces": lambda a: a.get_forces(), "stress": lambda a: a.get_stress()}[kind]
    inside = [np.ravel((lower[s] <= values(a)) & (values(a) <= upper[s])) for s, a in enumerate(frames)]
    return np.concatenate(inside).mean()


# --- conformal quantiles ---


@pytest.mark.parametrize("n", [12, 49, 1000, 30_000])
@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_scores_hold_what_they_promise_on_average(n, coverage):
    """Of exchangeable scores the coverage of the next one is at least the one asked for, over many draws."""
    rng, draws = np.random.default_rng(n), 400 if n < 2000 else 20
    held = [np.mean(np.abs(rng.standard_t(3, 200)) <= Scores.of(np.abs(rng.standard_t(3, n))).quantile(coverage)) for _ in range(draws)]
    assert np.mean(held) > coverage - 0.012
    if n > 500:
        assert np.mean(held) < coverage + 0.02


def test_thinned_scores_are_never_below_the_order_statistic():
    scores = np.abs(np.random.default_rng(0).normal(size=12345))
    thinned = Scores.of(scores)
    assert len(thinned.values) == KEPT and thinned.n == 12345
    for coverage in (0.1, 0.5, 0.9, 0.99, 0.9995):
        exact = np.sort(scores)[int(np.ceil(coverage * 12346)) - 1]
        assert exact <= thinned.quantile(coverage) < np.quantile(scores, min(coverage + 0.001, 1)) + 0.05


def test_quantiles_are_those_of_split_conformal_prediction():
    """Rank ⌈(n + 1) c⌉, where a normal law has no longer tails."""
    scores = np.abs(np.random.default_rng(1).standard_t(2, 999)) * 1.5
    for coverage in (0.7, 0.9, 0.95):
        assert Scores.of(scores).quantile(coverage) == np.sort(scores)[int(np.ceil(1000 * coverage)) - 1]


def test_too_few_scores_promise_nothing():
    few = Scores.of(np.array([0.5, 1.0, 2.0]))
    assert not few.promises(0.9) and few.promises(0.7)
    assert few.quantile(0.9) > 2.0 and few.quantile(0.99) > few.quantile(0.9)
    assert Scores.of(np.zeros(0)).quantile(0.9) > 1.645


def test_cells_with_few_members_share_the_scores_of_all():
    scores, names = np.r_[np.full(100, 1.0), np.full(10, 9.0)], np.r_[np.full(100, "Cu"), np.full(10, "Au")]
    cells = cells_of(scores, names, np.arange(110), np.full(110, ""))
    assert set(cells) == {EVERY, ("Cu", "")}
    np.testing.assert_array_equal(quantiles(cells, np.array(["Cu", "Au"]), 0.999) > 5, [False, True])


# --- sizes ---


def test_total_scale_finds_what_made_the_errors():
    rng = np.random.default_rng(2)
    sigma, n = rng.uniform(0.01, 0.2, 4000), rng.integers(1, 60, 4000)
    errors = np.sqrt((1.7 * sigma) ** 2 + 0.02**2 * n) * rng.standard_t(4, 4000)
    scale = TotalScale.learnt(errors, sigma, n)
    assert scale.posterior == pytest.approx(1.7, rel=0.1) and scale.model == pytest.approx(0.02, rel=0.1)
    assert np.mean(np.abs(errors) <= scale(sigma, n)) == pytest.approx(0.683, abs=0.01)
    assert (scale(sigma, n, 10.0) > np.hypot(scale(sigma, n), 1.4 * sigma)).all()


def test_weights_find_what_made_the_errors():
    rng = np.random.default_rng(3)
    columns = np.column_stack([np.ones(3000), rng.normal(-2, 1, 3000), rng.normal(size=(3000, 4))])
    truth = np.array([0.5, 0.8, 0.3, 0.0, -0.5, 0.0])
    squares = (np.exp(columns @ truth)[:, None] * rng.standard_t(4, (3000, 3))) ** 2
    np.testing.assert_allclose(learnt_weights(columns, squares, np.arange(3000) // 30), truth, atol=0.06)


def test_loss_has_its_slope():
    squares, variance, h = np.array([[0.1, 4.0]]), np.array([[0.5, 2.0]]), 1e-6
    value, slope = student_loss(squares, variance)
    for k in range(2):
        step = np.zeros((1, 2))
        step[0, k] = h
        assert (student_loss(squares, variance + step)[0] - value) / h == pytest.approx(slope[0, k], rel=1e-4)


def test_shares_of_components_have_mean_square_one():
    shares = anisotropy(np.abs(np.random.default_rng(0).normal(size=(20, 3))))
    np.testing.assert_allclose((shares**2).mean(axis=1), 1.0, rtol=1e-12)


def test_nearest_surroundings_are_those_of_brute_force():
    rng = np.random.default_rng(4)
    y, structure = rng.normal(size=(120, 5)), np.repeat(np.arange(12), 10)
    place = Neighbourhood.learnt(y, structure, np.tile(np.arange(10), 12), np.ones(120), np.ones(120))
    apart = np.linalg.norm(y[:, None] - y[None], axis=2)
    own = np.where(structure[:, None] == structure, np.inf, apart).min(axis=1)
    assert place.distance == pytest.approx(np.quantile(own, 0.99), rel=1e-12)
    distance, point = place.nearest(y + 0.01)
    np.testing.assert_allclose(distance * place.distance, np.linalg.norm(y + 0.01 - y[point], axis=1), rtol=1e-12)


# --- a model ---


def test_intervals_hold_on_structures_that_were_not_fitted(prediction, test):
    """40 structures to learn from, 60 to test: coverage within sampling error of what was asked for."""
    assert within(prediction, test, "forces") == pytest.approx(0.9, abs=0.05)
    assert within(prediction, test, "forces", 0.5) == pytest.approx(0.5, abs=0.08)
    for kind in ("energy", "stress"):
        assert 0.75 < within(prediction, test, kind)
    inside = [np.linalg.norm(f - a.get_forces(), axis=1) <= r for f, a, r in zip(prediction.forces, test, prediction.balls(), strict=True)]
    assert np.concatenate(inside).mean() == pytest.approx(0.9, abs=0.06)


def test_standard_deviations_are_those_of_errors_and_the_posterior_stays(model, prediction, test, train):
    assert isinstance(prediction, CalibratedPrediction) and isinstance(prediction[3:5], CalibratedPrediction)
    errors = np.concatenate([np.ravel(f - a.get_forces()) for f, a in zip(prediction.forces, test, strict=True)])
    std = np.concatenate([np.ravel(s) for s in prediction.forces_std])
    assert np.mean(np.abs(errors) <= std) == pytest.approx(0.683, abs=0.08)
    bare = choose(train).with_descriptor(model.descriptor).model.set_params(noise=dict(model.noise_), signal=model.signals_[0]).fit(train)
    raw = bare.predict(test, uncertainty=True)
    assert type(raw) is soapkrr.Prediction
    for kind in KINDS:
        ours, theirs = (np.concatenate([np.ravel(x) for x in y]) for y in (prediction.posterior_std(kind), getattr(raw, f"{kind}_std")))
        np.testing.assert_allclose(
            np.concatenate([np.ravel(x) for x in ours]), np.concatenate([np.ravel(x) for x in theirs]), rtol=1e-5, atol=1e-8
        )


@pytest.mark.parametrize("kind", KINDS)
def test_parts_add_up(prediction, kind):
    parts, std = prediction.parts(kind), getattr(prediction, f"{kind}_std")
    assert tuple(parts) == PARTS
    for s in range(len(prediction)):
        np.testing.assert_allclose(sum(np.square(part[s]) for part in parts.values()), np.square(std[s]), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_have_the_shape_of_the_prediction_and_grow(prediction, kind):
    (lower, upper), (lower_99, upper_99) = prediction.interval(kind), prediction.interval(kind, 0.99)
    for s in range(len(prediction)):
        assert np.shape(lower[s]) == np.shape(getattr(prediction, kind)[s])
        assert np.all(lower_99[s] <= lower[s]) and np.all(lower[s] <= upper[s]) and np.all(upper[s] <= upper_99[s])


def test_far_from_the_data_it_says_so(model, test):
    """Other surroundings altogether: wide bars, novelty above 1, nothing promised."""
    rng = np.random.default_rng(0)
    far = Atoms("CuAuCuAu", positions=2.6 * np.eye(4, 3) + 0.1 * rng.normal(size=(4, 3)))
    far.calc = EMT()
    p, near = model.predict(far, uncertainty=True), model.predict(test, uncertainty=True)
    assert p.novelty[0].max() > 1 and not p.promised("forces").any()
    assert np.mean([x.max() <= 1 for x in near.novelty]) > 0.8
    assert p.forces_std[0].mean() > 3 * np.mean([s.mean() for s in near.forces_std])
    assert np.abs(p.energy[0] - far.get_potential_energy()) < 3 * p.energy_std[0]


def test_the_same_after_a_file_and_on_other_threads_and_in_groups(model, prediction, test, tmp_path):
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr", threads=1)
    for p in (loaded.predict(test, uncertainty=True), soapkrr.Prediction.concatenate([prediction[:10], prediction[10:]])):
        for name in ("energy_std", "stress_std"):
            np.testing.assert_array_equal(getattr(p, name), getattr(prediction, name))
        for name in ("forces_std", "energies_std", "novelty", "nearest", "distance"):
            np.testing.assert_array_equal(np.concatenate(getattr(p, name)), np.concatenate(getattr(prediction, name)))
        np.testing.assert_array_equal(p.interval("energy")[0], prediction.interval("energy")[0])


def test_cheap_standard_deviations_bring_novelty_but_no_surroundings(model, test):
    p = model.predict(test[:3], uncertainty="energy")
    assert p.novelty is not None and p.nearest is None and p.forces_std is None
    assert model.predict(test[:3]).novelty is None
    assert model.predict(test[:3], uncertainty="stress").energies_std is None
    with pytest.raises(InputError, match="predict\\(frames, uncertainty='forces'\\)"):
        p.interval("forces")


def test_training_surroundings_are_their_own_nearest(model, train):
    p = model.predict(train[:4], uncertainty=True)
    for s in range(4):
        np.testing.assert_allclose(p.distance[s], 0, atol=1e-6)
        np.testing.assert_array_equal(p.nearest[s][:, 0], s)
        np.testing.assert_array_equal(p.nearest[s][:, 1], np.arange(len(train[s])))


@pytest.mark.parametrize("coverage", [0, 1, 1.5, -0.1, True, "0.9", None])
def test_a_coverage_is_between_0_and_1(prediction, coverage):
    for call in (lambda: prediction.interval("forces", coverage), lambda: prediction.balls(coverage)):
        with pytest.raises(InputError, match="between 0 and 1"):
            call()


def test_a_kind_is_one_of_four(prediction):
    with pytest.raises(InputError, match="'virial'"):
        prediction.interval("virial")


# --- models made by hand ---


def test_a_model_made_by_hand_is_calibrated_when_asked():
    frames = crystals(12)
    model = small_gp().fit(frames)
    raw = model.predict(frames[:3], uncertainty=True)
    assert model.calibration_ is None and type(raw) is soapkrr.Prediction
    p = model.calibrate(frames).predict(frames[:3], uncertainty=True)
    np.testing.assert_array_equal(p.energy, raw.energy)
    np.testing.assert_allclose(np.concatenate(p.posterior_std("forces")), np.concatenate(raw.forces_std), rtol=1e-12)
    assert small_gp().fit(frames).calibration_ is None


@pytest.mark.parametrize("options", [{}, {"optimize": "cross-validation"}, {"representers": "observations"}], ids=str)
def test_a_fit_that_calibrates_is_one_calibrated_afterwards(options):
    frames, given = crystals(12), {name: value for name, value in options.items() if name == "optimize"}
    model = {name: value for name, value in options.items() if name != "optimize"}
    at_once, later = small_gp(**model).fit(frames, calibrate=True, **given), small_gp(**model).fit(frames, **given).calibrate(frames)
    a, b = (m.predict(frames[:3], uncertainty=True) for m in (at_once, later))
    for name in ("energy_std", "stress_std"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-6)
    for ours, theirs in zip(a.interval("forces", 0.8), b.interval("forces", 0.8), strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6, atol=1e-8)
    assert at_once.left_out_errors_ == pytest.approx(later.leave_out(frames).errors(), rel=1e-6)


def test_a_fit_that_cannot_calibrate_says_why():
    with pytest.raises(InputError, match="at least 3 structures"):
        small_gp().fit(crystals(2), calibrate=True)


def test_learning_does_not_depend_on_the_order_of_structures():
    frames, model = crystals(12), small_gp().fit(crystals(12))
    order = np.random.default_rng(0).permutation(12)
    with serial_blas():
        a = model.calibrate(frames).predict(frames[:2], uncertainty=True)
        b = model.calibrate([frames[k] for k in order]).predict(frames[:2], uncertainty=True)
    np.testing.assert_allclose(a.energy_std, b.energy_std, rtol=1e-6)
    np.testing.assert_array_equal(order[np.concatenate(b.nearest)[:, 0]], np.concatenate(a.nearest)[:, 0])


def test_what_nothing_can_be_learnt_from():
    model = small_gp().fit(frames := crystals(2))
    with pytest.raises(InputError, match="at least 3 structures"):
        model.calibrate(frames)
    with pytest.raises(InputError, match="not those"):
        model.calibrate(crystals(5, seed=9))
    assert soapkrr.fit(crystals(2)).calibration_ is None


def test_forces_that_vanish_by_symmetry_teach_nothing():
    """Perfect crystals: the posterior speaks, and no more than a normal law is claimed of it."""
    frames = []
    for a in np.linspace(3.5, 3.9, 8):
        atoms = bulk("Cu", a=a)
        atoms.calc = EMT()
        frames.append(labelled(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces()))
    model = soapkrr.fit(frames)
    moved = bulk("Cu", cubic=True, a=3.7)
    moved.rattle(0.1, seed=0)
    p = model.predict(moved, uncertainty=True)
    assert (p.forces_std[0] >= p.posterior_std("forces")[0]).all() and not p.promised("forces").any()
    half = (p.interval("forces")[1][0] - p.forces[0]) / p.forces_std[0]
    assert (half > norm.ppf(0.95)).all()


def damaged(state, path, value):
    """A copy of a nested state with another value at a path."""
    if not path:
        return value
    changed = damaged(state[path[0]], path[1:], value)
    return [changed, *state[1:]] if path[0] == 0 else {**state, path[0]: changed}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("totals", "energy", "unit"), float("nan")),
        (("totals", "energy", "model"), "small"),
        (("forces", "Ar", "axes"), np.zeros((2, 2))),
        (("forces", "Ar", "weights"), np.zeros(1)),
        (("forces", "Ar", "offset"), 0.0),
        (("forces", "Ar", "limits"), np.full((2, 3), np.inf)),
        (("scores", "forces", 0, "values"), np.array([2.0, 1.0])),
        (("scores", "forces", 0, "values"), np.zeros(0)),
        (("scores", "forces", 0, "n"), -1),
        (("scores", "forces", 0, "structures"), None),
        (("scores", "forces", 0, "sample"), np.zeros(3)),
        (("scores", "forces"), []),
        (("scores", "forces"), {"all": {"values": np.ones(3), "n": 3}}),
        (("surroundings", "Ar", "structure"), np.zeros(1)),
        (("surroundings", "Ar", "energy"), -1.0),
        (("surroundings",), None),
        (("noise",), {"energy": None}),
        (("noise",), {"energy": {"level": 0.0, "source": "given"}}),
        (("noise",), {"energy": {"level": 0.1, "source": "rumour"}}),
    ],
)
def test_a_damaged_calibration_is_refused(path, value):
    model = small_gp().fit(frames := crystals(8)).calibrate(frames)
    state = model.calibration_.state()
    restored_calibration(state)
    with pytest.raises(ModelFileError):
        restored_calibration(damaged(state, path, value))


# --- noise of labels ---


def test_a_level_that_the_fit_found_is_not_taken_for_one_that_was_given():
    """With one level given the others are those of the fit: only the given one is noise of labels, now and after another calibration."""
    frames = crystals(12)
    model = choose(frames, {"noise": {"energy": 1e-4}}).fit(frames)
    assert model.noise_["forces"] > 0
    for again in (model, model.calibrate(frames)):
        p = again.predict(frames[:2], uncertainty=True)
        assert p.noise == {"energy": Noise(1e-4, GIVEN)}
        assert not np.concatenate(p.parts("forces")["noise"]).any()


def test_a_level_where_a_search_began_is_no_noise_of_labels():
    frames = crystals(8)
    assert small_gp(noise={"energy": 0.5}).fit(frames, optimize=True).calibrate(frames).calibration_.noise == {}
    assert small_gp(noise={"energy": 0.5}).fit(frames).calibrate(frames).calibration_.noise == {"energy": Noise(0.5, GIVEN)}


def repeated(frames, times: int, sigma: dict, seed: int = 0) -> list:
    """Every structure several times, with noise on its labels: of the energy σ√N."""
    rng, found = np.random.default_rng(seed), []
    for atoms in frames:
        for _ in range(times):
            e, f = atoms.get_potential_energy(), atoms.get_forces()
            e += sigma["energy"] * np.sqrt(len(atoms)) * rng.standard_normal()
            found.append(labelled(atoms, energy=e, forces=f + sigma["forces"] * rng.standard_normal(f.shape)))
    return found


@pytest.mark.parametrize("times", [2, 3])
def test_structures_that_occur_twice_show_the_noise_of_their_labels(times):
    sigma = {"energy": 0.003, "forces": 0.02}
    frames = repeated(crystals(60), times, sigma)
    model = small_gp().fit(frames).calibrate(frames)
    found = model.calibration_.noise
    assert {noise.source for noise in found.values()} == {REPEATED}
    assert found["forces"].level == pytest.approx(sigma["forces"], rel=0.1)
    assert found["energy"].level == pytest.approx(sigma["energy"], rel=0.35)
    parts = model.predict(frames[:2], uncertainty=True).parts("forces")["noise"]
    assert np.concatenate(parts).max() <= found["forces"].level * (1 + 1e-12) and np.concatenate(parts).min() > 0


def test_copies_and_one_mistake_are_no_noise():
    """The same label again measures nothing, and one pair that differs may be a mistake."""
    frames = crystals(8)
    wrong = labelled(frames[0], energy=frames[0].get_potential_energy() + 1.0, forces=frames[0].get_forces())
    with pytest.warns(soapkrr.DataWarning, match="different labels"):
        model = small_gp().fit(data := [*frames, *frames, wrong])
    assert model.calibrate(data).calibration_.noise == {}


def test_what_was_given_counts_more_than_what_repeats_show():
    frames = repeated(crystals(10), 2, {"energy": 0.003, "forces": 0.02})
    found = small_gp(noise={"forces": 0.05}).fit(frames).calibrate(frames).calibration_.noise
    assert found["forces"] == Noise(0.05, GIVEN) and found["energy"].source == REPEATED
