"""The training structures that a GAP's file embeds, and the fit that they allow: a model with all that a posterior offers."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from scipy.linalg import eigh
from scipy.spatial import KDTree

from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.cutoff import Cosine
from soapkrr.descriptors.quip import QuipPair
from soapkrr.errors import InputError, LabelError
from soapkrr.gap.document import PARAMETER, Coordinates, Document
from soapkrr.gap.parts import elements, soap
from soapkrr.kernels import DotProduct, Linear
from soapkrr.regression.terms import Term
from soapkrr.selection.specifications import GivenPoints
from soapkrr.structures import as_frames, species_name

#: Names of labels in the embedded structures, and what the fit says them by.
LABELS = {"energy": "dft_energy", "force": "dft_force", "virial": "dft_virial"}

#: Options of a fit by which single structures or components have noise of their own.
OWN_NOISE = ("config_type_sigma", "config_type_kernel_regularisation", "sigma_parameter_file")

#: Numbers of a sparse point may differ so much from those of the environment that it is: structures are written with eight decimals.
NEAR = 1e-5

#: Eigenvalues of the kernel of pair functions below this fraction of the largest are dropped.
TOLERANCE = 1e-12


def options(document: Document) -> dict[str, str]:
    """{name: value} of the command that made the fit."""
    return {name: value.strip('{}"').strip() for name, value in PARAMETER.findall(document.command)}


def training_structures(document: Document) -> list[Atoms]:
    """The embedded structures with energies, forces and stresses as labels, as far as they have them.

    Raises
    ------
    InputError : the file embeds none. `LabelError` : none has a label.
    """
    if not document.training:
        raise InputError(
            "the file embeds no training structures (<XYZ_data>; gap_fit with `do_copy_at_file=T`): there is nothing to fit to."
        )
    names = {kind: options(document).get(f"{kind}_parameter_name", default) for kind, default in LABELS.items()}
    frames = as_frames(read(StringIO(document.training + "\n"), ":", format="extxyz"))
    for atoms in frames:
        energy, forces, virial = (_label(atoms, name) for name in names.values())
        results = {"energy": None if energy is None else float(energy), "forces": forces}
        if virial is not None and atoms.cell.rank == 3:
            stress = -np.reshape(virial, (3, 3)) / atoms.get_volume()
            results["stress"] = stress.ravel()[[0, 4, 8, 5, 2, 1]]
        atoms.calc = SinglePointCalculator(atoms, **{name: value for name, value in results.items() if value is not None})
    if not any(map(stated, frames)):
        raise LabelError(f"the embedded structures have none of the labels {sorted(names.values())}.")
    return frames


def stated(atoms: Atoms) -> dict:
    """{kind: value} of the labels of a structure."""
    return {} if atoms.calc is None else atoms.calc.results


def _label(atoms: Atoms, name: str):
    """A label by its name, wherever reading has put it; None where there is none."""
    places = (atoms.info, atoms.arrays, stated(atoms))
    return next((np.asarray(place[name]) for place in places if name in place), None)


def noise_of(document: Document, frames: Sequence[Atoms]) -> dict[str, float]:
    """{kind: σ} of the fit, that of stress from virials per atom, σ_v √N/V, the median over the structures that have one.

    Raises
    ------
    InputError : it is not said, or structures have noise of their own.
    """
    given = options(document)
    own = [name for name in OWN_NOISE if name in given]
    own += [f"{kind}_sigma" for kind in LABELS if any(_label(atoms, f"{kind}_sigma") is not None for atoms in frames)]
    if own:
        raise InputError(f"`refit`: the fit had noise of its own for some structures, `{own[0]}`, which is not understood.")
    text = given.get("default_sigma") or given.get("default_kernel_regularisation")
    if text is None:
        raise InputError("`refit`: the file does not say by which noise it was fitted (`default_sigma`).")
    energy, force, virial = map(float, text.split()[:3])
    scale = [np.sqrt(len(atoms)) / atoms.get_volume() for atoms in frames if "stress" in stated(atoms)]
    levels = {"energy": energy, "forces": force, "stress": virial * float(np.median(scale)) if scale else 0.0}
    there = {kind for atoms in frames for kind in stated(atoms)}
    return {kind: level for kind, level in levels.items() if kind in there and level > 0}


def terms_to_fit(document: Document, frames: Sequence[Atoms]) -> list[Term]:
    """The terms of a GAP as a fit takes them: its sparse points are environments of the embedded structures.

    Raises
    ------
    InputError : a sparse point is in none of them, or there are pair functions of several elements.
    """
    numbers = elements(document)
    return [
        _soap_term(document, part, numbers, frames) if part.name == "soap" else _pair_term(part, numbers)
        for part in _distinct(document, numbers)
    ]


def _distinct(document: Document, numbers: Sequence[int]) -> list[Coordinates]:
    """Pair functions, and one of the soaps with one descriptor and kernel each."""
    pairs = [part for part in document.coordinates if part.name == "distance_2b"]
    if pairs and len(numbers) > 1:
        raise InputError("`refit`: pair functions (distance_2b) of several elements are learnt by no descriptor here; only of one element.")
    soaps = {(soap(part, numbers, document.version)[0], part.zeta): part for part in document.coordinates if part.name == "soap"}
    return [*pairs, *soaps.values()]


def _soap_term(document: Document, first: Coordinates, numbers: Sequence[int], frames: Sequence[Atoms]) -> Term:
    descriptor, indices, deltas = soap(first, numbers, document.version)[0], [], set()
    X, z = descriptor.create(frames), np.concatenate([atoms.numbers for atoms in frames])
    places = [(s, a) for s, atoms in enumerate(frames) for a in range(len(atoms))]
    for part in document.coordinates:
        if part.name != "soap" or part.zeta != first.zeta or soap(part, numbers, document.version)[0] != descriptor:
            continue
        _, centres, points = soap(part, numbers, document.version)
        deltas.add(part.delta)
        here = np.flatnonzero(np.isin(z, centres))
        distance, nearest = map(np.atleast_1d, KDTree(X[here]).query(points))
        if distance.max(initial=0.0) > NEAR:
            raise InputError(
                f"`refit`: sparse point {int(distance.argmax())} of a soap is an environment of none of the embedded structures."
            )
        indices += [places[here[k]] for k in nearest]
    if len(deltas) > 1:
        raise InputError(f"`refit`: soaps of one descriptor have several `delta` {sorted(deltas)}, of which a term has one.")
    return Term(descriptor, DotProduct(first.zeta), len(indices), deltas.pop(), GivenPoints(sorted(set(indices))))


def _pair_term(part: Coordinates, numbers: Sequence[int]) -> Term:
    """Pair functions with independent weights, f_c(r) Σ_q κ(r, x_q) T_qb, Tᵀ κ(x, x) T = 1, as the sparse points give."""
    x, theta = part.points[:, 0], part.theta.item()
    values, vectors = eigh(np.exp(-0.5 * ((x[:, None] - x) / theta) ** 2))
    kept = values > TOLERANCE * values[-1]
    curves = [(theta, x.tolist(), w) for w in (vectors[:, kept] / np.sqrt(values[kept])).T.tolist()]
    p = part.parameters
    cutoff = Cosine(float(p.get("cutoff_transition_width", "0.5")))
    descriptor: Descriptor = QuipPair([species_name(z) for z in numbers], float(p["cutoff"]), cutoff=cutoff, curves=curves)
    return Term(descriptor, Linear(), signal=part.delta)
