"""Figures of decisions: what is drawn is what was found."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

import soapkrr
from soapkrr import InputError
from soapkrr.active.journal import Call, Look

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    matplotlib.pyplot.close("all")


def test_a_relaxation_is_drawn_above_the_lowest_energy_of_all():
    ax = soapkrr.plot.relaxation({"BFGS": [3.0, 2.0, 1.5], "few": [3.0, 1.0]})
    (first, second), labels = ax.get_lines(), [text.get_text() for text in ax.get_legend().get_texts()]
    np.testing.assert_allclose(first.get_ydata(), [2.0, 1.0, 0.5])
    np.testing.assert_allclose(second.get_ydata(), [2.0, 1e-4])
    assert list(first.get_xdata()) == [1, 2, 3] and labels == ["BFGS (3)", "few (2)"] and ax.get_yscale() == "log"


def path():
    """Five images over a parabola, a barrier of 0.4 eV."""
    energies, images = np.array([0.0, 0.3, 0.4, 0.3, 0.1]), []
    for k, energy in enumerate(energies):
        atoms = Atoms("Cu", positions=[[0.5 * k, 0, 0]])
        atoms.calc = SinglePointCalculator(atoms, energy=energy - 7.0, forces=np.zeros((1, 3)))
        images.append(atoms)
    calculated, stds = np.array([True, False, True, False, True]), np.array([0.0, 0.05, 0.001, 0.05, 0.0])
    more = {"saddle": 2, "barrier": 0.4, "std": 0.02, "calls": 6}
    return SimpleNamespace(images=images, energies=energies, stds=stds, calculated=calculated, **more)


def test_a_barrier_has_a_band_and_says_which_images_are_calculated():
    ax = soapkrr.plot.barrier(path())
    curve, predicted, calculated = ax.get_lines()[:3]
    np.testing.assert_allclose(predicted.get_xdata(), [0.5, 1.5])
    np.testing.assert_allclose(calculated.get_ydata(), [0.0, 0.4, 0.1])
    assert np.interp(1.0, curve.get_xdata(), curve.get_ydata()) == pytest.approx(0.4, abs=1e-3)
    band = ax.collections[0].get_paths()[0].vertices
    near = band[np.abs(band[:, 0] - 0.5) < 1e-9][:, 1]
    np.testing.assert_allclose([near.min(), near.max()], [0.2, 0.4], atol=1e-6)
    assert ax.get_title() == "Barrier by 6 reference calls" and "0.400 ± 0.020 eV" in ax.texts[0].get_text()


def dynamics():
    looks = [Look(0, 300.0, np.inf), Look(1, 310.0, 0.05), Look(2, 320.0, 0.3), Look(3, 330.0, 0.1)]
    calls = [Call(0, np.inf), Call(2, 0.3, 0.02), Call(3, 0.4, failure="no")]
    return SimpleNamespace(looks=looks, calls=calls, threshold=0.2)


@pytest.mark.parametrize("given", [False, True])
def test_dynamics_are_drawn_with_their_calls_marked(given):
    axes = matplotlib.pyplot.subplots(2, 1)[1] if given else None
    upper, lower = soapkrr.plot.on_the_fly(dynamics(), ax=axes)
    marks = [line for line in upper.get_lines() if len(set(line.get_xdata())) == 1]
    assert [line.get_xdata()[0] for line in marks] == [0, 2]
    np.testing.assert_allclose(upper.get_lines()[-1].get_ydata(), [300, 310, 320, 330])
    doubt, found = (line for line in lower.get_lines() if line.get_label().startswith(("a force", "was wrong")))
    np.testing.assert_allclose(doubt.get_xydata(), [[1, 0.05], [2, 0.3], [3, 0.1]])
    np.testing.assert_allclose(found.get_xydata(), [[2, 0.02]])
    assert "2 reference calls in 3 steps" in upper.get_title()


def test_regrets_are_means_with_a_band():
    ax = soapkrr.plot.regret({"random": [[0.4, 0.2], [0.2, 0.0]], "campaign": [[0.1, 0.0]]}, ax=matplotlib.pyplot.subplots()[1])
    np.testing.assert_allclose(ax.get_lines()[0].get_xydata(), [[1, 0.3], [2, 0.1]])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["random (2 runs)", "campaign (1 run)"]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: soapkrr.plot.relaxation({}), "`energies` must be a mapping"),
        (lambda: soapkrr.plot.relaxation([1.0]), "`energies` must be a mapping"),
        (lambda: soapkrr.plot.relaxation({"a": [np.nan]}), "`energies`: 'a' must be finite"),
        (lambda: soapkrr.plot.relaxation({"a": []}), "received shape"),
        (lambda: soapkrr.plot.relaxation({"a": "text"}), "`energies`: 'a' must be numbers"),
        (lambda: soapkrr.plot.barrier(3), "`path` must be a Barrier"),
        (lambda: soapkrr.plot.on_the_fly(3), "`run` must be an OnTheFly"),
        (lambda: soapkrr.plot.on_the_fly(dynamics(), ax=[1, 2, 3]), "`ax` must be two axes"),
        (lambda: soapkrr.plot.regret({"a": [1.0]}), "2 dimensions"),
        (lambda: soapkrr.plot.regret({"a": [[1.0], [1.0, 2.0]]}), "rows of one length"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(InputError, match=message):
        draw()
