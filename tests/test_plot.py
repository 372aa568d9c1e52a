"""Parity plots: the right numbers on the axes, error bars, and errors that teach."""

import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from small import crystals, labelled, lennard_jones, small_gp

import soapkrr
from soapkrr import InputError, LabelError

matplotlib.use("Agg")

KINDS = ("energy", "forces", "stress")


@pytest.fixture(scope="module")
def frames():
    return crystals()


@pytest.fixture(scope="module")
def prediction(frames):
    return small_gp().fit(frames).predict(frames, uncertainty=True)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    matplotlib.pyplot.close("all")


def points(ax):
    """(reference, predicted, half lengths of the error bars) as drawn."""
    container = ax.containers[0]
    line, _, bars = container
    half = [0.5 * np.ptp(segment[:, 1]) for collection in bars for segment in collection.get_segments()]
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), np.array(half)


def test_energies_are_per_atom_relative_to_the_mean(frames, prediction):
    x, y, bars = points(soapkrr.plot.parity(frames, prediction))
    reference = np.array([a.get_potential_energy() / len(a) for a in frames])
    np.testing.assert_allclose(x, reference - reference.mean(), atol=1e-12)
    np.testing.assert_allclose(y, prediction.energy / 4 - reference.mean(), atol=1e-12)
    np.testing.assert_allclose(bars, prediction.energy_std / 4, rtol=1e-6, atol=1e-12)


def test_forces_are_in_ev_per_angstrom(frames, prediction):
    x, y, bars = points(soapkrr.plot.parity(frames, prediction, "forces"))
    np.testing.assert_allclose(x, np.concatenate([a.get_forces().ravel() for a in frames]), atol=1e-12)
    np.testing.assert_allclose(y, np.concatenate([f.ravel() for f in prediction.forces]), atol=1e-12)
    np.testing.assert_allclose(bars, np.concatenate([f.ravel() for f in prediction.forces_std]), rtol=1e-6, atol=1e-12)


def test_stress_is_in_gpa(frames, prediction):
    x, y, bars = points(soapkrr.plot.parity(frames, prediction, "stress"))
    np.testing.assert_allclose(x, np.concatenate([a.get_stress() for a in frames]) / units.GPa, atol=1e-12)
    np.testing.assert_allclose(y, prediction.stress.ravel() / units.GPa, atol=1e-12)
    np.testing.assert_allclose(bars, prediction.stress_std.ravel() / units.GPa, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("kind", "unit"), [("energy", "eV/atom"), ("forces", "eV/Å"), ("stress", "GPa")])
def test_labels_carry_units_and_the_corner_the_errors(frames, prediction, kind, unit):
    ax = soapkrr.plot.parity(frames, prediction, kind)
    relative = "\nrelative to their mean" * (kind == "energy")
    assert ax.child_axes[0].get_xlabel() == f"reference {kind} ({unit}){relative}"
    assert ax.get_ylabel() == f"predicted {kind} ({unit}){relative}"
    assert ax.child_axes[0].get_ylabel() == f"error ({unit.replace('eV/atom', 'meV/atom')})"
    key = {"energy": "energy_mae_mev_per_atom", "forces": "forces_mae_ev_per_angstrom", "stress": "stress_mae_gpa"}[kind]
    assert f"MAE  {soapkrr.metrics.error_table(frames, prediction)[key]:.3g} " in ax.texts[0].get_text()
    assert ax.get_xlim() == ax.get_ylim()


@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_drawn_below_in_their_own_unit(frames, prediction, kind):
    below = soapkrr.plot.parity(frames, prediction, kind).child_axes[0]
    errors, std = soapkrr.metrics.residuals(frames, prediction)[kind]
    _, drawn, bars = points(below)
    np.testing.assert_allclose(drawn, errors, atol=1e-12)
    np.testing.assert_allclose(bars, std, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_error_bar_is_clipped_and_a_legend_names_them(frames, prediction, kind):
    wide = replace(prediction, **{f"{kind}_std": [50.0 * np.asarray(std) for std in getattr(prediction, f"{kind}_std")]})
    wide = replace(wide, energy_std=np.array(wide.energy_std), stress_std=np.array(wide.stress_std))
    ax = soapkrr.plot.parity(frames, wide, kind)
    for axes in (ax, ax.child_axes[0]):
        ends = np.concatenate([segment[:, 1] for segment in axes.containers[0][2][0].get_segments()])
        assert axes.get_ylim()[0] < ends.min() and ends.max() < axes.get_ylim()[1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["± 1 std, predicted"]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_written_is_inside_the_figure(frames, prediction, kind):
    ax = soapkrr.plot.parity(frames, prediction, kind)
    ax.figure.canvas.draw()
    size = ax.figure.bbox
    for axes in (ax, ax.child_axes[0]):
        box = axes.get_tightbbox()
        assert box.x0 >= size.x0 and box.y0 >= size.y0 and box.x1 <= size.x1 and box.y1 <= size.y1


@pytest.mark.parametrize("kind", KINDS)
def test_without_standard_deviations_there_are_no_bars(frames, prediction, kind):
    bare = replace(prediction, energy_std=None, energies_std=None, forces_std=None, stress_std=None)
    ax = soapkrr.plot.parity(frames, bare, kind)
    assert ax.containers[0].has_yerr is False
    assert "std" not in ax.texts[0].get_text()
    assert ax.get_legend() is None


def test_given_axes_are_used_and_drawing_works(frames, prediction, tmp_path):
    figure, ax = matplotlib.pyplot.subplots()
    assert soapkrr.plot.parity(frames, prediction, "forces", ax=ax) is ax
    figure.savefig(tmp_path / "parity.png")


def test_one_structure_can_be_drawn(frames):
    prediction = small_gp().fit(frames).predict(frames[0])
    soapkrr.plot.parity(frames[0], prediction).figure.canvas.draw()


def test_structures_without_the_label_are_left_out(frames, prediction):
    mixed = [*frames[:-1], labelled(frames[-1], energy=0.0)]
    x, _, _ = points(soapkrr.plot.parity(mixed, prediction, "forces"))
    assert len(x) == 12 * (len(frames) - 1)


def test_different_compositions_share_one_axis(prediction):
    energies = {"Ar4": -4000.0, "Ar3Ne": -3100.0, "Ar2Ne2": -2200.1}
    mixed = [labelled(distant_atoms(formula), energy=energy) for formula, energy in energies.items()]
    three = replace(prediction, energy=np.array([*energies.values()]), energy_std=None)
    x, y, _ = points(soapkrr.plot.parity(mixed, three_structures(three)))
    assert np.abs(x).max() < 0.1
    np.testing.assert_allclose(x, y, atol=1e-9)


def distant_atoms(formula):
    """Atoms of a formula, far apart."""
    atoms = Atoms(formula)
    atoms.positions[:, 0] = 10.0 * np.arange(len(atoms))
    return atoms


def three_structures(prediction):
    """The prediction cut down to three structures."""
    return replace(prediction, energies=prediction.energies[:3], forces=prediction.forces[:3], stress=prediction.stress[:3])


def test_unknown_kind_is_named(frames, prediction):
    with pytest.raises(InputError, match="`kind` must be one of .*received 'pressure'"):
        soapkrr.plot.parity(frames, prediction, "pressure")


def test_missing_labels_are_named(frames, prediction):
    bare = [labelled(atoms, energy=0.0) for atoms in frames]
    with pytest.raises(LabelError, match="'stress'"):
        soapkrr.plot.parity(bare, prediction, "stress")


def test_wrong_number_of_structures(frames, prediction):
    with pytest.raises(InputError, match="is of 6 structures, `frames` holds 2"):
        soapkrr.plot.parity(frames[:2], prediction)


def test_without_matplotlib_the_error_says_what_to_install(frames, prediction, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(InputError, match=r"pip install .soapkrr\[plot\]"):
        soapkrr.plot.parity(frames, prediction)


# --- calibration ---


def gaussian(frames, prediction, width, seed=0):
    """The prediction with errors drawn from Gaussians of ``width`` times the standard deviations it states."""
    rng = np.random.default_rng(seed)
    forces = [a.get_forces() + width * s * rng.standard_normal(s.shape) for a, s in zip(frames, prediction.forces_std, strict=True)]
    return replace(prediction, forces=forces)


def curve(ax):
    """(expected, observed) fractions as drawn."""
    return ax.lines[1].get_xdata(), ax.lines[1].get_ydata()


@pytest.fixture(scope="module")
def many():
    """600 force components and standard deviations that differ among them."""
    frames = crystals(50)
    return frames, small_gp().fit(frames[:10]).predict(frames, uncertainty=True)


def test_gaussian_errors_lie_on_the_diagonal(many):
    frames, prediction = many
    expected, observed = curve(soapkrr.plot.calibration(frames, gaussian(frames, prediction, 1.0), "forces"))
    assert (expected[0], observed[0]) == (0.0, 0.0) and expected[-1] > 0.9999
    # Kolmogorov: 600 draws stray further than 1.63/√600 = 0.067 in 1 % of the cases.
    assert np.abs(observed - expected).max() < 0.067


@pytest.mark.parametrize(("width", "side"), [(2.0, -1), (0.5, 1)], ids=["too narrow", "too wide"])
def test_wrong_error_bars_lie_on_one_side_of_it(many, width, side):
    frames, prediction = many
    ax = soapkrr.plot.calibration(frames, gaussian(frames, prediction, width), "forces")
    expected, observed = curve(ax)
    assert (side * (observed - expected)[30:150] > 0.05).all()
    assert float(ax.texts[0].get_text().split("within ")[-1].split()[0]) == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize(
    ("width", "verdict"), [(2.0, "error bars too narrow"), (1.0, "error bars about right"), (0.5, "error bars too wide")]
)
def test_the_verdict_is_that_of_the_curve_and_stands_off_it(many, width, verdict):
    frames, prediction = many
    ax = soapkrr.plot.calibration(frames, gaussian(frames, prediction, width), "forces")
    assert ax.texts[0].get_text().splitlines()[0] == verdict
    ax.figure.canvas.draw()
    box = ax.texts[0].get_window_extent()
    drawn = ax.transData.transform(np.column_stack(curve(ax)))
    assert not any(box.contains(x, y) for x, y in drawn)


def test_noise_of_a_model_is_that_of_its_fit(frames):
    model = small_gp().fit(frames)
    prediction = model.predict(frames, uncertainty=True)
    given, levels = (soapkrr.plot.calibration(frames, prediction, "forces", noise=noise) for noise in (model, model.noise_))
    np.testing.assert_array_equal(curve(given), curve(levels))
    assert [text.get_text() for text in given.get_legend().get_texts()] == ["with noise", "without noise"]
    bare = soapkrr.plot.calibration(frames, prediction, "forces")
    np.testing.assert_array_equal(given.lines[3].get_ydata(), bare.lines[1].get_ydata())
    with pytest.raises(InputError, match="`noise` must be a fitted potential or its `noise_`, received 0.1"):
        soapkrr.plot.calibration(frames, prediction, "forces", noise=0.1)


@pytest.fixture(scope="module")
def symmetric(frames):
    """A perfect crystal, all of whose forces and shear stresses vanish, and rattled ones; predictions of both."""
    perfect = lennard_jones(bulk("Ar", cubic=True, a=5.3), "energy", "forces", "stress")
    model = small_gp().fit(frames)
    return [perfect, *frames], model.predict([perfect, *frames], uncertainty=True)


@pytest.mark.parametrize(("kind", "n"), [("forces", 12), ("stress", 3)])
def test_what_vanishes_by_symmetry_does_not_count_and_is_said(frames, symmetric, kind, n):
    structures, prediction = symmetric
    table = soapkrr.metrics.error_table(structures, prediction)
    assert table[f"{kind}_zero_by_symmetry"] == n
    kept = soapkrr.metrics.error_table(frames, prediction[1:])
    if_rattled = kept["forces_within_1_std"]
    assert table["forces_within_1_std"] == if_rattled and "forces_zero_by_symmetry" not in kept
    for draw in (soapkrr.plot.parity, soapkrr.plot.calibration):
        assert f"{n} zero by symmetry left out" in draw(structures, prediction, kind).texts[0].get_text()


def test_a_table_of_nothing_but_zeros_has_no_coverage(symmetric):
    structures, prediction = symmetric
    table = soapkrr.metrics.error_table(structures[0], prediction[0])
    assert "forces_within_1_std" not in table and table["forces_zero_by_symmetry"] == 12
    with pytest.raises(LabelError, match="zero by symmetry"):
        soapkrr.plot.calibration(structures[0], prediction[0], "forces")


def test_a_certain_prediction_that_is_wrong_still_counts(frames, prediction):
    """No standard deviation and no reference, but a force: that is an error, not symmetry."""
    still = [labelled(atoms, forces=np.zeros((4, 3))) for atoms in frames]
    sure = replace(prediction, forces_std=[0 * f for f in prediction.forces])
    table = soapkrr.metrics.error_table(still, sure)
    assert table["forces_within_2_std"] == 0 and "forces_zero_by_symmetry" not in table


@pytest.mark.parametrize("kind", KINDS)
def test_marks_are_the_fractions_of_the_error_table(frames, prediction, kind):
    ax = soapkrr.plot.calibration(frames, prediction, kind)
    table = soapkrr.metrics.error_table(frames, prediction)
    np.testing.assert_allclose(ax.lines[2].get_ydata(), [table[f"{kind}_within_{k}_std"] for k in (1, 2)], atol=1e-12)
    np.testing.assert_allclose(ax.lines[2].get_xdata(), [0.6827, 0.9545], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_of_the_labels_is_added_to_the_variances(frames, prediction, kind):
    labels = [a.get_potential_energy() for a in frames] if kind == "energy" else [getattr(a, f"get_{kind}")() for a in frames]
    sure = replace(prediction, **{f"{kind}_std": 0 * np.array(labels), kind: np.array(labels) + 0.1})
    # Four atoms: an energy of noise 0.05 eV per atom has 0.05·√4 = 0.1 eV in all.
    level = 0.05 if kind == "energy" else 0.1
    inside, outside = ({kind: factor * level} for factor in (1.01, 0.99))
    assert soapkrr.plot.calibration(frames, sure, kind, noise=inside).lines[2].get_ydata()[0] == 1.0
    assert soapkrr.plot.calibration(frames, sure, kind, noise=outside).lines[2].get_ydata()[0] == 0.0
    with pytest.raises(InputError, match=f"`noise` has no level of kind '{kind}'"):
        soapkrr.plot.calibration(frames, sure, kind, noise={})


def test_zero_errors_with_zero_error_bars_are_within(frames, prediction):
    exact = replace(prediction, forces=[a.get_forces() for a in frames], forces_std=[0.0 * f for f in prediction.forces])
    assert (curve(soapkrr.plot.calibration(frames, exact, "forces"))[1] == 1.0).all()


def test_calibration_needs_standard_deviations(frames, prediction):
    with pytest.raises(InputError, match="no standard deviations of kind 'stress'.*uncertainty=True"):
        soapkrr.plot.calibration(frames, replace(prediction, stress_std=None), "stress")
    with pytest.raises(LabelError, match="'stress'"):
        soapkrr.plot.calibration([labelled(atoms, energy=0.0) for atoms in frames], prediction, "stress")
    with pytest.raises(InputError, match="`kind`"):
        soapkrr.plot.calibration(frames, prediction, "pressure")


@pytest.mark.parametrize("draw", [soapkrr.plot.parity, soapkrr.plot.calibration], ids=["parity", "calibration"])
def test_labels_of_other_names(frames, prediction, draw):
    renamed = [labelled(atoms) for atoms in frames]
    for atoms, original in zip(renamed, frames, strict=True):
        atoms.arrays["dft_forces"] = original.get_forces()
        atoms.arrays["force_mask"] = np.arange(len(atoms)) == 0
    observations = soapkrr.Observations(forces="dft_forces", use=("forces",))
    ax = draw(renamed, prediction, "forces", observations=observations)
    with pytest.raises(LabelError):
        draw(renamed, prediction, "forces")
    masked = [replace_forces(original, 0) for original in frames]
    plain = [np.delete(f, 0, axis=0) for f in prediction.forces]
    stds = [np.delete(f, 0, axis=0) for f in prediction.forces_std]
    expected = draw(masked, replace(prediction, forces=plain, forces_std=stds), "forces")
    assert ax.texts[0].get_text() == expected.texts[0].get_text()


def replace_forces(atoms, removed):
    """The structure and its forces without one atom."""
    kept = np.delete(np.arange(len(atoms)), removed)
    return labelled(atoms[kept], forces=atoms.get_forces()[kept])
