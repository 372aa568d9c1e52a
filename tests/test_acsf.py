"""Symmetry functions: values against DScribe and plain loops; derivatives by order of convergence; scaling learnt and saved."""

from itertools import combinations

import numpy as np
import pytest
from ase import Atoms
from descriptor_checks import assert_invariant, assert_jacobian, assert_pullback, assert_strain_jacobian, environments
from dscribe.descriptors import ACSF as DScribeACSF
from systems import R_CUT, SYSTEMS, build, species, variations

import soapkrr
from soapkrr import ACSF, GaussianProcess, InputError, SparseGP, SquaredExponential, Standardized
from soapkrr.descriptors.acsf import acsf_parameters, cutoff_table
from soapkrr.descriptors.cutoff import Cosine, Polynomial, Smoothstep, Tanh3

FUNCTIONS = dict(
    g2_params=[(1.0, 0.0), (4.0, 3.0), (0.3, 1.5)],
    g3_params=[0.7, 2.0],
    g4_params=[(0.01, 1, 1), (0.05, 2, -1), (0.05, 3.5, 0.5), (0.2, 16, -1)],
    g5_params=[(0.02, 4, 1), (0.05, 1, -1)],
)
#: DScribe refuses periodic structures with a zero cell vector.
DSCRIBE = tuple(name for name in SYSTEMS if not build(name).pbc.any() or abs(np.linalg.det(build(name).cell.array)) > 0)
VARIANTS = {
    "elements": {},
    "weighted": {"weighted": True},
    "tanh3": {"cutoff": "tanh3"},
    "poly": {"cutoff": "poly"},
    "smoothstep": {"cutoff": "smoothstep"},
    "radial only": {"g4_params": (), "g5_params": ()},
    "G4 only": {"g2_params": (), "g3_params": (), "g5_params": ()},
    "G5 only": {"g2_params": (), "g3_params": (), "g4_params": ()},
}


def acsf(names, **changes) -> ACSF:
    return ACSF(species=names, r_cut=R_CUT, **{**FUNCTIONS, **changes})


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DSCRIBE)
def test_values_equal_dscribe(name):
    atoms = build(name)
    atoms.wrap()
    theirs = DScribeACSF(species=species(name), r_cut=R_CUT, periodic=bool(atoms.pbc.any()), **FUNCTIONS).create(atoms)
    np.testing.assert_allclose(acsf(species(name)).create(atoms), theirs, rtol=0, atol=1e-10)


def test_values_of_a_larger_set_equal_dscribe():
    atoms, parameters = build("vacancy"), acsf_parameters(5.5, 22, 20)
    atoms.wrap()
    theirs = DScribeACSF(species=["Si", "O", "H"], r_cut=5.5, periodic=True, **parameters).create(atoms)
    np.testing.assert_allclose(ACSF(["Si", "O", "H"], 5.5, **parameters).create(atoms), theirs, rtol=0, atol=1e-10)


def _loops(descriptor, atoms):
    """One feature vector per atom by plain loops over neighbours and pairs of neighbours, weighted by atomic numbers."""
    batch, pairs, _ = environments(descriptor, atoms)

    def f_c(r):
        return descriptor.cutoff(np.array([min(r, R_CUT)]), R_CUT)[0][0]

    X = np.zeros((len(atoms), descriptor.n_features))
    for i in range(len(atoms)):
        near = [(pairs.vectors[p], batch.numbers[pairs.j[p]]) for p in range(pairs.offsets[i], pairs.offsets[i + 1])]
        for d, z in near:
            r = np.linalg.norm(d)
            radial = [1.0, *(np.exp(-eta * (r - r_s) ** 2) for eta, r_s in FUNCTIONS["g2_params"])]
            X[i, :6] += z * f_c(r) * np.array(radial + [np.cos(k * r) for k in FUNCTIONS["g3_params"]])
        for (a, za), (b, zb) in combinations(near, 2):
            ra, rb, rab = np.linalg.norm(a), np.linalg.norm(b), np.linalg.norm(a - b)
            f2 = za * zb * f_c(ra) * f_c(rb)

            def angular(eta, zeta, lam, square, c=a @ b / (ra * rb)):
                return 2 ** (1 - zeta) * (1 + lam * c) ** zeta * np.exp(-eta * square)

            X[i, 6:10] += [f2 * f_c(rab) * angular(*row, ra**2 + rb**2 + rab**2) for row in FUNCTIONS["g4_params"]]
            X[i, 10:] += [f2 * angular(*row, ra**2 + rb**2) for row in FUNCTIONS["g5_params"]]
    return X


@pytest.mark.parametrize("cutoff", ["cosine", "tanh3", "poly", "smoothstep"])
@pytest.mark.parametrize("name", ["molecule", "mixed", "alloy"])
def test_weighted_values_equal_plain_loops(name, cutoff):
    descriptor = acsf(species(name), weighted=True, cutoff=cutoff)
    expected = _loops(descriptor, build(name))
    np.testing.assert_allclose(descriptor.create(build(name)), expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())


def test_weighted_functions_are_the_weighted_sum_over_elements():
    atoms, names = build("mixed"), species("mixed")
    X, total = acsf(names).create(atoms), acsf(names, weighted=True).create(atoms)
    b, n = (Atoms(s).numbers[0] for s in ("B", "N"))
    np.testing.assert_allclose(total[:, :6], b * X[:, :6] + n * X[:, 6:12], rtol=1e-13)
    np.testing.assert_allclose(total[:, 6:], b * b * X[:, 12:18] + b * n * X[:, 18:24] + n * n * X[:, 24:], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("cutoff", [Cosine(), Cosine(width=0.7), Tanh3(), Polynomial(m=3), Smoothstep(), Smoothstep(width=0.5)], ids=repr)
def test_the_table_follows_the_cutoff(cutoff):
    r_cut = 5.0
    table, r = cutoff_table(cutoff, r_cut), np.random.default_rng(0).uniform(0, r_cut, 2000)
    k, t = np.divmod(r / r_cut * len(table), 1)
    values = np.polynomial.polynomial.polyval(t, table[k.astype(int)].T, tensor=False)
    # The curvature of a cosine that starts inside jumps by ½(π/width)² there; the quintic of that one interval h rounds it off.
    jump = 0.5 * (np.pi / 0.7) ** 2 * (r_cut / len(table)) ** 2 if cutoff == Cosine(width=0.7) else 0.0
    np.testing.assert_allclose(values, cutoff(r, r_cut)[0], rtol=0, atol=1e-12 + 0.1 * jump)


def test_an_atom_alone_has_no_features_and_nothing_jumps_when_one_comes_into_sight():
    descriptor = acsf(["C"], cutoff="tanh3")
    assert not descriptor.create(Atoms("C")).any()

    def frame(h):
        return Atoms("C3", positions=[[0, 0, 0], [1.2, 0.4, 0], [0, 0.1, np.sqrt(R_CUT**2 - 0.01) - h]])

    outside = descriptor.create(frame(-1e-9))[0]
    h = 0.2 * 0.5 ** np.arange(5)
    change = [np.linalg.norm(descriptor.create(frame(x))[0] - outside) for x in h]
    assert np.polyfit(np.log(h), np.log(change), 1)[0] > 2.9  # tanh³ goes as h³


def test_features_of_a_list_are_those_of_its_structures():
    frames = [build(name) for name in ("primitive", "vacancy", "skewed")]
    np.testing.assert_array_equal(acsf(["Si"]).create(frames), np.concatenate([acsf(["Si"]).create(atoms) for atoms in frames]))


# --- derivatives and invariances -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_derivatives_of_every_system(name):
    assert_pullback(acsf(species(name)), build(name))
    assert_jacobian(acsf(species(name)), build(name))
    assert_strain_jacobian(acsf(species(name)), build(name))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["molecule", "mixed", "primitive"])
def test_derivatives_of_every_variant(name, variant):
    descriptor = acsf(species(name), **VARIANTS[variant])
    assert_pullback(descriptor, build(name))
    assert_jacobian(descriptor, build(name))
    assert_strain_jacobian(descriptor, build(name))


@pytest.mark.parametrize("name", ["molecule", "alloy", "primitive"])
def test_derivatives_of_standardised_features(name):
    descriptor = acsf(species(name))
    descriptor = descriptor.fitted(descriptor.create(variations(name, 3)))
    assert isinstance(descriptor, Standardized)
    assert_pullback(descriptor, build(name))
    assert_jacobian(descriptor, build(name))
    assert_strain_jacobian(descriptor, build(name))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", SYSTEMS)
def test_features_do_not_depend_on_rotation_translation_or_order(name, weighted):
    assert_invariant(acsf(species(name), weighted=weighted), build(name))


# --- scaling, fit, files ---------------------------------------------------------------------------------------------


def test_standardised_features_have_zero_mean_and_unit_spread():
    frames = variations("alloy", 6)
    descriptor = acsf(species("alloy"))
    raw = descriptor.create(frames)
    X = descriptor.fitted(raw).create(frames)
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-10)
    spread = raw.std(axis=0)
    varied = spread > 0.01 * np.sqrt(np.mean(raw**2, axis=0))
    np.testing.assert_allclose(X.std(axis=0)[varied], 1, rtol=1e-10)
    assert np.isfinite(X).all() and X.std(axis=0).max() < 1 + 1e-10


def test_features_that_are_always_zero_stay_zero():
    descriptor = acsf(["Si", "Ge"])
    frames = variations("vacancy", 2)
    X = descriptor.fitted(descriptor.create(frames)).create(frames)
    germanium = slice(descriptor.n_radial, 2 * descriptor.n_radial)
    assert not X[:, germanium].any() and X[:, : descriptor.n_radial].any()


def test_scale_false_leaves_the_features():
    descriptor = acsf(["Si"], scale=False)
    assert descriptor.fitted(descriptor.create(build("vacancy"))) is descriptor


def _model(name="vacancy"):
    descriptor = ACSF.layout(species(name), r_cut=R_CUT, n_radial=8, n_angular=8)
    return SparseGP(descriptor, SquaredExponential(length_scale=8.0), n_sparse=60)


def test_a_fitted_potential_has_consistent_forces():
    frames = variations("vacancy", 6)
    model = _model().fit(frames[:5])
    assert isinstance(model.process_.terms[0].descriptor, Standardized)
    prediction = model.predict(frames[5], uncertainty=True)
    u = np.random.default_rng(0).normal(size=(len(frames[5]), 3))
    h = 1e-4
    plus, minus = (model.predict(Atoms(frames[5], positions=frames[5].positions + s * h * u)).energy[0] for s in (1, -1))
    assert (plus - minus) / (2 * h) == pytest.approx(-np.vdot(prediction.forces[0], u), rel=1e-5)
    assert prediction.energy_std[0] > 0


def test_scaling_is_saved_with_the_model(tmp_path):
    frames = variations("alloy", 4)
    model = _model("alloy").fit(frames)
    model.save(tmp_path / "m.soapkrr")
    loaded = soapkrr.load(tmp_path / "m.soapkrr")
    assert loaded.process_.terms[0].descriptor == model.process_.terms[0].descriptor
    assert loaded.descriptor == model.descriptor
    np.testing.assert_array_equal(loaded.predict(frames).energy, model.predict(frames).energy)


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_radial, n_angular", [(0, 0), (1, 1), (5, 7), (22, 20), (40, 41)])
def test_layout_has_as_many_functions_as_asked_for(n_radial, n_angular):
    parameters = acsf_parameters(5.0, n_radial, n_angular)
    assert len(set(parameters["g2_params"])) == n_radial
    assert len(set(parameters["g4_params"])) == n_angular
    for angular in ("g4", "g5"):
        descriptor = ACSF.layout(["Si", "O"], 5.0, n_radial, n_angular, angular)
        assert descriptor.n_features == 2 * (1 + n_radial) + 3 * n_angular
        assert len(getattr(descriptor, f"{angular}_params")) == n_angular


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"g2_params": [(1.0, 2.0), (1.0,)]}, "`g2_params`"),
        ({"g2_params": [(1.0, 2.0, 3.0)]}, "`g2_params`"),
        ({"g2_params": [1.0, 2.0]}, "`g2_params`"),
        ({"g2_params": [(-1.0, 2.0)]}, "g2_params: eta"),
        ({"g2_params": [(np.nan, 2.0)]}, "`g2_params`"),
        ({"g3_params": [(1.0, 2.0)]}, "`g3_params`"),
        ({"g3_params": 1.0}, "`g3_params`"),
        ({"g4_params": [(0.1, 1.0)]}, "`g4_params`"),
        ({"g4_params": [(-0.1, 1.0, 1.0)]}, "`g4_params`: eta"),
        ({"g5_params": [(0.1, 0.5, 1.0)]}, "`g5_params`: zeta"),
        ({"g4_params": [(0.1, 1.0, 2.0)]}, "`g4_params`: lambda"),
        ({"cutoff": "sharp"}, "`cutoff`"),
        ({"r_cut": -1.0}, "`r_cut`"),
        ({"species": ["Xx"]}, "`species`"),
    ],
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        ACSF(**{"species": ["Si"], "r_cut": 4.0, **FUNCTIONS, **changes})


@pytest.mark.parametrize("changes", [{"n_radial": -1}, {"n_angular": 2.5}, {"angular": "g3"}, {"r_cut": 0.0}])
def test_bad_layouts_are_named(changes):
    with pytest.raises(InputError, match=f"`{next(iter(changes))}`"):
        acsf_parameters(**{"r_cut": 5.0, **changes})


@pytest.mark.parametrize("mean, scale, message", [([0.0], [1.0], "`mean`"), ([0.0, 0.0], [1.0, 0.0], "`scale`")])
def test_bad_standardisation_is_named(mean, scale, message):
    with pytest.raises(InputError, match=message):
        Standardized(ACSF(["Si"], 4.0, g3_params=[1.0]), mean, scale)


@pytest.mark.parametrize("estimator", [SparseGP, GaussianProcess])
def test_data_without_neighbours_name_the_cutoff(estimator):
    descriptor = ACSF(["Si"], r_cut=1.0, g3_params=[1.0])
    with pytest.raises(InputError, match="`r_cut`=1.0"):
        estimator(descriptor, SquaredExponential()).fit(variations("vacancy", 2))


def test_the_exact_process_scales_features_as_a_sparse_term_does():
    frames = variations("vacancy", 3)
    descriptor, kernel = ACSF.layout(["Si"], r_cut=R_CUT, n_radial=6, n_angular=4), SquaredExponential(5.0)
    exact = GaussianProcess(descriptor, kernel).fit(frames)
    scaled = GaussianProcess(descriptor.fitted(descriptor.create(frames)), kernel).fit(frames)
    np.testing.assert_allclose(exact.predict(frames).energy, scaled.predict(frames).energy, rtol=1e-12)  # learnt in another order: rounding
