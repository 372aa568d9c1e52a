"""Terms of a potential from the descriptors of a GAP, and their coefficients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.cutoff import Cosine
from soapkrr.descriptors.quip import QuipPair, QuipSOAP
from soapkrr.errors import InputError
from soapkrr.gap.document import Coordinates, Document
from soapkrr.kernels import DotProduct, Kernel, Linear
from soapkrr.regression.terms import SparseTerm
from soapkrr.structures import species_name

#: Numbers that QUIP gives its kernels.
SQUARED_EXPONENTIAL, DOT_PRODUCT = "1", "2"

#: Files older than this put the central atom into the channels of all species.
CENTRAL_EVERYWHERE_BEFORE = 1426512068

#: Parameters that are read, and values that others must have for the formulas here to be those of the file; several are one.
SOAP_READ = {
    "cutoff", "cutoff_transition_width", "l_max", "n_max", "atom_sigma", "atom_gaussian_width", "central_weight",
    "central_reference_all_species", "n_species", "species_Z", "n_Z", "Z",
}  # fmt: skip
SOAP_FIXED = {
    "cutoff_dexp": "0", "cutoff_scale": "1", "cutoff_rate": "1", "average": "F", "diagonal_radial": "F", "covariance_sigma0": "0",
    "normalise": "T", "normalize": "T", "basis_error_exponent": "10", "nu_R": "2", "nu_S": "2", "Z_mix": "F", "R_mix": "F",
    "sym_mix": "F", "coupling": "T", "K": "0", "mix_shift": "0", "Z_map": "", "radial_basis": "EQUISPACED_GAUSS",
}  # fmt: skip
PAIR_READ = {"cutoff", "cutoff_transition_width", "Z1", "Z2"}
PAIR_FIXED = {"only_intra": "F", "only_inter": "F", "n_exponents": "1", "exponents": "1", "tail_range": "1", "tail_exponent": "0"}


def checked(part: Coordinates, read: Iterable[str], fixed: dict[str, str], covariance: str) -> dict[str, str]:
    """The parameters of a descriptor; whatever would change its values unseen raises, by name."""
    for name, value in part.parameters.items():
        if name not in read and _plain(value) != _plain(fixed.get(name, "?")):
            raise InputError(f"descriptor {part.name} has `{name}`={value!r}, which is not understood.")
    if part.covariance != covariance:
        raise InputError(f"descriptor {part.name} has `covariance_type`={part.covariance}, of which {covariance} alone is understood.")
    return part.parameters


def _plain(value: str) -> str:
    """Logicals as one letter, numbers as they are printed."""
    word = value.strip().strip(".").upper()
    try:
        return f"{float(value):g}"
    except ValueError:
        return word[:1] if word in ("T", "F", "TRUE", "FALSE") else word


def elements(document: Document) -> list[int]:
    """Atomic numbers of all elements that descriptors name."""
    names = [part.parameters.get(key, "") for part in document.coordinates for key in ("Z", "species_Z", "Z1", "Z2")]
    found = sorted({int(z) for text in names for z in text.split()} - {0})
    if not found:
        raise InputError("no descriptor of the file names an element (`Z`, `species_Z`): it cannot be told what it is a potential of.")
    return found


def soap(part: Coordinates, numbers: Sequence[int], version: int) -> tuple[QuipSOAP, list[int], np.ndarray]:
    """The descriptor, atomic numbers of its centres (all for the wild card 0), and its sparse points in the order of our features."""
    p = checked(part, SOAP_READ, SOAP_FIXED, DOT_PRODUCT)
    species = [int(z) for z in p.get("species_Z", "0").split()]
    if species == [0] and len(numbers) == 1:
        species = list(numbers)
    if sorted(species) != list(numbers) or int(p.get("n_species", "1")) != len(species):
        raise InputError(
            f"a soap has `species_Z`={p.get('species_Z', '0')!r} of n_species={p.get('n_species', '1')}, while the file is of elements "
            f"{[species_name(z) for z in numbers]}: only a soap of all of them is understood."
        )
    everywhere = p.get("central_reference_all_species", "T" if version < CENTRAL_EVERYWHERE_BEFORE else "F")
    descriptor = QuipSOAP(
        species=[species_name(z) for z in numbers],
        r_cut=float(p["cutoff"]),
        n_max=int(p["n_max"]),
        l_max=int(p["l_max"]),
        sigma=float(p["atom_sigma"] if "atom_sigma" in p else p["atom_gaussian_width"]),
        cutoff=Cosine(float(p.get("cutoff_transition_width", "0.5"))),
        central_weight=float(p.get("central_weight", "1")),
        central_everywhere=_plain(everywhere) == "T" and len(numbers) > 1,
    )
    if part.points.shape[1] != descriptor.n_features + 1:
        raise InputError(
            f"sparse points of a soap have {part.points.shape[1]} numbers, its parameters ask for {descriptor.n_features + 1}."
        )
    if part.points[:, -1].any():
        raise InputError("sparse points of a soap end in a number that is not zero, `covariance_sigma0`, which is not understood.")
    centres = [int(z) for z in p.get("Z", "0").split()]
    return descriptor, list(numbers) if centres == [0] else centres, part.points[:, feature_order(descriptor, species)]


def feature_order(descriptor: QuipSOAP, species: Sequence[int]) -> np.ndarray:
    """(n_features,) where each of our features stands in QUIP's vector, whose species are in this order.

    QUIP goes over channels a, then b ≤ a, then l; we go over l, then a, then b ≥ a.
    """
    n_max, n_l = descriptor.n_max, descriptor.l_max + 1
    place = [list(species).index(z) for z in sorted(species)]
    channel = np.array([s * n_max + n for s in place for n in range(n_max)])
    a, b = np.triu_indices(len(channel))
    high, low = np.maximum(channel[a], channel[b]), np.minimum(channel[a], channel[b])
    pair = high * (high + 1) // 2 + low
    return (pair * n_l + np.arange(n_l)[:, None]).ravel()


def pair_centres(part: Coordinates, numbers: Sequence[int]) -> np.ndarray:
    """(n, n) whether pairs of these elements have this function."""
    wanted = [int(part.parameters.get(name, "0")) for name in ("Z1", "Z2")]
    first, second = (np.array([z in (0, w) for z in numbers]) for w in wanted)
    return np.outer(first, second) | np.outer(second, first)


def terms_of(document: Document) -> list[tuple[SparseTerm, tuple[np.ndarray, ...]]]:
    """Terms without transform, and per species the coefficients of their sparse points, eV; parts with one descriptor are one term."""
    numbers = elements(document)
    unknown = sorted({part.name for part in document.coordinates} - {"soap", "distance_2b"})
    if unknown:
        raise InputError(f"the file has a descriptor {unknown[0]!r}, which is not understood; known are 'soap' and 'distance_2b'.")
    soaps: dict[tuple[Descriptor, Kernel], list] = {}
    for part in document.coordinates:
        if part.name == "soap":
            descriptor, centres, points = soap(part, numbers, document.version)
            soaps.setdefault((descriptor, DotProduct(part.zeta)), []).append((part, centres, points))
    terms = [_soap_term(*key, parts, numbers) for key, parts in soaps.items()]
    pairs: dict[tuple[float, float], list[Coordinates]] = {}
    for part in document.coordinates:
        if part.name == "distance_2b":
            p = checked(part, PAIR_READ, PAIR_FIXED, SQUARED_EXPONENTIAL)
            pairs.setdefault((float(p["cutoff"]), float(p.get("cutoff_transition_width", "0.5"))), []).append(part)
    return [*(_pair_term(key, parts, numbers) for key, parts in pairs.items()), *terms]


def _soap_term(descriptor: Descriptor, kernel: Kernel, parts: list, numbers: Sequence[int]):
    """One term of all soaps with one descriptor and kernel."""
    points, weights = [], []
    for z in numbers:
        here = [(p, x) for p, centres, x in parts if z in centres]
        points.append(np.concatenate([np.zeros((0, descriptor.n_features)), *(x for _, x in here)]))
        weights.append(np.concatenate([np.zeros(0), *(p.delta**2 * p.weights for p, _ in here)]))
    signal = max(p.delta for p, _, _ in parts)
    return SparseTerm(descriptor, kernel, signal, tuple(points), ()), tuple(weights)


def _pair_term(key: tuple[float, float], parts: list[Coordinates], numbers: Sequence[int]):
    """One term of all pair functions with one cutoff: each is one curve, and the sparse points are the features, as of linear bases."""
    r_cut, width = key
    curves = [(p.theta.item(), p.points[:, 0].tolist(), (p.delta**2 * p.weights).tolist()) for p in parts]
    descriptor = QuipPair([species_name(z) for z in numbers], r_cut, cutoff=Cosine(width), curves=curves)
    takes = np.stack([pair_centres(p, numbers) for p in parts], axis=-1)
    weights = tuple(takes[s].astype(float).ravel() for s in range(len(numbers)))
    points = (np.eye(descriptor.n_features),) * len(numbers)
    return SparseTerm(descriptor, Linear(), max(p.delta for p in parts), points, ()), weights
