"""Slow twins of neighbour lists and predictions of strange structures: every image tried, of the ordinary structures of the same pairs."""

from __future__ import annotations

from functools import cache

import numpy as np
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from reference import neighbours
from systems import small_soap

from soapkrr import ACSF, ZBL, DotProduct, GaussianProcess, KernelRidge, Pair, SparseGP, SquaredExponential, Term
from soapkrr.kernels import Linear
from soapkrr.regression.process import Predictor
from soapkrr.structures import Batch, Pairs
from soapkrr.uncertainty.calibrated import CalibratedPrediction

#: (i, j) pairs times images up to which the slow twin is asked.
AFFORDABLE = 100_000

SPECIES = ["Si", "Cu"]


def parts_of(atoms: Atoms) -> list[Atoms]:
    """The ordinary structures with the pairs of a strange one, without the vectors of their open axes."""
    parts = [part.copy() for part in atoms.info.get("parts", [atoms])]
    for part in parts:
        part.cell[~part.pbc] = 0
    return parts


def affordable(atoms: Atoms, cutoff: float) -> bool:
    """Whether the slow twin can do all parts of a structure."""
    return all(len(part) ** 2 * images(part, cutoff) <= AFFORDABLE for part in parts_of(atoms))


def images(atoms: Atoms, cutoff: float) -> float:
    if not atoms.pbc.any():
        return 1
    inverse = np.linalg.pinv(atoms.cell.array)
    reach = np.ceil(cutoff * np.linalg.norm(inverse, axis=0) + np.ptp(atoms.positions @ inverse, axis=0))
    return (1 + 2 * reach * atoms.pbc).prod()


def rounding(atoms: Atoms) -> float:
    """Error of a pair vector, Å: a few roundings of the largest position or periodic vector."""
    return 1e-10 + 16 * np.finfo(float).eps * max(np.abs(atoms.positions).max(), np.abs(atoms.cell.array[atoms.pbc]).max(initial=0))


class SlowBatch(Batch):
    """A batch whose pairs are found by the slow twin."""

    def _search(self, r_cut, xp):
        lists = [neighbours(part, r_cut) for part in self.frames]
        i, j, vectors = (
            np.concatenate(arrays)
            for arrays in zip(*[(a + first, b + first, v) for first, (a, b, v) in zip(self.offsets, lists, strict=False)], strict=True)
        )
        return Pairs(j, vectors, np.searchsorted(i, np.arange(self.n_atoms + 1)))


@cache
def models() -> dict:
    """Five kinds of potential of silicon and copper, fitted to small crystals; one knows the errors of what it left out."""
    soap, frames = small_soap(SPECIES), list(training())
    sum_of_terms = [
        Term(Pair(SPECIES, r_cut=4.0, n_basis=6), Linear(), signal=0.5),
        Term(ACSF.layout(SPECIES, r_cut=4.0, n_radial=4, n_angular=4), SquaredExponential(length_scale=4.0), n_sparse=10),
    ]
    kinds = {
        "sparse": SparseGP(soap, DotProduct(zeta=2), n_sparse=12, threads=1),
        "exact": GaussianProcess(soap, DotProduct(zeta=2), solver="cholesky", threads=1),
        "ridge": KernelRidge(soap, DotProduct(zeta=2), alpha=1e-3, threads=1),
        "terms": SparseGP(sum_of_terms, baseline=["least-squares", ZBL()], threads=1),
    }
    calibrated = SparseGP(soap, DotProduct(zeta=2), n_sparse=12, threads=1).learn(frames, False, False, calibrate=True)
    return {**{name: model.fit(frames) for name, model in kinds.items()}, "calibrated": calibrated}


def training():
    """Yield cells of four atoms, with labels of no physics."""
    rng = np.random.default_rng(0)
    for _ in range(8):
        atoms = Atoms(
            "Si2Cu2", positions=[[0, 0, 0], [2.4, 0.2, 0], [0, 2.3, 2.5], [2.6, 2.4, 2.2]], cell=rng.uniform(4.6, 5.4, 3), pbc=True
        )
        atoms.rattle(0.15, rng=rng)
        atoms.calc = LennardJones(sigma=2.2, epsilon=0.2, rc=4.5, smooth=True)
        labels = {kind: atoms.calc.get_property(kind, atoms) for kind in ("energy", "forces", "stress")}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        yield atoms


def reach(model) -> float:
    """Farthest neighbour that a model asks for, Å."""
    return max(descriptor.r_cut for descriptor in model.process_.descriptors)


def slow_prediction(model, parts: list[Atoms], wanted: frozenset[str]):
    """The prediction of structures from pairs of the slow twin."""
    predictor = Predictor(model.process_, model.reference_energies_, model.prior_means_, None, "cpu", 1)
    return predictor(SlowBatch.from_atoms(parts), wanted)


def numbers(prediction, whole: bool) -> np.ndarray:
    """What of a prediction can be compared: of atoms alone, and of the ``whole`` structure where it is one."""
    calibrated = isinstance(prediction, CalibratedPrediction) and prediction.energies_std is not None
    std = prediction.posterior_std("energies") if calibrated else prediction.energies_std
    atomic = [*prediction.energies, *(f.ravel() for f in prediction.forces), *(std or [])]
    total = [[prediction.energy.sum()], *([prediction.stress.ravel()] if whole else [])]
    return np.concatenate([*atomic, *total])
