"""Structures of the silicon data set: every generator is a pure function of a random generator and a number u in (0, 1).

Nothing here needs DFT. `make_structure` makes one structure from its config type, split and index; `job_list` lists them all.
Each structure carries the size of its k-point grid in atoms.info["kpts"].
"""

import zlib
from functools import partial

import numpy as np
from ase import Atoms, units
from ase.build import bulk, diamond100, diamond111
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.md.langevin import Langevin

SEED = 20260
A0 = 5.47  # PBE lattice constant of diamond silicon (Å)
# k-points of the high-pressure phases: n_i >= length / height_i of the ideal cell (Å); 1.5 times that where symmetry makes it cheap
METAL_LENGTH = {"beta_tin": 20.0, "simple_cubic": 26.0, "simple_hexagonal": 22.0, "bcc": 20.0, "fcc": 20.0}
# Ideal cells of the high-pressure phases near their equilibrium volume (Å).
PHASES = {
    "beta_tin": Atoms(
        "Si2", cell=[[-2.4, 2.4, 1.325], [2.4, -2.4, 1.325], [2.4, 2.4, -1.325]], scaled_positions=[[0, 0, 0], [0.75, 0.25, 0.5]], pbc=True
    ),
    "simple_cubic": bulk("Si", "sc", a=2.53),
    "simple_hexagonal": Atoms("Si", cell=[2.64, 2.64, 2.48, 90, 90, 120], pbc=True),
    "bcc": bulk("Si", "bcc", a=3.09),
    "fcc": bulk("Si", "fcc", a=3.87),
}
# config_type: (structures in train, structures in test)
COUNTS = {
    "isolated_atom": (1, 0),
    "diamond_strained": (26, 6),
    "diamond_optic": (12, 3),
    "diamond_rattled": (42, 8),
    "vacancy": (16, 4),
    "beta_tin": (14, 3),
    "simple_cubic": (12, 3),
    "simple_hexagonal": (12, 3),
    "bcc": (10, 2),
    "fcc": (10, 2),
    "hot_crystal": (20, 4),
    "liquid": (22, 5),
    "short_pair": (8, 2),
    "surface": (6, 2),
}
TERSOFF_T3 = TersoffParameters(  # J. Tersoff, Phys. Rev. B 38, 9902 (1988), set Si(C)
    m=3.0,
    gamma=1.0,
    lambda3=1.7322,
    c=1.0039e5,
    d=16.217,
    h=-0.59825,
    n=0.78734,
    beta=1.1e-6,
    lambda2=1.7322,
    B=471.18,
    R=2.85,
    D=0.15,
    lambda1=2.4799,
    A=1830.8,
)


def strained(atoms, rng, volume_change, shear):
    """Scale the volume by 1 + volume_change and add a random symmetric, volume-conserving strain of size `shear`."""
    strain = rng.normal(scale=shear, size=(3, 3)) if shear else np.zeros((3, 3))
    deform = np.eye(3) + (strain + strain.T) / 2
    deform *= ((1 + volume_change) / np.linalg.det(deform)) ** (1 / 3)
    new = atoms.copy()
    new.set_cell(atoms.cell @ deform, scale_atoms=True)
    return new


def rattled(atoms, rng, amplitude):
    """Gaussian displacements with standard deviation `amplitude` (Å)."""
    new = atoms.copy()
    new.positions += rng.normal(scale=amplitude, size=new.positions.shape)
    return new


def min_distance(atoms):
    """Shortest interatomic distance (Å), periodic images of an atom on itself included."""
    shifts = np.array(list(np.ndindex(3, 3, 3))) - 1
    images = (shifts * atoms.pbc) @ atoms.cell[:]
    vectors = atoms.positions[:, None, None] - atoms.positions[None, :, None] + images
    distances = np.linalg.norm(vectors, axis=-1)
    return distances[distances > 1e-6].min()


def diamond(n_atoms, n_k=None):
    """Perfect diamond cell of 2 (primitive), 8 (cubic) or 16 (2x2x2 primitive) atoms with its k-point grid."""
    atoms = {2: bulk("Si", a=A0), 8: bulk("Si", a=A0, cubic=True), 16: bulk("Si", a=A0) * (2, 2, 2)}[n_atoms]
    atoms.info["kpts"] = np.full(3, n_k or {2: 6, 8: 4, 16: 2}[n_atoms])
    return atoms


class SafeTersoff(Tersoff):
    """ASE's Tersoff potential, which divides by zero for a bond with no third atom in range (zeta = 0) unless zeta is kept positive."""

    def _calc_bij_d(self, zeta, beta, n):
        return super()._calc_bij_d(max(zeta, 1e-9), beta, n)


def set_temperature(atoms, rng, temperature):
    """Maxwell-Boltzmann momenta."""
    momenta = rng.normal(size=(len(atoms), 3)) * np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    atoms.set_momenta(momenta - momenta.mean(axis=0))


def run_tersoff(atoms, rng, temperature, steps, step_fs=2.0):
    """Langevin dynamics with the Tersoff potential, in place."""
    atoms.calc = SafeTersoff({("Si", "Si", "Si"): TERSOFF_T3})
    Langevin(atoms, step_fs * units.fs, temperature_K=temperature, friction=0.02 / units.fs, fixcm=False, rng=rng).run(steps)
    atoms.calc = None


def isolated_atom(_rng, _u):
    """One atom in a slightly orthorhombic box (so that the two p electrons sit in definite orbitals)."""
    atoms = Atoms("Si", cell=[10.0, 10.3, 10.6], pbc=True)
    atoms.center()
    atoms.info["kpts"] = np.ones(3, int)
    return atoms


def diamond_strained(rng, u):
    """Diamond at -12..12 % volume change; half pure volume, half with shear; 2 or 8 atoms."""
    return strained(diamond(2 if rng.random() < 0.7 else 8), rng, -0.12 + 0.24 * u, rng.choice([0.0, 0.04]))


def diamond_optic(rng, u):
    """Primitive cells at -10..10 % volume change with shear, the two atoms displaced against each other."""
    return rattled(strained(diamond(2), rng, -0.1 + 0.2 * u, 0.03), rng, 0.1)


def diamond_rattled(rng, u):
    """Rattled and strained cells of 8 or 16 atoms."""
    return rattled(strained(diamond(8 if rng.random() < 0.75 else 16), rng, rng.uniform(-0.1, 0.1), 0.015), rng, 0.02 + 0.23 * u)


def vacancy(rng, u):
    """16-atom cell less one atom, neighbours moved along the line to the vacancy, rattled, strained."""
    atoms = strained(diamond(16), rng, rng.uniform(-0.06, 0.06), 0.01)
    neighbours = np.flatnonzero(atoms.get_all_distances(mic=True)[0] < 2.8)[1:]
    inward = atoms.get_distances(0, neighbours, mic=True, vector=True)
    atoms.positions[neighbours] -= inward * rng.uniform(-0.05, 0.15)
    del atoms[0]
    return rattled(atoms, rng, 0.02 + 0.13 * u)


def metal_grid(atoms, length):
    """Smallest k-point grid with n_i times the height of the cell along i at least `length` (Å)."""
    return np.ceil(length * np.linalg.norm(atoms.cell.reciprocal(), axis=1) - 1e-6).astype(int)


def high_pressure(name, rng, u):
    """High-pressure phase at -16..16 % volume change: ideal cell (1 in 4), or rattled and sheared cell of 2 to 4 atoms."""
    atoms = PHASES[name].copy()
    ideal = rng.random() < 0.25
    if not ideal and len(atoms) == 1:
        atoms *= [(1, 1, 2), (2, 1, 1), (2, 2, 1)][rng.integers(3)]
    atoms.info["kpts"] = metal_grid(atoms, METAL_LENGTH[name] * (1.5 if ideal else 1.0))
    if ideal:
        return strained(atoms, rng, -0.16 + 0.32 * u, 0.0)
    return rattled(strained(atoms, rng, -0.16 + 0.32 * u, 0.03), rng, rng.uniform(0.03, 0.2))


def hot_crystal(rng, u):
    """Tersoff dynamics of the 16-atom diamond cell at 600-2200 K."""
    temperature = 600 + 1600 * u
    atoms = strained(diamond(16), rng, rng.uniform(-0.05, 0.06), 0.01)
    set_temperature(atoms, rng, 2 * temperature)
    run_tersoff(atoms, rng, temperature, 120)
    return atoms


def liquid(rng, u):
    """16 atoms at 2.4-2.75 g/cm3: random packing, Tersoff melt at 3000-5000 K, then 1000-2500 K."""
    density = rng.uniform(2.4, 2.75) * 1e-24 / units._amu / 1e3  # g/cm3 -> amu/Å3
    atoms = diamond(16, 3)
    volume = atoms.get_masses().sum() / density
    atoms = strained(atoms, rng, volume / atoms.get_volume() - 1, 0.02)
    atoms.set_scaled_positions(place_apart(atoms, rng, 2.0))
    set_temperature(atoms, rng, 3000)
    run_tersoff(atoms, rng, rng.uniform(3000, 5000), 120, step_fs=1.0)
    run_tersoff(atoms, rng, 1000 + 1500 * u, 150)
    return atoms


def place_apart(atoms, rng, distance):
    """Scaled positions drawn at random, each at least `distance` from the others (starts again when stuck)."""
    while True:
        trial = Atoms(cell=atoms.cell, pbc=True)
        for _ in range(400):
            trial += Atoms("Si", positions=[rng.random(3) @ atoms.cell[:]])
            if min_distance(trial) < distance:
                del trial[-1]
            if len(trial) == len(atoms):
                return trial.get_scaled_positions()


def short_pair(rng, u):
    """Rattled 8-atom cell with one bond shortened to 1.80-2.05 Å."""
    atoms = rattled(strained(diamond(8), rng, rng.uniform(-0.05, 0.08), 0.01), rng, 0.08)
    i = rng.integers(8)
    distances = atoms.get_all_distances(mic=True)[i]
    j = rng.choice(np.flatnonzero((distances < 2.8) & (distances > 0)))
    atoms.set_distance(i, j, 1.80 + 0.25 * u, mic=True)
    return atoms


def surface(rng, u):
    """Rattled (100) or (111) slab of 8 atoms with about 8 Å of vacuum."""
    build, size = (diamond100, (2, 1, 4)) if rng.random() < 0.5 else (diamond111, (1, 1, 8))
    atoms = build("Si", size, a=A0, vacuum=4.0)
    atoms.pbc = True
    atoms.info = {"kpts": np.array([3, 6, 1] if size[0] == 2 else [6, 6, 1])}
    return rattled(atoms, rng, 0.03 + 0.15 * u)


GENERATORS = {
    "isolated_atom": isolated_atom,
    "diamond_strained": diamond_strained,
    "diamond_optic": diamond_optic,
    "diamond_rattled": diamond_rattled,
    "vacancy": vacancy,
    "hot_crystal": hot_crystal,
    "liquid": liquid,
    "short_pair": short_pair,
    "surface": surface,
    **{name: partial(high_pressure, name) for name in PHASES},
}


def make_structure(config_type, split, index):
    """The structure of given config type, split and index; redrawn until its shortest distance is sane."""
    number = COUNTS[config_type][split == "test"]
    seed = [SEED, zlib.crc32(config_type.encode()), int(split == "test")]
    rng = np.random.default_rng([*seed, index])
    place = np.random.default_rng(seed).permutation(number)[index]  # strata of u (volume, amplitude or temperature) in random order
    shortest = {"short_pair": 1.79, "diamond_rattled": 1.85, "isolated_atom": 0.0}.get(config_type, 1.92)
    while True:
        atoms = GENERATORS[config_type](rng, (place + rng.random()) / number)
        if min_distance(atoms) > shortest:
            break
    info = {"config_type": config_type, "kpts": atoms.info["kpts"]}
    return Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc, info=info)


def job_list():
    """(config_type, split, index) of every structure, config types interleaved in proportion to their counts."""
    jobs = sorted(
        ((i + 0.5) / numbers[split] if sum(numbers) > 1 else 0.0, kind, split, i)
        for kind, numbers in COUNTS.items()
        for split in (0, 1)
        for i in range(numbers[split])
    )
    return [(kind, ("train", "test")[split], i) for _, kind, split, i in jobs]
