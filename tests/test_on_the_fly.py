"""Dynamics on the fly: a model that asks where it does not know, learns, and loses nothing when it is killed."""

import json
import signal
import subprocess
import sys
import textwrap
from io import StringIO
from itertools import pairwise

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.io import read
from ase.md.bussi import Bussi
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from small import small_gp

from soapkrr import InputError, OnTheFly
from soapkrr.active.asking import ask
from soapkrr.active.records import Records
from soapkrr.active.surrogate import Surrogate
from soapkrr.errors import ExtrapolationError, ExtrapolationWarning

#: Steps of a run that is killed.
LENGTH = 60


class Failing(Calculator):
    """EMT that fails at given calls; without the neighbour lists of calls before, on which its last digits depend."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, at=()):
        super().__init__()
        self.calls, self.at = 0, at

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.calls += 1
        if self.calls in self.at:
            raise RuntimeError("did not converge")
        fresh = self.atoms.copy()
        fresh.calc = EMT()
        self.results = {"energy": fresh.get_potential_energy(), "forces": fresh.get_forces()}


class NotANumber(Calculator):
    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": np.nan, "forces": np.full((len(atoms), 3), np.nan)}


def copper() -> Atoms:
    """Four hot atoms."""
    atoms = bulk("Cu", cubic=True)
    rng = np.random.default_rng(0)
    atoms.set_momenta(rng.normal(scale=np.sqrt(atoms.get_masses()[:, None] * units.kB * 1500), size=(4, 3)))
    return atoms


def verlet(atoms):
    return VelocityVerlet(atoms, 4 * units.fs)


def bussi(atoms):
    """A thermostat with random numbers."""
    return Bussi(atoms, 4 * units.fs, temperature_K=1200, taut=50 * units.fs, rng=np.random.default_rng(3))


def test_forces_along_a_run_are_within_the_threshold():
    atoms, errors = copper(), []

    def watched(moving):
        def compare():
            other = moving.copy()
            other.calc = EMT()
            errors.append(np.linalg.norm(other.get_forces() - moving.get_forces(), axis=1).max())

        dynamics = verlet(moving)
        dynamics.attach(compare)
        return dynamics

    run = OnTheFly(None, EMT(), watched, threshold=0.2).run(atoms, 60)
    assert run.step == 60
    assert 2 <= len(run.references) <= 15
    assert len(run.references) == len(run.calls)
    assert np.mean(np.array(errors) > 0.2) <= 0.1
    assert run.calls[0].step == 0 and np.isinf(run.calls[0].deviation) and np.isnan(run.calls[0].error)


def test_a_model_that_knows_the_way_asks_for_nothing():
    first = OnTheFly(None, EMT(), verlet, threshold=0.2).run(copper(), 30)
    second = OnTheFly(first.model, EMT(), verlet, threshold=0.4).run(copper(), 30)
    assert not second.references and second.step == 30
    assert second.model is first.model


def test_an_optimiser_ends_where_the_reference_is_at_rest():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.2, seed=1)
    run = OnTheFly(None, EMT(), lambda moving: BFGS(moving, logfile=None), threshold=0.05).run(atoms, 100)
    atoms.calc = EMT()
    assert np.linalg.norm(atoms.get_forces(), axis=1).max() < 0.1
    assert run.step < 100


@pytest.mark.parametrize("committee", [None, 8])
def test_optimisers_and_thermostats_forget_at_every_call(committee):
    """Each call is followed by new dynamics: no Hessian of the old forces, no velocity, and its first forces are those of the new model."""
    atoms, made = bulk("Cu", cubic=True), []
    atoms.rattle(0.2, seed=1)

    def fresh(moving):
        made.append(BFGS(moving, logfile=None))
        assert made[-1].state is None and made[-1].nsteps == 0
        model = moving.calc.model
        np.testing.assert_array_equal(moving.get_forces(), model.predict(moving).forces[0])
        made[-1].known = len(model.process_.structures.frames)
        return made[-1]

    run = OnTheFly(None, EMT(), fresh, threshold=0.05, committee=committee).run(atoms, 40)
    assert len(run.references) >= 3
    assert [optimiser.known for optimiser in made] == list(range(1, len(run.references) + 1))
    assert len({id(optimiser) for optimiser in made}) == len(made)


def test_momenta_are_kept_when_thermostats_forget():
    seen = {}

    def watched(moving):
        seen.setdefault(len(seen), moving.get_momenta())
        return bussi(moving)

    atoms = copper()
    before = atoms.get_momenta()
    run = OnTheFly(None, EMT(), watched, threshold=0.1).run(atoms, 8)
    np.testing.assert_array_equal(seen[0], before)
    assert len(seen) == len(run.references) >= 2 and not np.allclose(seen[1], before)


def test_a_committee_asks_where_its_samples_do_not_agree():
    """Models of a structure or two give standard deviations; later what is said at a call is the spread of samples of the model."""
    atoms, errors = copper(), []

    def compare(step, moving):
        other = moving.copy()
        other.calc = EMT()
        errors.append(np.linalg.norm(other.get_forces() - moving.get_forces(), axis=1).max() if moving.calc else 0.0)

    run = OnTheFly(None, EMT(), verlet, threshold=0.03, committee=8).attach(compare).run(atoms, 30)
    assert len(errors) == len(run.looks) and np.mean(np.array(errors) > 0.03) <= 0.1
    model = Surrogate(["Cu"])
    for reference, after in pairwise(run.references):
        model.learn(reference)
        std = model.model.predict(after.atoms, uncertainty={"forces"}).forces_std[0]
        forces = np.array([sample.predict(after.atoms).forces[0] for sample in map(model.model.sample(8).__getitem__, range(8))])
        spread = std if len(model) < 3 else forces.std(axis=0, ddof=1)
        expected = np.linalg.norm(spread, axis=1).max()
        assert run.calls[len(model)].deviation == pytest.approx(expected, rel=1e-5)
    assert len(model) >= 3


def test_a_prior_that_is_the_reference_leaves_nothing_to_ask():
    run = OnTheFly(None, EMT(), verlet, threshold=0.2, prior=EMT()).run(copper(), 10)
    other = OnTheFly(None, EMT(), verlet, threshold=0.2).run(copper(), 10)
    worst = max(call.error for call in run.calls[1:]) if len(run.calls) > 1 else 0.0
    assert worst < 1e-3 < max(call.error for call in other.calls[1:])


def test_a_run_remembers_what_it_saw(tmp_path):
    """Temperature and doubt at every look, on the disk too."""
    run = OnTheFly(None, EMT(), verlet, threshold=0.2, folder=tmp_path).run(copper(), 12)
    steps = [look.step for look in run.looks]
    assert set(steps) == set(range(13)) and run.looks[0].doubt == np.inf
    assert run.looks[0].temperature == pytest.approx(copper().get_temperature())
    assert {look.step for look in run.looks if look.doubt > 0.2} == {call.step for call in run.calls}
    again = OnTheFly(None, EMT(), verlet, threshold=0.2, folder=tmp_path).run(copper(), 12)
    assert again.looks == run.looks


def test_other_models_are_fitted_again():
    first = OnTheFly(None, EMT(), verlet, threshold=0.2).run(copper(), 5)
    frames = [reference.labelled() for reference in first.references]
    fitted = []

    def refit(model, labelled):
        fitted.append(len(labelled))
        return small_gp(["Cu"]).fit(frames + labelled)

    run = OnTheFly(small_gp(["Cu"]).fit(frames), EMT(), verlet, threshold=0.05, refit=refit).run(copper(), 12)
    assert fitted == list(range(1, len(run.references) + 1)) and fitted
    assert run.model.n_observations_["energy"] == len(frames) + len(run.references)


@pytest.fixture(scope="module")
def calibrated():
    """A model whose error bars are learnt from its own leave-out, and the structures it knows."""
    rng, frames = np.random.default_rng(2), []
    for _ in range(24):
        atoms = bulk("Cu", cubic=True)
        atoms.positions += rng.normal(scale=0.1, size=(4, 3))
        frames.append(ask(EMT(), atoms).labelled())
    return small_gp(["Cu"], n_sparse=40).learn(frames, False, False, calibrate=True), frames


def test_a_calibrated_model_asks_where_its_conformal_balls_are_too_large(calibrated):
    model, frames = calibrated
    atoms, fitted = copper(), []

    def refit(model, labelled):
        fitted.append(labelled[-1])
        return small_gp(["Cu"], n_sparse=40).learn(frames + labelled, False, False, calibrate=True)

    run = OnTheFly(model, EMT(), verlet, threshold=0.02, rate=0.1, refit=refit).run(atoms, 4)
    first = run.calls[0]
    ball = model.predict(fitted[0], uncertainty={"forces"}).balls(0.9)[0]
    assert np.isfinite(ball).all()
    assert first.deviation == pytest.approx(ball.max()) and first.deviation > 0.02


def test_the_threshold_is_that_of_the_model_where_none_is_given(calibrated):
    model, _ = calibrated
    model.left_out_errors_ = {"forces": 0.123}
    assert OnTheFly(model, EMT(), verlet, refit=lambda *given: model).threshold == 0.123


#: A run on a disk whose process is killed at the third call, before, within or after what it writes.
SCRIPT = """
    import os, signal, sys
    import numpy as np
    sys.path.insert(0, {tests!r})
    from test_on_the_fly import LENGTH, Failing, OnTheFly, bussi, copper
    import soapkrr.active.journal as journal
    import soapkrr.active.records as records

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    class Dying(Failing):
        def calculate(self, *args, **kwargs):
            if {when!r} == "before" and self.calls == 2:
                die()
            super().calculate(*args, **kwargs)

    dying = Dying()

    whole, write = records._text, journal.write_whole

    def text(reference):
        if {when!r} == "within" and dying.calls == 3:
            with open({folder!r} + "/calls.xyz", "ab") as file:
                file.write(whole(reference).encode()[:200])
            die()
        return whole(reference)

    def save(path, function):
        if {when!r} == "after" and dying.calls == 3:
            die()
        write(path, function)

    records._text, journal.write_whole = text, save
    OnTheFly(None, dying, bussi, threshold=0.05, folder={folder!r}).run(copper(), LENGTH)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    atoms = copper()
    run = OnTheFly(None, Failing(), bussi, threshold=0.05, folder=folder).run(atoms, LENGTH)
    assert len(run.references) >= 4
    return (folder / "calls.xyz").read_bytes(), atoms.positions, [(call.step, call.deviation) for call in run.calls]


@pytest.mark.parametrize("when", ["before", "within", "after"])
def test_a_run_that_is_killed_goes_on_and_ends_at_the_same_labels(tmp_path, undisturbed, when, request):
    text, positions, calls = undisturbed
    script = SCRIPT.format(tests=str(request.path.parent), when=when, folder=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    kept = {"before": 2, "within": 2, "after": 3}[when]
    assert (tmp_path / "calls.xyz").read_bytes().count(b"Lattice") == kept + (when == "within")
    atoms, reference = copper(), Failing()
    run = OnTheFly(None, reference, bussi, threshold=0.05, folder=tmp_path).run(atoms, LENGTH)
    # Loops that a process compiles and those that it reads from the cache round differently.
    ended, expected = read(tmp_path / "calls.xyz", ":"), read(StringIO(text.decode()), ":", format="extxyz")
    assert [a.get_potential_energy() for a in ended] == pytest.approx([a.get_potential_energy() for a in expected], abs=1e-9)
    assert reference.calls == len(run.references) - kept
    assert [call.step for call in run.calls] == [step for step, _ in calls]
    assert [call.deviation for call in run.calls] == pytest.approx([deviation for _, deviation in calls], rel=1e-6)
    np.testing.assert_allclose(atoms.positions, positions, atol=1e-9)


def test_a_finished_run_can_be_made_longer(tmp_path):
    atoms = copper()
    OnTheFly(None, EMT(), verlet, threshold=0.1, folder=tmp_path).run(atoms, 10)
    longer = OnTheFly(None, EMT(), verlet, threshold=0.1, folder=tmp_path).run(copper(), 15)
    assert longer.step == 15
    assert len(Records(tmp_path / "calls.xyz")) == len(longer.references)


def test_a_reference_that_fails_is_a_recorded_skip():
    """The run goes on, and asks again at the next step."""
    run = OnTheFly(None, Failing((2,)), verlet, threshold=0.1).run(copper(), 10)
    failed = [call for call in run.calls if call.failure]
    assert len(failed) == 1 and "did not converge" in failed[0].failure and np.isnan(failed[0].error)
    assert run.calls[2].step > failed[0].step and not run.calls[2].failure
    assert len(run.references) == len(run.calls) - 1


def test_a_reference_that_fails_again_and_again_ends_the_run():
    run = OnTheFly(None, Failing(range(2, 100)), verlet, threshold=0.1)
    with pytest.raises(InputError, match="did not converge"):
        run.run(copper(), 50)
    assert len(run.references) == 1 and len(run.calls) == 4


@pytest.mark.parametrize(("reference", "message"), [(Failing((1,)), "did not converge"), (NotANumber(), "energy nan")])
def test_a_run_needs_a_first_calculation(reference, message):
    with pytest.raises(InputError, match=message):
        OnTheFly(None, reference, verlet, threshold=0.1).run(copper(), 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "`threshold` must be a positive"),
        ({"threshold": None}, "`threshold` must be given"),
        ({"rate": 0.0}, "`rate`"),
        ({"every": 0}, "`every`"),
        ({"prior": "emt"}, "`prior` must be an ASE calculator"),
        ({"committee": 1}, "`committee` counts samples"),
        ({"committee": True}, "`committee` counts samples"),
        ({"dynamics": "verlet"}, "`dynamics` must be a function"),
        ({"reference": "emt"}, "`reference` must be an ASE calculator"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(options, message):
    given = {"model": None, "reference": EMT(), "dynamics": verlet, "threshold": 0.1} | options
    model, reference, dynamics = (given.pop(name) for name in ("model", "reference", "dynamics"))
    with pytest.raises(InputError, match=message):
        OnTheFly(model, reference, dynamics, **given)


def test_a_folder_of_another_run_is_refused(tmp_path):
    OnTheFly(None, EMT(), verlet, threshold=0.1, folder=tmp_path).run(copper(), 2)
    with pytest.raises(InputError, match="state of a run of other atoms"):
        OnTheFly(None, EMT(), verlet, threshold=0.1, folder=tmp_path).run(copper().repeat((2, 1, 1)), 2)
    (tmp_path / "state.json").write_text(json.dumps({"step": 3}))
    with pytest.raises(InputError, match="is no state of a run"):
        OnTheFly(None, EMT(), verlet, threshold=0.1, folder=tmp_path).run(copper(), 2)


@pytest.fixture(scope="module")
def model():
    return OnTheFly(None, EMT(), verlet, threshold=0.2).run(copper(), 5).model


@pytest.fixture
def strange():
    """A structure far from those of the model."""
    atoms = copper()
    atoms.positions[0] += [0.6, 0.2, 0.0]
    return atoms


def test_a_calculator_acts_where_forces_are_uncertain(model, strange):
    known, seen = copper(), []
    known.calc = model.calculator(threshold=0.5, action="stop")
    known.get_forces()
    strange.calc = model.calculator(threshold=0.5, action="stop")
    with pytest.raises(ExtrapolationError, match="above `threshold` 0.5"):
        strange.get_forces()
    strange.calc = model.calculator(threshold=0.5)
    with pytest.warns(ExtrapolationWarning, match="Cu4 is uncertain"):
        strange.get_forces()
    strange.calc = model.calculator(threshold=0.5, action="record")
    forces = strange.get_forces()
    ((atoms, deviation),) = strange.calc.exceeded
    assert np.array_equal(atoms.positions, strange.positions)
    assert deviation == pytest.approx(np.linalg.norm(strange.calc.results["forces_std"], axis=1).max())
    strange.calc = model.calculator(threshold=0.5, action=lambda *found: seen.append(found))
    strange.get_forces()
    np.testing.assert_allclose(seen[0][0].get_forces(), forces)
    assert seen[0][1] == deviation


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "`threshold`"),
        ({"threshold": 0.1, "action": "shout"}, "`action`"),
        ({"threshold": 0.1, "sample": 0}, "`threshold`"),
    ],
    ids=str,
)
def test_calculators_refuse_what_they_cannot_do(model, options, message):
    with pytest.raises(InputError, match=message):
        model.calculator(**options)
