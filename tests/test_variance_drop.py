"""Gains of labels not yet calculated equal honest refits with them; contributions of training structures sum to predictions."""

from functools import cache

import numpy as np
import pytest
from ase import Atoms
from systems import build, labelled, small_soap, species, variations

from soapkrr import ZBL, DotProduct, Energy, Force, GaussianProcess, InputError, SparseGP, Stress
from soapkrr.selection import GivenPoints

NOISE = {"energy": 0.02, "forces": 0.2, "stress": 0.02}
NAME = "alloy"


def _fit(kind, frames, **changes):
    """A model of one kind; sparse points are the atoms of the first two frames, whatever follows."""
    settings = {"noise": NOISE, "baseline": dict.fromkeys(species(NAME), -1.5), "threads": 1} | changes
    s = small_soap(species(NAME))
    if kind in ("cholesky", "cg"):
        return GaussianProcess(s, DotProduct(2), solver=kind, cg_tolerance=1e-9, **settings).fit(frames)
    if kind == "subset":
        return SparseGP(s, DotProduct(2), n_sparse=15, representers="observations", **settings).fit(frames)
    return SparseGP(s, DotProduct(2), selection=GivenPoints([0, 1]), **settings).fit(frames)


@cache
def _model(kind):
    return _fit(kind, _frames())


@cache
def _frames():
    return variations(NAME, 4)


def _candidates():
    return [labelled(atoms) for atoms in variations(NAME, 3, seed=8, rattle=0.3)]


def _open():
    """A candidate without a third periodic direction."""
    atoms = build(NAME)
    atoms.pbc = [True, True, False]
    return atoms


def _wanted():
    a, b = variations(NAME, 2, seed=5)
    return [Energy(a) - Energy(b), Force(a, 1, "y"), Stress(b, "zz")]


@pytest.mark.parametrize("kind", ["sparse", "cholesky", "cg"])
def test_drops_equal_honest_refits(kind):
    """Each candidate alone, and three picked one after the other; representers are the same."""
    model, candidates, wanted = _model(kind), _candidates(), _wanted()
    drop = model.variance_drop(candidates, wanted, n=3)
    np.testing.assert_allclose(drop.variance, model.posterior(wanted).std ** 2, rtol=1e-7)
    for k, atoms in enumerate(candidates):
        refitted = _fit(kind, [*_frames(), atoms])
        np.testing.assert_allclose(drop.variance - drop.drop[k], refitted.posterior(wanted).std ** 2, rtol=1e-6)
    for n in (1, 2, 3):
        refitted = _fit(kind, [*_frames(), *(candidates[k] for k in drop.picked[:n])])
        np.testing.assert_allclose(drop.left[n - 1], refitted.posterior(wanted).std ** 2, rtol=1e-6)
    assert sorted(drop.picked) == [0, 1, 2] and drop.picked[0] == np.argmax(drop.score)


def test_cost_and_kinds_of_labels():
    model, candidates, wanted = _model("sparse"), _candidates(), _wanted()
    everything, energies = (model.variance_drop(candidates, wanted, labels=kinds) for kinds in (("energy", "forces", "stress"), "energy"))
    assert (energies.drop <= everything.drop + 1e-12).all() and (energies.drop > 0).all()
    dear = np.where(np.arange(3) == everything.picked[0], 1e6, 1.0)
    priced = model.variance_drop(candidates, wanted, cost=dear)
    np.testing.assert_allclose(priced.score, everything.score / dear)
    assert priced.picked != everything.picked
    assert "std ratio" in repr(everything)
    subset = _model("subset").variance_drop(candidates, wanted, n=2)
    assert (subset.drop > 0).all() and (subset.left[1] <= subset.left[0]).all()


@pytest.mark.parametrize("changes", [{}, {"baseline": ["least-squares", ZBL()]}], ids=["references", "prior mean"])
@pytest.mark.parametrize("kind", ["sparse", "cholesky", "cg", "subset"])
def test_contributions_sum_to_the_prediction(kind, changes):
    """Whatever the order in which the structures are given."""
    model, frames, test = _fit(kind, _frames(), **changes), _frames(), variations(NAME, 1, seed=6)[0]
    p, shuffled = model.predict(test), [frames[k] for k in (2, 0, 3, 1)]
    for what, expected in (("energy", p.energy[0]), ("energies", p.energies[0]), ("forces", p.forces[0]), ("stress", p.stress[0])):
        found, again = model.attribution(test, what, frames), model.attribution(test, what, shuffled)
        assert found.contributions.shape == (4, *np.shape(expected))
        np.testing.assert_allclose(found.total, expected, rtol=1e-6, atol=1e-6)
        scale = np.abs(found.contributions).max()
        np.testing.assert_allclose(again.contributions, found.contributions[[2, 0, 3, 1]], rtol=1e-6, atol=1e-9 * scale)
    assert "largest first" in repr(found)


def test_contributions_are_derivatives_by_the_labels():
    """A posterior mean is linear in the labels: scaling those of one structure changes the prediction by its contribution."""
    frames, test, zero = _frames(), variations(NAME, 1, seed=6)[0], dict.fromkeys(species(NAME), 0.0)
    model = _fit("sparse", frames, baseline=zero)
    louder = [atoms.copy() for atoms in frames]
    for k, (copy, atoms) in enumerate(zip(louder, frames, strict=True)):
        copy.calc = type(atoms.calc)(copy, **{kind: (1.5 if k == 1 else 1.0) * value for kind, value in atoms.calc.results.items()})
    changed = _fit("sparse", louder, baseline=zero).predict(test)
    expected = model.predict(test).forces[0] + 0.5 * model.attribution(test, "forces", frames).contributions[1]
    np.testing.assert_allclose(changed.forces[0], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda m: m.variance_drop(_candidates(), _wanted(), n=4), "`n` must be 1 to 3"),
        (lambda m: m.variance_drop(_candidates(), []), "empty"),
        (lambda m: m.variance_drop([], _wanted()), "empty"),
        (lambda m: m.variance_drop(_candidates(), _wanted(), cost=[1.0, 2.0]), "`cost`"),
        (lambda m: m.variance_drop(_candidates(), _wanted(), cost=[1.0, 0.0, 1.0]), "`cost`"),
        (lambda m: m.variance_drop(_candidates(), _wanted(), labels=["virial"]), "`labels`"),
        (lambda m: m.variance_drop(_open(), _wanted(), labels="stress"), "candidate 0 has no three-dimensional cell"),
        (lambda m: m.variance_drop([build(NAME), build("molecule")], _wanted()), "frame 1: species C is unknown"),
        (lambda m: m.variance_drop(Atoms(), _wanted()), "no atoms"),
        (lambda m: m.attribution(build(NAME), "energy", _frames()[:3]), "not those that the model was fitted to"),
        (lambda m: m.attribution(build(NAME), "virial", _frames()), "`kind`"),
        (lambda m: m.attribution(_frames(), "energy", _frames()), "one ase.Atoms"),
        (lambda m: m.attribution(build("mixed"), "stress", _frames()), "periodic in three directions"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(InputError, match=words):
        make(_model("sparse"))
