"""Models that grow, and standard deviations of one total energy and of one difference: processor time, and equality with fits.

50 structures of 14 atoms (copper slabs of twelve atoms with two of gold, rattled, EMT): 2,150 energies and force components, and one
structure more. Times are least ones of one thread, in one run and alternated; those of predictions are in units of one prediction of
energy and forces. ``python benchmarks/growing.py`` writes benchmarks/results/growing.json.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from soapkrr import SOAP, DotProduct, Energy, GaussianProcess, GivenPoints, Pair, SparseGP, Term, energy_difference
from soapkrr.kernels import Linear
from soapkrr.structures import Batch

HERE = Path(__file__).parent

#: As of a relaxation: eV/atom, eV/Å.
NOISE = {"energy": 3e-4, "forces": 1e-3}

REFERENCES = {"Cu": 0.0, "Au": 0.0}

#: Sparse points of the sparse models, 500 of 700 environments; what new ones leave undetermined, eV.
GIVEN, NOVELTY = [(k // 14, k % 14) for k in range(500)], 3e-3


def structures(n: int, seed: int = 0) -> list[Atoms]:
    """Slabs with 43 labels each."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
        add_adsorbate(atoms, "Au", 2.2, "fcc")
        add_adsorbate(atoms, "Au", 2.2, "hcp", offset=(1, 0))
        atoms.positions += rng.normal(0, 0.1, atoms.positions.shape)
        probe = atoms.copy()
        probe.calc = EMT()
        atoms.calc = SinglePointCalculator(atoms, energy=probe.get_potential_energy(), forces=probe.get_forces())
        frames.append(atoms)
    return frames


def terms(n_sparse: int = 500, given=None) -> list[Term]:
    """As of a relaxation."""
    species = ["Cu", "Au"]
    selection = "fps" if given is None else GivenPoints(given)
    soap = SOAP(species, r_cut=5.0, n_max=6, l_max=6, sigma=0.4)
    return [Term(Pair(species, r_cut=5.0), Linear(), signal=1.0), Term(soap, DotProduct(zeta=3), n_sparse, 1.0, selection)]


def exact() -> GaussianProcess:
    return GaussianProcess(terms(), noise=NOISE, baseline=REFERENCES, solver="cholesky", threads=1)


def sparse(given=None) -> SparseGP:
    return SparseGP(terms(given=given), noise=NOISE, baseline=REFERENCES, threads=1)


def subset() -> SparseGP:
    return SparseGP(terms(), n_sparse=500, representers="observations", noise=NOISE, baseline=REFERENCES, threads=1)


def seconds(function: Callable) -> float:
    """Processor time of one call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def least(functions: dict[str, Callable], rounds: int = 7) -> dict[str, float]:
    """Least processor time of each, called in turns."""
    return {
        name: min(times)
        for name, times in zip(functions, zip(*([seconds(f) for f in functions.values()] for _ in range(rounds)), strict=True), strict=True)
    }


def differences(one, other, frames: list[Atoms]) -> dict[str, float]:
    """Largest differences of two models: eV, eV/Å, and of the log evidence."""
    p, q = (model.predict(frames, uncertainty=["energy", "forces"]) for model in (one, other))
    found = {name: float(np.abs(getattr(p, name) - getattr(q, name)).max()) for name in ("energy", "energy_std")}
    found |= {
        name: float(np.abs(np.concatenate(getattr(p, name)) - np.concatenate(getattr(q, name))).max()) for name in ("forces", "forces_std")
    }
    return found | {"log_evidence": abs(one.log_likelihood_ - other.log_likelihood_)}


def learnt(model, frames: list[Atoms]):
    """Fitted without the check of labels, which an update does not do either."""
    return model.learn(frames, False, False, check=False)


def growing(name: str, make: Callable, old: list[Atoms], new: Atoms, test: list[Atoms]) -> dict:
    """An update by one structure beside a fit to all; of a subset of observations the fit picks others, so that times alone compare."""
    model = learnt(make(), old)
    copy.copy(model).update(new)
    times = least({"update": lambda: copy.copy(model).update(new), "refit": lambda: learnt(make(), [*old, new])}, 3)
    row = {"model": name, "rows": sum(model.n_observations_.values()), **{key: round(value, 4) for key, value in times.items()}}
    same = {} if name == "subset" else differences(copy.copy(model).update(new), learnt(make(), [*old, new]), test)
    return row | {"differences": same}


def extending(old: list[Atoms], new: Atoms, test: list[Atoms]) -> dict:
    """An update with new sparse points beside a fit that is given all of them."""
    model = learnt(sparse(GIVEN), old)
    times = least({"update": lambda: copy.copy(model).update(new, novelty=NOVELTY, training=old)}, 2)
    grown = copy.copy(model).update(new, novelty=NOVELTY, training=old)
    x, added = terms()[1].descriptor.environments(Batch.from_atoms([new])).X, []
    for before, after in zip(model.process_.terms[1].points, grown.process_.terms[1].points, strict=True):
        added += [(len(old), int(np.flatnonzero((x == point).all(axis=1))[0])) for point in after[len(before) :]]
    times |= least({"refit": lambda: learnt(sparse([*GIVEN, *added]), [*old, new])}, 2)
    whole = learnt(sparse([*GIVEN, *added]), [*old, new])
    row = {"model": f"sparse, {len(added)} new points", "rows": sum(model.n_observations_.values())}
    return row | {key: round(value, 4) for key, value in times.items()} | {"differences": differences(grown, whole, test)}


def deviations(name: str, model, a: Atoms, b: Atoms) -> dict:
    """Standard deviations in predictions."""
    times = least(
        {
            "prediction": lambda: model.predict(a),
            "total": lambda: model.predict(a, uncertainty="total"),
            "total_and_atoms": lambda: model.predict(a, uncertainty="energy"),
            "joint": lambda: model.posterior(Energy(a)),
            "difference": lambda: model.posterior(energy_difference(a, b)),
        },
        15,
    )
    ratios = {key: round(value / times["prediction"], 2) for key, value in times.items() if key != "prediction"}
    stds = {
        "std": float(model.predict(a, uncertainty="total").energy_std[0]),
        "std_of_difference": float(model.posterior(energy_difference(a, b)).std[0]),
    }
    return {"model": name, "prediction_ms": round(1e3 * times["prediction"], 2), **ratios, **stds}


def main() -> None:
    frames = structures(56)
    old, new, test = frames[:50], frames[50], frames[51:]
    makers = {"exact": exact, "sparse": lambda: sparse(GIVEN), "subset": subset}
    rows = {"deviations": [deviations(name, learnt(make(), old), *test[:2]) for name, make in makers.items()], "growing": []}
    for name, make in makers.items():
        rows["growing"].append(growing(name, make, old, new, test))
        print(json.dumps(rows["growing"][-1]), flush=True)
    rows["growing"].append(extending(old, new, test))
    print(json.dumps(rows["growing"][-1]))
    print(json.dumps(rows["deviations"], indent=1))
    (HERE / "results" / "growing.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
