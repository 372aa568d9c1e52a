"""Learnt weights in a fit without knobs: judged by structures that they were not learnt from, and kept only where those gain."""

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from command_line import outcome
from small import crystals, labelled, lennard_jones, soap

import soapkrr
from soapkrr import Compressed, DotProduct, GaussianProcess, InputError, SparseGP, WeightedSOAP
from soapkrr.auto import choose
from soapkrr.automatic.learnt import _bare, _left_out, suits
from soapkrr.automatic.plans import Settings
from soapkrr.automatic.search import Score
from soapkrr.labels import read_labels
from soapkrr.learning import folds
from soapkrr.learning.folds import folded_weights

SMALL = {"n_max": 2, "l_max": 1, "r_cut": 5.5, "sigma": 0.5}


def alloys(n, seed=0):
    """Rattled cells with two species."""
    frames = []
    for atoms in crystals(n, seed):
        atoms.symbols[:] = ["Ar", "Kr", "Kr", "Ar"]
        frames.append(labelled(atoms, **atoms.calc.results))
    return frames


def ghosts(n, seed=0):
    """The same, where krypton neither feels anything nor is felt: weights have something to learn."""
    rng, frames = np.random.default_rng(seed), []
    for atoms in alloys(n, seed):
        atoms = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
        atoms.positions[1:3] += 0.4 * rng.normal(size=(2, 3))
        argon, forces = lennard_jones(atoms[[0, 3]], "energy", "forces"), np.zeros((4, 3))
        forces[[0, 3]] = argon.get_forces()
        frames.append(labelled(atoms, energy=argon.get_potential_energy(), forces=forces))
    return frames


def molecules(n, *names):
    """Free clusters of four atoms."""
    frames = []
    for atoms in alloys(n):
        results = {name: atoms.calc.results[name] for name in names}
        frames.append(labelled(Atoms(atoms.symbols, atoms.positions), **results))
    return frames


def small_model(threads=1, **changes):
    return GaussianProcess(soap(["Ar", "Kr"], l_max=1, n_max=2), DotProduct(2.5), threads=threads, **changes)


def fitted(frames, given=None, **settings):
    plan = choose(frames, SMALL | (given or {}), Settings(learn="weights", search=False, threads=1, **settings))
    return plan.fit(frames)


@pytest.fixture(scope="module")
def frames():
    return ghosts(12, seed=3)


@pytest.fixture(scope="module")
def found(frames):
    return folded_weights(small_model(), frames, Score(), steps=6)


@pytest.fixture(scope="module")
def learnt(frames):
    return fitted(frames)


def said(model):
    return {choice.name: choice for choice in model.choices_}["weights"]


# --- folds -----------------------------------------------------------------------------------------------------------


def test_weights_of_a_fold_do_not_know_its_labels(found, frames, monkeypatch):
    """Other forces in one fold: the weights learnt without it are the same numbers, the others are not."""
    monkeypatch.setattr(folds, "STOPS", (1.0,))
    before = folded_weights(small_model(), frames, Score(), steps=6)
    changed = [labelled(atoms, **atoms.calc.results) for atoms in frames]
    for s in np.flatnonzero(found.fold == 1):
        changed[s].calc.results["forces"] = -2 * changed[s].calc.results["forces"]
    after = folded_weights(small_model(), changed, Score(), steps=6)
    same = [np.array_equal(a.descriptor.weights, b.descriptor.weights) for a, b in zip(before.models, after.models, strict=True)]
    assert same == [False, True, False]


def test_kept_weights_are_the_geometric_mean_over_folds(frames, monkeypatch):
    monkeypatch.setattr(folds, "STOPS", (1.0,))
    found = folded_weights(small_model(), frames, Score(), steps=6)
    logs = [np.log(model.descriptor.weights) for model in found.models]
    np.testing.assert_allclose(np.log(found.model.descriptor.weights), np.mean(logs, axis=0), atol=1e-12)
    assert sorted(np.bincount(found.fold)) == [4, 4, 4]


def test_folds_are_deterministic_whatever_the_threads_and_the_order(found, frames):
    again = folded_weights(small_model(2), frames[::-1], Score(), steps=6)
    assert again.model.descriptor == found.model.descriptor and again.steps == found.steps
    np.testing.assert_array_equal(again.fold[::-1], found.fold)
    other = folded_weights(small_model(), frames, Score(), seed=1, steps=6)
    assert other.model.descriptor != found.model.descriptor


@pytest.mark.parametrize("fold", [None, 0, 1, 2])
def test_noise_is_that_of_least_errors_of_structures_no_weight_has_seen(frames, fold, monkeypatch):
    """By refits with other noise: none does better for the errors of all folds, or of all but the one that the model is judged by."""
    monkeypatch.setattr(folds, "STOPS", (1.0,))
    found = folded_weights(small_model(), frames, Score(), steps=6)
    chosen = found.model if fold is None else found.models[fold]

    def score(factor):
        squares = []
        for f, model in enumerate(found.models):
            noise = chosen.noise | {"forces": factor * chosen.noise["forces"]}
            fitted = soapkrr.GaussianProcess(model.descriptor, model.kernel, noise=noise, signal=model.signal, threads=1).fit(frames)
            left = fitted.leave_out(frames)
            mine = left.some((found.fold[left.structure] == f) & (f != fold))
            n = {kind: len(mine.of_kind(kind)) for kind in ("energy", "forces")}
            squares.append({kind: (n[kind] * np.nan_to_num(mine.rmse(kind)) ** 2, n[kind]) for kind in n})
        sums = [np.sum([part[kind][0] for part in squares]) / np.sum([part[kind][1] for part in squares]) for kind in squares[0]]
        return np.sum(np.log(sums))

    at_found = score(1.0)
    assert min(score(factor) for factor in (0.1, 10.0)) >= at_found - 1e-9


def test_too_few_structures_are_refused(frames):
    with pytest.raises(InputError, match="6 labelled structures"):
        folded_weights(small_model(), frames[:5], Score())


# --- fits ------------------------------------------------------------------------------------------------------------


def test_learnt_weights_are_kept_where_structures_they_did_not_see_gain(learnt, frames):
    plain = choose(frames, SMALL, Settings(learn=False, search=False, threads=1)).fit(frames)
    assert isinstance(learnt.descriptor, WeightedSOAP) and said(learnt).value == "learnt"
    assert Score()(learnt.left_out_errors_) < Score()(plain.left_out_errors_)
    rows = {choice.name: choice for choice in learnt.choices_}
    assert rows["noise, forces"].reason == "eV/Å, left-out folds" and rows["signal"].reason == "eV, learnt"
    assert f"{1e3 * plain.left_out_errors_['forces']:.3g} → {1e3 * learnt.left_out_errors_['forces']:.3g}" in said(learnt).reason
    assert list(rows).count("repulsion") == 1 and len(learnt.prior_means_) == 1


def test_errors_and_error_bars_are_those_of_weights_that_had_not_seen(learnt, frames):
    """Weights that know a structure predict it far too well without its labels: neither errors nor scores come from there."""
    seen = learnt.leave_out(frames).errors()
    assert all(learnt.left_out_errors_[kind] > seen[kind] for kind in ("energy", "forces"))
    plan = choose(frames, SMALL, Settings(learn="weights", search=False, threads=1))
    bars, calibration = learnt.predict(frames[:2], uncertainty=True), learnt.calibration_
    bare = choose(frames, SMALL, Settings(learn=False, search=False, threads=1)).fit(frames)
    left = _left_out(folded_weights(_bare(bare), frames, Score()), plan, frames)
    of_unseen = learnt.calibrate_on(left, frames, {}).predict(frames[:2], uncertainty=True)
    of_seen = learnt.calibrate(frames).predict(frames[:2], uncertainty=True)
    learnt.calibration_ = calibration
    np.testing.assert_allclose(of_unseen.forces_std, bars.forces_std, rtol=1e-6)
    assert not np.allclose(of_seen.forces_std, bars.forces_std, rtol=1e-2)


def test_new_structures_are_predicted_better(learnt, frames):
    test = ghosts(30, seed=9)
    plain = choose(frames, SMALL, Settings(learn=False, search=False, threads=1)).fit(frames)
    errors = [soapkrr.metrics.error_table(test, model.predict(test))["forces_rmse_ev_per_angstrom"] for model in (plain, learnt)]
    assert errors[1] < errors[0]


def test_noise_that_is_given_stays(frames):
    model = fitted(frames, {"noise": {"forces": 0.004}, "signal": 1.5})
    assert model.noise_["forces"] == 0.004 and model.signals_ == (1.5,)


@pytest.mark.parametrize(
    ("end", "row"),
    [(np.nan, "warning: learning diverged"), (6.0, "learnt ones do not help")],
)
def test_weights_that_do_not_help_or_diverge_leave_the_model_as_it_was(frames, monkeypatch, end, row):
    def bad(slope, x, steps, rate):
        for _ in range(steps):
            slope(x)
        return x + end * np.random.default_rng(0).normal(size=len(x)) * (np.arange(len(x)) < 16)

    monkeypatch.setattr("soapkrr.learning.weights.ascend", bad)
    monkeypatch.setattr(folds, "STOPS", (1.0,))
    monkeypatch.setattr(folds, "STEPS", 1)
    model = fitted(frames)
    plain = choose(frames, SMALL, Settings(learn=False, search=False, threads=1)).fit(frames)
    assert said(model).value == "none" and said(model).reason.startswith(row)
    np.testing.assert_array_equal(model.predict(frames).energy, plain.predict(frames).energy)


def test_a_winner_without_channels_competes_with_learnt_weights(frames):
    model = choose(frames, SMALL, Settings(learn="weights", threads=1)).fit(frames)
    names = [choice.name for choice in model.choices_]
    assert names.count("variant") == names.count("weights") == 1


@pytest.mark.slow
def test_sparse_models_and_principal_components_learn_too(frames):
    model = fitted(frames, {"n_sparse": 10})
    assert isinstance(model, SparseGP) and model.calibration_ is not None
    assert said(model).value in ("learnt", "none") and "left out, by weights" in said(model).reason
    inner = Compressed(soap(["Ar", "Kr"], l_max=1, n_max=2), n_components=5)
    found = folded_weights(GaussianProcess(inner, DotProduct(2.5), threads=1), frames, Score(), steps=2)
    assert isinstance(found.model.descriptor, Compressed) and isinstance(found.model.descriptor.descriptor, WeightedSOAP)


def test_a_learnt_model_is_saved_with_its_error_bars(learnt, frames, tmp_path):
    learnt.save(tmp_path / "model")
    loaded = soapkrr.load(tmp_path / "model")
    a, b = (model.predict(frames[:2], uncertainty=True) for model in (learnt, loaded))
    np.testing.assert_array_equal(a.forces_std[0], b.forces_std[0])
    assert loaded.choices_ == learnt.choices_


# --- when ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "names", "kind", "expected"),
    [
        (20, ("energy", "forces"), GaussianProcess, True),
        (60, ("energy", "forces"), GaussianProcess, True),
        (19, ("energy", "forces"), GaussianProcess, False),
        (61, ("energy", "forces"), GaussianProcess, False),
        (30, ("energy",), GaussianProcess, False),
        (30, ("energy", "forces"), SparseGP, False),
    ],
)
def test_few_molecules_with_forces_learn_unasked(n, names, kind, expected):
    frames = molecules(n, *names)
    assert suits(kind(soap(["Ar", "Kr"]), DotProduct(2)), frames, read_labels(frames)) == expected


def test_solids_and_plain_fits_do_not_learn_unasked():
    solids, free = alloys(30), molecules(30, "energy", "forces")
    assert not choose(solids, SMALL).learn and choose(solids, SMALL, Settings(learn="weights")).learn
    assert choose(free, SMALL).learn
    assert not choose(free, SMALL, Settings(search=False)).learn and not choose(free, SMALL, Settings(learn=False)).learn


@pytest.mark.parametrize("learn", ["noise", True, 3, ["weights"]])
def test_unknown_things_to_learn_are_refused(frames, learn):
    with pytest.raises(InputError, match="`learn` must be one of"):
        soapkrr.fit(frames, learn=learn)


def test_the_command_line_learns(frames, tmp_path, capsys):
    write(tmp_path / "train.xyz", frames)
    options = ["--n-max", "2", "--l-max", "1", "--no-search", "--quiet"]
    code, _, message = outcome(capsys, "fit", tmp_path / "train.xyz", "-o", tmp_path / "model", "--learn", "weights", *options)
    assert (code, message) == (0, "")
    assert said(soapkrr.load(tmp_path / "model")).value in ("learnt", "none")
