"""Dipoles of water by λ-SOAP: learning curve, cost of the tensors beside SOAP, and an infrared spectrum with a band of uncertainty.

    python benchmarks/tensors.py [curve] [cost] [infrared]

Structures are rattled monomers and dimers (O–O 2.6 to 4.5 Å) turned at random; dipoles are those of GFN2-xTB (needs tblite).
Hyperparameters are those of highest evidence of the first 100 training structures; the last 200 are tested on and seen by nothing else.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from ase import units
from ase.build import bulk, molecule
from ase.md.verlet import VelocityVerlet
from scipy.spatial.transform import Rotation

from soapkrr import SOAP, DotProduct, TensorGP
from soapkrr.descriptors.cutoff import RadialScaling
from soapkrr.descriptors.equivariant import equivariants
from soapkrr.structures import Batch

TRAINED, TESTED = (50, 100, 200, 500), 200

#: One e Å in debye.
DEBYE = 1 / units.Debye

#: Hyperparameters that are compared.
CANDIDATES = [
    {"r_cut": r_cut, "sigma": sigma, "scaling": scaling, "zeta": zeta}
    for r_cut in (4.5, 6.0)
    for sigma in (0.3, 0.5)
    for scaling in (None, RadialScaling(2.0, 4.0))
    for zeta in (1, 2)
]


def gfn2():
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", verbosity=0)


def monomer(rng):
    atoms = molecule("H2O")
    atoms.positions += rng.normal(scale=0.06, size=(3, 3))
    atoms.positions = (atoms.positions - atoms.positions[0]) @ Rotation.random(random_state=int(rng.integers(2**31))).as_matrix().T
    return atoms


def structures(n: int, seed: int = 11):
    """n structures and their dipoles, e Å."""
    rng, frames, dipoles, calculator = np.random.default_rng(seed), [], [], gfn2()
    while len(frames) < n:
        atoms = monomer(rng)
        if rng.random() < 0.7:
            other, direction = monomer(rng), rng.normal(size=3)
            other.positions += direction / np.linalg.norm(direction) * rng.uniform(2.6, 4.5)
            if np.linalg.norm(atoms.positions[:, None] - other.positions, axis=2).min() < 1.6:
                continue
            atoms += other
        atoms.calc = calculator
        dipoles.append(atoms.get_dipole_moment())
        atoms.calc = None
        frames.append(atoms)
    return frames, np.array(dipoles)


def model(r_cut, sigma, scaling, zeta, n_sparse=None):
    soap = SOAP(["H", "O"], r_cut=r_cut, n_max=6, l_max=4, sigma=sigma, scaling=scaling)
    return TensorGP(soap, DotProduct(zeta=zeta), rank="dipole", noise=1e-3, n_sparse=n_sparse)


def chosen(frames, dipoles):
    """The candidate of highest evidence."""
    evidence = [model(**c).fit(frames, dipoles, optimize=True).log_likelihood_ for c in CANDIDATES]
    return CANDIDATES[int(np.argmax(evidence))]


def curve():
    frames, dipoles = structures(max(TRAINED) + TESTED)
    test, reference = frames[-TESTED:], dipoles[-TESTED:]
    best = chosen(frames[:100], dipoles[:100])
    print("chosen by evidence:", best)
    print(f"{'structures':>10} {'RMSE mD':>8} {'% of std':>9} {'within 1 std':>13} {'fit s':>6}")
    for n in TRAINED:
        start = time.process_time()
        fitted = model(**best, n_sparse=None if n < 200 else 700).fit(frames[:n], dipoles[:n], optimize=True)
        seconds, p = time.process_time() - start, fitted.predict(test, uncertainty=True)
        errors = p.values - reference
        rmse, within = np.sqrt(np.mean(errors**2)), np.mean(np.abs(errors) <= p.std)
        print(f"{n:>10} {1e3 * DEBYE * rmse:>8.2f} {100 * rmse / reference.std():>9.3f} {within:>13.2f} {seconds:>6.1f}", flush=True)


def cost():
    """Tensors beside the power spectrum alone, processor time of one thread, best of 30, some 60 atoms at once as in a fit."""

    def best(function):
        function()
        times = []
        for _ in range(30):
            start = time.process_time_ns()
            function()
            times.append(1e-9 * (time.process_time_ns() - start))
        return min(times)

    ethanol, silicon = molecule("CH3CH2OH"), bulk("Si", cubic=True) * (2, 2, 2)
    silicon.rattle(0.05, seed=1)
    for name, frames, species, n_max, l_max in (
        ("ethanol", [ethanol] * 6, ["H", "C", "O"], 6, 5),
        ("silicon", [silicon], ["Si"], 8, 6),
    ):
        soap, batch = SOAP(species, r_cut=4.5, n_max=n_max, l_max=l_max), Batch.from_atoms(frames)
        alone = best(lambda soap=soap, batch=batch: soap.environments(batch).X)
        print(f"{name}: SOAP {1e6 * alone / batch.n_atoms:.1f} µs per atom")
        for degree, parity in ((1, 1), (1, -1), (2, 1), (3, 1)):
            parts = equivariants(soap, degree, parity)
            ratio = best(lambda parts=parts, batch=batch: parts.compute(batch)) / alone
            print(f"  λ = {degree}, σ = {parity:2}: {ratio:5.2f} × SOAP, of {2 * (2 * degree + 1)} allowed")


def infrared():
    frames, dipoles = structures(200)
    fitted = model(**chosen(frames[:100], dipoles[:100])).fit(frames[:100], dipoles[:100], optimize=True)
    atoms = molecule("H2O")
    atoms.calc = gfn2()
    masses = atoms.get_masses()[:, None]
    velocities = np.random.default_rng(0).normal(size=(3, 3)) * np.sqrt(units.kB * 300 / masses)
    atoms.set_velocities(velocities - (masses * velocities).sum(axis=0) / masses.sum())
    dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    trajectory, reference = [], []
    for _ in range(4096):
        dynamics.run(1)
        trajectory.append(atoms.copy())
        reference.append(atoms.get_dipole_moment())

    def spectrum(values):
        velocity = np.gradient(values, 0.5, axis=0) * np.hanning(len(values))[:, None]
        return (np.abs(np.fft.rfft(velocity, axis=0)) ** 2).sum(axis=1)

    wavenumber = np.fft.rfftfreq(4096, 0.5e-15) / 2.998e10
    exact, learnt = spectrum(np.array(reference)), spectrum(fitted.predict(trajectory).values)
    drawn = np.array([spectrum(values) for values in fitted.sample(trajectory, 20)])
    print(f"{'band 1/cm':>14} {'GFN2':>8} {'learnt':>8} {'band of 20 samples':>20}   integrated, arbitrary units")
    for low, high in ((50, 1000), (1000, 2000), (3000, 4500)):
        here = (wavenumber > low) & (wavenumber < high)
        mine = drawn[:, here].sum(axis=1)
        print(f"{low:>6} to {high:<5} {exact[here].sum():>8.3f} {learnt[here].sum():>8.3f} {mine.min():>10.3f} … {mine.max():<8.3f}")


if __name__ == "__main__":
    for part in sys.argv[1:] or ("curve", "cost", "infrared"):
        {"curve": curve, "cost": cost, "infrared": infrared}[part]()
