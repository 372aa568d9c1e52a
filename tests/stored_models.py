"""Model files of every kind in `files`, and what they predict: see README.md there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

import soapkrr
from soapkrr import SOAP, ZBL, DotProduct, GaussianProcess, KernelRidge, Linear, Pair, SparseGP, SquaredExponential, Term

HERE = Path(__file__).parent / "files"

#: Structures that the models are fitted to; the rest is only predicted.
TRAINING = 3

NOISE = {"energy": 0.02, "forces": 0.1, "stress": 0.02}


def make_structures() -> list[Atoms]:
    """Cells of two atoms with Lennard-Jones labels; all decimals of the positions are in the file."""
    rng, frames = np.random.default_rng(0), []
    for k in range(TRAINING + 2):
        cell = np.diag(np.round(rng.uniform(3.6, 4.6, 3), 3))
        atoms = Atoms("Ar2", positions=np.round([[0, 0, 0], 1.9 + 0.3 * rng.standard_normal(3)], 3), cell=cell, pbc=True)
        atoms.calc = LennardJones(sigma=2.6, epsilon=0.05, rc=5.0, smooth=True)
        kinds = ("energy", "forces", "stress") if k == 0 else ("energy", "forces")
        labels = {kind: atoms.calc.get_property(kind, atoms) for kind in kinds}
        atoms.info["gap"], atoms.arrays["shift"] = round(rng.uniform(1, 2), 3), np.round(rng.uniform(-1, 1, 2), 3)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


def structures() -> list[Atoms]:
    """The structures of all files."""
    return read(HERE / "structures.xyz", ":")


def models() -> dict:
    """Unfitted models by kind, each with what it is fitted to beside the structures."""
    soap = SOAP(species=["Ar"], r_cut=3.5, n_max=2, l_max=1, sigma=0.5)
    of_terms = [Term(Pair(["Ar"], r_cut=3.5, n_basis=5), Linear(), signal=0.5), Term(soap, SquaredExponential(), n_sparse=4, signal=0.5)]
    potential, kernel = {"noise": NOISE, "signal": 1.0}, DotProduct(zeta=2)
    return {
        "sparse-environments": (SparseGP(soap, kernel, n_sparse=6, **potential),),
        "sparse-observations": (SparseGP(soap, kernel, n_sparse=10, representers="observations", **potential),),
        "sparse-terms": (SparseGP(of_terms, noise=NOISE, baseline=["least-squares", ZBL()]),),
        "exact-cholesky": (GaussianProcess(soap, kernel, solver="cholesky", **potential),),
        "exact-cg": (GaussianProcess(soap, kernel, solver="cg", cg_tolerance=1e-10, **potential),),
        "ridge": (KernelRidge(soap, kernel, alpha=1e-3),),
        **{f"property-{target}": (property_gp(soap, kernel, target), name) for target, name in PROPERTIES.items()},
        "property-ridge": (property_ridge(soap, kernel), "gap"),
    }


#: What the files of properties predict.
PROPERTIES = {"extensive": "gap", "intensive": "gap", "atom": "shift"}


def property_gp(soap, kernel, target):
    """`PropertyGP`, called `GaussianProcess` by the code that wrote version 1."""
    return getattr(soapkrr, "PropertyGP", GaussianProcess)(soap, kernel, target=target, noise=0.1, signal=1.0)


def property_ridge(soap, kernel):
    """`PropertyRidge`, called `KernelRidge` by the code that wrote version 1."""
    return getattr(soapkrr, "PropertyRidge", KernelRidge)(soap, kernel, target="intensive", alpha=1e-2)


def predictions(model, frames) -> dict:
    """{name: flat list} of what a model predicts of structures, error bars included."""
    if getattr(model, "target", "potential") != "potential" and not hasattr(soapkrr, "PropertyGP"):
        values, std = model.predict(frames, return_std=True)
        return {name: np.concatenate([np.ravel(part) for part in value]).tolist() for name, value in (("values", values), ("std", std))}
    p = model.predict(frames, uncertainty=True)
    fields = {name: getattr(p, name) for name in p.__dataclass_fields__ if name != "sizes" and getattr(p, name) is not None}
    return {name: np.concatenate([np.ravel(part) for part in value]).tolist() for name, value in fields.items()}


def main(version: str) -> None:
    """Fit, save and predict."""
    if not (HERE / "structures.xyz").exists():
        write(HERE / "structures.xyz", make_structures())
    path, frames = HERE / "predictions.json", structures()
    known = json.loads(path.read_text()) if path.exists() else {}
    for kind, (model, *y) in models().items():
        name = f"{version}-{kind}.soapkrr"
        model.fit(frames[:TRAINING], *y).save(HERE / name)
        known[name] = predictions(model, frames)
    path.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
