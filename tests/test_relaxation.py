"""Relaxations that spare reference calls: as ASE's optimisers are, with the same end, in fewer calls."""

import copy
import json

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, FixBondLength
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.optimize import BFGS

import soapkrr
from soapkrr import SOAP, Compressed, DotProduct, GaussianProcess, InputError, SurrogateRelaxation
from soapkrr.active import relaxation as relaxation_module
from soapkrr.active.calculators import reference_calculator
from soapkrr.active.certificate import lowest_curvature
from soapkrr.active.surrogate import Reference, Surrogate, Tilted, preset, preset_near_rest
from soapkrr.active.widening import learnt_labels
from soapkrr.cli import entry as cli


def cluster(seed=0):
    """Seven copper atoms, shaken."""
    atoms = Atoms("Cu7", positions=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]) * 2.45)
    atoms.rattle(0.15, seed=seed)
    atoms.calc = EMT()
    return atoms


def slab(seed=0):
    """Oxygen on two layers of copper, the lower one held."""
    atoms = fcc111("Cu", (1, 2, 2), vacuum=5)
    add_adsorbate(atoms, "O", 1.4, "fcc")
    atoms.set_constraint(FixAtoms([atom.index for atom in atoms if atom.tag == 2]))
    atoms.rattle(0.1, seed=seed)
    atoms.calc = EMT()
    return atoms


class Counted(EMT):
    """Effective-medium theory that counts the structures that it is asked for."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def calculate(self, *args, **kwargs):
        self.asked += 1
        super().calculate(*args, **kwargs)


@pytest.mark.parametrize("make", [cluster, slab])
def test_it_ends_where_others_do_in_fewer_calls(make):
    atoms, other = make(), make()
    atoms.calc = Counted()
    relaxation, bfgs = SurrogateRelaxation(atoms, logfile=None), BFGS(other, logfile=None)
    assert relaxation.run(fmax=0.01) and bfgs.run(fmax=0.01)
    assert relaxation.calls == atoms.calc.asked <= 0.5 * (bfgs.nsteps + 1)
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 0.01
    assert atoms.get_potential_energy() == pytest.approx(other.get_potential_energy(), abs=2e-3)


def test_a_cell_relaxes_with_its_atoms():
    atoms = bulk("Cu", cubic=True)
    atoms.set_cell(atoms.cell.array * [[1.04], [0.98], [1.0]], scale_atoms=True)
    atoms.rattle(0.05, seed=0)
    atoms.calc = EMT()
    relaxation = SurrogateRelaxation(FrechetCellFilter(atoms), logfile=None)
    assert relaxation.run(fmax=0.01) and relaxation.calls <= 8
    assert np.abs(atoms.get_stress()).max() < 0.01 * len(atoms) / atoms.get_volume()  # the filter divides by the atoms
    assert relaxation.certificate.curvature is None and relaxation.certificate.gain_std < 0.1


def test_it_works_as_an_optimiser_of_ase(tmp_path, capsys):
    atoms, seen = slab(), []
    start = atoms.positions.copy()
    relaxation = SurrogateRelaxation(atoms, logfile="-", trajectory=str(tmp_path / "relax.traj"))
    relaxation.attach(lambda: seen.append(atoms.get_potential_energy()))
    assert relaxation.run(fmax=0.05)
    images = read(tmp_path / "relax.traj", ":")
    assert len(images) == len(seen) == relaxation.calls == relaxation.nsteps + 1
    np.testing.assert_allclose([image.get_potential_energy() for image in images], seen)
    np.testing.assert_array_equal(atoms.positions[atoms.constraints[0].index], start[atoms.constraints[0].index])
    out = capsys.readouterr().out
    assert out.count("SurrogateRelaxation:") == relaxation.calls and "left to gain" in out
    assert isinstance(atoms.calc, EMT)


def test_steps_are_reference_calls():
    relaxation = SurrogateRelaxation(cluster(), logfile=None)
    assert not relaxation.run(fmax=1e-3, steps=2)
    assert relaxation.calls == 3 and not relaxation.certificate.converged
    assert relaxation.run(fmax=1e-2, steps=20)


def test_a_restart_goes_on_with_what_was_calculated(tmp_path):
    first = SurrogateRelaxation(cluster(), restart=tmp_path / "state.json", logfile=None)
    first.run(fmax=0.01, steps=2)
    again = SurrogateRelaxation(cluster(), restart=tmp_path / "state.json", logfile=None)
    assert again.calls == 3 and len(again.model.process_.structures.frames) == 3
    np.testing.assert_allclose(sorted(again.values), sorted(first.values))
    assert again.run(fmax=0.01)
    assert again.calls <= 10


def test_the_surrogate_has_the_forces_of_the_reference_where_it_is_tilted():
    atoms = slab()
    reference = Reference(atoms.copy(), atoms.get_potential_energy(), atoms.get_forces(apply_constraint=False))
    surrogate = Surrogate(["Cu", "O"])
    surrogate.learn(reference)
    calculator = Tilted(surrogate.model, reference)
    copy = atoms.copy()
    copy.calc = calculator
    np.testing.assert_allclose(copy.get_forces(apply_constraint=False), reference.forces, atol=1e-10)
    assert copy.get_potential_energy() == pytest.approx(reference.energy, abs=1e-9)
    direction, steps = np.random.default_rng(0).normal(size=copy.positions.shape), [1e-2, 5e-3]
    slope, start, errors = -np.sum(copy.get_forces(apply_constraint=False) * direction), copy.positions.copy(), []
    for h in steps:
        energies = []
        for sign in (1, -1):
            copy.positions = start + sign * h * direction
            energies.append(copy.get_potential_energy())
        errors.append(abs((energies[0] - energies[1]) / (2 * h) - slope))
    assert errors[1] < 0.3 * errors[0] or errors[1] < 1e-6


@pytest.mark.parametrize("make", [cluster, slab])
def test_a_surrogate_near_rest_asks_no_more_than_that_of_barriers(make, monkeypatch):
    """Over shaken copies, so that no single structure decides."""
    calls = {}
    for terms in (preset, preset_near_rest):
        monkeypatch.setattr(relaxation_module, "preset_near_rest", terms)
        runs = [SurrogateRelaxation(make(seed), logfile=None) for seed in range(3)]
        assert all([relaxation.run(fmax=0.02) for relaxation in runs])
        assert {relaxation.model.descriptor[1].descriptor.r_cut for relaxation in runs} == {terms(["Cu"])[1].descriptor.r_cut}
        calls[terms] = sum(relaxation.calls for relaxation in runs)
    assert calls[preset_near_rest] <= calls[preset] + 1


def test_a_series_shares_what_it_learns():
    calls, model = [], None
    for seed in range(4):
        relaxation = SurrogateRelaxation(cluster(seed), logfile=None, model=model)
        assert relaxation.run(fmax=0.05)
        known = 0 if model is None else len(model.process_.structures.frames)
        calls.append(relaxation.calls)
        model = relaxation.model
        assert len(model.process_.structures.frames) == known + relaxation.calls
    assert np.mean(calls[2:]) < calls[0]


def test_models_that_are_handed_on_are_not_changed():
    first = SurrogateRelaxation(cluster(), logfile=None)
    first.run(fmax=0.05)
    before = first.model.predict(cluster()).energy[0]
    n = len(first.model.process_.structures.frames)
    SurrogateRelaxation(cluster(1), logfile=None, model=first.model).run(fmax=0.05)
    assert len(first.model.process_.structures.frames) == n and first.model.predict(cluster()).energy[0] == before


def test_a_good_prior_spares_calls():
    alone, helped = SurrogateRelaxation(cluster(), logfile=None), SurrogateRelaxation(cluster(), logfile=None, prior=EMT())
    assert alone.run(fmax=0.01) and helped.run(fmax=0.01)
    assert helped.calls <= 3 < alone.calls


def test_a_fitted_potential_is_a_prior():
    frames = [cluster(seed) for seed in range(6)]
    for atoms in frames:
        atoms.get_forces()
    model = soapkrr.SparseGP(SOAP(["Cu"], r_cut=4.0, n_max=4, l_max=3), DotProduct(zeta=2), n_sparse=30).fit(frames)
    relaxation = SurrogateRelaxation(cluster(7), logfile=None, model=model)
    assert relaxation.run(fmax=0.05) and len(relaxation.model.prior_means_) == 1


def test_nearest_stays_close_to_its_path():
    ways = {}
    for nearest in (False, True):
        atoms, steps = cluster(3), []
        relaxation = SurrogateRelaxation(atoms, logfile=None, nearest=nearest)
        relaxation.run(fmax=0.05)
        for a, b in zip(relaxation.references, relaxation.references[1:], strict=False):
            steps.append(np.linalg.norm(b.atoms.positions - a.atoms.positions, axis=1).max())
        ways[nearest] = max(steps)
    assert ways[True] <= 0.2 < ways[False]


def test_a_certificate_says_how_it_ended():
    atoms = cluster()
    relaxation = SurrogateRelaxation(atoms, logfile=None)
    relaxation.run(fmax=0.005)
    certificate = relaxation.certificate
    assert certificate.converged and certificate.calls == relaxation.calls < certificate.calls_without
    assert abs(certificate.gain) < 1e-3 and 0 < certificate.gain_std
    assert certificate.to_dict()["minimum"] == certificate.minimum
    assert str(certificate).startswith("relaxed: largest force 0.00")


def test_the_lowest_curvature_is_that_of_the_hessian():
    """Of a dimer, which has one mode: twice the curvature of its bond."""
    frames = [Atoms("Ar2", positions=[[0, 0, 0], [0, 0, d]]) for d in (3.5, 3.7, 3.8, 3.9, 4.2)]
    from ase.calculators.lj import LennardJones

    for atoms in frames:
        atoms.calc = LennardJones(sigma=3.4, epsilon=0.1, rc=12)
        atoms.get_forces()
    noise = {"energy": 1e-5, "forces": 1e-4}
    model = GaussianProcess(SOAP(["Ar"], r_cut=6.0, n_max=8, l_max=0), DotProduct(zeta=2), noise=noise, baseline={"Ar": 0.0}).fit(frames)
    value, std = lowest_curvature(model, frames[2])
    h = 1e-3
    ends = [Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8 + sign * h]]) for sign in (1, -1)]
    forces = [f[1, 2] for f in model.predict(ends).forces]
    assert value == pytest.approx(-2 * (forces[0] - forces[1]) / (2 * h), rel=1e-2)
    assert 0 < std < abs(value)


def test_a_surrogate_that_lets_atoms_coincide_is_stopped_before(monkeypatch):
    """Of one structure learnt, two atoms fall onto each other where nothing holds them: the way down ends before."""
    monkeypatch.setattr(relaxation_module, "TRUST", 5.0)
    monkeypatch.setattr(relaxation_module, "HOLE", 1e9)
    predict, asked = GaussianProcess.predict, []

    def refusing(self, frames, *args, **kwargs):
        asked.append(frames)
        if len(asked) % 7 == 0:
            raise InputError("frame 0: atoms 0 and 1 coincide")
        return predict(self, frames, *args, **kwargs)

    atoms = cluster()
    relaxation = SurrogateRelaxation(atoms, logfile=None)
    monkeypatch.setattr(Tilted, "calculate", _with(Tilted.calculate, refusing))
    relaxation.run(fmax=0.01, steps=4)
    assert 1 < relaxation.calls <= 5 and relaxation.certificate is not None and isinstance(atoms.calc, EMT)


def _with(calculate, refusing):
    """The method of a calculator, its model's predictions replaced."""

    def calculated(self, *args, **kwargs):
        self.model = copy.copy(self.model)
        self.model.predict = refusing.__get__(self.model)
        return calculate(self, *args, **kwargs)

    return calculated


class Failing(EMT):
    """Not a number from the third structure on."""

    count = 0

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.count += 1
        if self.count > 2:
            self.results["energy"] = np.nan


def test_a_reference_that_fails_is_said_and_nothing_is_lost(tmp_path):
    atoms = cluster()
    atoms.calc = Failing()
    relaxation = SurrogateRelaxation(atoms, restart=tmp_path / "state.json", logfile=None)
    with pytest.raises(InputError, match="reference calculation 3 gives an energy, forces or a stress that are not finite"):
        relaxation.run(fmax=0.01)
    assert relaxation.calls == 2 and isinstance(atoms.calc, Failing)
    assert SurrogateRelaxation(cluster(), restart=tmp_path / "state.json", logfile=None).calls == 2


class Broken(Calculator):
    implemented_properties = ["energy"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda atoms: setattr(atoms, "calc", None), {}, "`atoms` have no calculator"),
        (lambda atoms: None, {"prior": 3}, "`prior` must be an ASE calculator"),
    ],
)
def test_what_cannot_be_relaxed(change, options, message):
    atoms = cluster()
    change(atoms)
    with pytest.raises(InputError, match=message):
        SurrogateRelaxation(atoms, logfile=None, **options)


def test_a_model_that_meets_other_species_is_made_again_from_all_labels():
    """As a process fitted to the labels of both, under the reference energies that the labels of all compositions give."""
    first = SurrogateRelaxation(cluster(), logfile=None)
    first.run(fmax=0.1)
    mixed = cluster()
    mixed.symbols[0], mixed.symbols[3] = "Au", "Ni"
    second = SurrogateRelaxation(mixed, logfile=None, model=first.model)
    assert not second.surrogate.knows(["Au"]) and len(second.surrogate) == first.calls
    before = cluster()
    old, new = (model.predict(before, uncertainty=True) for model in (first.model, second.model))
    assert new.energy == pytest.approx(old.energy, abs=1e-4)
    np.testing.assert_allclose(new.forces[0], old.forces[0], atol=1e-3)
    assert new.energy_std == pytest.approx(old.energy_std, rel=0.1, abs=1e-4)
    assert second.run(fmax=0.1) and second.surrogate.knows(["Au", "Cu", "Ni"])
    assert set(second.model.reference_energies_) == {"Au", "Cu", "Ni"}
    known = [*first.references, *second.references]
    for reference in known:
        believed = reference.labelled().info["energy_noise"] * len(reference.atoms)  # loose where forces are large
        assert second.model.predict(reference.atoms).energy[0] == pytest.approx(reference.energy, abs=0.02 + believed)
    third = SurrogateRelaxation(cluster(1), logfile=None, model=second.model)
    assert third.run(fmax=0.1) and third.calls < first.calls


def test_labels_that_a_model_has_learnt_are_those_it_was_given():
    relaxation = SurrogateRelaxation(slab(), logfile=None, prior=EMT())
    relaxation.run(fmax=0.2)
    frames = learnt_labels(relaxation.model)
    assert len(frames) == relaxation.calls
    for atoms in frames:
        (known,) = [r for r in relaxation.references if np.allclose(r.atoms.positions, atoms.positions)]
        assert atoms.get_potential_energy() == pytest.approx(known.energy, abs=1e-8)
        np.testing.assert_allclose(atoms.get_forces(), known.forces, atol=1e-8)
        assert atoms.info["energy_noise"] == pytest.approx(known.labelled().info["energy_noise"], rel=1e-2)
        np.testing.assert_allclose(atoms.arrays["forces_noise"], known.labelled().info["forces_noise"], rtol=1e-2)


def test_a_model_whose_descriptor_has_no_species_cannot_be_made_for_others():
    first = SurrogateRelaxation(cluster(), logfile=None)
    first.run(fmax=0.5)
    model = GaussianProcess(Compressed(SOAP(["Cu"], r_cut=4.0, n_max=3, l_max=2), 8), DotProduct(zeta=2)).fit(learnt_labels(first.model))
    with pytest.raises(InputError, match="Compressed cannot be made for others"):
        SurrogateRelaxation(slab(), logfile=None, model=model)


class Counting(EMT):
    asked = 0

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        Counting.asked += 1


@pytest.mark.parametrize("steps", [2, 100])
def test_a_restart_repeats_no_call(tmp_path, steps):
    """Neither of a search that was interrupted, nor of one that had ended."""
    atoms = cluster()
    first = SurrogateRelaxation(atoms, restart=tmp_path / "state.json", logfile=None)
    ended = first.run(fmax=0.05, steps=steps)
    again = cluster()
    again.calc, Counting.asked = Counting(), 0
    second = SurrogateRelaxation(again, restart=tmp_path / "state.json", logfile=None)
    assert second.run(fmax=0.05)
    assert Counting.asked == second.calls - first.calls and (Counting.asked == 0) == ended
    seen = [reference.atoms.positions for reference in second.references]
    assert len({positions.tobytes() for positions in seen}) == len(seen)
    assert isinstance(again.calc, Counting) and second.certificate.converged


def test_what_is_held_altogether_takes_one_call():
    atoms = molecule("H2O")
    atoms.calc = EMT()
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    relaxation = SurrogateRelaxation(atoms, logfile=None)
    assert relaxation.run(fmax=0.05) and relaxation.calls == 1 and relaxation.certificate.curvature is None


def test_other_constraints_hold():
    atoms = molecule("H2O")
    atoms.calc = EMT()
    atoms.set_constraint(FixBondLength(0, 1))
    length = atoms.get_distance(0, 1)
    relaxation = SurrogateRelaxation(atoms, logfile=None)
    assert relaxation.run(fmax=0.05)
    assert atoms.get_distance(0, 1) == pytest.approx(length, abs=1e-6)


# --- on the command line ---


@pytest.fixture
def clusters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("c.xyz", [cluster(seed) for seed in range(3)])
    return tmp_path


def run(capsys, *words):
    code = cli.run(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def test_relaxations_by_a_reference_from_the_command_line(clusters, capsys):
    words = ["relax", "c.xyz", "--reference", "emt", "--fmax", "0.05", "-o", "out.xyz", "--series", "--save-model", "m.soapkrr", "--quiet"]
    code, out, err = run(capsys, *words, "--json")
    data = json.loads(out)
    assert (code, err, data["all_converged"], len(data["structures"])) == (0, "", True, 3)
    relaxed = read("out.xyz", ":")
    for row, atoms in zip(data["structures"], relaxed, strict=True):
        atoms.info["energy"] = atoms.get_potential_energy()
        atoms.calc = EMT()
        assert atoms.get_potential_energy() == pytest.approx(row["energy_ev"], abs=1e-6)
        assert np.linalg.norm(atoms.get_forces(), axis=1).max() <= 0.05 + 1e-6
    assert data["calls"] == sum(atoms.info["relax_calls"] for atoms in relaxed)
    assert len(soapkrr.load("m.soapkrr").process_.structures.frames) == data["calls"]
    table = run(capsys, *words)[1]
    assert table.count("Cu7") == 3 and f"{data['calls']} calls of emt, all relaxed" in table


def test_a_structure_that_fails_is_listed_and_the_rest_goes_on(clusters, capsys):
    frames = read("c.xyz", ":")
    frames[1] = molecule("SiH4")  # EMT does not know silicon
    write("c.xyz", frames)
    code, out, err = run(capsys, "relax", "c.xyz", "--reference", "emt", "--fmax", "0.1", "-o", "out.xyz", "--quiet")
    assert code == 1 and out.count("failed:") == 1 and "1 of 3 not relaxed" in out and err == ""
    assert [("relax_failed" in atoms.info) for atoms in read("out.xyz", ":")] == [False, True, False]


def test_an_interrupted_run_goes_on(clusters, capsys):
    words = ["relax", "c.xyz", "--reference", "emt", "--fmax", "0.05", "-o", "out.xyz", "--quiet"]
    assert run(capsys, *words)[0] == 0
    whole = read("out.xyz", ":")
    write("out.xyz", whole[:1])
    code, out, _ = run(capsys, *words, "--resume")
    assert code == 0 and len(read("out.xyz", ":")) == 3
    assert run(capsys, *words[:-3], "-o", "out.xyz", "--quiet", "--json")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reference", "gfn3"], "Did you mean"),
        (["--reference", "zbl"], "a prior mean, not a calculator"),
        (["--reference", "nowhere:f"], "cannot be called without arguments"),
        (["--reference", "json:dumps"], "cannot be called without arguments"),
        (["--reference", "time:time"], "makes a float, not an ASE calculator"),
        (["--reference", "missing.yaml"], "cannot be read"),
        (["--reference", "list.json"], "must hold a mapping with `calculator`"),
        (["--reference", "unknown.json"], "cannot be made"),
        (["--reference", "emt", "--fmax", "0"], "--fmax"),
    ],
)
def test_references_that_cannot_be(clusters, capsys, words, message):
    (clusters / "list.json").write_text("[1]")
    (clusters / "unknown.json").write_text('{"calculator": "nothing"}')
    code, out, err = run(capsys, "relax", "c.xyz", *words, "-o", "out.xyz")
    assert code == 2 and out == "" and message in err and not (clusters / "out.xyz").exists()


def test_a_file_describes_a_calculator(clusters):
    (clusters / "lj.json").write_text('{"calculator": "lj", "sigma": 2.0}')
    (clusters / "lj.yaml").write_text("calculator: lj\nsigma: 2.0\n")
    assert all(reference_calculator(name).parameters["sigma"] == 2.0 for name in ("lj.json", "lj.yaml"))
