"""Potentials drawn from the posterior: their statistics are the joint posterior's; each is a potential; a seed gives the same ones."""

from functools import cache

import numpy as np
import pytest
from ase.optimize import BFGS
from systems import build, distort, small_soap, variations
from taylor import assert_derivative

from soapkrr import DotProduct, Energy, Force, GaussianProcess, InputError, SparseGP, Stress, Term

NOISE = {"energy": 0.02, "forces": 0.2, "stress": 0.02}


@cache
def _model(kind, **changes):
    """A model whose features are everything its prior has: 21 of six descriptor components."""
    s = small_soap(["Si"], n_max=2, l_max=1)
    frames, settings = variations("primitive", 6, rattle=0.2), {"noise": NOISE, "baseline": {"Si": -3.0}, "threads": 1}
    if kind == "sum":
        terms = [Term(s, DotProduct(2), n_sparse=60), Term(small_soap(["Si"], n_max=1, l_max=1), DotProduct(1), n_sparse=4, signal=0.5)]
        return SparseGP(terms, tolerance=1e-12, **settings).fit(variations("vacancy", 6, rattle=0.2))
    if kind in ("cholesky", "cg"):
        return GaussianProcess(s, DotProduct(2), solver=kind, **settings).fit(frames)
    if kind == "subset":
        return SparseGP(s, DotProduct(2), n_sparse=60, representers="observations", tolerance=1e-13, **settings).fit(frames)
    return SparseGP(s, DotProduct(2), n_sparse=60, tolerance=1e-12, **settings).fit(variations("vacancy", 6, rattle=0.2))


def _physics(atoms):
    """An energy difference along a volume scan, a pressure, an element of a finite-difference Hessian, a force."""

    def scaled(f):
        copy = atoms.copy()
        copy.set_cell(f * atoms.cell.array, scale_atoms=True)
        return copy

    def moved(t):
        copy = atoms.copy()
        copy.positions[1, 0] += t
        return copy

    hessian = -(Force(moved(0.02), 0, 2) - Force(moved(-0.02), 0, 2)) / 0.04
    return [Energy(scaled(1.02)) - Energy(scaled(0.98)), Stress(atoms, 0) + Stress(atoms, 1), hessian, Force(atoms, 1, 1)]


def _of(samples, observables):
    """(n, n_observables) values for every sample, by predictions of each structure."""
    values = np.zeros((len(samples), len(observables)))
    for k, observable in enumerate(observables):
        for c, structure, kind, place in observable.terms:
            p = samples.predict(structure.atoms)
            part = {"energy": p.energy, "forces": p.forces[0].reshape(len(samples), -1), "stress": p.stress[:, 0]}[kind]
            values[:, k] += c * (part[:, 0] if kind == "energy" else part[:, place])
    return values


@pytest.mark.parametrize("kind", ["sparse", "sum", "subset", "cholesky"])
def test_statistics_are_those_of_the_joint_posterior(kind):
    model, n = _model(kind), 1000
    observables = _physics(variations("primitive", 1, seed=9)[0])
    joint = model.posterior(observables)
    values = _of(model.sample(n, seed=3), observables)
    # Means have errors σ/√n, variances 2σ⁴/n, covariances up to as much.
    np.testing.assert_allclose((values.mean(axis=0) - joint.mean) / joint.std, 0, atol=4 / np.sqrt(n))
    unit = np.outer(joint.std, joint.std)
    np.testing.assert_allclose(np.cov(values.T) / unit, joint.covariance / unit, atol=4 * np.sqrt(2 / n))


@pytest.mark.parametrize("kind", ["sparse", "sum", "subset", "cholesky"])
def test_a_sample_is_one_potential(kind):
    """The same by itself and among others, whatever their number; forces and stress are derivatives of its energy."""
    model, frames = _model(kind), variations("vacancy", 2, seed=4)
    many, few = model.sample(5, seed=1), model.sample(3, seed=1)
    p, q = many.predict(frames), few.predict(frames)
    alone = many[2].predict(frames)
    np.testing.assert_array_equal(few[2].predict(frames).energy, alone.energy)
    # Weights of ±1e5 cancel: summed in another order, they leave 1e-16 of that.
    for one in (p[2], q[2]):
        np.testing.assert_allclose(one.energy, alone.energy, rtol=1e-9)
        np.testing.assert_allclose(one.forces[1], alone.forces[1], rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(one.stress, alone.stress, rtol=1e-7, atol=1e-10)
    assert p.forces[0].shape == (5, len(frames[0]), 3) and p.energies[1].shape == (5, len(frames[1])) and len(p) == len(many) == 5
    atoms, rng = frames[0], np.random.default_rng(0)
    moves, strain = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)

    def energy(t, moves=moves, strain=strain):
        copy = atoms.copy()
        copy.positions += t * moves
        return many[2].predict(distort(copy, np.eye(3) + t * strain)).energy[0]

    assert_derivative(lambda t: energy(t, strain=0 * strain), -np.sum(alone.forces[0] * moves))
    voigt = strain.ravel()[[0, 4, 8, 5, 2, 1]] * [1, 1, 1, 2, 2, 2]
    assert_derivative(lambda t: energy(t, moves=0 * moves), atoms.get_volume() * alone.stress[0] @ voigt)


def test_calculator_of_a_sample():
    model, atoms = _model("sparse"), build("vacancy")
    atoms.calc = model.calculator(sample=2, seed=7)
    samples = model.sample(4, seed=7)
    np.testing.assert_array_equal(atoms.get_potential_energy(), samples[2].predict(atoms).energy[0])
    np.testing.assert_array_equal(atoms.get_forces(), samples[2].predict(atoms).forces[0])
    other = build("vacancy")
    other.calc = samples.calculator(3)
    assert other.get_potential_energy() != atoms.get_potential_energy()
    assert "energy_std" not in atoms.calc.results
    BFGS(atoms, logfile=None).run(fmax=1.0, steps=2)


def test_samples_tell_of_atoms_too_close():
    model, near = _model("sparse"), build("vacancy")
    near.set_cell(0.6 * near.cell.array, scale_atoms=True)
    samples, frames = model.sample(2), [build("vacancy"), near]
    for p in (samples.predict(frames), samples.predict(frames)[1], samples[1].predict(frames)):
        np.testing.assert_array_equal(p.outside, [False, True])
    near.calc = samples.calculator(0)
    near.get_potential_energy()
    assert near.calc.results["outside"]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: _model("sparse").sample(0), "`n`"),
        (lambda: _model("sparse").sample(2.5), "`n`"),
        (lambda: _model("sparse").sample(2)[2], "no sample 2"),
        (lambda: _model("sparse").sample(2)[0].predict(build("vacancy"), uncertainty=True), "standard deviation"),
        (lambda: _model("cg").sample(2), "conjugate gradients"),
        (lambda: _model("sparse").sample(2).predict(build("molecule")), "not in the training data"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(InputError, match=words):
        make()
