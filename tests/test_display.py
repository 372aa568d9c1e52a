"""What people see: tables of predictions, errors, plans and models; single structures, copies and data frames; progress bars."""

import json
import pickle
import sys
from dataclasses import replace
from io import StringIO
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from ase import Atoms
from ase.db import connect
from ase.io import read, write
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from small import crystals, labelled, small_gp, soap

import soapkrr
from soapkrr import DotProduct, GaussianProcess, InputError, PropertyGP, progress
from soapkrr.metrics import error_table

STDS = ("energy_std", "energies_std", "forces_std", "stress_std")


@pytest.fixture(scope="module")
def frames():
    """Cells of four atoms, and one of nine, which extended XYZ takes for a matrix where it can."""
    frames = crystals()
    return [*frames, labelled((frames[0] * (3, 1, 1))[:9], energy=-0.5)]


@pytest.fixture(scope="module")
def model(frames):
    return small_gp().fit(frames)


@pytest.fixture(scope="module")
def prediction(model, frames):
    return model.predict(frames, uncertainty=True)


def same(p, q):
    """Every attribute of two predictions."""
    for name in p.__dataclass_fields__:
        for a, b in zip(getattr(p, name), getattr(q, name), strict=True):
            np.testing.assert_array_equal(a, b)


# --- parts of predictions --------------------------------------------------------------------------------------------


def test_one_structure_of_a_prediction(prediction):
    one = prediction[3]
    assert len(one) == 1 and one.energy[0] == prediction.energy[3] and one.energy_std[0] == prediction.energy_std[3]
    np.testing.assert_array_equal(one.forces_std[0], prediction.forces_std[3])
    same(prediction[-1], prediction[len(prediction) - 1])


def test_slices_arrays_and_masks_of_a_prediction(prediction):
    same(prediction[1:4], prediction.of([1, 2, 3]))
    same(prediction[[4, 0]], prediction.of([4, 0]))
    same(prediction[prediction.energy < -0.22], prediction.of(np.flatnonzero(prediction.energy < -0.22)))


def test_iteration_goes_over_structures_and_ends(prediction):
    parts = list(prediction)
    assert [len(part) for part in parts] == [1] * 7
    same(soapkrr.Prediction.concatenate(parts), prediction)


def test_what_was_not_asked_for_stays_none(model, frames):
    assert model.predict(frames)[2].forces_std is None


def test_a_structure_that_is_not_there(prediction):
    with pytest.raises(IndexError):
        prediction[7]


def test_a_prediction_is_not_one_array(prediction):
    with pytest.raises(TypeError, match="take its `energy`"):
        np.asarray(prediction)
    same(np.concatenate([prediction[:2], prediction[2:]]), prediction)


# --- copies and data frames ------------------------------------------------------------------------------------------


def test_copies_carry_the_prediction_and_the_originals_nothing(frames, prediction):
    copies = prediction.to_atoms(frames)
    for s, (copy, atoms) in enumerate(zip(copies, frames, strict=True)):
        assert copy.get_potential_energy() == prediction.energy[s]
        np.testing.assert_array_equal(copy.get_forces(), prediction.forces[s])
        np.testing.assert_array_equal(copy.get_stress(), prediction.stress[s])
        assert not set(STDS) & {*atoms.info, *atoms.arrays}
        np.testing.assert_array_equal(copy.positions, atoms.positions)


@pytest.mark.parametrize("name", ["x.traj", "x.extxyz", "x.db"])
def test_standard_deviations_come_back_from_files(frames, prediction, tmp_path, name):
    copies = prediction.to_atoms(frames)
    if name == "x.db":
        with connect(tmp_path / name) as database:
            for atoms in copies:
                database.write(atoms, data=atoms.info)
        back = [(row.data, {}, row.toatoms()) for row in connect(tmp_path / name).select()]
    else:
        write(tmp_path / name, copies)
        back = [(atoms.info, atoms.arrays, atoms) for atoms in read(tmp_path / name, ":")]
    for s, (info, arrays, atoms) in enumerate(back):
        # Extended XYZ writes forces with eight decimals.
        np.testing.assert_allclose(atoms.get_forces(), prediction.forces[s], atol=1e-8)
        assert atoms.get_potential_energy() == prediction.energy[s]
        for std in STDS:
            np.testing.assert_allclose(arrays.get(std, info[std]), getattr(prediction, std)[s], atol=1e-8)


def test_a_molecule_has_no_stress_to_carry():
    frames = [Atoms("Ar2", [[0, 0, 0], [0, 0, d]]) for d in (3.6, 3.8)]
    frames = [labelled(atoms, energy=e) for atoms, e in zip(frames, (-0.01, -0.02), strict=True)]
    copy = small_gp().fit(frames).predict(frames, uncertainty=True).to_atoms(frames)[0]
    assert "stress" not in copy.calc.results and "stress_std" not in copy.info and copy.info["energy_std"] > 0


def test_copies_of_other_structures_are_refused(frames, prediction):
    with pytest.raises(InputError, match="`frames` holds 2 structures, .* of 7"):
        prediction.to_atoms(frames[:2])
    with pytest.raises(InputError, match="`frames`: frame 0 has 9 atoms, .* of 4"):
        prediction.to_atoms(frames[::-1])


@pytest.fixture
def pandas(monkeypatch):
    """Stands for pandas: a data frame is a dictionary of columns of one length."""

    def data_frame(columns):
        assert len({len(column) for column in columns.values()}) == 1
        return columns

    module = ModuleType("pandas")
    module.DataFrame = data_frame
    monkeypatch.setitem(sys.modules, "pandas", module)


def test_data_frames_of_structures_and_atoms(pandas, model, frames, prediction):
    table = prediction.to_dataframe()
    np.testing.assert_array_equal(table["energy_std"], prediction.energy_std)
    np.testing.assert_array_equal(table["stress_yz"], prediction.stress[:, 3])
    np.testing.assert_array_equal(table["n_atoms"], [4] * 6 + [9])
    atoms = prediction.to_dataframe(per="atom")
    np.testing.assert_array_equal(atoms["force_y"], np.concatenate(prediction.forces)[:, 1])
    assert (atoms["structure"][4], atoms["atom"][4], atoms["atom"][-1]) == (1, 0, 8)
    assert "energy_std" not in model.predict(frames).to_dataframe(per="atom")
    with pytest.raises(InputError, match="`per` must be"):
        prediction.to_dataframe(per="bond")


def test_without_pandas_the_error_says_what_to_install(prediction, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        prediction.to_dataframe()


# --- tables ----------------------------------------------------------------------------------------------------------


def test_a_prediction_shows_energies_with_their_error_bars(prediction):
    text, html = repr(prediction), prediction._repr_html_()
    assert "7 structures, 33 atoms" in text and "eV/Å" in text
    line = f"{prediction.energy[3]:.4f} ± {prediction.energy_std[3]:.2g}"
    assert line in text and line in html and html.count("<tr>") == 8


def test_long_predictions_show_both_ends(prediction):
    long = soapkrr.Prediction.concatenate([prediction] * 200)
    assert "1,400 structures" in repr(long) and len(repr(long).splitlines()) < 20 and "1399" in repr(long)


def test_a_prediction_without_stress_or_error_bars_shows_too(frames, prediction):
    bare = replace(prediction, stress=np.full((7, 6), np.nan), energy_std=None, forces_std=None)
    assert "±" not in repr(bare) and "nan" not in repr(bare)


def test_properties_show_as_tables(frames):
    model = PropertyGP(soap(), DotProduct(2), target="intensive", noise=0.1).fit(frames[:6], np.arange(6.0))
    assert "6 values of 6 structures" in repr(model.predict(frames[:6], uncertainty=True))
    assert "std" not in repr(model.predict(frames[:6]))


def test_error_tables_are_dictionaries_that_show_as_tables(frames, prediction):
    table = error_table(frames, prediction)
    assert isinstance(table, dict) and json.loads(json.dumps(table)) == dict(table) == pickle.loads(pickle.dumps(table))
    text = repr(table)
    assert all(word in text for word in ("MAE", "within 2 std", "meV/atom", f"{table['forces_rmse_ev_per_angstrom']:.3g}"))
    assert table._repr_html_().count("<tr>") == 4


def test_error_tables_by_group_show_as_one(frames, prediction):
    named = [atoms.copy() for atoms in frames]
    for k, (atoms, original) in enumerate(zip(named, frames, strict=True)):
        atoms.calc, atoms.info["config_type"] = original.calc, ["hot", "cold"][k % 2]
    named.append(Atoms("Ar", info={"config_type": "bare"}))
    prediction = soapkrr.Prediction.concatenate([prediction, prediction[0]])
    tables = error_table(named, prediction, by="config_type")
    assert tables["bare"] == {} and [line.split()[0] for line in repr(tables).splitlines()[1:4]] == ["bare", "cold", "hot"]
    assert f"{tables['hot']['energy_mae_mev_per_atom']:.3g}" in tables._repr_html_()


@pytest.mark.parametrize("estimator", [small_gp(), GaussianProcess(soap(), DotProduct(2), memory_limit="1GB")], ids=["sparse", "exact"])
def test_plans_show_as_tables(estimator, frames):
    plan = estimator.plan(frames)
    assert repr(plan) == str(plan) and plan.task in repr(plan)
    assert all(step.name in plan._repr_html_() for step in plan.steps) and plan._repr_html_().count("<table>") == 2


def test_models_say_what_was_fitted(model, frames):
    text = repr(model.summary())
    for part in ("SparseGP", "r_cut=4.5", "DotProduct(zeta=2)", "Ar 12", "energy 7, forces 72, stress 36", "0.002 eV/atom"):
        assert part in text
    assert "r_cut=4.5" in model.summary()._repr_html_()
    assert "sk-top-container" in model._repr_html_(), "scikit-learn's own diagram stays"


def test_summaries_are_of_the_fit_not_of_what_was_set_afterwards(frames):
    model = small_gp().fit(frames).set_params(kernel__zeta=7)
    assert "zeta=2" in repr(model.summary())
    assert "descriptor 2" in repr((small_gp() + small_gp()).fit(frames).summary())


def test_summaries_of_models_that_chose_say_why(frames):
    model = soapkrr.fit(frames)
    text = repr(model.summary())
    assert all(str(choice.reason) in text for choice in model.choices_)


# --- progress bars ---------------------------------------------------------------------------------------------------


def drawn(monkeypatch, show=True, terminal=False, kernel=False, widgets=False, delay=0):
    """(standard output, standard error) of a loop with a bar in such surroundings."""
    out, err = StringIO(), StringIO()
    err.isatty = lambda: terminal
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()) if kernel else None)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setattr(progress, "find_spec", lambda name: object() if widgets else None)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(progress, "DELAY", delay)
    assert list(progress.track(range(3), 3, "rows", show)) == [0, 1, 2]
    return out.getvalue(), err.getvalue()


def test_a_terminal_has_its_bar_on_standard_error(monkeypatch):
    out, err = drawn(monkeypatch, terminal=True)
    assert out == "" and "rows" in err


def test_a_notebook_has_it_on_standard_output(monkeypatch):
    """Notebooks paint standard error red."""
    out, err = drawn(monkeypatch, kernel=True)
    assert "rows" in out and err == ""


@pytest.mark.parametrize(
    "surroundings", [{}, {"kernel": True, "show": False}, {"terminal": True, "show": False}, {"terminal": True, "delay": 60}]
)
def test_silent_elsewhere_where_asked_and_of_what_is_quick(monkeypatch, surroundings):
    assert drawn(monkeypatch, **surroundings) == ("", "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the notebook machinery
def test_bars_and_tables_in_a_real_kernel_without_warnings():
    """A fit with bars, a prediction, figures, a relaxation: no warning, nothing on standard error."""
    lines = f"""
import sys, warnings
warnings.simplefilter("error")
sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
from small import crystals, small_gp
import soapkrr
from ase.optimize import BFGS
frames = crystals()
soapkrr.progress.DELAY = 0
model = small_gp().fit(frames)
p = model.predict(frames, uncertainty=True)
soapkrr.plot.parity(frames, p), soapkrr.plot.calibration(frames, p, noise=model)
atoms = frames[0].copy()
atoms.calc = model.calculator()
BFGS(atoms, logfile=None).run(fmax=0.05, steps=5)
"""
    cells = [new_code_cell(lines + "model.predict(frames)"), new_code_cell("soapkrr.metrics.error_table(frames, p)")]
    cells += [new_code_cell("model.plan(frames)"), new_code_cell("model.summary()"), new_code_cell("model")]
    notebook = new_notebook(cells=cells)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    shown = [output["data"] for output in outputs if output.output_type == "execute_result"]
    assert len(shown) == 5 and all("text/html" in data for data in shown)
    bars = "".join(output.get("text", "") for output in outputs) + str([o.get("data") for o in outputs])
    assert "design rows" in bars
