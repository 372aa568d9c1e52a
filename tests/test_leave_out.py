"""Labels predicted without their own group, in closed form: equal to honest refits, for every process, group and kind of label."""

import numpy as np
from small import crystals, labelled, small_gp, soap

from soapkrr import (
    DotProduct,
    GaussianProcess,
    Observations,
)
from soapkrr.labels import KINDS

NOISE = {"energy": 0.01, "forces": 0.1, "stress": 0.01}
WEIGHTED = Observations(weight="trust")


def without(frames, members):
    """Copies of which those of ``members`` have no weight: their labels are not fitted, their environments stay."""
    copies = []
    for index, atoms in enumerate(frames):
        atoms = labelled(atoms, **atoms.calc.results)
        atoms.info["trust"] = 0.0 if index in members else atoms.info.get("trust", 1.0)
        copies.append(atoms)
    return copies


def component(prediction, k, structure, place, std=False):
    """One predicted label, or its variance."""
    value = getattr(prediction, KINDS[k] + ("_std" if std else ""))[structure]
    return np.ravel(value)[place] ** (2 if std else 1)


def check_against_refits(model, frames, by="structure", groups=None, rtol=1e-8):
    """The leave-out of a fitted model is what refits without each group predict."""
    found = model.leave_out(frames, by)
    assert found.exact
    for g in range(len(found.names)) if groups is None else groups:
        mine = found.some(found.group == g)
        members = sorted(set(mine.structure.tolist()))
        refit = type(model)(**model.fitted_parameters_).set_params(
            observations=model.observations or WEIGHTED, baseline=dict(model.reference_energies_), threads=model.threads
        )
        refit.fit(without(frames, members))
        p = refit.predict([frames[s] for s in members], uncertainty=True)
        at = np.searchsorted(members, mine.structure)
        mean, variance = (
            np.array([component(p, *where, std=std) for where in zip(mine.kind, at, mine.component, strict=True)]) for std in (False, True)
        )
        for k in np.unique(mine.kind):
            of = mine.kind == k
            np.testing.assert_allclose(mine.mean[of], mean[of], rtol=rtol, atol=rtol * np.abs(mean[of]).max())
            np.testing.assert_allclose(mine.variance[of], variance[of], rtol=rtol, atol=rtol * variance[of].max())
    return found


def fitted(frames, **changes):
    parameters = {"noise": NOISE, "threads": 1, "observations": WEIGHTED} | changes
    for atoms in frames:
        atoms.info.setdefault("trust", 1.0)
    return small_gp(**parameters).fit(frames)


def test_sparse():
    check_against_refits(fitted(frames := crystals(6)), frames)


def test_exact():
    frames = crystals(5)
    for atoms in frames:
        atoms.info["trust"] = 1.0
    model = GaussianProcess(soap(), DotProduct(zeta=2), noise=NOISE, observations=WEIGHTED, threads=1).fit(frames)
    check_against_refits(model, frames)
