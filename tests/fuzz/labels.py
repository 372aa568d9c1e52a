"""Labels of all kinds that can be right, must be refused, or must be named: what a fit makes of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from conftest import emt_copper
from harness import REFUSED, RIGHT, Attempt, Wrong

from soapkrr import SOAP, DataWarning, DotProduct, GaussianProcess, InputError, KernelRidge, Observations, SparseGP

NOISE = {"energy": 0.01, "forces": 0.1, "stress": 0.005}
KINDS = ("energy", "forces", "stress")

#: Names of families of labels.
FAMILIES = ("REF", "dft", "DFT", "gap", "mace", "pbe", "my_own")


def model(k: int, **options):
    """An unfitted model, every kind in turn."""
    soap = SOAP(species=["Cu"], r_cut=4.2, n_max=3, l_max=2, sigma=0.6)
    if k % 3 == 2:
        return KernelRidge(soap, DotProduct(zeta=2), alpha=1e-4, threads=1, **options)  # the noise below
    kind = (SparseGP, GaussianProcess)[k % 3]
    return kind(soap, DotProduct(zeta=2), noise=NOISE, threads=1, **options, **({"n_sparse": 40} if kind is SparseGP else {}))


@cache
def _frames(n: int) -> tuple:
    return tuple(emt_copper(n, seed=4))


def frames(n: int = 16) -> list[Atoms]:
    """Labelled structures, copies."""
    return [relabelled(atoms, **atoms.calc.results) for atoms in _frames(n)]


@cache
def _expected(k: int) -> np.ndarray:
    return numbers(model(k).fit(frames()))


def numbers(fitted) -> np.ndarray:
    """What a model predicts of some structures."""
    p = fitted.predict(frames()[:3])
    return np.concatenate([p.energy, *(f.ravel() for f in p.forces), p.stress.ravel()])


def relabelled(atoms: Atoms, **results) -> Atoms:
    """A copy with these results, whatever they are."""
    atoms = atoms.copy()
    atoms.calc = SinglePointCalculator(atoms)
    atoms.calc.results = results
    return atoms


def with_label(rng, change, kind=None) -> tuple[list, int]:
    """(structures, place of the one) of which one label is changed."""
    data, s = frames(), int(rng.integers(16))
    kind = kind or str(rng.choice(KINDS))
    results = data[s].calc.results
    data[s] = relabelled(data[s], **{**results, kind: change(np.array(results[kind]))})
    return data, s


# --- sound: the same numbers as ever --------------------------------------------------------------------------------


def written_otherwise(rng):
    """Lists, text, arrays of one, objects, other orders of memory in place of floats and arrays."""
    ways = {
        "energy": [
            float,
            lambda e: [float(e)],
            lambda e: np.array([[e]]),
            lambda e: repr(float(e)),
            np.longdouble,
            lambda e: np.array(e, object),
        ],
        "forces": [
            np.ndarray.tolist,
            np.asfortranarray,
            lambda f: f.astype(object),
            lambda f: f.astype(np.longdouble),
            lambda f: f.astype(">f8"),
        ],
        "stress": [
            np.ndarray.tolist,
            lambda s: s[[0, 5, 4, 5, 1, 3, 4, 3, 2]],
            lambda s: s[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]].tolist(),
            tuple,
        ],
    }
    data = []
    for atoms in frames():
        data.append(
            relabelled(atoms, **{kind: ways[kind][rng.integers(len(ways[kind]))](np.array(v)) for kind, v in atoms.calc.results.items()})
        )
    return {"data": data, "same": True}


def under_other_names(rng):
    """Labels in `info` and `arrays`, and `Observations` that name them."""
    family, data = str(rng.choice(FAMILIES)), []
    names = {kind: f"{family}_{kind}" for kind in KINDS}
    for atoms in frames():
        results, atoms = atoms.calc.results, atoms.copy()
        atoms.info |= {names["energy"]: results["energy"], names["stress"]: results["stress"]}
        atoms.arrays[names["forces"]] = np.array(results["forces"])
        data.append(atoms)
    return {"data": data, "same": True, "observations": Observations(**names)}


def as_virials(rng):
    data = []
    for atoms in frames():
        virial = -atoms.calc.results["stress"] * atoms.get_volume()
        atoms.info["virial"] = [virial, virial[[0, 5, 4, 5, 1, 3, 4, 3, 2]], virial[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]][rng.integers(3)]
        data.append(relabelled(atoms, **{kind: atoms.calc.results[kind] for kind in ("energy", "forces")}))
    return {"data": data, "same": True, "observations": Observations(virial="virial")}


def in_another_order(rng):
    data = frames()
    return {"data": [data[s] for s in rng.permutation(16)], "same": True}


def some_missing(rng):
    """Any label of any structure, or a whole kind, is missing or None: as with masks of all forces and weights of zero."""
    data, kinds = [], [str(kind) for kind in rng.choice(KINDS, rng.integers(1, 4), replace=False)]
    for s, atoms in enumerate(frames()):
        kept = kinds if s == 0 else [kind for kind in kinds if rng.random() < 0.8]
        none = {kind: None for kind in KINDS if kind not in kept and rng.random() < 0.3}
        data.append(relabelled(atoms, **{kind: atoms.calc.results[kind] for kind in kept}, **none))
    return {"data": data}


def masked(rng):
    """NaN where a mask says so."""
    data = []
    for atoms in frames():
        mask = rng.random((len(atoms), 3) if rng.random() < 0.5 else len(atoms)) < 0.3
        forces = np.where(mask.reshape(len(atoms), -1), rng.choice([np.nan, np.inf, 1e9]), atoms.calc.results["forces"])
        atoms.arrays["force_mask"] = mask if rng.random() < 0.5 else mask.astype(int)
        data.append(relabelled(atoms, **{**atoms.calc.results, "forces": forces}))
    return {"data": data, "observations": Observations()}


# --- refused, and said where ----------------------------------------------------------------------------------------


def not_finite(rng):
    def change(value):
        value = np.array(value, dtype=float)
        value.flat[rng.integers(value.size)] = rng.choice([np.nan, np.inf, -np.inf])
        return value

    data, s = with_label(rng, change)
    return {"data": data, "refused": s}


def of_wrong_shape(rng):
    def change(value):
        value = np.atleast_1d(value)
        others = [value[:-1], np.concatenate([value, value]), np.zeros((0, 3)), np.zeros((2, 2, 2))]
        others += [value[None, None], value.ravel()[:2]] if value.size > 1 else []
        return others[rng.integers(len(others))]

    data, s = with_label(rng, change)
    return {"data": data, "refused": s}


def of_wrong_type(rng):
    things = [
        "abc",
        "",
        {},
        {"a": 1},
        object(),
        [[1], [2, 3]],
        b"\xff",
        1 + 2j,
        np.array([1 + 2j]),
        np.array(["a", "b"]),
        len,
        [None],
        set(),
    ]
    thing = things[rng.integers(len(things))]
    data, s = with_label(rng, lambda value: thing)
    return {"data": data, "refused": s}


def complex_numbers(rng):
    data, s = with_label(rng, lambda value: value * (1 + 0.5j))
    return {"data": data, "refused": s}


def moved_afterwards(rng):
    data, s = frames(), int(rng.integers(16))
    change = rng.integers(3)
    if change == 0:
        data[s].positions[0] += 0.1
    elif change == 1:
        data[s].set_cell(data[s].cell.array * 1.01, scale_atoms=True)
    else:
        data[s].numbers[0] = 28
    return {"data": data, "refused": s}


def stress_without_volume(rng):
    data, s = frames(), int(rng.integers(16))
    results, atoms = data[s].calc.results, data[s].copy()
    atoms.pbc = [(False, True, True), (False, False, False)][rng.integers(2)]
    data[s] = relabelled(atoms, **results)
    return {"data": data, "refused": s}


def bad_weights_and_noise(rng):
    data, s = frames(), int(rng.integers(16))
    name = str(rng.choice(["weight", "energy_noise", "forces_noise", "stress_noise", "force_mask"]))
    bad = {"force_mask": ["yes", np.ones(1), np.full(len(data[s]), 0.5), np.full(len(data[s]), 2), np.zeros((3, 7), bool)]}
    values = bad.get(name, [-1.0, np.nan, "abc", [1.0, -2.0], np.zeros((2, 2)), np.inf])
    values = values if name in ("weight", "force_mask") else [*values, 0.0]
    data[s].info[name] = values[rng.integers(len(values))]
    return {"data": data, "refused": s, "observations": Observations()}


def not_structures(rng):
    data, s = frames(), int(rng.integers(16))
    data[s] = [None, "train.xyz", 3, {}, [data[s]], np.zeros((4, 3)), Atoms()][rng.integers(7)]
    return {"data": data, "refused": s}


def of_names_not_read(rng):
    """Nothing but labels of other names: the error says which, and what reads them."""
    family, data = str(rng.choice(FAMILIES)), []
    for atoms in frames():
        results, atoms = atoms.calc.results, atoms.copy()
        atoms.info[f"{family}_energy"], atoms.arrays[f"{family}_forces"] = results["energy"], np.array(results["forces"])
        data.append(atoms)
    return {"data": data, "refused": f"energy='{family}_energy', forces='{family}_forces'"}


# --- named: a warning, and `suspects_` ------------------------------------------------------------------------------


def one_energy_off(rng):
    data, s = with_label(rng, lambda e: e + rng.choice([-1, 1]) * 10 ** rng.uniform(1.2, 6), "energy")
    return {"data": data, "named": ("energy", s)}


def one_force_off(rng):
    def change(forces):
        forces[rng.integers(len(forces)), rng.integers(3)] += rng.choice([-1, 1]) * 10 ** rng.uniform(1.2, 5)
        return forces

    data, s = with_label(rng, change, "forces")
    return {"data": data, "named": ("forces", s)}


def one_stress_off(rng):
    data, s = with_label(rng, lambda stress: stress / units.GPa if rng.random() < 0.5 else stress + rng.uniform(1, 100), "stress")
    return {"data": data, "named": ("stress", s)}


def one_of_gradients(rng):
    """In other units and of the other sign, of a structure whose forces are large enough that these are 50 standard deviations off."""
    data, s = frames(), -1
    while s < 0 or 9 * np.abs(frames()[s].calc.results["forces"]).max() < 50 * 2 * NOISE["forces"]:
        data, s = with_label(rng, lambda forces: -8 * forces, "forces")
    return {"data": data, "named": ("forces", s)}


def a_kind_in_other_units(rng):
    """All labels of a kind in other units or of the other sign, as tested in `test_bad_labels`."""
    kind, factor = [("stress", -1.0), ("stress", 1 / units.GPa), ("stress", -10 / units.GPa), ("forces", -1.0)][rng.integers(4)]
    data = [relabelled(a, **{**a.calc.results, kind: factor * np.array(a.calc.results[kind])}) for a in frames()]
    return {"data": data, "said": f"The {kind} of all structures"}


def forces_left_unread(rng):
    """The energy of a family is read, its forces are not."""
    family = str(rng.choice(FAMILIES))
    data = under_other_names(rng)["data"]
    for atoms in data:
        for place in (atoms.info, atoms.arrays):
            for name in [name for name in place if re.fullmatch(r".*_(energy|forces|stress)", name)]:
                place[f"{family}_{name.rsplit('_', 1)[1]}"] = place.pop(name)
    return {"data": data, "said": f"{family}_forces", "observations": Observations(energy=f"{family}_energy")}


def twice_with_other_labels(rng):
    data, s = with_label(rng, lambda e: e + 10 ** rng.uniform(0.5, 3), "energy")
    return {"data": [*data, frames()[s]], "said": f"frames {s} and 16"}


MAKERS = {
    make.__name__.replace("_", " "): make
    for make in (
        written_otherwise, under_other_names, as_virials, in_another_order, some_missing, masked, not_finite, of_wrong_shape, of_wrong_type,
        complex_numbers, moved_afterwards, stress_without_volume, bad_weights_and_noise, not_structures, of_names_not_read, one_energy_off,
        one_force_off, one_stress_off, one_of_gradients, a_kind_in_other_units, forces_left_unread, twice_with_other_labels,
    )
}  # fmt: skip


def attempts(n: int, seed: int = 0) -> Iterator[Attempt]:
    """n fits, every kind of labels and of model in turn."""
    kinds = list(MAKERS.items())
    for k in range(n):
        name, make = kinds[k % len(kinds)]
        case = make(np.random.default_rng([seed, k]))
        yield Attempt(name, f"{name} {seed}/{k}", fitted(k // len(kinds), case), judged(k // len(kinds), case))


def fitted(k: int, case: dict):
    def action():
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                done = model(k, **({"observations": case["observations"]} if "observations" in case else {})).fit(case["data"])
            except InputError as error:
                return error, []
        return done, [str(w.message) for w in said if issubclass(w.category, DataWarning)]

    return action


def judged(k: int, case: dict):
    def judge(value):
        done, said = value
        if isinstance(done, InputError):
            return _judged_refusal(str(done), case)
        if "refused" in case:
            raise Wrong(f"fitted, though the labels of {case['refused']} cannot be used; said: {said}")
        found = numbers(done)
        if not np.isfinite(found).all():
            raise Wrong("predictions that are not finite")
        if "same" in case:
            far = np.abs(found - _expected(k % 3)).max()
            if far > 1e-6 or said:
                raise Wrong(f"predictions {far:.3g} from those of the same labels; said: {said}")
        if "named" in case and case["named"] not in [(suspect.kind, suspect.frame) for suspect in done.suspects_]:
            raise Wrong(f"{case['named']} is not named; suspects: {done.suspects_[:3]}")
        if "named" in case and len({suspect.frame for suspect in done.suspects_}) > 3:
            raise Wrong(f"many are named beside {case['named']}: {done.suspects_[:5]}")
        if "said" in case and not any(case["said"] in text for text in said):
            raise Wrong(f"{case['said']!r} is not said; said: {said}")
        return RIGHT

    return judge


def _judged_refusal(message: str, case: dict) -> str:
    if "refused" not in case:
        raise Wrong(f"refused, though it can be used: {message}")
    wanted = f"frame {case['refused']}" if isinstance(case["refused"], int) else case["refused"]
    if wanted not in message or "\n" in message:
        raise Wrong(f"the error does not say {wanted!r} in one line: {message}")
    return REFUSED
