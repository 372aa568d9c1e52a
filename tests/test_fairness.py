"""Errors by species, and the group with the largest ones."""

import numpy as np
import pytest
from ase.io import write
from command_line import outcome
from small import crystals, labelled, small_gp

import soapkrr
from soapkrr import InputError, Observations
from soapkrr.labels import read_labels
from soapkrr.labels.balance import importance
from soapkrr.metrics import error_table


@pytest.fixture(scope="module")
def frames():
    """Argon and krypton, one force of the krypton unknown."""
    frames = []
    for k, atoms in enumerate(crystals(8)):
        atoms.symbols[:] = ["Ar", "Ar", "Kr", "Ar"]
        frames.append(labelled(atoms, **atoms.calc.results))
        frames[-1].info["config_type"] = "ab"[k % 2]
    return frames


@pytest.fixture(scope="module")
def model(frames):
    return small_gp(["Ar", "Kr"]).fit(frames)


def test_errors_of_a_species_are_those_of_the_forces_on_its_atoms(frames, model):
    p = model.predict(frames, uncertainty=True)
    tables = error_table(frames, p, by="species")
    assert list(tables) == ["Ar", "Kr"]
    for symbol, table in tables.items():
        errors = np.concatenate([(f - a.get_forces())[a.symbols == symbol] for a, f in zip(frames, p.forces, strict=True)])
        np.testing.assert_allclose(table["forces_rmse_ev_per_angstrom"], np.sqrt(np.mean(errors**2)))
        np.testing.assert_allclose(table["forces_mae_ev_per_angstrom"], np.abs(errors).mean())
        assert 0 <= table["forces_within_1_std"] <= 1


def test_the_worst_group_is_named_with_the_average_beside_it(frames, model):
    p = model.predict(frames)
    p.forces[1][:] += 1.0
    tables = error_table(frames, p, by="config_type")
    errors = [table["forces_rmse_ev_per_angstrom"] for table in tables.values()]
    assert tables.worst()["forces"] == ("b", errors[1], np.mean(errors))
    assert set(tables.worst()) == {"energy", "forces", "stress"}
    assert "largest forces errors: b" in str(tables) and "× the average of the groups" in str(tables)


def test_no_group_is_worst_where_there_is_one(frames, model):
    assert error_table(frames[:1], model.predict(frames[:1]), by="config_type").worst() == {}


def test_structures_without_forces_have_empty_tables_of_species(frames, model):
    bare = [labelled(atoms, energy=atoms.get_potential_energy()) for atoms in frames]
    tables = error_table(bare, model.predict(bare), by="species")
    assert tables == {"Ar": {}, "Kr": {}} and tables.worst() == {}


def test_a_species_in_info_is_a_name_like_others(frames, model):
    named = [atoms.copy() for atoms in frames]
    for atoms, old in zip(named, frames, strict=True):
        atoms.info["species"], atoms.calc = "mine", old.calc
    assert list(error_table(named, model.predict(named), by="species")) == ["mine"]


def test_evaluate_tells_errors_by_species_and_the_worst(frames, model, tmp_path, capsys):
    model.save(tmp_path / "model.soapkrr")
    write(tmp_path / "test.xyz", frames)
    code, out, _ = outcome(capsys, "evaluate", tmp_path / "model.soapkrr", tmp_path / "test.xyz", "--by", "config_type")
    assert code == 0
    assert "forces by species, MAE / RMSE in eV/Å: Ar" in out and ", Kr " in out
    assert out.count("largest forces RMSE: ") == 2 and out.count("largest energy RMSE: ") == 1


# --- weights ---------------------------------------------------------------------------------------------------------


def test_importance_gives_every_group_the_same_weight():
    weights = importance(["a"] * 6 + ["b"] * 2 + ["c"])
    np.testing.assert_allclose([6 * weights["a"], 2 * weights["b"], weights["c"]], 3.0)
    assert importance(["a"] * 99 + ["b"])["b"] == 10.0 and importance([]) == {}


def test_rows_of_rare_types_and_species_have_larger_factors(frames):
    for atoms in (some := [atoms.copy() for atoms in frames[:4]]):
        atoms.calc = frames[[a.positions.tolist() for a in frames].index(atoms.positions.tolist())].calc
    some[3].info["config_type"] = some[1].info["config_type"] = "b"
    some[0].info["config_type"] = some[2].info["config_type"] = "b"
    some[3].info["config_type"] = "rare"
    labels = read_labels(some, Observations(balance=True), {"energy": 0.002, "forces": 0.05, "stress": 0.002})
    np.testing.assert_allclose(labels[3].scale["energy"] ** 2, 4 / (2 * 1))
    np.testing.assert_allclose(labels[0].scale["stress"] ** 2, 4 / (2 * 3))
    # Twelve of sixteen atoms are argon.
    np.testing.assert_allclose(labels[0].scale["forces"][:, 0] ** 2, 4 / (2 * 3) * 16 / (2 * np.array([12, 12, 4, 12])))


def test_balanced_fits_trade_common_species_for_rare_ones(frames):
    """Of few sparse points, so that not everything can be fitted."""
    bad = [labelled(atoms, **atoms.calc.results) for atoms in frames]
    errors = {}
    for balance in (False, True):
        model = small_gp(["Ar", "Kr"], n_sparse=4, observations=Observations(balance=balance, use="forces"), noise={"forces": 0.01})
        tables = error_table(bad, model.fit(bad).predict(bad), by="species")
        errors[balance] = {symbol: table["forces_rmse_ev_per_angstrom"] for symbol, table in tables.items()}
    assert errors[True]["Kr"] < errors[False]["Kr"]


def test_a_balanced_fit_without_knobs_leaves_out_its_own_data(frames):
    model = soapkrr.fit(frames, weights="balanced", search=False)
    assert model.observations.balance
    np.testing.assert_allclose(model.leave_out(frames).rmse("forces"), model.left_out_errors_["forces"], rtol=1e-6)


def test_unknown_weights_are_refused(frames):
    with pytest.raises(InputError, match="`weights` must be 'balanced'"):
        soapkrr.fit(frames, weights="fair")
    with pytest.raises(InputError, match="`balance`"):
        Observations(balance="species")
