"""Labels predicted without their own group, in closed form: equal to honest refits, for every process, group and kind of label."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from ase import Atoms
from conftest import emt_copper
from small import crystals, labelled, lennard_jones, small_gp, soap

from soapkrr import (
    ACSF,
    ZBL,
    DotProduct,
    GaussianProcess,
    InputError,
    KernelRidge,
    Linear,
    Observations,
    Pair,
    SparseGP,
    SquaredExponential,
    Term,
    linear,
    load,
)
from soapkrr.execution import scratch
from soapkrr.labels import KINDS, Labels, read_labels
from soapkrr.regression.data import TrainingData
from soapkrr.regression.exact.cholesky import collapse
from soapkrr.regression.exact.compositions import ObservedStructures
from soapkrr.regression.fit import Problem
from soapkrr.regression.grouping import groups_by
from soapkrr.regression.leave_out import leave_out
from soapkrr.regression.process import Predictor
from soapkrr.regression.residuals import Residuals
from soapkrr.regression.without import features, observations, partition
from soapkrr.structures import Batch

NOISE = {"energy": 0.01, "forces": 0.1, "stress": 0.01}
WEIGHTED = Observations(weight="trust")
COMMON = {"noise": NOISE, "observations": WEIGHTED, "threads": 1}


def trusted(frames):
    """The structures, each with a weight."""
    for atoms in frames:
        atoms.info.setdefault("trust", 1.0)
    return frames


def without(frames, members):
    """Copies of which those of ``members`` have no weight: their labels are not fitted, their environments stay."""
    copies = []
    for index, atoms in enumerate(frames):
        results = atoms.calc.results
        atoms = labelled(atoms, **results)
        atoms.info["trust"] = 0.0 if index in members else atoms.info["trust"]
        copies.append(atoms)
    return copies


def predicted(prediction, labels, members):
    """Means and variances of the labels of a leave-out in a prediction of its ``members``."""
    at = np.searchsorted(members, labels.structure)
    out = []
    for suffix, power in (("", 1), ("_std", 2)):
        values = {kind: getattr(prediction, kind + suffix) for kind in KINDS}
        where = zip(labels.kind, at, labels.component, strict=True)
        out.append(np.array([np.ravel(values[KINDS[k]][s])[c] ** power for k, s, c in where]))
    return out


def check(labels, prediction, members, rtol):
    """Means and variances of a group are those of a prediction; rounding counts against the largest of each kind."""
    mean, variance = predicted(prediction, labels, members)
    for k in np.unique(labels.kind):
        of = labels.kind == k
        np.testing.assert_allclose(labels.mean[of], mean[of], rtol=rtol, atol=rtol * np.abs(mean[of]).max())
        np.testing.assert_allclose(labels.variance[of], variance[of], rtol=rtol, atol=rtol * variance[of].max())


def check_against_refits(model, frames, by="structure", rtol=1e-8):
    """The leave-out of a fitted model is what refits without each group predict, which have the same sparse points and references."""
    found = model.leave_out(frames, by)
    assert found.exact
    for g in range(len(found.names)):
        mine = found.some(found.group == g)
        members = sorted(set(mine.structure.tolist()))
        refit = type(model)(**model.fitted_parameters_, threads=1)
        means = refit.baseline if isinstance(refit.baseline, list) else []
        refit.set_params(baseline=[dict(model.reference_energies_), *means])
        refit.fit(without(frames, members))
        check(mine, refit.predict([frames[s] for s in members], uncertainty=True), members, rtol)
    return found


def uneven():
    """Structures of several sizes that lack one kind of label or another, with σ of their own, masks and weights."""
    frames = trusted(emt_copper(7))
    for index, dropped in ((1, "energy"), (2, "forces"), (4, "stress")):
        frames[index] = labelled(frames[index], **{k: v for k, v in frames[index].calc.results.items() if k != dropped})
    frames[3].info["energy_noise"] = 0.003
    frames[5].arrays["forces_noise"] = np.linspace(0.05, 0.3, len(frames[5]))
    frames[6].arrays["force_mask"] = np.arange(len(frames[6])) % 2 == 0
    frames[0].info["trust"] = 0.5
    return frames


COPPER = soap(["Cu"])
PAIR = Term(Pair(["Cu"], r_cut=5.0), SquaredExponential(1.0), n_sparse=6)
MODELS = {
    "sparse": lambda: SparseGP(COPPER, DotProduct(zeta=2), n_sparse=20, **COMMON),
    "few features": lambda: SparseGP(COPPER, DotProduct(zeta=2), n_sparse=5, **COMMON),
    "terms": lambda: SparseGP([PAIR, Term(COPPER, DotProduct(2), n_sparse=15)], **COMMON),
    "ACSF": lambda: SparseGP(ACSF(["Cu"], r_cut=5.0), SquaredExponential(2.0), n_sparse=20, **COMMON),
    "linear": lambda: SparseGP(COPPER, Linear(), **COMMON),
    "prior mean": lambda: SparseGP(COPPER, DotProduct(zeta=2), n_sparse=20, **COMMON, baseline=[ZBL()]),
    "exact": lambda: GaussianProcess(COPPER, DotProduct(zeta=2), **COMMON),
    "exact terms": lambda: GaussianProcess([PAIR, Term(COPPER, DotProduct(2))], **COMMON),
    "ridge": lambda: KernelRidge(COPPER, DotProduct(zeta=2), observations=WEIGHTED, threads=1),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_what_refits_predict(name):
    frames = uneven()
    check_against_refits(MODELS[name]().fit(frames), frames)


@pytest.mark.parametrize("name", ["sparse", "few features", "exact"])
@pytest.mark.parametrize("by", [[0, 1, 2, 0, 1, 2, 1], list("aabbbab")], ids=str)
def test_groups_may_be_scattered(name, by):
    frames = uneven()
    check_against_refits(MODELS[name]().fit(frames), frames, by)


def test_isolated_atoms_are_in_the_fit_but_not_in_the_list():
    atom = labelled(Atoms("Ar", cell=[20, 20, 20]), energy=-0.3, forces=np.zeros((1, 3)))
    frames = trusted([*crystals(4), atom])
    model = small_gp(**COMMON).fit(frames)
    found = check_against_refits(model, frames)
    assert model.n_observations_["energy"] == 5
    assert found.of_kind("energy").structure.tolist() == [0, 1, 2, 3]
    assert (found.structure == 4).sum() == 3


@pytest.mark.parametrize("optimize", ["evidence", "cross-validation"])
def test_it_takes_the_noise_and_signals_that_were_found(optimize):
    frames = trusted(crystals(6))
    model = small_gp(**COMMON).fit(frames, optimize=optimize)
    found = model.leave_out(frames)
    same = SparseGP(
        [replace(model._terms()[0], signal=model.signals_[0], n_sparse=model.n_sparse, selection=model.selection)],
        **{**COMMON, "noise": model.noise_},
    ).fit(frames)
    other = same.leave_out(frames)
    np.testing.assert_allclose(found.mean, other.mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.variance, other.variance, rtol=1e-6)


def test_observations_as_representers():
    """Against the posterior of all other rows, by dense algebra, on the same representers."""
    frames = uneven()
    model = SparseGP(COPPER, DotProduct(zeta=2), n_sparse=30, representers="observations", **COMMON).fit(frames)
    found, process = model.leave_out(frames), model.process_
    labels = model.leave_out(frames, "structure")
    order = np.lexsort((labels.component, labels.kind, labels.structure))
    structures = ObservedStructures(frames, *([atoms.calc.results.get(k) is not None for atoms in frames] for k in ("forces", "stress")))
    place = structures.layout.components(labels.kind, labels.structure, labels.component)[order]
    rows = process.cross([structures.compositions(d) for d in process.descriptors])[0][place] @ process.transform
    base = model.reference_energies_["Cu"] * np.where(labels.kind == 0, labels.sizes[labels.structure], 0)
    table = (np.column_stack([rows, (labels.given - base)[order]])) / labels.sigma[order, None]
    for s in range(len(frames)):
        posterior = linear.solve({"all": table[labels.structure[order] != s]}, {"all": 1.0})
        weights = np.zeros(process.structures.layout.size)
        weights[process.picked] = process.transform @ posterior.mean
        terms = [Term(part.descriptor, part.kernel, signal=part.signal) for part in process.parts]
        other = replace(process, posterior=posterior, parts=collapse(terms, process.compositions, weights))
        refit = SparseGP(**model.fitted_parameters_, threads=1).fit(frames)
        refit.process_ = other
        check(found.some(found.structure == s), refit.predict([frames[s]], uncertainty=True), [s], 1e-8)


def test_conjugate_gradients_of_few_observations_are_exact():
    frames = trusted(emt_copper(5))
    model = GaussianProcess(COPPER, DotProduct(zeta=2), solver="cg", cg_tolerance=1e-10, **COMMON).fit(frames)
    found, direct = model.leave_out(frames), MODELS["exact"]().fit(frames).leave_out(frames)
    assert found.exact
    np.testing.assert_allclose(found.mean, direct.mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.variance, direct.variance, rtol=1e-8)


def test_conjugate_gradients_of_many_observations_say_that_they_estimate(monkeypatch):
    """Where the preconditioner has every environment, the estimate is that of a sparse process on all of them."""
    frames = trusted(emt_copper(8))
    model = GaussianProcess(COPPER, DotProduct(zeta=2), solver="cg", **COMMON).fit(frames)
    exact = model.leave_out(frames)
    monkeypatch.setattr(observations, "DENSE", 10)
    found = model.leave_out(frames)
    assert not found.exact and "estimated" in repr(found)
    for kind in KINDS:
        one, other = found.of_kind(kind), exact.of_kind(kind)
        assert np.abs(one.error - other.error).max() < 0.05 * np.abs(other.error).max()
        np.testing.assert_allclose(one.std, other.std, rtol=0.2, atol=0.02 * other.std.max())


@pytest.mark.parametrize("name", ["sparse", "few features", "exact", "observations"])
def test_groups_that_alone_know_something_are_fitted_without(name, monkeypatch):
    """The way out where 1 − H is lost to rounding, taken for every group."""
    frames = uneven()
    models = {**MODELS, "observations": lambda: SparseGP(COPPER, DotProduct(zeta=2), n_sparse=30, representers="observations", **COMMON)}
    model = models[name]().fit(frames)
    expected = model.leave_out(frames)
    monkeypatch.setattr(partition, "LOST", 1.0)
    found = model.leave_out(frames)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-7)


@pytest.mark.parametrize("name", ["sparse", "few features", "exact"])
@pytest.mark.parametrize("by", ["structure", "half"])
def test_threads_change_nothing_to_the_last_bit(name, by):
    frames = uneven()
    for index, atoms in enumerate(frames):
        atoms.info["half"] = index % 2
    model = MODELS[name]().fit(frames)
    one, two = (model.set_params(threads=n).leave_out(frames, by) for n in (1, 2))
    np.testing.assert_array_equal(one.mean, two.mean)
    np.testing.assert_array_equal(one.variance, two.variance)


def test_the_order_of_the_structures_does_not_count():
    frames = uneven()
    model, turned = MODELS["sparse"]().fit(frames), frames[::-1]
    one, other = model.leave_out(frames), model.leave_out(turned)
    back = np.lexsort((other.component, len(frames) - 1 - other.structure, other.kind))
    np.testing.assert_array_equal(other.mean[back], one.mean)
    np.testing.assert_array_equal(other.given[back], one.given)


def test_labels_and_noise_are_those_of_the_structures():
    frames = uneven()
    found = MODELS["prior mean"]().fit(frames).leave_out(frames)
    for kind in KINDS:
        mine = found.of_kind(kind)
        for s, c, given in zip(mine.structure, mine.component, mine.given, strict=True):
            np.testing.assert_allclose(given, np.ravel(frames[s].calc.results[kind])[c], rtol=1e-12)
    energies = found.of_kind("energy")
    np.testing.assert_allclose(energies.sigma[energies.structure == 3], 0.003 * np.sqrt(len(frames[3])))
    np.testing.assert_allclose(energies.sigma[energies.structure == 0], 0.01 * np.sqrt(len(frames[0])) / np.sqrt(0.5))
    assert not (found.structure[found.kind == 0] == 1).any()


def test_errors_and_table():
    frames = crystals(5)
    found = small_gp(threads=1).fit(frames).leave_out(frames)
    energies = found.of_kind("energy")
    assert found.rmse("energy") == pytest.approx(np.sqrt(np.mean((energies.error / 4) ** 2)))
    np.testing.assert_allclose(found.z, (found.mean - found.given) / np.hypot(found.std, found.sigma))
    text = repr(found)
    assert "5 groups of 5 structures" in text and "meV/atom" in text and f"{len(found.of_kind('forces'))}" in text
    assert "<table>" in found._repr_html_()
    bare = [labelled(atoms, energy=atoms.calc.results["energy"]) for atoms in frames]
    only = small_gp(threads=1).fit(bare).leave_out(bare)
    assert np.isnan(only.rmse("forces")) and "stress" not in repr(only)


def test_groups_by_name():
    frames = crystals(6)
    for index, atoms in enumerate(frames):
        atoms.info |= {"config_type": "ab"[index % 2], "run": index // 2}
    model = small_gp(threads=1).fit(frames)
    assert model.leave_out(frames, "config_type").names == ("a", "b")
    by_run = model.leave_out(frames, "run")
    assert by_run.names == ("0", "1", "2")
    np.testing.assert_array_equal(by_run.group, by_run.structure // 2)
    np.testing.assert_array_equal(by_run.mean, model.leave_out(frames, np.repeat([7, 9, 11], 2)).mean)


def test_near_identical_structures_are_one_cluster():
    rng, frames = np.random.default_rng(0), []
    for atoms in crystals(3):
        for _ in range(3):
            near = atoms.copy()
            near.positions += 1e-3 * rng.standard_normal(near.positions.shape)
            frames.append(lennard_jones(near, "energy", "forces"))
    found = small_gp(threads=1).fit(frames).leave_out(frames, "cluster")
    assert len(found.names) == 3
    for s in range(9):
        assert set(found.group[found.structure == s]) == set(found.group[found.structure == s // 3 * 3])


def test_structures_of_other_compositions_are_other_clusters():
    frames = [lennard_jones(Atoms(f"Ar{n}", [[3.8 * k, 0.1 * k * k, 0] for k in range(n)]), "energy", "forces") for n in (2, 2, 3, 3, 4)]
    found = small_gp(threads=1).fit(frames).leave_out(frames, "cluster")
    assert len(found.names) == 3


def test_saved_models_and_limits_of_memory(tmp_path):
    frames = crystals(5)
    model = small_gp(threads=1).fit(frames)
    found = model.leave_out(frames)
    model.save(tmp_path / "model.soapkrr")
    loaded = load(tmp_path / "model.soapkrr")
    np.testing.assert_array_equal(loaded.leave_out(frames).mean, found.mean)
    limited = loaded.set_params(memory_limit="1GB").leave_out(frames)
    np.testing.assert_allclose(limited.mean, found.mean, rtol=1e-8, atol=1e-9)


def test_what_cannot_be_left_out_is_said():
    frames = crystals(5)
    model = small_gp(threads=1).fit(frames)
    with pytest.raises(InputError, match="not those that the model was fitted to"):
        model.leave_out(frames[:4])
    moved = [atoms.copy() for atoms in frames]
    moved[2].positions[0, 0] += 1e-6
    moved = [labelled(new, **old.calc.results) for new, old in zip(moved, frames, strict=True)]
    with pytest.raises(InputError, match="SHA-256"):
        model.leave_out(moved)
    with pytest.raises(InputError, match="one group.*at least two groups"):
        model.leave_out(frames, "config_type")
    with pytest.raises(InputError, match="frame 0: `info` has no 'batch'"):
        model.leave_out(frames, "batch")
    with pytest.raises(InputError, match=r"one value for each of the 5 structures, received an array of shape \(3,\)"):
        model.leave_out(frames, [0, 1, 2])
    with pytest.raises(InputError, match="at least 3 structures, received 2 structures"):
        small_gp(threads=1).fit(frames[:2]).leave_out(frames[:2])
    model.origin_ = {}
    with pytest.raises(InputError, match="does not state which data"):
        model.leave_out(frames)


def test_the_fit_is_not_changed():
    frames = crystals(4)
    model = small_gp(threads=1).fit(frames)
    before, positions = model.predict(frames).energy, [atoms.positions.copy() for atoms in frames]
    model.leave_out(frames)
    np.testing.assert_array_equal(model.predict(frames).energy, before)
    for atoms, old in zip(frames, positions, strict=True):
        np.testing.assert_array_equal(atoms.positions, old)


def fit_and_data(model, frames, keep=True):
    """A fit that keeps its rows, its data, and where the work is done, as estimators put them together."""
    data = TrainingData.of(frames, read_labels(frames, model.observations, model._noise()), model.baseline)
    resources = model._resources(None, False, None)
    return model._scheme().fit(Problem(tuple(model._terms()), data, model._noise(), None, keep), resources), data, resources


@pytest.mark.parametrize("name", ["sparse", "few features", "terms", "ACSF"])
@pytest.mark.parametrize("by", ["structure", "scattered"])
def test_rows_kept_by_the_fit_are_those_made_again(name, by, monkeypatch):
    frames, model = uneven(), MODELS[name]()
    for index, atoms in enumerate(frames):
        atoms.info["scattered"] = index % 3
    expected = model.fit(frames).leave_out(frames, by)
    fit, data, resources = fit_and_data(MODELS[name](), frames)
    monkeypatch.setattr(features, "tables", None)
    found = leave_out(fit, data, groups_by(by, frames, fit.process.descriptors), resources)
    if by == "structure":
        np.testing.assert_array_equal(found.error, expected.error)
        np.testing.assert_array_equal(found.variance, expected.variance)
    np.testing.assert_allclose(found.error, expected.error, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-7)


def test_rows_that_a_full_disk_does_not_hold_are_made_again(monkeypatch):
    frames = uneven()
    model = MODELS["sparse"]().fit(frames)
    expected = model.leave_out(frames)
    monkeypatch.setattr(scratch, "PART", 1e-9)
    fit, data, resources = fit_and_data(MODELS["sparse"](), frames)
    found = leave_out(fit, data, groups_by("structure", frames, fit.process.descriptors), resources)
    np.testing.assert_array_equal(fit.process.posterior.mean, model.process_.posterior.mean)
    np.testing.assert_array_equal(found.mean, expected.mean)


def test_a_scratch_file_returns_what_was_put():
    kept, arrays = scratch.Scratch(), {k: np.random.default_rng(k).random((k, 3)) for k in range(5)}
    for k, array in arrays.items():
        kept.put(k, np.asfortranarray(array))
    for k, array in arrays.items():
        np.testing.assert_array_equal(kept.get(k), array)
    assert kept.get("other") is None


@pytest.mark.parametrize("failing", ["write", "flush", "seek"])
def test_a_scratch_file_lets_go_of_everything_when_the_disk_fails(failing, monkeypatch):
    class Failing(BytesIO):
        broken = False

        def _fail(self, name, *arguments):
            if self.broken and name == failing:
                raise OSError(28, "No space left on device")
            return getattr(BytesIO, name)(self, *arguments)

        def write(self, content):
            return self._fail("write", content)

        def flush(self):
            return self._fail("flush")

        def seek(self, place, whence=0):
            return self._fail("seek", place, whence)

    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", Failing)
    kept = scratch.Scratch()
    kept.put("one", np.ones(3))
    np.testing.assert_array_equal(kept.get("one"), np.ones(3))
    kept._file.broken = True
    kept.put("two", np.ones(3))
    assert kept.get("one") is None and kept.get("two") is None
    kept.put("three", np.ones(3))
    assert kept.get("three") is None


def test_without_a_temporary_folder_nothing_is_kept(monkeypatch):
    def refuse():
        raise OSError("no usable temporary directory")

    monkeypatch.setattr(scratch.tempfile, "TemporaryFile", refuse)
    kept = scratch.Scratch()
    kept.put("one", np.ones(3))
    assert kept.get("one") is None


@pytest.mark.parametrize("name", ["sparse", "few features", "exact", "observations"])
def test_a_gpu_gives_the_same(name, cuda):
    frames = uneven()
    models = {**MODELS, "observations": lambda: SparseGP(COPPER, DotProduct(zeta=2), n_sparse=30, representers="observations", **COMMON)}
    model = models[name]().fit(frames)
    expected, found = model.leave_out(frames), model.set_params(device="cuda").leave_out(frames)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-7)


@pytest.mark.parametrize("name", ["sparse", "few features", "terms", "prior mean", "exact", "ridge"])
def test_it_knows_the_residuals_of_the_fit_too(name):
    """Those that labels are checked by, without another prediction."""
    frames = uneven()
    model = MODELS[name]().fit(frames)
    found, prediction = model.leave_out(frames), model.predict(frames)
    parts = zip(prediction.energy, prediction.forces, prediction.stress, strict=True)
    expected = found.values_of([Labels(*part) for part in parts], found.sizes)
    np.testing.assert_allclose(found.fitted, expected, rtol=1e-8, atol=1e-8)


def test_residuals_of_a_leave_out_are_those_of_a_prediction():
    frames, model = uneven(), MODELS["sparse"]()
    fit, data, resources = fit_and_data(model, frames)
    found = Residuals.of_leave_out(data, leave_out(fit, data, groups_by("structure", frames, fit.process.descriptors), resources))
    predictor = Predictor(fit.process, data.references, (), None, "cpu", 1)
    expected = Residuals.of(data, predictor(Batch.from_atoms(data.frames), frozenset()), fit.noise)
    for name in ("kind", "structure", "component", "given", "sigma"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.predicted, expected.predicted, rtol=1e-8, atol=1e-8)
