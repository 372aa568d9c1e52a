"""What atoms' energies are made of: sums, species pairs of linear terms, saliency, and the figure that shows them to a chemist."""

import matplotlib
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from small import crystals, labelled, lennard_jones, small_gp, soap

from soapkrr import ZBL, DotProduct, GaussianProcess, InputError, Linear, Pair, SparseGP, Term, plot
from soapkrr.plot.chemistry import _surroundings

matplotlib.use("Agg")


def salts(n: int = 6, seed: int = 0) -> list[Atoms]:
    """Rattled rock salt of two noble gases, labelled."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = bulk("ArKr", "rocksalt", a=7.2 + 0.3 * rng.standard_normal(), cubic=True)
        atoms.rattle(0.1, rng=rng)
        frames.append(lennard_jones(atoms, "energy", "forces"))
    return frames


PAIR = Pair(["Ar", "Kr"], r_cut=6.0, n_basis=10)


def of_two_terms():
    return SparseGP([Term(PAIR, Linear()), Term(soap(("Ar", "Kr")), DotProduct(2), n_sparse=12)], baseline=["least-squares", ZBL()])


MODELS = {
    "sparse, two terms and a prior mean": lambda: of_two_terms(),
    "sparse, linear": lambda: SparseGP(soap(("Ar", "Kr")), Linear(), n_sparse=20),
    "exact": lambda: GaussianProcess(soap(("Ar", "Kr")), DotProduct(2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_parts_sum_to_what_is_predicted(name):
    frames = salts()
    model = MODELS[name]().fit(frames)
    found, p = model.contributions(frames), model.predict(frames)
    assert len(found.names) == len(found.terms[0])
    for mine, theirs in zip(found.energies, p.energies, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-9)
    assert found.names[0] in repr(found) and "gauge" in repr(found)


@pytest.mark.parametrize("kernel", [Linear(), DotProduct(zeta=1)], ids=repr)
def test_pairs_of_species_sum_to_the_linear_term(kernel):
    frames = salts()
    found = SparseGP(soap(("Ar", "Kr")), kernel, n_sparse=20).fit(frames).contributions(frames)
    assert set(found.pairs[0]) == {f"{a}: {b}" for a in ("Ar", "Kr") for b in ("Ar-Ar", "Ar-Kr", "Kr-Kr")}
    for terms, pairs in zip(found.terms, found.pairs, strict=True):
        np.testing.assert_allclose(sum(pairs.values()), terms[0], atol=1e-9)


def test_pair_potentials_are_told_apart():
    """Of two atoms alone, the energy of a model of pairs is all of the pair that they are."""
    model = SparseGP(PAIR, Linear(), baseline={"Ar": 0.0, "Kr": 0.0}).fit(salts())
    for symbols in ("Ar2", "ArKr", "Kr2"):
        dimer = Atoms(symbols, [[0, 0, 0], [0, 0, 3.7]])
        (found,) = model.contributions(dimer).pairs
        (name,) = found
        assert name == "-".join(sorted(dimer.get_chemical_symbols()))
        assert found[name].sum() == pytest.approx(model.predict(dimer).energy[0], rel=1e-9)


def test_nothing_is_told_of_species_where_a_term_is_not_linear():
    frames = crystals(4)
    assert small_gp().fit(frames).contributions(frames).pairs == [{}] * 4


def test_saliency_is_the_steepest_change_of_the_energy_on_the_sphere():
    """Finite differences of a term's energy along directions that keep |x| = 1: none is steeper, that of the gradient is as steep."""
    frames, rng, h = crystals(4), np.random.default_rng(0), 1e-5
    model = small_gp().fit(frames)
    (part,), X = model.process_.parts, model.descriptor.create(frames[0])
    saliency = model.contributions(frames[0]).saliency[0]

    def slope(v):
        v = v - np.einsum("nd,nd->n", v, X)[:, None] * X
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        ends = [(X + s * v) / np.linalg.norm(X + s * v, axis=1, keepdims=True) for s in (h, -h)]
        up, down = (part.evaluate(0, x)[0] for x in ends)
        return (up - down) / (2 * h)

    np.testing.assert_allclose(slope(part.evaluate(0, X)[1]), saliency, rtol=1e-5)
    assert all((np.abs(slope(rng.standard_normal(X.shape))) < saliency).all() for _ in range(20))


def test_saliency_is_the_same_for_equal_surroundings_and_however_they_lie():
    frames = crystals(4)
    model = small_gp().fit(frames)
    turned = frames[0].copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    (plain,), (other,) = (model.contributions(a).saliency for a in (frames[0], turned))
    np.testing.assert_allclose(other, plain, rtol=1e-8)
    perfect = model.contributions(bulk("Ar", cubic=True, a=5.3)).saliency[0]
    np.testing.assert_allclose(perfect, perfect[0], rtol=1e-8)


def test_species_that_are_not_known_are_refused():
    with pytest.raises(InputError, match="species"):
        small_gp().fit(crystals(4)).contributions(bulk("Kr"))


# --- the figure ---


@pytest.mark.parametrize(
    ("atoms", "coordination", "difference"),
    [
        (Atoms("CuAu", scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[3.1] * 3, pbc=True), [8, 8], [0.64, -0.64]),
        (bulk("MgO", "rocksalt", a=4.21), [6, 6], [3.44 - 1.31, 1.31 - 3.44]),
        (bulk("Cu"), [12], [0.0]),
        (bulk("Fe"), [8], [0.0]),
        (bulk("Si"), [4, 4], [0.0, 0.0]),
        (molecule("CH4"), [4, 1, 1, 1, 1], [2.20 - 2.55, *[2.55 - 2.20] * 4]),
        (Atoms("He"), [0], [np.nan]),
    ],
    ids=lambda value: value.get_chemical_formula() if isinstance(value, Atoms) else "",
)
def test_coordination_and_electronegativity(atoms, coordination, difference):
    """As crystals and molecules are drawn in textbooks; Pauling's electronegativities."""
    n, found = _surroundings(atoms)
    np.testing.assert_array_equal(n, coordination)
    np.testing.assert_allclose(found, difference, atol=1e-12)


@pytest.fixture(scope="module")
def predicted():
    frames = salts()
    return frames, small_gp(("Ar", "Kr")).fit(frames)


def test_the_figure_states_its_gauge(predicted):
    frames, model = predicted
    p = model.predict(frames)
    left, right = plot.chemistry(frames, p)
    assert "the mean of its species" in left.get_ylabel()
    values = left.collections[0].get_offsets()[:, 1]
    assert np.mean(values) == pytest.approx(0, abs=1e-12)
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["Ar", "Kr"]
    left, _ = plot.chemistry(frames, p, gauge=model.reference_energies_)
    assert "given energies" in left.get_ylabel()
    first = np.concatenate(p.energies)[np.concatenate([a.numbers for a in frames]) == 18]
    np.testing.assert_allclose(left.collections[0].get_offsets()[:, 1], first - model.reference_energies_["Ar"])


def test_figures_of_one_species_and_of_lonely_atoms(predicted):
    frames = [labelled(Atoms("Ar"), energy=0.0), *crystals(4)]
    left, right = plot.chemistry(frames, small_gp().fit(frames).predict(frames))
    assert right.get_title() == "no variation within species"


def test_bad_input_of_the_figure(predicted):
    frames, model = predicted
    p = model.predict(frames)
    with pytest.raises(InputError, match="`gauge`"):
        plot.chemistry(frames, p, gauge={"Ar": 0.0})
    with pytest.raises(InputError, match="`gauge`"):
        plot.chemistry(frames, p, gauge="zero")
    with pytest.raises(InputError):
        plot.chemistry(frames[1:], p)
