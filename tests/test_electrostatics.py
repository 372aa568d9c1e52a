"""Coulomb sums: Madelung constants, an independent package, direct sums, order of derivatives, slabs, the GPU."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from taylor import assert_derivative

from soapkrr import InputError, backends
from soapkrr.electrostatics import COULOMB, electrostatics, interaction_matrix
from soapkrr.structures import VOIGT


def salt(n=2, seed=0, width=0.15):
    """A rock salt supercell, shaken and sheared, with its charges."""
    rng = np.random.default_rng(seed)
    atoms = bulk("NaCl", "rocksalt", a=5.6, cubic=True).repeat((n, 1, 1))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.05 * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += width * rng.normal(size=atoms.positions.shape)
    return atoms, np.where(atoms.numbers == 11, 1.0, -1.0) + 0.1 * neutral(rng.normal(size=len(atoms)))


@pytest.fixture
def ewald():
    """Ewald's sum of pymatgen for atoms and charges, in units of e²/4πε₀: its constants are CODATA's of another year."""
    of = "an independent Ewald sum: pip install pymatgen-core"
    structures, sums = pytest.importorskip("pymatgen.core.structure", reason=of), pytest.importorskip("pymatgen.core.ewald", reason=of)

    def summed(atoms, charges):
        structure = structures.Structure(atoms.cell.array, atoms.get_chemical_symbols(), atoms.get_scaled_positions())
        structure.add_oxidation_state_by_site(charges.tolist())
        theirs = sums.EwaldSummation(structure, acc_factor=22.0, compute_forces=True)
        return theirs.total_energy / theirs.CONV_FACT, theirs.forces / theirs.CONV_FACT

    return summed


def neutral(charges):
    return charges - charges.mean()


def cubic(symbols, scaled, charges):
    """Ions in a cube of edge 1."""
    return Atoms(symbols, scaled_positions=scaled, cell=np.eye(3)), np.array(charges, dtype=float)


def hexagonal(symbols, scaled, c, charges):
    """Ions in a hexagonal cell of a = 1."""
    return Atoms(symbols, scaled_positions=scaled, cell=[[1, 0, 0], [-0.5, np.sqrt(0.75), 0], [0, 0, c]]), np.array(charges, dtype=float)


def face_centred(symbols, basis, charges):
    """A basis on each point of the face-centred lattice of edge 1."""
    shifts = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    scaled = np.concatenate([shifts + b for b in np.asarray(basis, dtype=float)])
    return cubic([s for s in symbols for _ in shifts], scaled, np.repeat(charges, 4))


ROOT3 = np.sqrt(3)
RUTILE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.305, 0.305, 0], [0.695, 0.695, 0], [0.195, 0.805, 0.5], [0.805, 0.195, 0.5]]
CUPRITE = [[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], [0.75, 0.75, 0.25], [0.75, 0.25, 0.75], [0.25, 0.75, 0.75]]
BRIDGES = [[0.125, 0.125, 0.125], [0.125, 0.375, 0.375], [0.375, 0.125, 0.375], [0.375, 0.375, 0.125]]
WURTZITE = [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.375], [2 / 3, 1 / 3, 0.875]]
FACES = [[0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]

#: Ten crystals of edge 1.
CRYSTALS = {
    "NaCl": face_centred(["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1]),
    "CsCl": cubic(["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], [1, -1]),
    "sphalerite": face_centred(["Zn", "S"], [[0, 0, 0], [0.25, 0.25, 0.25]], [1, -1]),
    "fluorite": face_centred(["Ca", "F", "F"], [[0, 0, 0], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]], [2, -1, -1]),
    "cuprite": cubic("O2Cu4", CUPRITE, [-2, -2, 1, 1, 1, 1]),
    "perovskite": cubic("SrTiO3", [[0, 0, 0], [0.5, 0.5, 0.5], *FACES], [2, 4, -2, -2, -2]),
    "wurtzite": hexagonal("Zn2S2", WURTZITE, np.sqrt(8 / 3), [1, 1, -1, -1]),
    "ReO3": cubic("ReO3", [[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]], [6, -2, -2, -2]),
    "cristobalite": face_centred(["Si", "Si", *"OOOO"], [[0, 0, 0], [0.25, 0.25, 0.25], *BRIDGES], [4, 4, -2, -2, -2, -2]),
    "rutile": (Atoms("Ti2O4", scaled_positions=RUTILE, cell=[1, 1, 0.644]), np.array([4.0, 4, -2, -2, -2, -2])),
}

#: {crystal: (Madelung constant, formula units in the cell, length it refers to)}: OEIS A085469, A181152, A182566 and twice A182567.
MADELUNG = {
    "NaCl": (1.7475645946331821906, 4, 1 / 2),
    "CsCl": (1.7626747730709883979, 1, ROOT3 / 2),
    "sphalerite": (1.6380550533887894237, 4, ROOT3 / 4),
    "fluorite": (2 * 2.5193924399340, 4, ROOT3 / 4),
}


@pytest.mark.parametrize("name", MADELUNG)
def test_madelung_constants(name):
    (atoms, charges), (constant, units, length) = CRYSTALS[name], MADELUNG[name]
    result = electrostatics(atoms.positions, charges, atoms.cell.array, True, accuracy=1e-12)
    assert abs(-result.energy / COULOMB * length / units - constant) < 1e-8
    q = charges
    A = interaction_matrix(atoms.positions, atoms.cell.array, True, accuracy=1e-12)
    np.testing.assert_allclose(0.5 * q @ A @ q, result.energy, rtol=1e-10)
    np.testing.assert_allclose(A @ q, result.potentials, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.forces, 0, atol=1e-7)
    np.testing.assert_allclose(result.strain[:3].sum(), -result.energy, rtol=1e-8)


@pytest.mark.parametrize("name", CRYSTALS)
def test_ten_crystals_as_pymatgen_has_them(name, ewald):
    atoms, charges = CRYSTALS[name]
    scaled = Atoms(atoms.numbers, 4 * atoms.positions, cell=4 * atoms.cell.array)
    ours = electrostatics(scaled.positions, charges, scaled.cell.array, True, accuracy=1e-12)
    assert abs(ours.energy / COULOMB / ewald(scaled, charges)[0] - 1) < 1e-8


def test_forces_of_a_shaken_crystal_as_pymatgen_has_them(ewald):
    atoms, charges = salt()
    ours = electrostatics(atoms.positions, charges, atoms.cell.array, True, accuracy=1e-12)
    np.testing.assert_allclose(ours.forces / COULOMB, ewald(atoms, charges)[1], atol=1e-7)


def test_square_sheet_of_ions():
    """Two dimensions have a constant of their own, OEIS A088537, whatever the third cell vector is."""
    cell = np.diag([2.0, 2.0, 1.0])
    positions, charges = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.0]]), np.array([1.0, -1, -1, 1])
    for third in ([0, 0, 0], [0.3, 0.2, 7.0]):
        cell[2] = third
        result = electrostatics(positions, charges, cell, [True, True, False], accuracy=1e-12)
        assert abs(-result.energy / COULOMB / 2 - 1.6155426267128247) < 1e-8


def test_capacitor_has_the_field_of_its_charges():
    """Far sheets of charge ±σ: potential difference 4πσd, less what one ion of a lattice lacks of a sheet, twice."""
    energies = []
    for d in (8.0, 10.0):
        positions = np.array([[0, 0, 0], [0.2, 0.4, d]])
        energies.append(electrostatics(positions, [1.0, -1.0], np.eye(3) * 2, [True, True, False]).energy)
    assert abs((energies[1] - energies[0]) / COULOMB - 2 * np.pi / 4 * 2.0) < 1e-6


def test_slab_from_many_images_of_a_cluster():
    """Dipoles that cancel: a direct sum over quadrupoles converges in two dimensions as 1/R³."""
    rng = np.random.default_rng(1)
    half, charges = rng.uniform(0, 1.5, size=(4, 3)), neutral(rng.normal(size=4))
    positions = np.concatenate([half, 2.0 - half])
    charges = np.concatenate([charges, charges])
    cell = np.diag([4.0, 4.2, 30.0])
    result = electrostatics(positions, charges, cell, [True, True, False], accuracy=1e-10)
    sums = []
    for m in (12, 24):
        shifts = [[a * 4.0, b * 4.2, 0] for a in range(-m, m + 1) for b in range(-m, m + 1)]
        total = 0.0
        for shift in shifts:
            r = np.linalg.norm(positions[:, None] - positions + shift, axis=-1)
            np.fill_diagonal(r, np.inf if shift == [0, 0, 0] else np.linalg.norm(shift))
            total += 0.5 * charges @ (1 / r) @ charges
        sums.append(total)
    assert abs(result.energy / COULOMB - sums[1]) < 1e-3 * abs(sums[1])
    assert abs(result.energy / COULOMB - sums[1]) < 0.5 * abs(result.energy / COULOMB - sums[0]) + 1e-6


BOUNDARIES = {"bulk": (True, True, True), "slab": (True, True, False), "slab in x": (False, True, True), "cluster": (False,) * 3}


@pytest.mark.parametrize("widths", [None, "gaussian"])
@pytest.mark.parametrize("net", [0.0, 0.7])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_forces_strain_and_potentials_are_derivatives(boundary, net, widths):
    atoms, charges = salt(1)
    pbc, rng = BOUNDARIES[boundary], np.random.default_rng(5)
    charges = charges + net / len(charges)
    sigma = None if widths is None else rng.uniform(0.4, 1.0, size=len(atoms))
    shift, strain, change = rng.normal(size=atoms.positions.shape), rng.normal(size=(3, 3)), rng.normal(size=len(atoms))
    strain, change = 0.1 * (strain + strain.T), neutral(change)

    def energy(positions=atoms.positions, q=charges, cell=atoms.cell.array):
        return electrostatics(positions, q, cell, pbc, sigma, background="uniform", accuracy=1e-13)

    start = energy()
    assert_derivative(lambda t: energy(atoms.positions + 0.3 * t * shift).energy, -0.3 * (start.forces * shift).sum())
    tensor = np.array([strain[a, b] * (1 if a == b else 2) for a, b in VOIGT])

    def strained(t):
        F = np.eye(3) + t * strain
        return energy(atoms.positions @ F, cell=atoms.cell.array @ F).energy

    assert_derivative(strained, start.strain @ tensor)
    assert_derivative(lambda t: energy(q=charges + t * change).energy, start.potentials @ change)
    A = interaction_matrix(atoms.positions, atoms.cell.array, pbc, sigma, accuracy=1e-13)
    np.testing.assert_allclose(0.5 * charges @ A @ charges, start.energy, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(start.forces.sum(axis=0), 0, atol=1e-8)


def test_supercells_wrapping_and_splitting_change_nothing():
    atoms, charges = salt(1)
    one = electrostatics(atoms.positions, charges, atoms.cell.array, True)
    large = atoms.repeat((2, 1, 3))
    many = electrostatics(large.positions, np.tile(charges, 6), large.cell.array, True, accuracy=1e-10)
    np.testing.assert_allclose(many.energy, 6 * one.energy, rtol=1e-7)
    np.testing.assert_allclose(many.forces[: len(atoms)], one.forces, atol=1e-6)
    moved = atoms.positions + np.random.default_rng(0).integers(-2, 3, size=(len(atoms), 3)) @ atoms.cell.array
    np.testing.assert_allclose(electrostatics(moved, charges, atoms.cell.array, True).energy, one.energy, rtol=1e-9)


def test_narrow_gaussians_are_points_and_equal_ones_at_one_place_have_their_own_energy():
    atoms, charges = salt(1)
    point = electrostatics(atoms.positions, charges, atoms.cell.array, True)
    narrow = electrostatics(atoms.positions, charges, atoms.cell.array, True, widths=np.full(len(atoms), 0.1))
    own = COULOMB * (charges**2).sum() / (2 * np.sqrt(np.pi) * 0.1)
    np.testing.assert_allclose(narrow.energy - own, point.energy, rtol=1e-7)
    np.testing.assert_allclose(narrow.forces, point.forces, atol=1e-6)


def test_accuracy_is_kept():
    atoms, charges = salt(3)
    exact = electrostatics(atoms.positions, charges, atoms.cell.array, True, accuracy=1e-14)
    for accuracy in (1e-4, 1e-6, 1e-8):
        found = electrostatics(atoms.positions, charges, atoms.cell.array, True, accuracy=accuracy)
        assert abs(found.energy / exact.energy - 1) < accuracy
        assert np.abs(found.forces - exact.forces).max() < 10 * accuracy * COULOMB


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_gpu(cuda, boundary):
    atoms, charges = salt(1)
    widths = np.linspace(0.3, 0.8, len(atoms))
    for sigma in (None, widths):
        ours = electrostatics(atoms.positions, charges, atoms.cell.array, BOUNDARIES[boundary], sigma)
        there = backends.moved(cuda, (atoms.positions, charges, sigma))
        theirs = electrostatics(*there[:2], atoms.cell.array, BOUNDARIES[boundary], there[2])
        assert isinstance(theirs.forces, cuda.ndarray)
        for own, other in zip(ours, backends.host(theirs), strict=True):
            np.testing.assert_allclose(other, own, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"charges": [1.0, 0.0]}, "net charge of \\+1 e.*`background`='uniform'"),
        ({"pbc": [True, False, False]}, "periodic in one direction"),
        ({"charges": [1.0]}, "`charges` must be one for each of the 2 atoms"),
        ({"widths": [1.0, 0.0]}, "`widths` must be a positive number"),
        ({"accuracy": 0.5}, "`accuracy` must be between"),
        ({"background": "neutral"}, "`background` must be None or 'uniform'"),
    ],
)
def test_bad_input(change, message):
    arguments = {"positions": np.array([[0, 0, 0], [0, 0, 2.0]]), "charges": [1.0, -1.0], "cell": 5 * np.eye(3), "pbc": True}
    with pytest.raises(InputError, match=message):
        electrostatics(**{**arguments, **change})
