"""Plans: rows exactly, operations by their formulas, nothing large computed, a table that says what is measured and what is not."""

import tracemalloc

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from sklearn.exceptions import NotFittedError
from small import crystals, labelled, lennard_jones, small_gp, soap

from soapkrr import (
    ACSF,
    SOAP,
    Compressed,
    DotProduct,
    GaussianProcess,
    InputError,
    KernelRidge,
    LabelError,
    Observations,
    PropertyRidge,
    SparseGP,
    SquaredExponential,
    Term,
)
from soapkrr.execution.scratch import Scratch
from soapkrr.planning.plan import CARD, product_rate
from soapkrr.planning.sizes import neighbours
from soapkrr.structures import Batch
from soapkrr.threads import default_threads


def step(plan, name):
    return next(s for s in plan.steps if s.name == name)


@pytest.fixture(scope="module")
def frames():
    """Structures with different labels, one without any."""
    a, b, c, d, e = crystals(5)
    return [a, lennard_jones(b, "energy"), lennard_jones(c, "forces"), lennard_jones(d, "energy", "stress"), e.copy()]


MODELS = {
    "environments": lambda: small_gp(),
    "two terms": lambda: small_gp() + small_gp(n_sparse=4),
    "observations": lambda: small_gp(representers="observations"),
    "exact": lambda: GaussianProcess(soap(), DotProduct(2)),
    "ridge": lambda: KernelRidge(soap(), DotProduct(2)),
    "compressed": lambda: SparseGP(Compressed(soap(), n_components=4), DotProduct(2), n_sparse=5),
    "acsf": lambda: SparseGP(ACSF(["Ar"], r_cut=5.0, g2_params=[(0.5, 2.0), (0.5, 3.0)]), SquaredExponential(2.0), n_sparse=5),
}


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_those_of_the_fit(name, frames):
    model = MODELS[name]()
    plan = model.plan(frames)
    assert plan.rows == model.fit(frames).n_observations_ == {"energy": 3, "forces": 24, "stress": 12}
    assert (plan.n_rows, plan.n_structures) == (39, 4 if name in ("observations", "exact", "ridge") else 5)


def test_masked_and_unused_labels_are_no_rows(frames):
    atoms = crystals(1)[0]
    atoms.arrays["force_mask"] = np.array([True, False, False, False])
    model = small_gp(observations=Observations(use=("energy", "forces")))
    assert model.plan([atoms]).rows == model.fit([atoms, *crystals(2)]).plan([atoms]).rows == {"energy": 1, "forces": 9}


@pytest.mark.parametrize("target, n", [("extensive", 5), ("intensive", 5), ("atom", 20)])
def test_values_of_a_property_are_rows(target, n, frames):
    model = PropertyRidge(soap(), DotProduct(2), target=target)
    assert model.plan(frames).rows == {target: n}
    y = np.random.default_rng(0).random(n)
    assert model.plan(frames, y).rows == model.fit(frames, y).n_observations_
    assert model.plan(frames, predict=True, uncertainty=True).cpu_seconds > model.plan(frames, predict=True).cpu_seconds


def test_what_a_fit_refuses_a_plan_refuses(frames):
    with pytest.raises(LabelError):
        small_gp().plan([atoms.copy() for atoms in frames])
    with pytest.raises(InputError, match="`n_sparse`"):
        small_gp(n_sparse=0).plan(frames)
    with pytest.raises(InputError, match="empty"):
        small_gp().plan([])
    with pytest.raises(InputError, match="`uncertainty`"):
        small_gp().plan(frames, predict=True, uncertainty="luck")


def test_sparse_points_are_those_of_the_fit(frames):
    for n_sparse in (7, 1000, {"Ar": 9}):
        model = small_gp(n_sparse=n_sparse)
        assert model.plan(frames).representers == sum(model.fit(frames).n_sparse_.values())


def test_a_plan_leaves_the_estimator_alone(frames):
    model = small_gp()
    model.plan(frames)
    model.plan(frames, predict=True, uncertainty=True)
    with pytest.raises(NotFittedError):
        model.predict(frames)


# --- nothing large is computed ---


def large(n=60):
    """Silicon cells of 216 atoms whose labels are zero: 39,000 rows, which nobody would fit in a test."""
    atoms = bulk("Si", cubic=True).repeat(3)
    results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)}
    return [labelled(atoms, **results) for _ in range(n)]


@pytest.mark.parametrize(
    "model",
    [
        GaussianProcess(SOAP(["Si"], r_cut=5.0), DotProduct(4)),
        SparseGP(SOAP(["Si"], r_cut=5.0), DotProduct(4), n_sparse=5000),
        SparseGP(Compressed(SOAP(["Si"], r_cut=5.0), 50), DotProduct(4), n_sparse=3000, representers="observations"),
    ],
    ids=["exact", "environments", "observations"],
)
def test_the_plan_of_a_large_fit_is_small(model):
    frames = large()
    tracemalloc.start()
    plan = model.plan(frames)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.rows == {"energy": 60, "forces": 60 * 648, "stress": 360}
    assert plan.peak_memory > 1e9 and used < 0.05 * plan.peak_memory


def test_exact_regression_costs_what_the_textbook_says():
    plan = GaussianProcess(SOAP(["Si"], r_cut=5.0), DotProduct(4), solver="cholesky").plan(large())
    n = plan.n_rows
    assert step(plan, "Cholesky decomposition").flops == pytest.approx(n**3 / 3)
    assert plan.memory["covariance"]["matrix"] == 8 * n**2


def test_costs_grow_as_they_should():
    frames = large(6)
    few, many = (SparseGP(SOAP(["Si"], r_cut=5.0), DotProduct(4), n_sparse=n).plan(frames) for n in (200, 400))
    # Jacobians do not know the sparse points, sums of rows are linear in them, absorbing rows quadratic.
    assert step(few, "Jacobians").flops == step(many, "Jacobians").flops
    assert step(many, "sums of rows").flops == pytest.approx(2 * step(few, "sums of rows").flops)
    assert step(many, "QR of rows").flops == pytest.approx(4 * step(few, "QR of rows").flops, rel=0.02)
    once, twice = (SparseGP(SOAP(["Si"], r_cut=5.0), DotProduct(4), n_sparse=200).plan(large(n)) for n in (4, 8))
    assert step(twice, "Jacobians").flops == pytest.approx(2 * step(once, "Jacobians").flops)


def test_products_are_counted_one_by_one():
    """Every Jacobian row meets every sparse point: three for a pair and its atom, six for strain; values once; then the whitening."""
    model, frames = small_gp(n_sparse=12), crystals(6)
    plan, soap_ = model.plan(frames), model.descriptor
    atoms, pairs = 24, sum(len(Batch.from_atoms([a]).pairs(soap_.r_cut).j) for a in frames)
    rows = 3 * (pairs + atoms) + 6 * atoms + atoms
    expected = 2 * 12 * soap_.n_features * rows + 3 * 2 * 13 * 12 * 12
    assert step(plan, "products for design rows").flops == pytest.approx(expected)


# --- neighbours ---


def test_pairs_of_few_atoms_are_counted(frames):
    plan = small_gp().plan(frames)
    assert plan.counted == "counted"
    assert plan.n_pairs == pytest.approx(sum(len(Batch.from_atoms([a]).pairs(4.5).j) for a in frames))


def test_pairs_of_many_structures_are_estimated():
    rng = np.random.default_rng(0)
    many = [bulk("Si", cubic=True, a=a).repeat(2) for a in rng.uniform(5.2, 5.7, 300)]
    mean, known = neighbours(many, 5.0)
    exact = sum(len(Batch.from_atoms([a]).pairs(5.0).j) for a in many) / (300 * 64)
    assert mean == pytest.approx(exact, rel=0.1) and known.startswith("estimated from ")


@pytest.mark.parametrize("tilt", [0.0, 1.5])
@pytest.mark.parametrize("pbc", [True, False, (True, True, False)])
def test_pairs_of_a_very_large_structure_come_from_its_interior(tilt, pbc):
    atoms = bulk("Si", cubic=True)
    atoms.cell[2, 0] += tilt
    small = len(Batch.from_atoms([atoms]).pairs(5.0).j) / 8
    huge = atoms.repeat((14, 14, 14))
    huge.positions += 100.0  # atoms need not be wrapped
    huge.pbc = pbc
    mean, known = neighbours([huge], 5.0)
    # Of every so manieth atom, so that kinds of sites are not met quite equally; free surfaces have fewer.
    assert mean == pytest.approx(small, rel=1e-3 if pbc is True else 0.12) and known == "estimated from 1 structure"


def test_molecules_have_their_own_pairs():
    mean, _ = neighbours([molecule("H2O")] * 3, 5.0)
    assert mean == 2.0


# --- prediction ---


def test_a_plan_of_a_prediction_needs_no_labels(frames):
    bare = [atoms.copy() for atoms in frames]
    plan = small_gp().plan(bare, predict=True)
    assert plan.rows == {} and plan.flops > 0 and "prediction of SparseGP" in str(plan)
    assert small_gp().plan(bare, predict=True, uncertainty=True).flops > plan.flops


def test_a_fitted_model_plans_with_what_it_is(frames):
    model = small_gp(n_sparse=12)
    before = model.plan(frames, predict=True)
    after = model.fit(frames).set_params(n_sparse=999).plan(frames, predict=True)
    assert step(before, "products with sparse points").flops == step(after, "products with sparse points").flops


@pytest.mark.parametrize("name", ["observations", "exact", "ridge"])
def test_observations_plan_predictions_when_fitted(name, frames):
    model = MODELS[name]()
    with pytest.raises(InputError, match="needs a fitted"):
        model.plan(frames, predict=True)
    model.fit(frames)
    plain, full = (model.plan(frames, predict=True, uncertainty=u) for u in (False, True))
    assert full.flops > plain.flops > 0 and full.peak_memory > plain.peak_memory


# --- time and table ---


def test_times_follow_from_operations(frames):
    plan = small_gp(threads=1).plan(frames)
    assert plan.rate == product_rate() > 1e8  # a slow machine does a tenth of a Gflop/s
    assert plan.cpu_seconds == pytest.approx(sum(s.cpu_seconds(plan.rate, 1) for s in plan.steps))
    assert plan.cpu_seconds >= plan.flops / plan.rate


def test_threads_share_what_is_parallel():
    frames = large(20)
    one, two = (SparseGP(SOAP(["Si"], r_cut=5.0), DotProduct(4), threads=n).plan(frames) for n in (1, 2))
    assert one.cpu_seconds / 2 < two.cpu_seconds < 0.8 * one.cpu_seconds
    assert two.peak_memory > one.peak_memory and one.flops == two.flops
    assert small_gp().plan(crystals(2)).threads <= default_threads()


def test_the_table_says_all_of_it(frames):
    plan = small_gp(memory_limit="1GB").plan(frames)
    text = str(plan)
    for part in ("39: 3 energy + 24 forces + 12 stress", "features 18", "limit 1 GB", "peak memory", "Gflop", "measured now"):
        assert part in text, part
    assert f"estimated, never measured: one {CARD}" in text
    assert all(s.name in text for s in plan.steps) and all(stage in text for stage in plan.memory)
    assert text.count("<- peak") == 1


def test_a_plan_that_fits_its_limit_says_how_it_is_divided():
    frames = large(40)
    free = SparseGP(SOAP(["Si"], r_cut=5.0), DotProduct(4), n_sparse=2000, threads=2).plan(frames)
    bounded = SparseGP(SOAP(["Si"], r_cut=5.0), DotProduct(4), n_sparse=2000, threads=2, memory_limit=int(0.75 * free.enough)).plan(frames)
    assert bounded.enough <= 0.75 * free.enough + 1
    assert (bounded.threads, bounded.group) != (free.threads, free.group)
    assert f"groups of {bounded.group:,} atoms" in str(bounded)


def test_terms_add_up(frames):
    one = Term(soap(), DotProduct(2), n_sparse=5)
    two = SparseGP([one, Term(soap(r_cut=4.0), DotProduct(2), n_sparse=7)]).plan(frames)
    assert two.features == (18, 18) and two.representers == 12
    assert two.flops > SparseGP([one]).plan(frames).flops


def test_labels_of_a_calculator_that_ran_are_enough():
    atoms = bulk("Ar", cubic=True)
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0)
    assert small_gp().plan([atoms]).rows == {"energy": 1}


@pytest.mark.parametrize("name", ["environments", "exact", "observations"])
def test_a_calibrated_fit_is_planned_with_its_leave_out(name, frames):
    """Eight bytes on a disk for each row and sparse point where there are environments; an exact process keeps nothing."""
    model = MODELS[name]()
    bare, whole = model.plan(frames), model.plan(frames, calibrate=True)
    assert bare.scratch == 0 and whole.scratch == {"environments": 8 * whole.n_rows * whole.representers}.get(name, 0)
    assert ("TMPDIR" in str(whole)) == (name == "environments") and "TMPDIR" not in str(bare)
    assert whole.steps[: len(bare.steps)] == bare.steps
    assert (whole.flops > bare.flops) == (name != "observations")


def test_scratch_is_what_a_fit_keeps(monkeypatch):
    frames, model, made = crystals(6), small_gp(), []
    monkeypatch.setattr("soapkrr.regression.sparse.kept.Scratch", lambda: made.append(Scratch()) or made[-1])
    model.learn(frames, False, False, calibrate=True)
    assert [scratch._end for scratch in made] == [model.plan(frames, calibrate=True).scratch]
