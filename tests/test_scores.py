"""Scores of error bars against closed forms, quadrature and SciPy; the figures that show them, by their artists."""

import json
from dataclasses import replace

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm, spearmanr
from small import crystals, labelled, small_gp

from soapkrr import InputError, LabelError, metrics, plot
from soapkrr.metrics import scores
from soapkrr.metrics.calibration import CURVE

matplotlib.use("Agg")

LEVELS = (0.5, 0.68, 0.9, 0.95, 0.99)


@pytest.fixture(scope="module")
def frames():
    """1200 force components; two config types."""
    frames = crystals(100)
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = "ab"[k % 2]
    return frames


@pytest.fixture(scope="module")
def prediction(frames):
    """Forces with errors drawn from the Gaussians that they state."""
    p = small_gp().fit(frames[:10]).predict(frames, uncertainty=True)
    return gaussian(frames, p, 1.0)


@pytest.fixture(scope="module")
def calibrated(frames):
    return small_gp().fit(frames[:30]).calibrate(frames[:30])


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def gaussian(frames, p, width):
    rng = np.random.default_rng(0)
    forces = [a.get_forces() + width * s * rng.standard_normal(s.shape) for a, s in zip(frames, p.forces_std, strict=True)]
    return replace(p, forces=forces)


def flat(frames, p):
    errors = np.concatenate([f - a.get_forces() for a, f in zip(frames, p.forces, strict=True)])
    return errors, np.concatenate(p.forces_std)


# --- formulas ---


@pytest.mark.parametrize(("e", "s"), [(0.0, 1.0), (0.7, 0.3), (-2.0, 1.5)])
def test_crps_is_the_integral_of_its_definition(e, s):
    """∫ (F(y) − [y ≥ 0])² dy of a Gaussian around e."""
    expected = quad(lambda y: norm.cdf(y, e, s) ** 2, -30, 0, limit=200)[0] + quad(lambda y: norm.sf(y, e, s) ** 2, 0, 30, limit=200)[0]
    assert scores.crps(np.array([e]), np.array([s])) == pytest.approx(expected, abs=1e-7)


def test_certain_predictions():
    errors, sure = np.array([1.0, -3.0]), np.zeros(2)
    assert scores.crps(errors, sure) == 2.0
    assert scores.nll(errors, sure) == np.inf and scores.nll(0 * errors, sure) == -np.inf and scores.ence(errors, sure) == np.inf


def test_nll_is_scipys():
    rng = np.random.default_rng(1)
    errors, std = rng.standard_normal(50), rng.uniform(0.1, 2, 50)
    assert scores.nll(errors, std) == pytest.approx(-norm.logpdf(errors, 0, std).mean(), rel=1e-12)
    assert scores.sharpness(std) == pytest.approx(np.linalg.norm(std) / np.sqrt(50))


def test_rank_correlation_is_spearmans_with_ties():
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 9, 80).astype(float), rng.standard_normal(80)
    assert scores.rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic, rel=1e-12)
    assert np.isnan(scores.rank_correlation(np.ones(5), y[:5]))


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_ence_of_errors_that_are_exactly_so_many_standard_deviations(width):
    std = np.random.default_rng(3).uniform(0.1, 5, 500)
    assert scores.ence(width * std, std) == pytest.approx(abs(1 - width), rel=1e-12)


def test_ence_of_gaussian_samples_is_what_chance_leaves():
    rng = np.random.default_rng(4)
    std = rng.uniform(0.5, 2, 4000)
    found = np.mean([scores.ence(std * rng.standard_normal(4000), std) for _ in range(100)])
    assert found == pytest.approx(np.sqrt(10 / (np.pi * 4000)), rel=0.1)


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_miscalibration_area_is_that_of_the_closed_form(width):
    def observed(c):
        return 2 * norm.cdf(norm.ppf((1 + c) / 2) / width) - 1

    nominal = np.array(CURVE)
    expected = quad(lambda c: abs(observed(c) - c), 0, 1)[0]
    assert scores.miscalibration_area(nominal, observed(nominal)) == pytest.approx(expected, abs=0.003)


# --- intervals and the table ---


def test_gaussian_intervals(prediction):
    lower, upper = prediction.interval("energy", 0.9)
    np.testing.assert_allclose(upper - prediction.energy, norm.ppf(0.95) * prediction.energy_std, rtol=1e-9, atol=1e-12)
    assert prediction.interval("forces")[0][0].shape == (4, 3)
    np.testing.assert_allclose(lower + upper, 2 * prediction.energy, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "coverage", "match"), [("energy", 1.0, "`coverage`"), ("energy", True, "`coverage`"), ("virial", 0.9, "`kind`")]
)
def test_intervals_refuse(prediction, kind, coverage, match):
    with pytest.raises(InputError, match=match):
        prediction.interval(kind, coverage)


def test_coverage_of_gaussian_errors_is_nominal(frames, prediction):
    part = metrics.calibration_table(frames, prediction)["forces"]
    for level in LEVELS:  # four binomial standard deviations of 1200 draws
        assert part[f"coverage_{100 * level:.0f}"] == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 1200))
    assert part["miscalibration_area"] < 0.03 and part["n"] == 1200


def test_table_agrees_with_the_formulas(frames, prediction):
    part = metrics.calibration_table(frames, prediction)["forces"]
    errors, std = flat(frames, prediction)
    assert part["nll"] == pytest.approx(-norm.logpdf(errors, 0, std).mean())
    norms = [np.linalg.norm(x, axis=1) for x in (std, errors)]
    assert part["rank_correlation"] == pytest.approx(spearmanr(*norms).statistic)
    assert part["width_90_ev_per_angstrom"] == pytest.approx(2 * norm.ppf(0.95) * std.mean())


def test_energies_are_per_atom_in_mev(frames, prediction):
    part = metrics.calibration_table(frames, prediction)["energy"]
    assert part["sharpness_mev_per_atom"] == pytest.approx(1e3 * np.sqrt(np.mean((prediction.energy_std / 4) ** 2)))
    assert metrics.error_table(frames, prediction)["energy_rmse_mev_per_atom"] > 0


def test_parts_make_up_the_whole(frames, prediction):
    part = metrics.calibration_table(frames, prediction, by="config_type")["forces"]
    for name in ("terciles", "groups", "species"):
        counts = [other["n"] for other in part[name].values()]
        assert sum(counts) == part["n"]
        assert np.average([other["coverage_90"] for other in part[name].values()], weights=counts) == pytest.approx(part["coverage_90"])
    alone = metrics.calibration_table(frames[::2], prediction[::2])["forces"]
    assert part["groups"]["a"]["crps_ev_per_angstrom"] == pytest.approx(alone["crps_ev_per_angstrom"])
    assert part["terciles"]["low"]["sharpness_ev_per_angstrom"] < part["terciles"]["high"]["sharpness_ev_per_angstrom"]


def test_calibrated_predictions_are_judged_by_their_own_intervals(frames, calibrated):
    p = calibrated.predict(frames[30:], uncertainty=True)
    table = metrics.calibration_table(frames[30:], p)
    lower, upper = map(np.concatenate, p.interval("forces", 0.9))
    reference = np.concatenate([a.get_forces() for a in frames[30:]])
    assert table["forces"]["coverage_90"] == pytest.approx(((lower <= reference) & (reference <= upper)).mean())
    assert table["n_novel"] == sum(x.max() > 1 for x in p.novelty)


def test_standard_deviations_that_are_no_numbers_do_not_hide(frames, prediction):
    broken = replace(prediction, forces_std=[np.full((4, 3), np.nan) for _ in frames])
    part = metrics.calibration_table(frames, broken)["forces"]
    assert (part["n"], part["zero_by_symmetry"], part["coverage_99"]) == (1200, 0, 0.0) and "nll" not in part


def test_what_vanishes_by_symmetry_is_counted_and_left_out(frames, prediction):
    still = [labelled(a, forces=np.vstack([np.zeros((1, 3)), a.get_forces()[1:]])) for a in frames]
    zeroed = [[np.vstack([np.zeros((1, 3)), x[1:]]) for x in values] for values in (prediction.forces, prediction.forces_std)]
    part = metrics.calibration_table(still, replace(prediction, forces=zeroed[0], forces_std=zeroed[1]))["forces"]
    assert (part["n"], part["zero_by_symmetry"]) == (900, 300)


def test_numbers_are_plain_and_it_shows(frames, prediction):
    table = metrics.calibration_table(frames, prediction, by="config_type")
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert "rank corr." in repr(table) and "low std" in repr(table) and "<table>" in table._repr_html_()


def test_table_refuses(frames, prediction):
    bare = replace(prediction, energy_std=None, energies_std=None, forces_std=None, stress_std=None)
    with pytest.raises(InputError, match="no standard deviations.*uncertainty=True"):
        metrics.calibration_table(frames, bare)
    with pytest.raises(InputError, match="`by`='phase'"):
        metrics.calibration_table(frames, prediction, by="phase")
    with pytest.raises(InputError, match="is of 100 structures"):
        metrics.calibration_table(frames[:2], prediction)


# --- figures ---


def test_reliability_draws_the_coverage(frames, prediction):
    ax = plot.reliability(frames, prediction)
    part = metrics.calibration_table(frames, prediction)["forces"]
    x, y = ax.lines[2].get_data()
    assert y[np.isclose(x, 0.9)][0] == pytest.approx(part["coverage_90"]) and len(ax.get_legend().get_texts()) == 3


def test_error_vs_std_of_gaussian_errors_follows_the_identity(frames, prediction):
    ax = plot.error_vs_std(frames, prediction)
    x, y = ax.containers[0][0].get_data()
    assert ax.get_xscale() == ax.get_yscale() == "log" and len(x) == 12
    np.testing.assert_allclose(y / x, 1, atol=0.3)  # four standard errors of 100 values


def test_novelty_has_its_threshold_and_every_atom(frames, calibrated):
    p = calibrated.predict(frames[30:], uncertainty=True)
    ax = plot.novelty(frames[30:], p)
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 1])
    np.testing.assert_allclose(np.sort(ax.lines[1].get_xdata()), np.sort(np.concatenate(p.novelty)))
    assert "structures beyond" in plot.novelty(frames[30:], p, "energy").texts[0].get_text()
    with pytest.raises(InputError, match="no novelty"):
        plot.novelty(frames, small_gp().fit(frames[:5]).predict(frames))


@pytest.mark.parametrize("kind", ["energy", "forces"])
def test_attribution_draws_the_largest(frames, calibrated, kind):
    found = calibrated.attribution(frames[40], kind, frames[:30])
    ax = plot.attribution(found, frames[:30], n=5)
    widths = np.abs([bar.get_width() for bar in ax.patches])
    np.testing.assert_allclose(widths, np.sort(found.weight)[::-1][:5])
    for arguments in ((found, frames[:3]), (found, None, 0), (frames[0],)):
        with pytest.raises(InputError):
            plot.attribution(*arguments)


def test_learning_curve_is_that_of_the_leave_out(frames):
    """One group at a time; that the leave-out is that of refits, `test_leave_out.py` shows."""
    data = [labelled(a, forces=a.get_forces()) for a in frames[:12]]
    model = small_gp().fit(data)
    ax = plot.learning_curve(model, data, sizes=[3, 9], seed=5)
    order = np.random.default_rng(5).permutation(12)
    expected = []
    for size, starts in ((3, [0]), (9, [0, 3, 6, 9])):
        out = [order[s : s + 12 - size] for s in starts]
        errors = []
        for part in out:
            group = np.isin(np.arange(12), part).astype(int)
            left = model.leave_out(data, by=group).of_kind("forces")
            errors.append(left.error[np.isin(left.structure, part)])
        expected.append(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected, rtol=1e-6)


@pytest.mark.parametrize("sizes", [[0], [30], [1.5], []])
def test_learning_curve_refuses_sizes(frames, calibrated, sizes):
    with pytest.raises(InputError, match="`sizes`"):
        plot.learning_curve(calibrated, frames[:30], sizes=sizes)


def test_figures_refuse_what_is_not_there(frames, prediction):
    bare = [labelled(a, energy=0.0) for a in frames]
    with pytest.raises(LabelError):
        plot.error_vs_std(bare, prediction)
    with pytest.raises(InputError, match="`kind`"):
        plot.novelty(frames, prediction, "stress")
