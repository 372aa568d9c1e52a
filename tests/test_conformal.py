"""Conformal intervals: those of an independent package, by species and configuration type, and weighted for another distribution."""

import numpy as np
import pytest
from crepes import ConformalRegressor
from scipy.stats import norm
from small import crystals, labelled, lennard_jones, small_gp

import soapkrr
from soapkrr import InputError
from soapkrr.choices import calibration_row
from soapkrr.structures import Batch
from soapkrr.uncertainty.calibrated import CalibratedPrediction
from soapkrr.uncertainty.calibration import projections
from soapkrr.uncertainty.conformal import EVERY, FEWEST_STRUCTURES, NORMAL, Scores, cells_of, quantiles, scores_for
from soapkrr.uncertainty.shift import log_novelty, tilt, weighted_quantiles

COVERAGES = (0.5, 0.8, 0.9, 0.95)


# --- beside crepes ---


@pytest.mark.parametrize("coverage", COVERAGES)
def test_intervals_are_those_of_crepes(coverage):
    """The same residuals and normalisation, with tails of a normal law or longer: intervals by species and configuration type."""
    rng = np.random.default_rng(0)
    species, types = rng.choice(["Cu", "Au"], 1200), rng.choice(["surface", "bulk"], 1200)
    sigma = rng.uniform(0.1, 2.0, 1200)
    residuals = 1.5 * sigma * rng.standard_t(3, 1200) * np.where(types == "surface", 2.0, 1.0)
    bins = np.array([f"{a} {b}" for a, b in zip(species, types, strict=True)])
    theirs = ConformalRegressor().fit(residuals, sigmas=sigma, bins=bins)
    cells = cells_of(np.abs(residuals) / sigma, species, np.arange(1200), types)
    mean, new = rng.normal(size=40), rng.uniform(0.1, 2.0, 40)
    limits = theirs.predict_int(mean, sigmas=new, bins=bins[:40], confidence=coverage)
    q = np.array([quantiles(cells, species[k : k + 1], coverage, types[k])[0] for k in range(40)])
    np.testing.assert_allclose(np.column_stack([mean - q * new, mean + q * new]), limits, rtol=1e-12)


def of_energies(calibration, left, batch, process):
    return calibration.totals["energy"](left.std, batch.sizes[left.structure])


def of_forces(calibration, left, batch, process):
    y = projections(calibration.forces, process, batch)["Ar"]
    return calibration.forces["Ar"](left.std.reshape(-1, 3), left.mean.reshape(-1, 3), y, np.zeros(len(y))).ravel()


def of_stresses(calibration, left, batch, process):
    return calibration.totals["stress"](left.std)


@pytest.mark.parametrize(("kind", "size"), [("energy", of_energies), ("forces", of_forces), ("stress", of_stresses)])
def test_intervals_of_a_model_are_those_of_crepes_on_its_left_out_labels(labelled_model, frames, kind, size):
    """But that few scores have no shorter tails than a normal law: a mean with its quantile, which counts for a hundred scores."""
    left, calibration = labelled_model.leave_out(frames).of_kind(kind), labelled_model.calibration_
    sigma = size(calibration, left, Batch.from_atoms(frames), labelled_model.process_)
    p = labelled_model.predict([unlabelled(atoms) for atoms in crystals(5, seed=3)], uncertainty=True)
    mean, std, upper = (
        np.concatenate([np.ravel(x) for x in y]) for y in (getattr(p, kind), getattr(p, f"{kind}_std"), p.interval(kind)[1])
    )
    limits = ConformalRegressor().fit(left.error, sigmas=sigma).predict_int(mean, sigmas=std, confidence=0.9)
    theirs, n = (limits[:, 1] - mean) / std, len(left)
    wanted = np.maximum(theirs, (n * theirs + NORMAL * norm.ppf(0.95)) / (n + NORMAL))
    np.testing.assert_allclose((upper - mean) / std, wanted, rtol=1e-8)
    assert (wanted < 1.3 * theirs).all()


# --- configuration types ---


def unlabelled(atoms):
    """A copy without information."""
    atoms = atoms.copy()
    atoms.info.clear()
    return atoms


def typed(n: int, seed: int) -> list:
    """Crystals whose labels are noisy, five times more of one configuration type than of the other; some have another, or none."""
    rng, found = np.random.default_rng(seed), []
    for k, atoms in enumerate(crystals(n, seed)):
        noisy = k % 2
        f = atoms.get_forces() + (0.05 if noisy else 0.01) * rng.standard_normal((len(atoms), 3))
        new = labelled(atoms, energy=atoms.get_potential_energy(), forces=f, stress=atoms.get_stress())
        new.info["config_type"] = "noisy" if noisy else "quiet"
        found.append(new)
    for k in range(0, n, 12):
        found[k].info["config_type"] = "rare"
    return found


@pytest.fixture(scope="module")
def frames():
    return typed(120, 0)


@pytest.fixture(scope="module")
def labelled_model(frames):
    return small_gp().fit(frames).calibrate(frames)


@pytest.fixture(scope="module")
def new():
    return typed(60, 7)


def test_cells_are_species_and_types_with_enough_members():
    """A type needs fifty scores from twenty structures, and others beside it."""
    species, structure = (
        np.repeat(["Cu", "Cu", "Cu", "Au", "Au"], [60, 60, 300, 60, 20]),
        np.r_[np.arange(120), np.repeat(np.arange(6), 50)],
    )
    structure = np.r_[structure, 200 + np.arange(80)]
    types = np.repeat(["bulk", "surface", "large", "surface", "surface"], [60, 60, 300, 60, 20])
    cells = cells_of(np.ones(500), species, structure, types)
    assert set(cells) == {EVERY, ("Cu", ""), ("Cu", "bulk"), ("Cu", "surface"), ("Au", "")}
    assert cells["Cu", "bulk"].structures == 60 >= FEWEST_STRUCTURES
    assert scores_for(cells, "Cu", "large") is cells["Cu", ""] and scores_for(cells, "Ni", "bulk") is cells[EVERY]


def test_intervals_hold_for_each_type(labelled_model, new):
    """Where all types share their scores, the noisy one is covered too rarely, the quiet one too often."""
    p = labelled_model.predict(new, uncertainty=True)
    pooled = labelled_model.predict([unlabelled(atoms) for atoms in new], uncertainty=True)
    types = np.array([atoms.info["config_type"] for atoms in new])
    for name in ("noisy", "quiet"):
        mine = np.flatnonzero(types == name)
        ours, theirs = (held(q[mine], [new[s] for s in mine]) for q in (p, pooled))
        assert abs(ours - 0.9) < 0.04 < abs(theirs - 0.9)


def held(p, frames, coverage=0.9):
    """Part of the force components within the intervals."""
    lower, upper = map(np.concatenate, p.interval("forces", coverage))
    f = np.concatenate([atoms.get_forces() for atoms in frames])
    return np.mean((lower <= f) & (f <= upper))


def test_a_type_without_enough_members_shares_the_scores_of_all(labelled_model, new):
    """So do a type that no training structure has, and structures that state none; nothing else of a prediction changes."""
    assert set(labelled_model.calibration_.scores["forces"]) == {EVERY, ("Ar", ""), ("Ar", "noisy"), ("Ar", "quiet")}
    atoms, widths = unlabelled(new[1]), {}
    for name in ("rare", "unheard of", "noisy"):
        atoms.info["config_type"] = name
        p = labelled_model.predict(atoms, uncertainty=True)
        widths[name] = p.interval("forces")[1][0] - p.forces[0]
        np.testing.assert_array_equal(p.forces_std[0], labelled_model.predict(unlabelled(atoms), uncertainty=True).forces_std[0])
    pooled = labelled_model.predict(unlabelled(atoms), uncertainty=True)
    np.testing.assert_array_equal(widths["rare"], pooled.interval("forces")[1][0] - pooled.forces[0])
    np.testing.assert_array_equal(widths["unheard of"], widths["rare"])
    assert (widths["noisy"] > widths["rare"]).all()


def test_types_have_the_name_that_the_fit_was_given(frames, new):
    """And they survive a file, whatever they are called."""
    other = [atoms.copy() for atoms in frames]
    for atoms, old in zip(other, frames, strict=True):
        atoms.calc = old.calc
        atoms.info = {"kind of cell": f"type/{atoms.info['config_type']} [0].npy"}
    model = small_gp(observations=soapkrr.Observations(config_type="kind of cell")).fit(other).calibrate(other)
    assert ("Ar", "type/noisy [0].npy") in model.calibration_.scores["forces"]
    assert set(model.predict(new[:3]).config_types) == {""}


def test_types_survive_files_and_parts(labelled_model, new, tmp_path):
    labelled_model.save(tmp_path / "m.soapkrr")
    p, loaded = labelled_model.predict(new, uncertainty=True), soapkrr.load(tmp_path / "m.soapkrr").predict(new, uncertainty=True)
    for other in (loaded, CalibratedPrediction.concatenate([p[:10], p[10:]])):
        for kind in ("energy", "forces", "stress"):
            for a, b in zip(other.interval(kind)[1], p.interval(kind)[1], strict=True):
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(np.concatenate(other.balls()), np.concatenate(p.balls()))
    np.testing.assert_array_equal(np.concatenate(loaded.weighted().balls()), np.concatenate(p.weighted().balls()))


# --- another distribution ---


def test_weighted_quantiles_are_those_of_the_definition():
    """Slowly: the smallest score below which, with the new label above all, the weights reach the coverage."""
    rng = np.random.default_rng(3)
    score, x = 2.0 * np.abs(rng.standard_t(3, 80)), rng.normal(size=80)
    new, b = rng.normal(size=30), 1.3
    found, promised = weighted_quantiles(Scores.of(score, novelty=x), new, b, 0.9)
    for k in np.flatnonzero(promised):
        w, own = np.exp(b * x), np.exp(b * new[k])
        wanted = min(s for s in score if w[score <= s].sum() >= 0.9 * (w.sum() + own))
        n = w.sum() ** 2 / (w @ w)
        assert found[k] == pytest.approx(max(wanted, (n * wanted + NORMAL * norm.ppf(0.95)) / (n + NORMAL)), rel=1e-12)
    assert 20 < promised.sum() < 30


def test_weights_of_one_are_no_weights():
    score = np.abs(np.random.default_rng(4).standard_t(3, 300))
    scores = Scores.of(score, novelty=np.linspace(-1, 1, 300))
    for coverage in COVERAGES:
        found, promised = weighted_quantiles(scores, np.array([0.0, 2.0]), 0.0, coverage)
        np.testing.assert_allclose(found, scores.quantile(coverage), rtol=1e-12)
        np.testing.assert_array_equal(promised, [True, False])  # nothing is known of what is more novel than every score


def test_known_weights_hold_what_they_promise():
    """Novelties of new labels tilted by e^b: weighted quantiles cover 90 % of errors that grow with it, plain ones fewer."""
    rng, b, held = np.random.default_rng(5), 1.0, []
    for _ in range(300):
        x, new = rng.normal(size=200), rng.normal(size=40) + b
        score, wanted = np.abs(rng.standard_t(4, 200)) * np.exp(0.5 * x), np.abs(rng.standard_t(4, 40)) * np.exp(0.5 * new)
        scores = Scores.of(score, novelty=x)
        held.append([np.mean(wanted <= weighted_quantiles(scores, new, b, 0.9)[0]), np.mean(wanted <= scores.quantile(0.9))])
    weighted, plain = np.mean(held, axis=0)
    assert 0.895 < weighted < 0.94 and plain < 0.85


def test_what_outweighs_all_scores_is_not_promised_and_wider_than_them():
    scores = Scores.of(np.abs(np.random.default_rng(6).normal(size=100)), novelty=np.linspace(-1, 1, 100))
    found, promised = weighted_quantiles(scores, np.array([0.9, 5.0]), 3.0, 0.95)
    assert promised.tolist() == [True, False] and scores.values[-1] < found[1] < np.inf
    assert not weighted_quantiles(Scores.of(np.zeros(0)), np.zeros(2), 1.0, 0.9)[1].any()


def test_tilts_are_learnt_from_novelties():
    rng = np.random.default_rng(7)
    known = rng.normal(size=4000)
    for b in (-0.8, 0.0, 1.2):
        assert tilt(known, rng.normal(size=3000) + b, 4000, 3000) == pytest.approx(b, abs=0.08)
    assert 1.0 < tilt(known, np.full(50, 3.0), 4000, 1) < 2.0  # one structure says less than the b = 3 of its likelihood
    np.testing.assert_array_equal(np.isfinite(log_novelty(np.array([0.0, 1.0, 1e300]))), True)


def test_weighted_predictions_are_wider_where_structures_are_more_novel(labelled_model, new):
    """Crystals that rattle more than those of the data; the weights stay with parts, and standard deviations as they were."""
    hot = [lennard_jones(rattled(atoms, 0.08), "energy", "forces", "stress") for atoms in new]
    p = labelled_model.predict(hot, uncertainty=True)
    w = p.weighted()
    assert set(w.tilts) == {"energy", "forces", "stress"} and w.tilts["forces"] > 0.2
    np.testing.assert_array_equal(np.concatenate(w.forces_std), np.concatenate(p.forces_std))
    np.testing.assert_array_equal(w[3].interval("forces")[1][0], w.interval("forces")[1][3])
    for kind in ("energy", "energies", "forces", "stress"):
        assert all(np.shape(u) == np.shape(v) for u, v in zip(w.interval(kind)[1], getattr(w, kind), strict=True))
        assert w.promised(kind).shape == (60,)
    calm = labelled_model.predict(new, uncertainty=True)
    assert abs(calm.weighted().tilts["forces"]) < w.tilts["forces"]


def rattled(atoms, width):
    atoms = atoms.copy()
    atoms.rattle(width, seed=len(atoms))
    return atoms


def test_weights_need_novelties(labelled_model, new):
    with pytest.raises(InputError, match="uncertainty=True"):
        labelled_model.predict(new[:2]).weighted()


# --- what is promised ---


def test_as_many_structures_as_a_coverage_needs():
    """However many labels they have: nine structures for 90 %, nineteen for 95 %."""
    few = Scores.of(np.ones(900), np.repeat(np.arange(9), 100))
    assert few.promises(0.9) and not few.promises(0.95)
    assert Scores.of(np.ones(1900), np.repeat(np.arange(19), 100)).promises(0.95)


def test_weighted_promises_end_with_what_was_left_out(labelled_model, new):
    """Surroundings more novel than any left-out one: nothing is promised of any kind, however like the data a single number may seem."""
    far = [rattled(atoms, 0.6) for atoms in new[:5]]
    w = labelled_model.predict([*new[:5], *far], uncertainty=True).weighted()
    assert max(x.max() for x in w.novelty[:5]) < 3 < min(x.max() for x in w.novelty[5:])
    for kind in ("energy", "forces", "stress"):
        assert not w.promised(kind)[5:].any()


def test_a_fit_says_what_its_error_bars_are_learnt_from(labelled_model, tmp_path):
    row = calibration_row(labelled_model.calibration_)
    assert row.value == "120 left-out structures" and "configuration type (noisy, quiet)" in row.reason
    model = soapkrr.fit(crystals(6))
    model.save(tmp_path / "m.soapkrr")
    for fitted in (model, soapkrr.load(tmp_path / "m.soapkrr")):
        assert {c.name: c.value for c in fitted.choices_}["calibration"] == "6 left-out structures"
    assert {c.name: c.value for c in soapkrr.fit(crystals(2)).choices_}["calibration"] == "none"
