"""Bars of observables of a real model are the spread of samples of its posterior, and their linearisation is a derivative."""

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from taylor import assert_derivative

import soapkrr
from soapkrr import SOAP, DotProduct, Observable, SparseGP, observables
from soapkrr.observables import elastic, eos
from soapkrr.observables.source import Points, as_source

SAMPLES = 500

#: Four standard errors of a standard deviation from so many samples.
ERROR = 4 / np.sqrt(2 * SAMPLES)

CONSTANTS = {"C11": (0, 0), "C12": (0, 1), "C44": (3, 3)}


def silicon(n_sparse: int) -> SparseGP:
    soap = SOAP(species=["Si"], r_cut=5.0, n_max=6, l_max=4, sigma=0.5)
    noise = {"energy": 0.005, "forces": 0.1, "stress": 0.005}
    return SparseGP(soap, DotProduct(zeta=4), n_sparse=n_sparse, noise=noise, threads=1).fit(soapkrr.datasets.load("silicon").train[:60])


@pytest.fixture(scope="module")
def few():
    """A potential of 200 sparse points."""
    return silicon(200)


@pytest.fixture(scope="module")
def all_environments():
    """One whose sparse points are nearly all environments of its data, so that weights are nearly all that there is to be uncertain of.

    Not of a third derivative: B0′ of whole potentials spreads by a tenth less than its bar.
    """
    return silicon(480)


class Recalled:
    """Stands for a `Source`: of the same structures, asked again and again, labels y that are set in between."""

    certain = True

    def __init__(self, points: Points):
        self.points = points
        self.y = _flat(points)

    def predict(self, frames, kinds=("energy",)) -> Points:
        n, places = len(frames), np.cumsum([len(a) * 3 for a in frames])[:-1]
        energy, forces, stress = np.split(self.y, [n, len(self.y) - 6 * n])
        by_frame = [f.reshape(-1, 3) for f in np.split(forces, places)]
        return Points(self, self.points.frames, tuple(kinds), energy, by_frame, stress.reshape(n, 6))

    def derivative(self, number: Observable) -> np.ndarray:
        """Of a linear functional by y."""
        starts = np.cumsum([0, *(3 * len(a) for a in self.points.frames)])
        which, n = {s.key: k for k, s in enumerate(self.points.structures)}, len(self.points.frames)
        d = np.zeros(len(self.y))
        for c, s, kind, place in number.terms:
            k = which[s.key]
            d[{"energy": k, "forces": n + starts[k] + place, "stress": n + starts[-1] + 6 * k + place}[kind]] += c
        return d


def _flat(points: Points) -> np.ndarray:
    return np.concatenate([points.energy, *map(np.ravel, points.forces), points.stress.ravel()])


def strained(model, atoms) -> Recalled:
    """The structures that elastic constants by stress are made of, with the mean's labels."""
    source, seen = as_source(model), []

    class Listening:
        certain = True

        def predict(self, frames, kinds=("energy",)):
            seen.append(source.predict(frames, kinds))
            return seen[-1]

    elastic.by_stress(Listening(), atoms, np.eye(21), linear=False)
    return Recalled(seen[0])


def constants(recalled: Recalled, atoms) -> np.ndarray:
    """(21,) elastic constants, GPa."""
    return elastic.by_stress(recalled, atoms, np.eye(21), linear=False)[0] / units.GPa


def spread(values) -> np.ndarray:
    return np.std(values, axis=0, ddof=1)


@pytest.mark.slow
def test_bars_of_silicon_equal_the_spread_of_whole_potentials(all_environments):
    model, samples = all_environments, all_environments.sample(SAMPLES)
    found = observables.equation_of_state(model, bulk("Si"))
    energies = samples.predict(found.points.frames).energy / 2
    each = np.array([eos.fit(found.volume, E, found.form) for E in energies])[:, [0, 3, 1]] * [1, 1, 1 / units.GPa]
    np.testing.assert_allclose(spread(each), [found[name].posterior_std for name in ("E0", "V0", "B0")], rtol=ERROR)

    crystal = observables.lattice(model, bulk("Si")).atoms
    bars = observables.elastic_constants(model, crystal, relax=False)
    recalled = strained(model, crystal)
    drawn, each = samples.predict(recalled.points.frames), []
    for k in range(SAMPLES):
        recalled.y = np.concatenate([drawn.energy[k], *(np.ravel(f[k]) for f in drawn.forces), drawn.stress[k].ravel()])
        each.append(constants(recalled, crystal))
    places = [elastic.UPPER.index(pair) for pair in CONSTANTS.values()]
    np.testing.assert_allclose(spread(each)[places], [bars[name].posterior_std for name in CONSTANTS], rtol=ERROR)


def test_bars_of_few_sparse_points_equal_the_spread_of_joint_draws(few):
    """Of labels: whole potentials lack what no weights of 200 sparse points hold, and the bars do not."""
    found = observables.equation_of_state(few, bulk("Si"))
    joint = few.posterior(found.points.observables(found.energy, energy=np.eye(len(found.energy)) / 2))
    draws = np.random.default_rng(0).multivariate_normal(joint.mean, joint.covariance, SAMPLES)
    each = np.array([eos.fit(found.volume, E, found.form) for E in draws])[:, [0, 3, 1, 2]] * [1, 1, 1 / units.GPa, 1]
    bars = np.array([number.posterior_std for number in found])
    np.testing.assert_allclose(spread(each), bars, rtol=ERROR)
    whole = few.sample(50).predict(found.points.frames).energy / 2
    assert spread([eos.fit(found.volume, E, found.form) for E in whole])[1] / units.GPa < 0.6 * bars[2]


def test_elastic_constants_are_differentiated_rightly(few):
    """Atoms follow a shear by Φ⁻¹Λ, which is nonlinear in the forces."""
    crystal = bulk("Si", a=5.47)
    recalled = strained(few, crystal)
    y, drawn = recalled.y, few.sample(1, seed=3)[0].predict(recalled.points.frames)
    direction = np.concatenate([drawn.energy, *map(np.ravel, drawn.forces), drawn.stress.ravel()]) - y
    linear = elastic.by_stress(as_source(few), crystal, np.eye(21))[1]

    def along(t):
        recalled.y = y + t * direction
        return constants(recalled, crystal)

    assert_derivative(along, [recalled.derivative(one) @ direction / units.GPa for one in linear])


def test_an_equation_of_state_is_differentiated_rightly(few):
    found = observables.equation_of_state(few, bulk("Si"))
    V, E = found.volume, found.energy
    direction = np.random.default_rng(1).standard_normal(len(E)) * 1e-3 * np.ptp(E)
    slope = eos.response(V, E, found.parameters, found.form) @ direction
    assert_derivative(lambda t: eos.fit(V, E + 20 * t * direction, found.form)[1], 20 * slope[1])
