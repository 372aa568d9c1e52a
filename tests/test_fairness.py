"""Errors by species, and the group with the largest ones."""

import numpy as np
import pytest
from ase.io import write
from command_line import outcome
from small import crystals, labelled, small_gp

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
