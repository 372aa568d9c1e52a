"""Barriers on a surrogate: the path of a full climbing-image band, from few reference calculations."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read
from ase.mep import NEB
from ase.optimize import BFGS, MDMin

from soapkrr import InputError, SurrogateDimer, SurrogateNEB
from soapkrr.active.asking import ask
from soapkrr.active.band import Bent
from soapkrr.active.records import Records
from soapkrr.active.surrogate import Surrogate


class Counting(EMT):
    """EMT that counts, and fails at given calls."""

    def __init__(self, fail_at=()):
        super().__init__()
        self.calls, self.fail_at = 0, fail_at

    def calculate(self, *args, **kwargs):
        self.calls += 1
        if self.calls in self.fail_at:
            raise RuntimeError("out of memory")
        super().calculate(*args, **kwargs)


class Wrong(Calculator):
    """A reference that gives what it is told to."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, energy=0.0, forces=None):
        super().__init__()
        self.energy, self.forces = energy, forces

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": self.energy} | ({} if self.forces is None else {"forces": self.forces})


@pytest.fixture(scope="module")
def ends():
    """A gold atom hops from one hollow of Al(100) to the next."""
    initial = fcc100("Al", size=(2, 2, 2))
    add_adsorbate(initial, "Au", 1.7, "hollow")
    initial.center(axis=2, vacuum=4.0)
    initial.set_constraint(FixAtoms(mask=initial.get_tags() > 1))
    final = initial.copy()
    final.positions[-1, 0] += final.cell[0, 0] / 2
    for atoms in (initial, final):
        atoms.calc = EMT()
        BFGS(atoms, logfile=None).run(fmax=0.01)
    return initial, final


@pytest.fixture(scope="module")
def full(ends):
    """Energies, eV, and calls of a band without surrogate."""
    images = [ends[0].copy() for _ in range(4)] + [ends[1].copy()]
    for image in images:
        image.calc = Counting()
    band = NEB(images, climb=True, method="improvedtangent")
    band.interpolate("idpp")
    MDMin(band, logfile=None).run(fmax=0.01)
    energies = np.array([image.get_potential_energy() for image in images])
    return energies, sum(image.calc.calls for image in images)


def test_the_barrier_is_that_of_a_full_band_at_a_sixth_of_its_calls(ends, full):
    reference = Counting()
    path = SurrogateNEB(*ends, reference, n_images=5).run(fmax=0.01)
    energies, calls = full
    assert path.converged and path.force < 0.01
    assert path.calls == reference.calls <= calls / 6
    assert path.saddle == 2
    assert path.barrier == pytest.approx(energies.max() - energies[0], abs=0.002)
    assert path.reverse == pytest.approx(energies.max() - energies[-1], abs=0.002)
    assert (np.abs(path.energies - (energies - energies[0])) < 0.002 + 3 * path.stds).all()
    assert path.std < 0.01
    assert "converged" in str(path)


def test_the_saddle_is_one_of_the_reference(ends):
    """Forces vanish, and one curvature of what may move is negative."""
    path = SurrogateNEB(*ends, EMT(), n_images=5).run(fmax=0.01)
    saddle = path.images[path.saddle].copy()
    saddle.calc = EMT()
    assert np.abs(saddle.get_forces()).max() < 0.01
    free = np.repeat(saddle.get_tags() < 2, 3)
    hessian, h = [], 0.01
    for k in np.flatnonzero(free):
        step = np.zeros(3 * len(saddle))
        step[k] = h
        sides = []
        for sign in (1, -1):
            moved = saddle.copy()
            moved.set_positions(saddle.positions + sign * step.reshape(-1, 3), apply_constraint=False)
            moved.calc = EMT()
            sides.append(moved.get_forces(apply_constraint=False).ravel()[free])
        hessian.append((sides[1] - sides[0]) / (2 * h))
    assert np.sum(np.linalg.eigvalsh(0.5 * (np.array(hessian) + np.array(hessian).T)) < -1e-3) == 1


def test_what_was_calculated_is_never_calculated_again(ends, tmp_path):
    """A reference that dies costs nothing that was known; a new search reads it from the disk, and takes the same way."""
    whole = SurrogateNEB(*ends, EMT(), n_images=5).run(fmax=0.01)
    broken = SurrogateNEB(*ends, Counting(fail_at=(5,)), n_images=5, records=tmp_path / "calls.xyz")
    with pytest.raises(InputError, match=r"Counting gave no energy and forces of image \d \(RuntimeError: out of memory"):
        broken.run(fmax=0.01)
    assert broken.calls == 4
    again = SurrogateNEB(*ends, Counting(), n_images=5, records=tmp_path / "calls.xyz")
    path = again.run(fmax=0.01)
    assert path.calls == again.reference.calls < whole.calls
    kept = read(tmp_path / "calls.xyz", ":")
    assert len(kept) == broken.calls + path.calls == len({atoms.positions.tobytes() for atoms in kept})
    assert path.barrier == pytest.approx(whole.barrier, abs=0.002)
    assert broken.run(fmax=0.01).barrier == pytest.approx(whole.barrier, abs=0.002)


def test_a_model_that_knows_the_path_asks_little(ends):
    first = SurrogateNEB(*ends, EMT(), n_images=5)
    calls = first.run(fmax=0.01).calls
    second = SurrogateNEB(*ends[::-1], EMT(), n_images=5, model=first.model).run(fmax=0.05)
    assert second.converged and second.calls <= min(4, calls - 1)


def test_energies_near_a_known_structure_are_those_of_the_reference_to_first_order(ends):
    surrogate = Surrogate(["Al", "Au"])
    for atoms in ends:
        surrogate.learn(ask(EMT(), atoms))
    middle = ends[0].copy()
    middle.positions[-1, 0] += 1.0
    at = ask(EMT(), middle)
    bent = Bent(surrogate.model, at)
    energies, forces = bent.predict([middle])
    assert energies[0] == pytest.approx(at.energy, abs=1e-9)
    np.testing.assert_allclose(forces[0], at.forces, atol=1e-9)
    rng = np.random.default_rng(0)
    way = rng.normal(size=middle.positions.shape) * (rng.uniform(size=(len(middle), 1)) < 0.3)
    near, errors = middle.copy(), []
    near.set_constraint()
    near.positions += 0.05 * way
    slope = -np.sum(bent.predict([near])[1][0] * way)
    for h in (1e-2, 5e-3, 2.5e-3):
        sides = []
        for sign in (1, -1):
            moved = near.copy()
            moved.positions += sign * h * way
            sides.append(bent.predict([moved])[0][0])
        errors.append(abs((sides[0] - sides[1]) / (2 * h) - slope))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1) and errors[1] / errors[2] == pytest.approx(4, rel=0.1)


def test_records_are_read_back_to_the_last_bit_and_drop_what_was_cut_short(tmp_path, ends):
    path = tmp_path / "calls.xyz"
    records = Records(path)
    rng = np.random.default_rng(1)
    for _ in range(3):
        atoms = ends[0].copy()
        atoms.set_positions(atoms.positions + rng.normal(scale=0.1, size=atoms.positions.shape))
        records.add(ask(EMT(), atoms))
    text, first = path.read_bytes(), len(_frames(path.read_bytes())[0])
    for end, count in ((len(text), 3), (len(text) - 1, 2), (first + 5, 1), (first, 1), (first - 300, 0), (1, 0)):
        path.write_bytes(text[:end])
        read = Records(path)
        assert len(read) == count
        for one, other in zip(read.references, records.references, strict=False):
            assert one.energy == other.energy and np.array_equal(one.forces, other.forces)
            assert np.array_equal(one.atoms.positions, other.atoms.positions)
            assert np.array_equal(one.labelled().arrays["force_mask"], other.labelled().arrays["force_mask"])
        assert path.read_bytes() == b"".join(_frames(text)[:count])


def _frames(text: bytes) -> list[bytes]:
    """The three frames of a file."""
    lines = text.splitlines(keepends=True)
    n = len(lines) // 3
    return [b"".join(lines[k * n : (k + 1) * n]) for k in range(3)]


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    path = tmp_path / "calls.xyz"
    path.write_text("not a structure\n")
    with pytest.raises(InputError, match="line 1: expected a number of atoms"):
        Records(path)


def test_without_a_barrier_the_higher_end_is_the_top():
    """A dimer that is pulled apart only goes uphill."""
    initial = Atoms("CuCu", [[0, 0, 0], [0, 0, 2.2]], cell=[9, 9, 9])
    final = initial.copy()
    final.positions[1, 2] = 2.8
    path = SurrogateNEB(initial, final, EMT(), n_images=5).run(fmax=0.05)
    assert path.converged and path.saddle == 4
    assert path.barrier == pytest.approx(path.energies[-1], abs=1e-12) and path.reverse == 0


def displaced(atoms, way):
    """(n_atoms, 3) Å that moves the last atom."""
    displacement = np.zeros((len(atoms), 3))
    displacement[-1] = way
    return displacement


def test_a_dimer_climbs_from_one_end_to_the_same_saddle(ends, full):
    reference = Counting()
    found = SurrogateDimer(ends[0], reference, displaced(ends[0], [0.5, 0.15, 0.1])).run(fmax=0.01)
    energies, _ = full
    assert found.converged and found.force < 0.01 and found.curvature < 0
    assert found.calls == reference.calls <= 15
    assert found.barrier == pytest.approx(energies.max() - energies[0], abs=0.002)
    found.atoms.calc = EMT()
    assert np.abs(found.atoms.get_forces()).max() < 0.01
    sides = []
    for sign in (1, -1):
        moved = found.atoms.copy()
        moved.set_positions(found.atoms.positions + 0.01 * sign * found.mode)
        moved.calc = EMT()
        sides.append(np.sum(moved.get_forces() * found.mode))
    curvature = (sides[1] - sides[0]) / 0.02
    assert curvature < 0 and curvature == pytest.approx(found.curvature, rel=0.2)


@pytest.mark.parametrize(("displacement", "message"), [(np.zeros((9, 3)), "must move an atom"), (np.ones((2, 3)), r"of shape \(9, 3\)")])
def test_displacements_that_lead_nowhere_are_refused(ends, displacement, message):
    with pytest.raises(InputError, match=message):
        SurrogateDimer(ends[0], EMT(), displacement)


def bent_ends(change):
    """Ends that do not belong together."""
    initial = Atoms("CuCu", [[0, 0, 0], [0, 0, 2.3]], cell=[9, 9, 9], pbc=True)
    final = initial.copy()
    final.positions[1, 0] += 1.0
    change(final)
    return initial, final


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.set_atomic_numbers([29, 47]), "`final` must have the atoms of `initial` in the same order"),
        (lambda a: a.set_cell([9, 9, 10]), "`final` must have the cell"),
        (lambda a: a.set_positions([[0, 0, 0], [0, 0, 2.3]]), "`final` must differ from `initial`"),
    ],
)
def test_ends_that_do_not_belong_together_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        SurrogateNEB(*bent_ends(change), EMT())


@pytest.mark.parametrize(
    ("options", "message"), [({"n_images": 2}, "`n_images`"), ({"std": 0.0}, "`std`"), ({"std": np.nan}, "`std`")], ids=str
)
def test_parameters_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        SurrogateNEB(*bent_ends(lambda atoms: None), EMT(), **options)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (Wrong(np.nan, np.zeros((2, 3))), "energy nan"),
        (Wrong(0.0, np.full((2, 3), np.inf)), "finite: False"),
        (Wrong(0.0, np.zeros((3, 3))), r"shape \(3, 3\)"),
        (Wrong(0.0), "gave no energy and forces of the initial structure"),
    ],
)
def test_references_that_give_nothing_usable_are_named(reference, message):
    with pytest.raises(InputError, match=message):
        SurrogateNEB(*bent_ends(lambda atoms: None), reference).run()


@pytest.mark.parametrize("options", [{"fmax": 0.0}, {"steps": 2}])
def test_runs_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=f"`{next(iter(options))}`"):
        SurrogateNEB(*bent_ends(lambda atoms: None), EMT()).run(**options)


def test_a_reference_must_be_a_calculator():
    with pytest.raises(InputError, match="`reference` must be an ASE calculator"):
        SurrogateNEB(*bent_ends(lambda atoms: None), "emt")
