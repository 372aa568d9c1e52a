"""Limits of memory are kept, change no result, and say what would be enough; a GPU whose memory runs out gets smaller blocks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small import crystals, lennard_jones, small_gp, soap

from soapkrr import DotProduct, GaussianProcess, GivenPoints, InputError, KernelRidge, PropertyRidge, Stratified, backends, load
from soapkrr.execution.blocks import block_map, split_on_out_of_memory
from soapkrr.execution.memory import format_memory, parse_memory
from soapkrr.regression.sparse import posterior, triangles
from soapkrr.regression.sparse.design import DesignRows
from soapkrr.regression.sparse.points import candidates

TESTS = Path(__file__).parent

#: A process that fits, or loads and predicts, and tells by how much its memory grew at most, the plan of it, and predictions.
CHILD = """
import json, resource, sys
sys.path.insert(0, {tests!r})
from small import crystals
from soapkrr import SOAP, DotProduct, GaussianProcess, SparseGP

what, limit = json.loads(sys.argv[1])
descriptor = SOAP(["Ar"], r_cut=6.0, n_max=6, l_max=4, sigma=0.5)
frames = crystals({frames})
predicted = frames[:4]

def model(limit):
    common = dict(threads=4, memory_limit=limit, noise={{"energy": 0.01, "forces": 0.05, "stress": 0.01}}, baseline={{"Ar": 0.0}})
    if what == "exact":
        return GaussianProcess(descriptor, DotProduct(2), **common)
    if what == "observations":
        return SparseGP(descriptor, DotProduct(2), n_sparse=200, representers="observations", **common)
    if what == "predict":  # many neighbours, few features
        return SparseGP(SOAP(["Ar"], r_cut=12.0, n_max=3, l_max=2, sigma=0.5), DotProduct(2), n_sparse=20, **common)
    return SparseGP(descriptor, DotProduct(2), n_sparse=700, **common)

# Compiled loops, threads and what libraries allocate once belong to the process, not to the work.
model(None).set_params(**({{}} if what == "exact" else {{"n_sparse": 20}})).fit(frames[:6]).predict(frames[:6], uncertainty=True)
work = model(limit)
if what == "predict":
    work.set_params(memory_limit=None).fit(frames[:6]).set_params(memory_limit=limit)
    predicted = [atoms.repeat((2, 2, 1)) for atoms in frames[:250]]
    plan = work.plan(predicted, predict=True, uncertainty="energy")
else:
    plan = work.plan(frames)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the high-water mark starts afresh
before = resident()
result = None
if what == "predict":
    result = work.predict(predicted, uncertainty="energy")
else:
    work.fit(frames)
with open("/proc/self/status") as file:
    peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
result = work.predict(predicted, uncertainty="energy") if result is None else result
print(json.dumps([peak - before, plan.peak_memory, result.energy.tolist(), result.energy_std.tolist()]))
"""


def child(what, limit, frames=1100):
    """(growth of resident memory in bytes, planned peak, energies, their standard deviations)."""
    code = CHILD.format(tests=str(TESTS), frames=frames)
    done = subprocess.run([sys.executable, "-c", code, json.dumps([what, limit])], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    growth, planned, energy, std = json.loads(done.stdout)
    return growth, planned, np.array(energy), np.array(std)


linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's /proc")


# --- amounts ---


@pytest.mark.parametrize(
    "value, size",
    [("2GB", 2e9), ("2 gb", 2e9), ("1.5MB", 1.5e6), ("512MiB", 2**29), ("1GiB", 2**30), ("100", 100), (4096, 4096), (1e9, 1e9)],
)
def test_amounts_of_memory(value, size):
    assert parse_memory(value) == size


def test_no_limit():
    assert parse_memory(None) is None


@pytest.mark.parametrize("value", ["two", "", "2 GB of it", "-1GB", 0, -5, np.nan, np.inf, True, "2PB", [1]])
def test_what_is_no_amount_of_memory(value):
    with pytest.raises(InputError, match="`memory_limit`"):
        parse_memory(value)
    with pytest.raises(InputError, match="`memory_limit`"):
        small_gp(memory_limit=value).fit(crystals(2))


def test_written_amounts_are_never_too_small():
    for size in np.exp(np.random.default_rng(0).uniform(0, 30, 300)):
        assert size <= parse_memory(format_memory(size)) <= 1.02 * size + 1


# --- limits are kept (whole processes) ---


@linux
@pytest.mark.parametrize("what, limit", [("environments", "76MB"), ("predict", "45MB")])
def test_memory_grows_by_less_than_the_limit_and_results_stay(what, limit):
    free, planned, energy, std = child(what, None)
    bounded, _, energy_bounded, std_bounded = child(what, limit)
    # The limit is below what the work would take: it is what holds it down.
    assert bounded <= parse_memory(limit) < planned
    assert bounded < free
    # eV; rounding of blocks of other sizes, 1e-16 times a condition number of 1e5.
    np.testing.assert_allclose(energy_bounded, energy, rtol=0, atol=1e-9)
    np.testing.assert_allclose(std_bounded, std, rtol=0, atol=1e-7)


@linux
@pytest.mark.parametrize("what, frames", [("environments", 1100), ("predict", 250), ("observations", 150), ("exact", 150)])
def test_plans_know_the_peak(what, frames):
    growth, planned, _, _ = child(what, None, frames)
    # A plan adds up what each thread may hold; threads seldom hold the most at the same moment.
    assert 0.5 * planned <= growth <= 1.3 * planned


# --- limits that are too small ---


def sizes(frames):
    return np.array([len(atoms) for atoms in frames], dtype=float)


MODELS = {
    "environments": lambda limit: small_gp(memory_limit=limit),
    "observations": lambda limit: small_gp(memory_limit=limit, representers="observations"),
    "exact": lambda limit: GaussianProcess(soap(), DotProduct(2), memory_limit=limit),
    "ridge": lambda limit: KernelRidge(soap(), DotProduct(2), memory_limit=limit),
    "property": lambda limit: PropertyRidge(soap(), DotProduct(2), target="extensive", memory_limit=limit),
}


def fitted(name, limit, frames):
    model = MODELS[name](limit)
    return model.fit(frames, sizes(frames)) if name == "property" else model.fit(frames)


@pytest.mark.parametrize("name", MODELS)
def test_too_small_a_limit_says_what_is_enough(name):
    frames = crystals(6)
    with pytest.raises(InputError, match=r"`memory_limit`=1 MB is too small for .* would be enough") as error:
        fitted(name, "1MB", frames)
    enough = re.search(r": ([0-9.]+ [kMGT]?B) would be enough", str(error.value))[1]
    assert fitted(name, enough, frames)
    with pytest.raises(InputError, match="would be enough"):
        fitted(name, int(0.97 * parse_memory(enough)), frames)


@pytest.mark.parametrize("name", MODELS)
def test_predictions_within_a_limit(name):
    frames, test = crystals(6), crystals(5, seed=1)
    model = fitted(name, None, frames)
    free = model.predict(test)
    with pytest.raises(InputError, match="the prediction of the largest structure .* would be enough") as error:
        model.set_params(memory_limit="1MB").predict(test)
    enough = re.search(r": ([0-9.]+ [kMGT]?B) would be enough", str(error.value))[1]
    bounded = model.set_params(memory_limit=enough).predict(test)
    energies = (free, bounded) if name == "property" else (free.energy, bounded.energy)
    np.testing.assert_allclose(*energies, rtol=1e-12)


def test_a_property_in_groups_is_the_same_with_its_deviations(monkeypatch):
    frames, test = crystals(6), crystals(5, seed=1)
    model = MODELS["property"](None).fit(frames, sizes(frames))
    free = model.predict(test, uncertainty=True)
    monkeypatch.setattr("soapkrr.estimators.property.GROUP", 4)
    p = model.set_params(memory_limit="1GB").predict(test, uncertainty=True)
    np.testing.assert_allclose([p.values, p.std], [free.values, free.std], rtol=1e-10, atol=1e-12)


def test_limits_belong_to_the_machine_not_to_the_model(tmp_path):
    small_gp(memory_limit="1GB").fit(crystals(3)).save(tmp_path / "m.soapkrr")
    assert load(tmp_path / "m.soapkrr").memory_limit is None
    assert load(tmp_path / "m.soapkrr", memory_limit="2GB").memory_limit == "2GB"
    with pytest.raises(InputError, match="`memory_limit`"):
        load(tmp_path / "m.soapkrr", memory_limit="much")


# --- environments among which sparse points are chosen ---


def test_thinning_spares_rare_species():
    kinds = np.repeat([0, 1, 2], [10_000, 7, 4_000])
    np.random.default_rng(0).shuffle(kinds)
    keep = candidates(kinds, np.array([50, 7, 3]), 1_000)
    kept = np.bincount(kinds[keep])
    assert kept[1] == 7 and kept.sum() <= 1_000 and kept.sum() > 990
    assert kept[0] == kept[2]
    gaps = np.diff(np.flatnonzero(keep & (kinds == 0)))
    assert gaps.max() < 4 * gaps.mean()  # spread over all of the data


def test_thinning_keeps_as_many_as_are_wanted():
    kinds = np.repeat([0, 1], [1_000, 1_000])
    keep = candidates(kinds, np.array([700, 20]), 800)
    assert np.bincount(kinds[keep]).tolist() == [700, 100]


def test_enough_memory_thins_nothing(caplog):
    assert candidates(np.zeros(10, dtype=int), np.array([3]), 10).all() and candidates(np.zeros(10, dtype=int), np.array([3]), np.inf).all()
    assert not caplog.records


def wide(limit=None, threads=None):
    """A model of more features, so that they count."""
    return small_gp(memory_limit=limit, threads=threads).set_params(descriptor__n_max=6, descriptor__l_max=4)


@pytest.fixture(scope="module")
def tight():
    """Structures with energies, and a limit that holds a little more than the features of the sparse points."""
    frames = [lennard_jones(atoms, "energy") for atoms in crystals(150)]
    with pytest.raises(InputError, match="too small for the features of the sparse points") as error:
        wide("1MB").fit(frames)
    return frames, parse_memory(re.search(r": ([0-9.]+ [kMGT]?B) would be enough", str(error.value))[1])


def test_a_fit_that_thins_says_so_and_works(caplog, tight):
    frames, limit = tight
    model = wide(limit).fit(frames)
    assert re.search(r"`memory_limit`: sparse points are chosen among \d+ of the 600 environments", caplog.text)
    energies = [a.get_potential_energy() for a in frames]
    error, error_free = (np.abs(m.predict(frames).energy - energies).mean() for m in (model, wide().fit(frames)))
    # Four of five environments are no candidates: the points are another choice, not a worse model.
    assert error < 2 * error_free + 1e-4


def test_points_do_not_depend_on_the_number_of_threads_under_a_limit(tight):
    frames, limit = tight
    one, many, free = (wide(limit, 1).fit(frames), wide(limit, 5).fit(frames), wide().fit(frames))
    np.testing.assert_array_equal(one.process_.terms[0].points[0], many.process_.terms[0].points[0])
    assert not np.array_equal(one.process_.terms[0].points[0], free.process_.terms[0].points[0])


@pytest.mark.parametrize("selection", ["fps", "cur", "leverage", "random", "kmeans", Stratified(), GivenPoints([(0, 1), 3])], ids=repr)
def test_every_selection_has_a_plan_and_a_limit(selection):
    frames = crystals(6)
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = "ab"[k % 2]
    model, free = (small_gp(selection=selection, memory_limit=limit).fit(frames) for limit in ("1GB", None))
    np.testing.assert_array_equal(model.process_.terms[0].points[0], free.process_.terms[0].points[0])
    assert model.plan(frames).representers >= sum(model.n_sparse_.values())


# --- a GPU whose memory runs out ---


class OutOfDeviceMemory(Exception):
    """Stands in for what a GPU's library raises."""


@pytest.fixture
def freed(monkeypatch):
    """List that grows by one whenever the pool of the device is emptied."""
    calls = []
    monkeypatch.setattr(backends, "out_of_memory", lambda: (OutOfDeviceMemory,))
    monkeypatch.setattr(backends, "free_memory", lambda: calls.append(1))
    return calls


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("most", [1, 3, 10, 64])
def test_blocks_that_do_not_fit_are_halved(freed, threads, most):
    def square(start, stop):
        if stop - start > most:
            raise OutOfDeviceMemory
        return np.arange(start, stop) ** 2

    blocks = list(block_map(square, 101, 32, threads))
    assert [a for a, _, _ in blocks] == [0, *(b for _, b, _ in blocks[:-1])] and blocks[-1][1] == 101
    np.testing.assert_array_equal(np.concatenate([x for _, _, x in blocks]), np.arange(101) ** 2)
    assert max(b - a for a, b, _ in blocks) <= most
    assert bool(freed) == (most < 32)


def test_later_blocks_stay_small(freed):
    tried = []

    def work(start, stop):
        tried.append(stop - start)
        if stop - start > 4:
            raise OutOfDeviceMemory

    assert len(list(block_map(work, 400, 32, 1))) == 100
    # The first block falls apart in seven attempts, 1 of 32, 2 of 16 and 4 of 8; no later one is tried in vain.
    assert len(tried) == 100 + 7 and len(freed) == 7


def test_a_block_of_one_that_does_not_fit_is_an_error(freed):
    def never(start, stop):
        raise OutOfDeviceMemory

    with pytest.raises(InputError, match=r"one atom \(0\)"):
        list(block_map(never, 10, 4, 1))


def test_other_errors_are_not_retried(freed):
    def wrong(start, stop):
        raise KeyError(start)

    with pytest.raises(KeyError):
        list(block_map(wrong, 10, 4, 2))
    assert not freed


def test_without_a_gpu_nothing_counts_as_its_memory():
    assert "cupy" in sys.modules or backends.out_of_memory() == ()

    def full(item):
        raise MemoryError

    with pytest.raises(MemoryError):
        list(split_on_out_of_memory(full, 1, lambda item: (item, item)))


def limited(monkeypatch, owner, name, size_of, most):
    """Make a function run out of memory, after it has done its work, for arguments larger than ``most``."""
    original = getattr(owner, name)

    def function(*args, **kwargs):
        result = original(*args, **kwargs)
        if size_of(*args) > most:
            raise OutOfDeviceMemory
        return result

    monkeypatch.setattr(owner, name, function)


def two_terms():
    a, b = (small_gp(n_sparse=8, noise={"forces": 0.02}).set_params(descriptor__r_cut=r) for r in (4.5, 3.9))
    return (a + b).set_params(baseline={"Ar": 0.0}, threads=1)


@pytest.fixture(scope="module")
def test_frames():
    return [crystals(1, seed=2)[0].repeat((2, 2, 2)), *crystals(3, seed=3)]


def test_predictions_on_a_full_gpu_are_the_same(freed, monkeypatch, test_frames):
    model = two_terms().fit(crystals(6))
    free = model.predict(test_frames, uncertainty=True)
    # Part of a block, one term of two, has been added when the memory runs out.
    limited(monkeypatch, posterior.SparsePart, "evaluate_with_kernel", lambda part, s, x: len(x) * (part.descriptor.r_cut < 4), 5)
    limited(monkeypatch, DesignRows, "forces", lambda design, start, stop, *prior: stop - start, 3)
    bounded = model.predict(test_frames, uncertainty=True)
    assert freed
    for name in ("energy", "energies", "forces", "stress", "energy_std", "energies_std", "forces_std", "stress_std"):
        a, b = (np.concatenate([np.ravel(v) for v in getattr(p, name)]) for p in (free, bounded))
        # Products of blocks of other sizes round differently, 1e-16 times weights of 1e5.
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-9, err_msg=name)


def test_structures_that_do_not_fit_together_are_predicted_apart(freed, monkeypatch, test_frames):
    model = two_terms().fit(crystals(6))
    free = model.predict(test_frames[1:], uncertainty=True)
    limited(monkeypatch, posterior, "strain_variance", lambda _, designs: len(designs[0].batch), 1)
    bounded = model.predict(test_frames[1:], uncertainty=True)
    assert freed
    np.testing.assert_allclose(bounded.stress_std, free.stress_std, rtol=0, atol=1e-9)
    limited(monkeypatch, posterior, "strain_variance", lambda *args: 1, 0)
    with pytest.raises(InputError, match="frame 0: the memory of the GPU does not hold the prediction of its 4 atoms"):
        model.predict(test_frames[1:], uncertainty=True)


def test_fits_on_a_full_gpu_are_the_same(freed, monkeypatch, test_frames):
    frames = crystals(8)
    free = two_terms().fit(frames)
    limited(monkeypatch, DesignRows, "strain", lambda design, first, last, *prior: last - first, 1)  # energies and forces are done by then
    bounded = two_terms().fit(frames)
    assert freed and bounded.n_observations_ == free.n_observations_
    np.testing.assert_allclose(bounded.predict(test_frames).energy, free.predict(test_frames).energy, rtol=0, atol=1e-9)


def test_a_structure_that_does_not_fit_on_a_gpu_is_named(freed, monkeypatch):
    frames = crystals(5)
    limited(monkeypatch, triangles, "tables", lambda *args: 1, 0)
    with pytest.raises(InputError, match="frame 0: the memory of the GPU does not hold the design rows of its 4 atoms"):
        small_gp().fit(frames)
