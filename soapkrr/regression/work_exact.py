"""Operations and bytes of fits and predictions whose representers are observations, or values of a property."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from soapkrr.backends import loops
from soapkrr.descriptors.base import Descriptor
from soapkrr.regression import observed
from soapkrr.regression.footprint import ATOM, PAIR, TermSize, check, features_within, usable
from soapkrr.regression.plan import Step
from soapkrr.regression.properties import ELEMENTS
from soapkrr.regression.terms import Term
from soapkrr.regression.work import Data, Work, at_once, jacobian_flops, learning_bytes, projection_flops, qr_flops, value_flops

#: What to do where the covariance of all observations does not fit.
INSTEAD = "or fit a `SparseGP`, whose memory does not grow with the square of the data"


class Compositions:
    """Of every structure: atoms of each species of a descriptor, and derivative observations.

    Attributes
    ----------
    m : (n_structures, n_species).  k : (n_structures,).
    """

    def __init__(self, descriptor: Descriptor, frames: Sequence[Atoms], forces: Sequence[bool], stress: Sequence[bool]):
        n = len(descriptor.species)
        self.m = np.array([np.bincount(descriptor.kinds(atoms.numbers), minlength=n) for atoms in frames], dtype=float)
        self.k = 3.0 * self.m.sum(axis=1) * np.asarray(forces) + 6.0 * np.asarray(stress)

    @property
    def observations(self) -> int:
        return int((1 + self.k).sum())

    def vectors(self, features: int) -> float:
        """Bytes of features and derivatives of all structures."""
        return float((8 * features * self.m.sum(axis=1) * (1 + self.k)).sum())

    def tile(self, features: int) -> float:
        """Bytes of a thread for one structure and a tile of others."""
        m, k = self.m.max(axis=0).max(), self.k.max()
        return 8.0 * observed.TILE * (m * features * k + 3 * m * m * (1 + 2 * k) + 3 * (1 + k) ** 2) + 16 * m * features * (1 + k)

    def covariance_flops(self, features: int, other: Compositions | None = None) -> float:
        """Of the covariance with other observations, or of half of the covariance of all with themselves."""
        b = self if other is None else other
        m, p, mk, pl = (x.sum(axis=0) for x in (self.m, b.m, self.m * self.k[:, None], b.m * b.k[:, None]))
        total = 2 * features * (2 * m @ pl + mk @ p + m @ p) + 2 * features * float(mk.sum() * b.k.sum()) + 6 * float(mk @ pl)
        return total / 2 if other is None else total


def observation_fit(
    terms: list[Term], sizes: list[TermSize], seen: list[Compositions], data: Data, threads: int, limit: int | None, n_sparse: int | None
) -> Work:
    """A fit of all observations (``n_sparse`` None) or of those that pivoted Cholesky picks.

    Raises
    ------
    InputError : ``limit`` does not hold the covariance of the observations, or their derivatives.
    """
    N, known, held = seen[0].observations, sum(data.rows.values()), ATOM * data.atoms
    matrix = 8.0 * N * N
    vectors = sum(c.vectors(t.features) for c, t in zip(seen, sizes, strict=True))
    largest = max(3 * 8 * t.inner * (c.m.sum(axis=1) * (1 + c.k)).max() + t.displaced() for c, t in zip(seen, sizes, strict=True))
    tile = max(c.tile(t.features) for c, t in zip(seen, sizes, strict=True))
    collapsed = 32.0 * data.atoms * sum(t.features for t in sizes)
    copy = 8.0 * known * known if known < N else 0.0
    n = min(n_sparse or 0, known)
    picked = 8.0 * n * max(known, 4 * known + 6 * n) if n_sparse else 0.0

    def stages(threads: int) -> dict[str, dict[str, float]]:
        kept = {"features and derivatives": vectors, "labels": held}
        covariance = matrix * (1 if len(terms) == 1 else 2)
        return {
            "derivatives of the observations": {f"being made on {threads} threads": threads * largest, **kept},
            "covariance": {"matrix": covariance, f"tiles on {threads} threads": threads * tile, **kept},
            "Cholesky decomposition" if not n_sparse else "pivoted Cholesky, QR": {
                "matrix": matrix,
                "known rows": copy,
                "factors": picked,
                **kept,
            },
            "weights": {"matrix": copy or matrix, "collapsed": collapsed, **kept},
        }

    used = next((t for t in range(threads, 0, -1) if _peak(stages(t)) <= usable(limit)), 1)
    memory, least = stages(used), {f"{stage} of {N} observations": sum(items.values()) for stage, items in stages(1).items()}
    learning = max(learning_bytes(term.descriptor, data.atoms) for term in terms)
    gram = max(6 * 8.0 * min(t.inner, data.atoms) ** 2 for t in sizes) if learning else 0.0
    filling = max(t.values() * at_once(data) for t in sizes)
    least |= {"what the descriptor learns from": held + gram + filling + learning / 8}
    check(limit, least, INSTEAD)
    taught, teachers = features_within(usable(limit) - held - gram, filling, learning, threads)
    if learning:
        computing = {f"environments computed by {teachers} threads": teachers * filling}
        memory = {"learning": {"features": taught, "Gram matrix": gram, **computing, "labels": held}} | memory
    steps = _observation_steps(terms, sizes, seen, data, known, n)
    if limit is None:
        return Work(steps, memory, used)
    return Work(steps, memory, used, learning=int(taught) or None, filling=teachers)


def _peak(memory: dict[str, dict[str, float]]) -> float:
    return max(sum(items.values()) for items in memory.values())


def _observation_steps(terms, sizes, seen, data: Data, known: int, n: int) -> tuple[Step, ...]:
    atoms, forces, stress = data.atoms, "forces" in data.rows, "stress" in data.rows
    values, jacobian, projected, products, vectors = 0.0, 0.0, 0.0, 0.0, 0.0
    for term, t, c in zip(terms, sizes, seen, strict=True):
        moved = atoms * (1 + t.neighbours)
        values += value_flops(term.descriptor, atoms * t.neighbours, atoms) * (1 + term.descriptor.learns)
        jacobian += jacobian_flops(term.descriptor, moved, atoms) * forces + jacobian_flops(term.descriptor, moved, atoms, 6) * stress
        projected += projection_flops(t, moved) * forces
        products += c.covariance_flops(t.features)
        vectors += 2 * c.vectors(t.features)
    steps = [
        Step("descriptors", "loops", values, PAIR * sum(atoms * t.neighbours for t in sizes)),
        Step("Jacobians", "loops", jacobian, vectors),
        Step("covariance of observations", "blocks", products + projected, 8.0 * known**2 * len(terms)),
    ]
    if not n:
        steps.append(Step("Cholesky decomposition", "factorisation", known**3 / 3, 8.0 * known**2))
        steps.append(Step("triangular solves", "loops", 4.0 * known**2, 16.0 * known**2, parallel=False))
    else:
        steps.append(Step("pivoted Cholesky", "loops", 1.0 * known * n**2, 4.0 * known * n**2, parallel=False))
        rows = 2.0 * known * n**2
        steps.append(Step("products for rows", "products", rows, parallel=False))
        steps.append(
            Step("QR and regression", "factorisation", 9.0 * n**3 + qr_flops(known, n + 1) + qr_flops(4 * n, n + 1), parallel=False)
        )
    return tuple(steps)


def observation_prediction(
    terms, sizes: list[TermSize], trained: list[Compositions], asked: list[Compositions], data: Data, threads, limit, wanted: frozenset[str]
) -> Work:
    """A prediction from the weights of observations, with the standard deviations ``wanted``; ``data``: what is predicted."""
    from soapkrr.potential import GROUP

    N, environments = trained[0].observations, max(float(c.m.sum(axis=0).max()) for c in trained)
    atom = sum(t.neighbours for t in sizes) * PAIR + 200.0
    block = loops(np).EVALUATED * 8.0 * (sum(3 * t.features + 2 * t.state for t in sizes) + 5 * environments)
    deviation = 0.0
    if wanted:
        k = max(float(c.k.max()) for c in asked)
        queries = sum(16.0 * t.inner * data.largest * (1 + k) for t in sizes)
        tiles = threads * max(a.tile(t.features) + c.tile(t.features) for a, c, t in zip(asked, trained, sizes, strict=True))
        deviation = 32.0 * N * max(1 + k, data.largest) + queries + tiles
    fixed = threads * block + deviation + 80.0 * data.atoms
    check(limit, {f"the prediction of the largest structure ({data.largest} atoms)": fixed + atom * data.largest})
    group = max(data.largest, int(min(GROUP, (usable(limit) - fixed) / atom)))
    memory = {
        "prediction": {
            "groups of structures": atom * min(group, data.atoms),
            f"blocks of atoms on {threads} threads": threads * block,
            "standard deviations": deviation,
            "results": 80.0 * data.atoms,
        }
    }
    n = data.atoms
    values = sum(value_flops(term.descriptor, n * t.neighbours, n) for term, t in zip(terms, sizes, strict=True))
    flops = sum(8.0 * t.features * float(a.m.sum(axis=0) @ c.m.sum(axis=0)) for t, a, c in zip(sizes, asked, trained, strict=True))
    steps = [
        Step("descriptors and their pull-back", "loops", 3 * values, 3 * PAIR * n * sum(t.neighbours for t in sizes)),
        Step("products with training environments", "products", flops),
    ]
    if wanted:
        rows = float(sum((1 + c.k).sum() for c in asked)) / len(asked) + n * ("energies" in wanted)
        cross = sum(a.covariance_flops(t.features, c) for t, a, c in zip(sizes, asked, trained, strict=True))
        steps.append(Step("covariance with observations", "blocks", cross))
        steps.append(Step("triangular solves", "factorisation", rows * N**2, parallel=False))
    return Work(tuple(steps), memory, threads, group)


def property_fit(terms: list[Term], sizes: list[TermSize], data: Data, threads: int, limit: int | None) -> Work:
    """A fit of a property: ``data.rows`` holds its number of values.

    ``group`` of the result: kernel values between atoms that a thread holds at once.

    Raises
    ------
    InputError : ``limit`` does not hold the covariance of the values.
    """
    N = sum(data.rows.values())
    matrix, features = 8.0 * N * N * len(terms), 8.0 * data.atoms * sum(t.features for t in sizes)
    kept = {"features": features, "labels": ATOM * data.atoms}
    filling = max(t.values() for t in sizes) * max(4096, data.largest)
    rest = matrix + sum(kept.values())
    one = 24.0 * data.largest * data.atoms
    least = {"features": filling + 3 * features, f"the covariance of {N} values": rest + one}
    check(limit, least, "or fit fewer values")
    threads = int(max(1, min(threads, (usable(limit) - rest) / one)))
    elements = int(min(ELEMENTS, (usable(limit) - rest) / (24.0 * threads)))
    tile = max(one, 24.0 * min(elements, float(data.atoms) ** 2))
    memory = {
        "features": {"being computed": filling + 2 * features, **kept},
        "covariance": {"matrix": matrix, f"kernel values on {threads} threads": threads * tile, **kept},
        "Cholesky decomposition": {"matrix": matrix, **kept},
    }
    values = sum(value_flops(term.descriptor, data.atoms * t.neighbours, data.atoms) for term, t in zip(terms, sizes, strict=True))
    steps = (
        Step("descriptors", "loops", values, PAIR * data.atoms * sum(t.neighbours for t in sizes), parallel=False),
        Step("kernel of environments", "products", 2.0 * data.atoms**2 * sum(t.features for t in sizes)),
        Step("kernel values", "loops", 5.0 * data.atoms**2 * len(terms), 24.0 * data.atoms**2 * len(terms)),
        Step("Cholesky decomposition", "factorisation", N**3 / 3, 8.0 * N**2),
    )
    return Work(steps, memory, threads, elements)


def property_prediction(terms, sizes: list[TermSize], environments: int, values: int, data: Data, threads, limit, deviation: bool) -> Work:
    """A prediction of a property from ``values`` of ``environments`` atoms, with its standard deviation if ``deviation``.

    Raises
    ------
    InputError : ``limit`` does not hold the prediction of the largest structure.
    """
    from soapkrr.potential import GROUP

    atom = max(t.values() for t in sizes) + 32.0 * max(t.features for t in sizes) + (32.0 * values if deviation else 0.0)
    threads_at_work = threads if deviation else 1
    fixed = threads_at_work * 24.0 * min(ELEMENTS, float(data.largest) * environments) + 16.0 * data.atoms
    check(limit, {f"the prediction of the largest structure ({data.largest} atoms)": fixed + atom * data.largest})
    group = max(data.largest, int(min(GROUP, (usable(limit) - fixed) / atom)))
    memory = {"prediction": {"groups of structures": atom * min(group, data.atoms), "kernel values": fixed}}
    pairs, products = data.atoms * sum(t.neighbours for t in sizes), 2.0 * data.atoms * environments
    described = sum(value_flops(term.descriptor, data.atoms * t.neighbours, data.atoms) for term, t in zip(terms, sizes, strict=True))
    steps = [
        Step("descriptors", "loops", described, PAIR * pairs, parallel=False),
        Step("products with training environments", "products", products * sum(t.features for t in sizes), parallel=False),
    ]
    if deviation:
        steps.append(Step("triangular solves", "factorisation", 1.0 * sum(data.rows.values()) * values**2, parallel=False))
    return Work(tuple(steps), memory, threads, group)
