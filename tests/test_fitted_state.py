"""A fitted model predicts, saves and describes itself with what it was fitted with, whatever is set or given afterwards."""

import json

import numpy as np
import pytest
from discovery import estimators, example
from small import crystals, small_gp, soap

import soapkrr
from soapkrr import CompressedSOAP, DotProduct, GaussianProcess, KernelRidge, KMeans, PropertyGP, RandomSelection, cli
from soapkrr.estimators.fitted import RUNTIME, Estimator
from soapkrr.estimators.property import PropertyEstimator
from soapkrr.modelfile import read_header

#: Another value of every parameter that a model may have, none of them the default.
OTHER = {
    "descriptor": soap(r_cut=5.5),
    "kernel": DotProduct(3),
    "n_sparse": 3,
    "noise": {"forces": 1.0},
    "signal": 0.1,
    "selection": "cur",
    "baseline": [{"Ar": 5.0}, soapkrr.ZBL(r_inner=2.0, r_outer=6.0)],
    "tolerance": 1e-3,
    "observations": soapkrr.Observations(use="energy"),
    "representers": "observations",
    "solver": "cg",
    "cg_tolerance": 0.5,
    "n_preconditioner": 1,
    "alpha": 1.0,
    "force_weight": 5.0,
    "stress_weight": 5.0,
    "target": "atom",
}

#: Fits beyond the defaults that predict by code of their own.
KINDS = {kind.__name__: lambda kind=kind: kind(soap(), DotProduct(2)) for kind in estimators() if issubclass(kind, Estimator)} | {
    "observations": lambda: small_gp(representers="observations"),
    "conjugate gradients": lambda: GaussianProcess(soap(), DotProduct(2), solver="cg"),
    "learnt": lambda: small_gp().set_params(descriptor=CompressedSOAP(["Ar"], r_cut=4.5, n_max=3, l_max=2, contraction=2)),
    "zbl": lambda: small_gp(baseline=[{"Ar": 0.0}, soapkrr.ZBL(r_inner=2.0, r_outer=4.0)]),
}


def fitted(name):
    model, frames = KINDS[name](), crystals(4)
    return model.fit(frames, [float(len(a)) for a in frames]) if isinstance(model, PropertyEstimator) else model.fit(frames)


def said(model):
    """Everything predicted of some structures, as one array."""
    p = model.predict(crystals(2, seed=5), uncertainty=not isinstance(model, PropertyEstimator))
    values = [p.values] if isinstance(model, PropertyEstimator) else [p.energy, *p.forces, p.stress, p.energy_std]
    return np.concatenate([np.ravel(v) for v in values])


@pytest.mark.parametrize("name", KINDS)
def test_parameters_set_after_a_fit_count_in_the_next_one_only(name, tmp_path):
    model = fitted(name)
    before = said(model)
    model.save(tmp_path / "before.soapkrr")
    changed = {key: OTHER[key] for key in model.get_params(deep=False) if key not in RUNTIME}
    model.set_params(**changed)
    np.testing.assert_array_equal(said(model), before)
    model.save(tmp_path / "after.soapkrr")
    assert read_header(tmp_path / "after.soapkrr")["parameters"] == read_header(tmp_path / "before.soapkrr")["parameters"]
    np.testing.assert_array_equal(said(soapkrr.load(tmp_path / "after.soapkrr")), before)
    assert model.get_params(deep=False)["descriptor"] == OTHER["descriptor"]


@pytest.mark.parametrize("name", KINDS)
def test_info_knows_every_kind_of_model(name, tmp_path, capsys):
    model = fitted(name)
    path = str(tmp_path / "m.soapkrr")
    model.save(path)
    assert cli.main(["info", path]) == 0
    text = capsys.readouterr().out
    assert type(model).__name__ in text and "Ar" in text and "r_cut=4.5" in text
    assert cli.main(["info", path, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["n_observations"] == model.n_observations_ and data["species"] == ["Ar"]
    assert data["representers"] == model.fitted_parameters_.get("representers")


@pytest.mark.parametrize("selection", [RandomSelection(seed=3), KMeans(seed=3), "leverage", "fps", "cur"], ids=repr)
def test_sparse_points_do_not_depend_on_the_order_of_the_data(selection):
    frames = crystals(6)
    order = np.random.default_rng(1).permutation(6)
    one, other = (small_gp(selection=selection, n_sparse=7).fit(some) for some in (frames, [frames[i] for i in order]))
    np.testing.assert_array_equal(one.process_.terms[0].points[0], other.process_.terms[0].points[0])
    np.testing.assert_array_equal(said(one), said(other))


def test_given_points_are_counted_in_the_order_of_the_user():
    frames = crystals(6)
    model = small_gp(selection=soapkrr.GivenPoints([(4, 2), (1, 0)])).fit(frames)
    wanted = np.array([soap().create(frames[4])[2], soap().create(frames[1])[0]])
    points = model.process_.terms[0].points[0]
    assert len(points) == 2
    for x in wanted:
        assert np.abs(points - x).max(axis=1).min() < 1e-14


def test_kernel_ridge_has_what_it_takes_and_nothing_else():
    assert {"noise", "signal"}.isdisjoint(KernelRidge(soap(), DotProduct(2)).get_params(deep=False))
    assert not hasattr(KernelRidge(soap(), DotProduct(2)), "signal") and not issubclass(KernelRidge, GaussianProcess)
    with pytest.raises(TypeError, match="optimize"):
        KernelRidge(soap(), DotProduct(2)).fit(crystals(2), optimize=True)
    assert "device" not in example(PropertyGP, ["Ar"]).get_params(deep=False)


@pytest.mark.parametrize("limit", [None, "2GB"])
def test_plans_of_a_gpu_use_its_block_sizes(cuda, limit):
    on_cpu, on_gpu = (small_gp(device=device, memory_limit=limit).plan(crystals(3)) for device in ("cpu", "cuda"))
    assert on_gpu.threads == 1
    assert on_gpu.group > on_cpu.group
