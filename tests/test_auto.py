"""The fit without knobs: what it chooses, that it says so, and that it fits."""

import numpy as np
import pytest
from small import crystals, lennard_jones, small_gp
from systems import build

import soapkrr
from soapkrr import GaussianProcess, InputError, LabelError, SparseGP, auto
from soapkrr.choices import advice
from soapkrr.description import describe, nearest_distance
from soapkrr.execution.memory import format_memory
from soapkrr.execution.pools import Threads
from soapkrr.execution.resources import Division, Resources
from soapkrr.labels import read_labels
from soapkrr.metrics import error_table
from soapkrr.regression.data import TrainingData
from soapkrr.regression.sparse.cross_validation import Folds
from soapkrr.regression.sparse.triangles import kernel_triangles, whitened_triangles
from soapkrr.selection.specifications import GivenPoints


@pytest.fixture(scope="module")
def model():
    return soapkrr.fit(crystals(12))


def test_small_data_become_an_exact_process_that_predicts_what_it_has_not_seen(model):
    test = crystals(6, seed=1)
    assert isinstance(model, GaussianProcess)
    labels = np.concatenate([atoms.get_forces() for atoms in test])
    errors = error_table(test, model.predict(test))
    # Lennard-Jones argon: a twentieth of the spread is no feat, but far from a failed fit.
    assert errors["forces_mae_ev_per_angstrom"] < 0.05 * np.abs(labels).mean()


def test_everything_chosen_is_said(model):
    names = [choice.name for choice in model.choices_]
    assert names[:8] == ["species", "r_cut", "sigma", "n_max", "l_max", "scaling", "zeta", "regressor"]
    assert {"noise, energy", "noise, forces", "signal"} <= set(names)
    table = auto.summary(model)
    assert all(name in table for name in names)


def test_a_model_made_by_hand_has_no_summary():
    with pytest.raises(InputError, match="soapkrr.fit"):
        auto.summary(SparseGP(soapkrr.SOAP(["Ar"], r_cut=4.0), soapkrr.DotProduct(2)))


def test_the_cutoff_follows_the_distances():
    given = {c.name: c.value for c in describe([build("skewed")])}
    nearest = nearest_distance([build("skewed")])
    assert given["r_cut"] == pytest.approx(np.clip(2.35 * nearest, 4.0, 6.5), abs=0.05)


def test_larger_data_become_a_sparse_process(monkeypatch):
    monkeypatch.setattr(auto, "EXACT", 10)
    monkeypatch.setattr(auto, "EXACT_SMALL", 10)
    monkeypatch.setattr(auto, "SPARSE", (8, 20))
    model = soapkrr.fit(crystals(6))
    assert isinstance(model, SparseGP)
    assert sum(model.n_sparse_.values()) <= 20
    assert np.isfinite(model.predict(crystals(2)).energy).all()


def test_the_choice_follows_the_limit_of_memory_and_says_so(monkeypatch):
    frames = crystals(40)
    need = GaussianProcess(_descriptor(frames), soapkrr.DotProduct(4), threads=1).plan(frames).enough
    choices = {limit: _regressor(frames, limit) for limit in (None, 1.01 * need, 0.99 * need)}
    assert [kind for kind, _ in choices.values()] == [GaussianProcess, GaussianProcess, SparseGP]
    reason = choices[0.99 * need][1]
    assert format_memory(need) in reason and format_memory(0.99 * need) in reason


def test_the_choice_does_not_depend_on_the_machine(monkeypatch):
    frames = crystals(40)
    need = GaussianProcess(_descriptor(frames), soapkrr.DotProduct(4), threads=1).plan(frames).enough
    monkeypatch.setattr("soapkrr.threads.default_threads", lambda: 64)
    monkeypatch.setattr("soapkrr.planning.work.default_threads", lambda: 64)
    assert _regressor(frames, 1.01 * need)[0] is GaussianProcess
    GaussianProcess(_descriptor(frames), soapkrr.DotProduct(4), memory_limit=int(1.01 * need)).plan(frames)


def _descriptor(frames):
    given = {c.name: c.value for c in describe(frames)}
    return soapkrr.SOAP(**{name: given[name] for name in ("species", "r_cut", "n_max", "l_max", "sigma", "scaling")})


def _regressor(frames, limit):
    """Class of the estimator that is chosen, and the reason given."""
    plan = auto.choose(frames, settings=auto.Settings(memory_limit=limit))
    return type(plan.model), next(c.reason for c in plan.choices if c.name == "regressor")


def test_many_small_structures_are_compressed_first(monkeypatch):
    monkeypatch.setattr(auto, "EXACT", 10)
    monkeypatch.setattr(auto, "COMPONENTS", 15)
    model = soapkrr.fit(crystals(6))
    assert isinstance(model, GaussianProcess)
    assert model.process_.parts[0].descriptor.n_features == 15


def test_nothing_to_fit():
    with pytest.raises(InputError, match="empty"):
        soapkrr.fit([])
    with pytest.raises(LabelError, match="none of the 1"):
        soapkrr.fit([build("molecule")])


def test_energies_alone_are_enough():
    frames = [lennard_jones(atoms, "energy") for atoms in crystals(8)]
    model = soapkrr.fit(frames)
    assert error_table(frames, model.predict(frames))["energy_mae_mev_per_atom"] < 1.0


def test_cross_validation_finds_what_refitting_finds():
    """The error of a fold from the other folds' triangles is that of a model fitted without it, on the same sparse points."""
    frames = crystals(8)
    noise = {"energy": 0.01, "forces": 0.02, "stress": 0.01}
    model = small_gp(noise=noise, signal=1.0, baseline={"Ar": 0.0}).fit(frames)
    data = TrainingData.of(frames, read_labels(frames), model.baseline)
    folds = data.folds(4)
    resources = Resources(Threads(), "cpu", Division.unlimited(np, None))
    of_kernel = [kernel_triangles(model.process_.terms, part, resources) for part in folds]
    parts = [(whitened_triangles(model.process_.terms, triangles, None), counts) for triangles, counts in of_kernel]
    errors = Folds.of(*zip(*parts, strict=True)).errors(noise)
    squares = []
    for left_out in folds:
        kept = [atoms for part in folds if part is not left_out for atoms in part.frames]
        points = GivenPoints([(len(kept) + s, a) for s, a in _places(model, frames)])
        again = small_gp(noise=noise, signal=1.0, baseline={"Ar": 0.0}, selection=points)
        unlabelled = [atoms.copy() for atoms in frames]
        p = again.fit([*kept, *unlabelled]).predict(left_out.frames)
        squares += [np.ravel(f - atoms.get_forces()) ** 2 for f, atoms in zip(p.forces, left_out.frames, strict=True)]
    # The direct error is squared rounding of 1e-16·|K|, conditioned by the Gram matrices: 1e-6 is far above it.
    assert errors["forces"] == pytest.approx(np.sqrt(np.concatenate(squares).mean()), rel=1e-6)


def _places(model, frames):
    """(frame, atom) of the sparse points of a fitted model."""
    X = model.descriptor.create(frames)
    rows = [int(np.argmin(((X - x) ** 2).sum(axis=1))) for x in model.process_.terms[0].points[0]]
    return [divmod(row, len(frames[0])) for row in rows]


def test_cross_validation_needs_two_structures():
    with pytest.raises(InputError, match="at least two"):
        small_gp().fit(crystals(1), optimize="cross-validation")


def test_unknown_ways_to_optimise():
    with pytest.raises(InputError, match="`optimize`"):
        small_gp().fit(crystals(2), optimize="luck")


# --- what is given ---


def test_what_is_given_takes_the_place_of_a_choice(model):
    frames = crystals(12)
    plan = auto.choose(frames, {"r_cut": 4.4, "zeta": 2, "scaling": None})
    assert plan.model.descriptor == _descriptor(frames).with_params(r_cut=4.4, scaling=None)
    assert plan.model.kernel == soapkrr.DotProduct(2) and isinstance(plan.model, GaussianProcess)
    assert {c.name for c in plan.choices if c.reason == "given"} == {"r_cut", "zeta", "scaling"}
    with pytest.raises(InputError, match="unknown names \\['rcut'\\]"):
        auto.choose(frames, {"rcut": 4.4})


@pytest.mark.parametrize("given", [{"n_sparse": 9}, {"selection": "cur"}], ids=str)
def test_sparse_points_mean_the_sparse_model(given):
    plan = auto.choose(crystals(6), given)
    assert isinstance(plan.model, SparseGP)
    assert {name: getattr(plan.model, name) for name in given} == given


def test_a_given_noise_stays_and_the_others_are_found(model):
    frames = crystals(12)
    fitted = auto.choose(frames, {"noise": {"forces": 0.3}}).fit(frames)
    assert fitted.noise_ == {**model.noise_, "forces": 0.3} and fitted.signals_ == model.signals_
    expected = GaussianProcess(_descriptor(frames), soapkrr.DotProduct(4), noise=fitted.noise_, signal=fitted.signals_[0]).fit(frames)
    np.testing.assert_allclose(fitted.predict(frames).energy, expected.predict(frames).energy, rtol=1e-10)
    reasons = {c.name: c.reason for c in fitted.choices_}
    assert reasons["noise, forces"] == "eV/Å, given" and reasons["noise, energy"] == "eV/atom, evidence"


def test_noise_and_signal_given_altogether_are_not_optimised():
    frames, given = crystals(6), {"energy": 0.01, "forces": 0.1, "stress": 0.01}
    plan = auto.choose(frames, {"noise": given, "signal": 2.0})
    assert plan.way is False
    assert plan.fit(frames).noise_ == given and plan.fit(frames).signals_ == (2.0,)


def test_labels_of_other_names_and_reference_energies_are_taken():
    frames = []
    for atoms in crystals(8):
        frames.append(atoms.copy())
        frames[-1].info["dft"] = atoms.get_potential_energy()
    model = soapkrr.fit(frames, observations=soapkrr.Observations(energy="dft", use=("energy",)), baseline={"Ar": -0.01})
    assert model.reference_energies_ == {"Ar": -0.01} and model.n_observations_ == {"energy": 8}


def test_errors_of_test_structures_are_in_the_summary(tmp_path):
    test = crystals(6, seed=1)
    model = soapkrr.fit(crystals(12), test=test)
    expected = error_table(test, model.predict(test, uncertainty=True))
    assert model.test_errors_ == {**expected, "n_structures": 6}
    row = next(line for line in auto.summary(model).splitlines() if line.startswith("test, forces"))
    assert f"{expected['forces_mae_ev_per_angstrom']:.3g}" in row and "6 structures that were not fitted" in row


def test_a_test_structure_that_cannot_be_used_is_named_before_the_fit(monkeypatch):
    monkeypatch.setattr(GaussianProcess, "fit", None)
    with pytest.raises(InputError, match="`test`: frame 1: species H"):
        soapkrr.fit(crystals(4), test=[crystals(1)[0], build("molecule")])


def test_choices_survive_a_file(model, tmp_path):
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    assert loaded.choices_ == model.choices_ and auto.summary(loaded) == auto.summary(model)


def test_a_second_fit_by_hand_forgets_the_choices():
    model = soapkrr.fit(crystals(4))
    assert not hasattr(model.fit(crystals(4)), "choices_")


def test_reasons_are_true_for_several_species():
    frames = crystals(4)
    for atoms in frames:
        numbers = atoms.numbers.copy()
        numbers[0] = 10
        atoms.calc.atoms.numbers = atoms.numbers = numbers
    one, several = ({c.name: c for c in auto.choose(f).choices} for f in (crystals(4), frames))
    for name in ("zeta", "n_max"):
        assert one[name].value > several[name].value
        assert "one species" in one[name].reason and "several species" in several[name].reason


def test_advice_names_what_can_be_given_where_it_is_read():
    with pytest.raises(InputError, match="`soapkrr.fit` chooses `r_cut`; to give it, make a `GaussianProcess` or `SparseGP`"):
        with advice(auto.CHOSEN):
            raise InputError("`r_cut`=6.0: no two atoms of the data are that close.")
    with pytest.raises(InputError, match="'isolated', but no isolated atom .* for \\['Ar'\\].$"):
        soapkrr.fit(crystals(2), baseline="isolated")


def test_one_large_structure_needs_no_cross_validation(monkeypatch):
    monkeypatch.setattr(auto, "EXACT", 10)
    monkeypatch.setattr(auto, "EXACT_SMALL", 10)
    assert isinstance(soapkrr.fit(crystals(1)), SparseGP)


def test_a_later_calibration_is_what_the_choices_tell():
    frames = crystals(12)
    model = soapkrr.fit(frames)
    before = list(model.choices_)
    rows = {c.name: c for c in model.calibrate(frames, by=np.arange(12) % 4).choices_}
    assert rows["calibration"].value == "12 structures, left out in 4 groups" and len(rows) == len(before)
    assert "left out in 4 groups" in auto.summary(model)
    assert model.calibrate(frames).choices_ == before
