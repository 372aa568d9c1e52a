"""Prior means by name: what names stand for, results kept on a disk and shared by processes, failures, files."""

import itertools
import os
import subprocess
import sys
from importlib import metadata, util

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.io import read, write
from command_line import outcome
from sklearn.base import clone
from small import crystals, labelled, small_gp, soap

import soapkrr
from soapkrr import ZBL, CalculatorBaseline, DataWarning, DotProduct, GaussianProcess, InputError
from soapkrr.baselines import NamedBaseline, ScaledBaseline, many, named, register, sources, split_baseline, store
from soapkrr.baselines.results import Structure
from soapkrr.structures import Batch

needs_tblite = pytest.mark.skipif(util.find_spec("tblite") is None, reason="tblite is not installed (extra xtb)")
needs_dftd3 = pytest.mark.skipif(util.find_spec("dftd3") is None, reason="dftd3 is not installed (extra d3)")


class Tallied(Calculator):
    """Lennard-Jones that counts its calculations, and does not get along with cells of some volumes."""

    implemented_properties = ["energy", "forces", "stress"]
    calls = 0

    def __init__(self, bad=(), stop_after=None, end=()):
        super().__init__()
        self.inner = LennardJones(sigma=3.0, epsilon=0.01, rc=6.0, smooth=True)
        self.bad, self.stop_after, self.end = bad, stop_after, end

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        if self.stop_after is not None and Tallied.calls >= self.stop_after:
            raise KeyboardInterrupt
        Tallied.calls += 1
        if _among(self.atoms, self.bad):
            raise CalculationFailed("no convergence\nafter 250 cycles")
        if _among(self.atoms, self.end):
            os._exit(1)
        self.results = {name: self.inner.get_property(name, self.atoms.copy()) for name in self.implemented_properties}


def _among(atoms, volumes):
    return any(abs(atoms.get_volume() - volume) < 1e-9 for volume in volumes)


@pytest.fixture
def tallied(tmp_path):
    """Registers `Tallied` with arguments, under a new name, with results that are kept in a folder of the test; counts from zero."""
    count = itertools.count()

    def make(**options):
        name = f"tallied-{tmp_path.name}-{next(count)}"
        register(name, _Factory(options), version="1")
        return name

    soapkrr.baselines.keep_results(tmp_path / "results")
    Tallied.calls = 0
    yield make
    store._GIVEN.clear()


class _Factory:
    """Pickled with the options."""

    def __init__(self, options):
        self.options = options

    def __call__(self):
        return Tallied(**self.options)


def structures(frames):
    return [Structure.of(atoms) for atoms in frames]


def forget(name):
    """As a new process would: no results in memory."""
    named(name)._results.clear()
    many.calculator_of.cache_clear()


# --- names -----------------------------------------------------------------------------------------------------------


def values(baseline, atoms):
    _, (mean,) = split_baseline(baseline)
    result = mean.evaluate(Batch.from_atoms([atoms]))
    return result.energies.sum(), result.forces


def test_emt_is_that_of_ase():
    atoms = bulk("Cu", cubic=True) * (1, 1, 2)
    atoms.rattle(0.1, seed=0)
    energy, forces = values("emt", atoms)
    atoms.calc = EMT()
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-10)


def test_zbl_and_its_arguments():
    assert split_baseline("zbl")[1] == (ZBL(),)
    assert split_baseline("zbl:0.9,r_outer=2.5")[1] == (ZBL(0.9, 2.5),)


@needs_tblite
@pytest.mark.parametrize(("name", "method"), [("gfn2", "GFN2-xTB"), ("gfn1", "GFN1-xTB")])
def test_xtb_is_that_of_tblite(name, method):
    from tblite.ase import TBLite

    water = molecule("H2O")
    water.rattle(0.05, seed=0)
    energy, forces = values(name, water)
    water.calc = TBLite(method=method, verbosity=0)
    assert energy == pytest.approx(water.get_potential_energy(), abs=1e-5)
    np.testing.assert_allclose(forces, water.get_forces(), atol=1e-4)


@needs_tblite
def test_xtb_forces_are_derivatives_of_its_energy():
    """With its default accuracy they are to 1e-4 eV/Å; as prior mean they have to be better than what is learnt."""
    water, h = molecule("H2O"), 1e-3
    water.rattle(0.05, seed=0)
    energies = []
    for step in (-h, h):
        moved = water.copy()
        moved.positions[1, 2] += step
        energies.append(values("gfn2", moved)[0])
    assert values("gfn2", water)[1][1, 2] == pytest.approx(-(energies[1] - energies[0]) / (2 * h), abs=2e-4)


@needs_tblite
def test_charge_is_an_argument():
    ion = molecule("OH")
    assert values("gfn2:charge=-1", ion)[0] != pytest.approx(values("gfn2", ion)[0], abs=0.1)


@needs_tblite
def test_options_that_xtb_does_not_have():
    with pytest.raises(InputError, match="GFN2-xTB has no chrage; it has accuracy, .*charge, "):
        named("gfn2:chrage=-1").make_calculator()


@needs_dftd3
def test_d3_is_that_of_dftd3():
    from dftd3.ase import DFTD3

    benzene = molecule("C6H6")
    energy, forces = values("d3:pbe", benzene)
    benzene.calc = DFTD3(method="pbe", damping="d3bj")
    assert energy == pytest.approx(benzene.get_potential_energy(), abs=1e-10)
    np.testing.assert_allclose(forces, benzene.get_forces(), atol=1e-10)


@needs_dftd3
def test_d3_wants_a_functional():
    with pytest.raises(InputError, match="'d3:pbe'"):
        small_gp(baseline="d3").fit(crystals(3))


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("gfn", "Did you mean 'gfn[12]'.*d3, emt, gfn1, gfn2, .*zbl.*register.*isolated, least-squares"),
        ("nothing of the kind", "`baseline`='nothing of the kind' is unknown. Names of prior means: .*d3, emt"),
        ("auto", "an estimator takes a name"),
        (["emt", "emt"], "holds .*emt.* twice"),
        (["isolated", "least-squares", "emt"], "several kinds of reference energies"),
        ("emt:charge", "`baseline`='emt:charge' cannot be made, TypeError"),
        ("zbl:width=3", "`baseline`='zbl:width=3' cannot be made, TypeError"),
    ],
)
def test_impossible_names(baseline, said):
    with pytest.raises(InputError, match=said):
        small_gp(baseline=baseline).fit(crystals(3))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("gfn2", EMT), "has a meaning already"),
        (("auto", EMT), "has a meaning already"),
        (("two words", EMT), "letters, digits"),
        (("mine", "EMT"), "`factory` must be callable"),
        (("mine", EMT, 1), "`version`"),
    ],
)
def test_what_cannot_be_registered(arguments, said):
    with pytest.raises(InputError, match=said):
        register(*arguments)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(sources.metadata, "version", missing)
    with pytest.raises(InputError, match=r"needs tblite, which is not installed.*soapkrr\[xtb\]"):
        small_gp(baseline="gfn2").fit(crystals(3))


def test_a_factory_that_makes_no_calculator():
    register("no-calculator", lambda: 3)
    with pytest.raises(InputError, match="'no-calculator': its factory must make an ASE calculator, received 3"):
        small_gp(baseline="no-calculator").fit(crystals(3))


@needs_tblite
def test_elements_beyond_those_of_a_name():
    with pytest.raises(InputError, match="frame 1: `baseline`='gfn2' knows elements up to Rn, not U"):
        named("gfn2").prepare([molecule("H2O"), bulk("U", "fcc", a=5.0)])


# --- a factor --------------------------------------------------------------------------------------------------------


def test_a_scaled_prior_mean_is_so_many_times_the_other():
    atoms = crystals(1)[0]
    atoms.numbers[:] = 29
    energy, forces = values("emt", atoms)
    scaled = values(ScaledBaseline("emt", 1.7), atoms)
    assert scaled[0] == pytest.approx(1.7 * energy)
    np.testing.assert_allclose(scaled[1], 1.7 * forces)


@pytest.mark.parametrize("arguments", [("emt", np.nan), ("emt", "1"), (3, 1.0), ("unknown", 1.0)])
def test_impossible_factors(arguments):
    with pytest.raises(InputError):
        ScaledBaseline(*arguments)


# --- kept, resumed, shared -------------------------------------------------------------------------------------------


def test_results_are_kept_on_the_disk(tallied):
    name, frames = tallied(), crystals(5)
    model = small_gp(baseline=name).fit(frames)
    assert Tallied.calls == 5
    forget(name)
    again = clone(model).fit(frames)
    assert Tallied.calls == 5
    np.testing.assert_array_equal(model.predict(frames).energy, again.predict(frames).energy)


def test_an_interrupted_run_goes_on_where_it_was(tallied):
    name, frames = tallied(stop_after=3), crystals(6)
    with pytest.raises(KeyboardInterrupt):
        small_gp(baseline=name).fit(frames)
    forget(name)
    named(name)._source.factory.options["stop_after"] = None
    small_gp(baseline=name).fit(frames)
    assert Tallied.calls == 6


@pytest.mark.parametrize("damage", [b"", b"x" * 40, "shorter", "flipped"])
def test_damaged_results_are_computed_again(tallied, tmp_path, damage):
    name, frames = tallied(), crystals(4)
    expected = named(name).evaluate(Batch.from_atoms(frames))
    path = sorted(p for p in (tmp_path / "results").rglob("*") if p.is_file())[0]
    content = path.read_bytes()
    changed = {"shorter": content[:-1], "flipped": content[:50] + bytes([content[50] ^ 1]) + content[51:]}
    path.write_bytes(changed.get(damage, damage))
    forget(name)
    np.testing.assert_array_equal(named(name).evaluate(Batch.from_atoms(frames)).forces, expected.forces)
    assert Tallied.calls == 5


def test_nothing_is_kept_of_what_has_no_version(tallied, tmp_path):
    register("unversioned", _Factory({}))
    named("unversioned").prepare(crystals(3))
    assert not list((tmp_path / "results").rglob("*"))


def test_a_folder_that_cannot_be_written_stops_nothing(tallied, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "baselines").write_text("in the way")
    name = tallied()
    assert named(name).prepare(crystals(3)) == {}


@pytest.mark.parametrize("text", ["", "off", "None"])
def test_the_environment_says_that_nothing_is_kept(monkeypatch, text):
    monkeypatch.setenv(store.VARIABLE, text)
    assert store.folder_of_results() is None


def test_the_environment_names_a_folder(monkeypatch, tmp_path):
    monkeypatch.setenv(store.VARIABLE, str(tmp_path))
    assert store.store_for("emt", "1").folder.parent == tmp_path / "baselines"
    assert store.store_for("emt", "1") != store.store_for("emt", "2")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="`folder` must be a folder"):
        soapkrr.baselines.keep_results(tmp_path / "file")


def test_processes_give_what_one_gives(tallied, monkeypatch):
    frames = crystals(6)
    alone = named(tallied()).evaluate(Batch.from_atoms(frames))
    monkeypatch.setattr(many, "WORTH", 0.0)
    name = tallied()
    assert named(name).prepare(frames, threads=2) == {}
    shared = named(name).evaluate(Batch.from_atoms(frames))
    assert Tallied.calls == 7  # the others were in other processes
    for a, b in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_structure_that_ends_its_process_is_named(tallied, monkeypatch):
    monkeypatch.setattr(many, "WORTH", 0.0)
    frames = crystals(5)
    failed = named(tallied(end=[frames[3].get_volume()])).prepare(frames, threads=2)
    assert list(failed) == [3] and "ends its process" in failed[3]


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_structure_without_prior_mean_is_named_and_the_others_go_on(tallied):
    frames = crystals(7)
    name = tallied(bad=[frames[2].get_volume(), frames[5].get_volume()])
    with pytest.warns(DataWarning, match="2 of 7 structures have no prior mean.*frame 2: .*no convergence after 250 cycles.*; frame 5: "):
        model = GaussianProcess(soap(), DotProduct(2), baseline=name).fit(frames)
    assert list(model.without_prior_mean_) == [2, 5] and model.n_observations_["energy"] == 5
    rest = [atoms for s, atoms in enumerate(frames) if s not in (2, 5)]
    same = clone(model).fit(rest)
    np.testing.assert_allclose(model.predict(rest).energy, same.predict(rest).energy, atol=1e-9)
    with pytest.raises(InputError, match="frame 1: 'tallied.*no convergence"):
        model.predict([frames[0], frames[2]])


def test_a_prior_mean_that_fails_for_all(tallied):
    frames = crystals(5)
    name = tallied(bad=[atoms.get_volume() for atoms in frames])
    with pytest.raises(InputError, match="no structure has a prior mean: frame 0.*and 2 more"):
        small_gp(baseline=name).fit(frames)


def test_failures_are_not_kept(tallied):
    frames = crystals(3)
    name = tallied(bad=[frames[0].get_volume()])
    assert list(named(name).prepare(frames)) == [0]
    forget(name)
    named(name)._source.factory.options["bad"] = ()
    assert named(name).prepare(frames) == {}


# --- files and other processes ---------------------------------------------------------------------------------------

PRIORS = {"name": "emt", "scaled": [ScaledBaseline("emt", 0.8), "least-squares"], "object": NamedBaseline("emt")}


def copper(n=4):
    frames = crystals(n)
    for k, atoms in enumerate(frames):
        atoms.numbers[:] = 29
        atoms.set_cell(atoms.cell * 0.7, scale_atoms=True)
        atoms.calc = EMT()
        frames[k] = labelled(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return frames


@pytest.mark.parametrize("baseline", PRIORS.values(), ids=PRIORS)
def test_a_file_holds_the_name(tmp_path, baseline):
    frames = copper()
    model = small_gp(["Cu"], baseline=baseline).fit(frames)
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    assert loaded.baseline == model.baseline
    np.testing.assert_array_equal(loaded.predict(frames).energy, model.predict(frames).energy)
    with pytest.raises(InputError, match="`baseline_calculator`"):
        soapkrr.load(tmp_path / "m.soapkrr", baseline_calculator=EMT())


def test_another_process_predicts_with_the_name(tmp_path, capsys):
    frames = copper()
    model = small_gp(["Cu"], baseline="emt").fit(frames)
    model.save(tmp_path / "m.soapkrr")
    write(tmp_path / "frames.xyz", frames)
    command = [sys.executable, "-m", "soapkrr.cli", "predict", "m.soapkrr", "frames.xyz", "--output", "predicted.xyz"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    predicted = [atoms.get_potential_energy() for atoms in read(tmp_path / "predicted.xyz", ":")]
    np.testing.assert_allclose(predicted, model.predict(frames).energy, atol=1e-6)


def test_a_registered_name_that_is_unknown_where_the_file_is_read(tmp_path, tallied, monkeypatch):
    name = tallied()
    small_gp(baseline=name).fit(crystals(3)).save(tmp_path / "m.soapkrr")
    monkeypatch.delitem(sources._REGISTERED, name)
    with pytest.raises(InputError, match=f"'{name}' is unknown"):
        soapkrr.load(tmp_path / "m.soapkrr")


def test_a_calculator_that_is_registered_is_that_calculator(tallied):
    frames = crystals(4)
    by_name = small_gp(baseline=tallied()).fit(frames).predict(frames, uncertainty=True)
    by_object = small_gp(baseline=CalculatorBaseline(Tallied())).fit(frames).predict(frames, uncertainty=True)
    np.testing.assert_array_equal(by_name.energy, by_object.energy)
    np.testing.assert_array_equal(by_name.energy_std, by_object.energy_std)


def test_the_command_line_takes_names(tmp_path, capsys):
    write(tmp_path / "cu.xyz", copper(8))
    options = ["--r-cut", 4, "--n-max", 3, "--l-max", 2, "--n-sparse", 12, "--no-search", "--signal", 1, "--noise-energy", 0.01]
    options += ["--noise-forces", 0.05, "--no-repulsion", "-o", tmp_path / "m.soapkrr"]
    code, _, err = outcome(capsys, "fit", tmp_path / "cu.xyz", "--baseline", "emt", "--baseline", "least-squares", *options)
    assert code == 0, err
    assert soapkrr.load(tmp_path / "m.soapkrr").baseline == ["emt", "least-squares"]
    code, _, err = outcome(capsys, "fit", tmp_path / "cu.xyz", "--baseline", "emtt", *options)
    assert code == 2 and "Did you mean 'emt'" in err
    code, _, err = outcome(capsys, "fit", tmp_path / "cu.xyz", "--baseline", "emt", "--baseline", "auto", *options)
    assert code != 0 and "can be left open or given, not both" in err


@needs_tblite
def test_info_opens_what_cannot_predict_here(tmp_path, capsys, monkeypatch):
    frames = [labelled(molecule("H2O"), energy=-1.0), labelled(molecule("H2O"), energy=-1.0)]
    frames[1].rattle(0.05, seed=1)
    frames[1] = labelled(frames[1], energy=-0.9)
    small_gp(["H", "O"], baseline="gfn2").fit(frames).save(tmp_path / "m.soapkrr")

    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(sources.metadata, "version", missing)
    code, out, _ = outcome(capsys, "info", tmp_path / "m.soapkrr")
    assert code == 0 and "gfn2" in out
    with pytest.raises(InputError, match="needs tblite"):
        soapkrr.load(tmp_path / "m.soapkrr")
