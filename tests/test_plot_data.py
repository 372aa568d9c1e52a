"""Figures of groups, maps, radial functions, pairs and trajectories: the right numbers where they are drawn, units on the axes."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from ase import Atoms
from small import crystals, labelled, small_gp, soap

import soapkrr
from soapkrr import ACSF, Compressed, InputError
from soapkrr.plot.axes import DENSE, density

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def frames():
    frames = crystals(8)
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = ["hot", "cold"][k % 2]
    return frames


@pytest.fixture(scope="module")
def model(frames):
    return small_gp(threads=1).fit(frames).calibrate(frames)


@pytest.fixture(scope="module")
def prediction(model, frames):
    return model.predict(frames, uncertainty=True)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    matplotlib.pyplot.close("all")


def inside(ax):
    """Whether everything that is written is within the figure."""
    ax.figure.canvas.draw()
    box, size = ax.get_tightbbox(), ax.figure.bbox
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= size.x1 and box.y1 <= size.y1


# --- parity of many points -------------------------------------------------------------------------------------------


def test_many_points_are_coloured_by_density_without_bars(frames, prediction):
    n = 1 + DENSE // (12 * len(frames))
    many, ax = [*frames] * n, None
    ax = soapkrr.plot.parity(many, soapkrr.Prediction.concatenate([prediction] * n), "forces")
    (drawn,) = ax.collections
    assert len(drawn.get_offsets()) == 12 * len(many) and drawn.get_array().max() > drawn.get_array().min()
    assert not ax.containers and ax.get_legend() is None and "within 1 std" in ax.texts[0].get_text()
    assert inside(ax.child_axes[0]) and inside(ax)


def test_density_counts_the_points_of_a_bin():
    x = np.array([0.0, 0.01, 0.02, 1.0])
    np.testing.assert_array_equal(density(x, x, bins=10), [3, 3, 3, 1])


# --- residuals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "unit"), [("energy", "meV/atom"), ("forces", "eV/Å"), ("stress", "GPa")])
def test_residuals_of_groups(frames, prediction, kind, unit):
    ax = soapkrr.plot.residuals(frames, prediction, kind)
    assert unit in ax.get_xlabel() and inside(ax)
    table = soapkrr.metrics.error_table(frames, prediction, by="config_type")
    key = next(key for key in table["hot"] if key.startswith(f"{kind}_rmse"))
    names = [label.get_text().split()[0] for label in ax.get_yticklabels()]
    assert names == sorted(names, key=lambda name: table[name][key])
    assert [text.get_text() for text in ax.texts[:2]] == [f"{table[name][key]:.3g}" for name in names]


def test_residuals_of_species_and_formulas(frames, prediction):
    assert [t.get_text() for t in soapkrr.plot.residuals(frames, prediction, by="species").get_yticklabels()] == ["Ar  (96)"]
    assert [t.get_text() for t in soapkrr.plot.residuals(frames, prediction, "energy", by="formula").get_yticklabels()] == ["Ar4  (8)"]
    with pytest.raises(InputError, match="`by`='species' is of forces"):
        soapkrr.plot.residuals(frames, prediction, "energy", by="species")


# --- the map ---------------------------------------------------------------------------------------------------------


def test_the_map_keeps_distances_as_well_as_two_components_can(model, frames):
    ax = soapkrr.plot.data_map(model, frames)
    points, sparse = (np.asarray(c.get_offsets()) for c in ax.collections)
    x = soap().create(frames)
    x = x - x.mean(axis=0)
    variance = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    np.testing.assert_allclose(np.sort(points.var(axis=0, ddof=1))[::-1], variance[:2], rtol=1e-8)
    assert f"{variance[0] / variance.sum():.0%}" in ax.get_xlabel()
    assert len(points) == 32 and len(sparse) == 12
    assert np.linalg.norm(points[:, None] - sparse, axis=-1).min(axis=0).max() < 1e-8, "sparse points are environments of the data"


@pytest.mark.parametrize(("colour", "unit"), [("error", "eV/Å"), ("std", "eV/Å"), ("novelty", "novelty")])
def test_the_map_is_coloured_by_what_is_said(model, frames, prediction, colour, unit):
    ax = soapkrr.plot.data_map(model, frames, prediction, colour)
    assert unit in ax.figure.axes[1].get_ylabel() and inside(ax)
    values = {
        "error": [np.linalg.norm(p - a.get_forces(), axis=1) for p, a in zip(prediction.forces, frames, strict=True)],
        "std": [np.linalg.norm(s, axis=1) for s in prediction.forces_std],
        "novelty": prediction.novelty,
    }[colour]
    middle = np.sort(np.concatenate(values))[8:-8]
    assert set(np.round(middle, 10)) <= set(np.round(np.asarray(ax.collections[0].get_array()), 10))


def test_the_map_of_structures_and_of_one_element(model, frames, prediction):
    ax = soapkrr.plot.data_map(model, frames, prediction, "error", per="structure")
    assert len(ax.collections[0].get_offsets()) == 8 and "meV/atom" in ax.figure.axes[1].get_ylabel()
    assert "of Ar" in soapkrr.plot.data_map(model, frames, symbol="Ar").get_title()
    for options in ({"symbol": "Ne"}, {"colour": "mood"}, {"per": "bond"}, {"colour": "error"}):
        with pytest.raises(InputError, match=f"`{next(iter(options))}`"):
            soapkrr.plot.data_map(model, frames, **options)
    with pytest.raises(InputError, match="no novelty"):
        soapkrr.plot.data_map(model, frames, replace(prediction, novelty=None), "novelty")


def test_an_exact_model_has_a_map_without_sparse_points(frames):
    model = soapkrr.GaussianProcess(soap(), soapkrr.DotProduct(2)).fit(frames)
    assert len(soapkrr.plot.data_map(model, frames).collections) == 1


# --- radial functions and pairs --------------------------------------------------------------------------------------


def test_radial_functions_end_at_the_cutoff(model, frames):
    ax = soapkrr.plot.radial(model, l=2)
    *functions, weight = (line.get_ydata() for line in ax.lines[1:])
    assert len(functions) == 3 and max(np.abs(f).max() for f in functions) == pytest.approx(1)
    assert all(abs(f[-1]) < 1e-12 for f in [*functions, weight]) and all(f[0] == 0 for f in functions)
    assert "(Å)" in ax.get_xlabel() and inside(ax)
    soapkrr.plot.radial(Compressed(soap(), n_components=4))
    with pytest.raises(InputError, match="`l` must be an integer from 0 to l_max = 2"):
        soapkrr.plot.radial(soap(), l=3)
    with pytest.raises(InputError, match="`descriptor` must be a SOAP.*received ACSF"):
        soapkrr.plot.radial(ACSF(species=["Ar"], r_cut=4.0))


def test_pairs_are_as_predicted(model):
    r = np.linspace(2.0, 4.6, 30)
    ax = soapkrr.plot.dimers(model, r=r)
    p = model.predict([Atoms("Ar2", [[0, 0, 0], [x, 0, 0]]) for x in r], uncertainty="energy")
    alone = 2 * model.predict(Atoms("Ar")).energy[0]
    solid = next(line for line in ax.lines if line.get_label() == "Ar–Ar")
    known = r >= model.domain_.shortest["Ar-Ar"]
    np.testing.assert_allclose(solid.get_ydata(), (p.energy - alone)[known], atol=1e-10)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), p.energy - p.energy_std - alone, atol=1e-10)
    assert "eV" in ax.get_ylabel() and inside(ax)


# --- trajectories ----------------------------------------------------------------------------------------------------


def test_the_largest_novelty_along_a_trajectory(prediction):
    time = 0.01 * np.arange(8)
    ax = soapkrr.plot.trajectory(prediction, time=time)
    largest = next(line for line in ax.lines if line.get_label() == "largest")
    np.testing.assert_array_equal(largest.get_ydata(), [n.max() for n in prediction.novelty])
    np.testing.assert_array_equal(largest.get_xdata(), time)
    assert "ps" in ax.get_xlabel() and inside(ax)
    assert "frame" in soapkrr.plot.trajectory(prediction).get_xlabel()
    with pytest.raises(InputError, match="`time` must hold one number for each of the 8 frames"):
        soapkrr.plot.trajectory(prediction, time=[1.0])
    with pytest.raises(InputError, match="no novelty"):
        soapkrr.plot.trajectory(replace(prediction, novelty=None))


def test_atoms_that_are_too_close_are_marked(model, frames):
    close = [labelled(frames[0], energy=0.0), Atoms("Ar2", [[0, 0, 0], [1.0, 0, 0]])]
    ax = soapkrr.plot.trajectory(model.predict(close, uncertainty="energies"))
    assert "atoms too close" in [text.get_text() for text in ax.get_legend().get_texts()]
