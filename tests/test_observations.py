"""Observations: names of labels, masks, weights, and noise by configuration type, structure, atom and component."""

import io
import json

import ase.io
import numpy as np
import pytest
from reference import Observables, dtc
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from systems import build, labelled, small_soap, species, variations

from soapkrr import DotProduct, GivenPoints, InputError, KMeans, LabelError, Leverage, Observations, SparseGP, Stratified
from soapkrr.baselines import reference_energies
from soapkrr.labels import property_values, read_labels
from soapkrr.labels.noise import log_scales
from soapkrr.metrics import error_table
from soapkrr.modelfile import from_json, to_json

NOISE = {"energy": 0.02, "forces": 0.2, "stress": 0.02}
KINDS = ("energy", "forces", "stress")


def _model(observations=None, noise=NOISE, names=("Si",), **changes):
    settings = {"n_sparse": 8, "baseline": dict.fromkeys(names, 0.0), "tolerance": 1e-14, "signal": 1.0, **changes}
    return SparseGP(small_soap(names), DotProduct(3), noise=noise, observations=observations, **settings)


def _everything(p):
    return np.concatenate([p.energy, *map(np.ravel, p.forces), p.stress[np.isfinite(p.stress)]])


def _assert_same(model, other, frames, atol=1e-9):
    np.testing.assert_allclose(_everything(other.predict(frames)), _everything(model.predict(frames)), rtol=0, atol=atol)


@pytest.fixture
def frames():
    return variations("vacancy", 4, rattle=0.2)


@pytest.fixture(scope="module")
def test_set():
    return variations("vacancy", 2, seed=1, rattle=0.2)


# --- the fit is weighted least squares -------------------------------------------------------------------------------


def _sigmas(atoms, rng):
    """σ of the energy (per atom), of each force component and of each stress component, all different."""
    n = len(atoms)
    return 0.02 * rng.uniform(0.3, 3), 0.2 * rng.uniform(0.3, 3, size=(n, 3)), 0.02 * rng.uniform(0.3, 3, size=6)


@pytest.mark.parametrize("level", [0.1, 1.0, 7.0])
@pytest.mark.parametrize("name", ["primitive", "alloy"])
def test_every_component_has_its_own_noise(name, level):
    """Equal to the dense equations with one σ for each row, whatever the model's own level."""
    rng = np.random.default_rng(3)
    frames, names = variations(name, 2, rattle=0.25), species(name)
    observed, y, noise = [], [], []
    for atoms in frames:
        energy, forces, stress = _sigmas(atoms, rng)
        atoms.info |= {"energy_noise": energy, "stress_noise": stress}
        atoms.arrays["forces_noise"] = forces
        system = Observables(small_soap(names), atoms)
        observed += [system.energy(), *system.forces(), *system.stress()]
        y += [atoms.calc.results["energy"], *atoms.calc.results["forces"].ravel(), *atoms.calc.results["stress"]]
        noise += [energy * np.sqrt(len(atoms)), *forces.ravel(), *stress]
    model = _model(Observations(), {kind: level * value for kind, value in NOISE.items()}, names, n_sparse=6).fit(frames)
    test = variations(name, 1, seed=1, rattle=0.25)[0]
    system = Observables(small_soap(names), test)
    (term,) = model.process_.terms
    number_of = {atom.symbol: atom.number for atom in build(name)}
    numbers = np.repeat([number_of[s] for s in small_soap(names).species], [len(x) for x in term.points])
    points = np.concatenate(term.points)
    mean, variance = dtc(points, numbers, observed, y, noise, [system.energy(), *system.forces()], 3, 1.0)
    p = model.predict(test, uncertainty=True)
    # The reference solves normal equations: condition numbers of up to 1e7 cost it as many digits.
    np.testing.assert_allclose([p.energy[0], *p.forces[0].ravel()], mean, rtol=0, atol=1e-7 * np.abs(mean).max())
    np.testing.assert_allclose([p.energy_std[0] ** 2, *p.forces_std[0].ravel() ** 2], variance, rtol=1e-6, atol=1e-7 * variance.max())


def test_uniform_noise_of_structures_is_the_models(frames, test_set):
    plain = _model().fit(frames)
    for atoms in frames:
        atoms.info |= {"energy_noise": 0.02, "forces_noise": 0.2, "stress_noise": 0.02}
    other = _model(Observations(), {"energy": 0.5, "forces": 0.01, "stress": 3.0}).fit(frames)
    _assert_same(plain, other, test_set)


def test_noise_of_all_configuration_types_is_the_models(frames, test_set):
    plain = _model().fit(frames)
    for s, atoms in enumerate(frames):
        atoms.info["config_type"] = "ab"[s % 2]
    _assert_same(plain, _model(Observations(config_noise={"a": NOISE, "b": NOISE}), {"energy": 1.0}).fit(frames), test_set)


def test_the_most_specific_noise_wins(frames, test_set):
    frames[0].info["config_type"] = frames[1].info["config_type"] = "rough"
    frames[1].info["forces_noise"] = 0.7
    rough = _model(Observations(config_noise={"rough": {"forces": 0.4, "energy": 0.1}})).fit(frames)
    for atoms, energy, forces in zip(frames, (0.1, 0.1, 0.02, 0.02), (0.4, 0.7, 0.2, 0.2), strict=True):
        atoms.info["energy_noise"] = energy
        atoms.arrays["forces_noise"] = np.full(len(atoms), forces)
        atoms.info.pop("config_type", None)
    _assert_same(_model(Observations()).fit(frames), rough, test_set)


def test_a_weight_counts_as_repetition(frames, test_set):
    repeated = _model(n_sparse=10**6, tolerance=1e-10).fit([*frames, frames[1], frames[1]])
    frames[1].info["weight"] = 3
    _assert_same(_model(Observations(), n_sparse=10**6, tolerance=1e-10).fit(frames), repeated, test_set, atol=1e-8)


def test_a_structure_of_weight_zero_gives_no_observation(frames, test_set):
    bare = [*frames[:3], frames[3].copy()]
    without = _model().fit(bare)
    frames[3].info["weight"] = 0
    frames[3].calc.results["energy"] = 1e6
    model = _model(Observations()).fit(frames)
    assert model.n_observations_ == without.n_observations_
    np.testing.assert_array_equal(_everything(model.predict(test_set)), _everything(without.predict(test_set)))


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [1e3, np.nan])
@pytest.mark.parametrize("shape", ["atoms", "components"])
def test_masked_forces_do_not_change_the_fit(frames, test_set, shape, garbage):
    rng = np.random.default_rng(4)
    for atoms in frames:
        atoms.arrays["force_mask"] = rng.random(len(atoms) if shape == "atoms" else (len(atoms), 3)) < 0.3
    model = _model(Observations()).fit(frames)
    for atoms in frames:
        atoms.calc.results["forces"] = atoms.calc.results["forces"].copy()
        atoms.calc.results["forces"][atoms.arrays["force_mask"]] = garbage
    other = _model(Observations()).fit(frames)
    np.testing.assert_array_equal(_everything(other.predict(test_set)), _everything(model.predict(test_set)))
    masked = sum(atoms.arrays["force_mask"].sum() for atoms in frames) * (3 if shape == "atoms" else 1)
    assert model.n_observations_["forces"] == sum(3 * len(atoms) for atoms in frames) - masked


def test_a_masked_force_is_one_of_infinite_noise(frames, test_set):
    for atoms in frames:
        atoms.arrays["force_mask"] = np.arange(len(atoms)) == 2
    masked = _model(Observations()).fit(frames)
    for atoms in frames:
        atoms.arrays["noise"] = np.where(atoms.arrays.pop("force_mask"), 1e7, 0.2)
    # Rows of relative weight (0.2/1e7)² = 4e-16.
    _assert_same(_model(Observations(noise_keys={"forces": "noise"})).fit(frames), masked, test_set, atol=1e-8)


def test_all_forces_of_a_structure_may_be_masked(frames):
    frames[0].arrays["force_mask"] = np.ones(len(frames[0]), dtype=int)
    model = _model(Observations()).fit(frames)
    assert model.n_observations_["forces"] == sum(3 * len(atoms) for atoms in frames[1:])


# --- names -----------------------------------------------------------------------------------------------------------


def _renamed(frames, virial=False):
    """Copies whose labels are in `info` and `arrays` under other names."""
    copies = []
    for atoms in frames:
        copy, results = atoms.copy(), atoms.calc.results
        copy.info |= {"dft_energy": results["energy"]}
        copy.arrays["dft_forces"] = results["forces"]
        xx, yy, zz, yz, xz, xy = results["stress"]
        stress = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        copy.info["dft_virial" if virial else "dft_stress"] = -stress * atoms.get_volume() if virial else stress
        copies.append(copy)
    return copies


@pytest.mark.parametrize("stress", [{"stress": "dft_stress"}, {"virial": "dft_virial"}])
def test_labels_by_other_names(frames, test_set, stress):
    observations = Observations(energy="dft_energy", forces="dft_forces", **stress)
    model = _model(observations).fit(_renamed(frames, "virial" in stress))
    _assert_same(_model().fit(frames), model, test_set)
    table = error_table(frames, model.predict(frames))
    other = error_table(_renamed(frames, "virial" in stress), model.predict(frames), observations=observations)
    assert other == pytest.approx(table)
    assert model.score(_renamed(frames, "virial" in stress)) == pytest.approx(-table["forces_mae_ev_per_angstrom"])


@pytest.mark.parametrize("shape", [(6,), (9,), (3, 3)])
def test_shapes_of_a_virial(frames, shape):
    (atoms,) = _renamed(frames[:1], virial=True)
    virial = atoms.info["dft_virial"]
    atoms.info["dft_virial"] = virial[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] if shape == (6,) else virial.reshape(shape)
    (label,) = read_labels([atoms], Observations(virial="dft_virial", use="stress"))
    np.testing.assert_allclose(label.stress, frames[0].calc.results["stress"], rtol=1e-14)


def test_files_of_gap_fit(frames, test_set):
    """Written and read as extended XYZ, with the names and units of gap_fit."""
    text = io.StringIO()
    for atoms in frames:
        copy = _renamed([atoms], virial=True)[0]
        copy.info = {"energy": copy.info["dft_energy"], "virial": copy.info["dft_virial"], "config_type": "bulk"}
        copy.info |= {"energy_sigma": 0.05 * np.sqrt(len(atoms)), "virial_sigma": 0.03 * atoms.get_volume()}
        copy.arrays["force"] = copy.arrays.pop("dft_forces")
        copy.arrays["force_atom_sigma"] = np.full(len(atoms), 0.4)
        ase.io.write(text, copy, format="extxyz")
    text.seek(0)
    there = ase.io.read(text, ":", format="extxyz")
    assert "force" in there[0].arrays
    for atoms in frames:
        atoms.info |= {"energy_noise": 0.05, "forces_noise": 0.4, "stress_noise": 0.03}
    expected = _model(Observations()).fit(frames)
    # Eight decimals in the file.
    _assert_same(expected, _model(Observations.gap()).fit(there), test_set, atol=1e-5)


def test_only_the_kinds_asked_for_are_used(frames, test_set):
    model = _model(Observations(use=("energy", "forces"))).fit(frames)
    assert set(model.n_observations_) == {"energy", "forces"}
    bare = [labelled(atoms.copy(), ("energy", "forces")) for atoms in frames]
    np.testing.assert_array_equal(_everything(_model().fit(bare).predict(test_set)), _everything(model.predict(test_set)))


def test_without_observations_nothing_but_results_is_read(frames, test_set):
    model = _model().fit(frames)
    for atoms in frames:
        atoms.info |= {"energy_noise": 7.0, "weight": 0.0, "config_type": "x"}
        atoms.arrays["force_mask"] = np.ones(len(atoms), dtype=bool)
    np.testing.assert_array_equal(_everything(_model().fit(frames).predict(test_set)), _everything(model.predict(test_set)))


def test_scikit_learn_conventions(frames):
    model = _model(Observations(config_noise={"default": {"energy": 0.1}}))
    assert clone(model).observations == model.observations
    assert np.all(cross_val_score(model, frames, cv=2) < 0)


@pytest.mark.parametrize(
    "specification",
    [
        Observations(),
        Observations.gap(use=("energy", "forces")),
        Observations(energy="E", config_noise={"type": {"energy": 0.1}, "liquid": {"forces": 0.3}}, mask=None),
        Stratified(method=KMeans(2), weights={"a": 2.0}),
        GivenPoints([(0, 1), 2]),
        Leverage(seed=None),
    ],
    ids=lambda specification: type(specification).__name__,
)
def test_specifications_go_through_model_files(specification):
    assert from_json(json.loads(json.dumps(to_json(specification, arrays := {}))), arrays) == specification


# --- what follows from unequal noise ---------------------------------------------------------------------------------


def test_the_least_squares_baseline_trusts_exact_energies_more(frames):
    for s, atoms in enumerate(frames):
        atoms.calc.results["energy"] = 5.0 * len(atoms) + (100.0 if s == 0 else 0.0)
        atoms.info["energy_noise"] = 1e6 if s == 0 else 0.01
    references = reference_energies(frames, read_labels(frames, Observations(), NOISE), "least-squares")
    assert references["Si"] == pytest.approx(5.0, abs=1e-9)


def test_log_scales_add_up(frames):
    frames[0].info |= {"energy_noise": 0.04, "weight": 4.0}
    frames[1].arrays["force_mask"] = np.arange(len(frames[1])) < 3
    frames[1].info["forces_noise"] = 0.1
    n = len(frames[0])
    log = log_scales(read_labels(frames, Observations(), NOISE))
    expected = {"energy": np.log(0.5 * 2), "forces": 3 * n * np.log(2) + 3 * (n - 3) * np.log(2), "stress": 6 * np.log(2)}
    assert log == pytest.approx(expected)


def test_error_tables_by_configuration_type(frames):
    model = _model().fit(frames)
    for s, name in enumerate(["solid", "liquid", "liquid"]):
        frames[s].info["config_type"] = name
    p = model.predict(frames, uncertainty="energy")
    tables = error_table(frames, p, by="config_type")
    assert list(tables) == ["default", "liquid", "solid"]
    assert tables["liquid"] == error_table(frames[1:3], model.predict(frames[1:3], uncertainty="energy"))
    energies = [tables[name]["energy_mae_mev_per_atom"] for name in ("solid", "liquid", "liquid", "default")]
    assert np.mean(energies) == pytest.approx(error_table(frames, p)["energy_mae_mev_per_atom"])


def test_error_tables_leave_out_masked_forces(frames):
    model = _model().fit(frames)
    p = model.predict(frames, uncertainty=True)
    for atoms in frames:
        atoms.arrays["force_mask"] = np.arange(len(atoms)) > 0
    table = error_table(frames, p, observations=Observations())
    errors = [p.forces[s][0] - atoms.calc.results["forces"][0] for s, atoms in enumerate(frames)]
    assert table["forces_mae_ev_per_angstrom"] == pytest.approx(np.abs(errors).mean())
    within = np.abs(errors) <= np.array([p.forces_std[s][0] for s in range(len(frames))])
    assert table["forces_within_1_std"] == pytest.approx(within.mean())


def test_a_group_without_labels_has_an_empty_table(frames):
    model = _model().fit(frames)
    bare = frames[0].copy()
    bare.info["config_type"] = "bare"
    tables = error_table([*frames, bare], model.predict([*frames, bare]), by="config_type")
    assert tables["bare"] == {}
    assert tables["default"]


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"use": ("energy", "dipole")}, "`use`"),
        ({"use": ()}, "`use`"),
        ({"stress": "a", "virial": "b"}, "`stress`='a' and `virial`='b'"),
        ({"config_noise": {"liquid": 0.1}}, "`config_noise`"),
        ({"config_noise": {"liquid": {"force": 0.1}}}, "'liquid'"),
        ({"config_noise": {"liquid": {"forces": -0.1}}}, "'liquid'"),
        ({"noise_keys": {"dipole": "x"}}, "`noise_keys`"),
        ({"noise_keys": {"energy": "x", "total_energy": "y"}}, "energy twice"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(InputError, match=message):
        Observations(**parameters)


def _set_info(**values):
    return lambda atoms: atoms.info.update(values)


def _set_array(**values):
    return lambda atoms: atoms.arrays.update({name: np.asarray(value) for name, value in values.items()})


@pytest.mark.parametrize(
    "spoil, message",
    [
        (_set_array(force_mask=np.zeros(5, dtype=bool)), "frame 2: the mask `force_mask`"),
        (_set_array(force_mask=np.zeros(7)), "frame 2: the mask `force_mask` must be boolean"),
        (_set_array(forces_noise=np.ones(5)), "frame 2: the standard deviation `forces_noise` has shape"),
        (_set_array(forces_noise=np.r_[np.ones(6), np.nan]), "frame 2: the standard deviations `forces_noise`"),
        (_set_info(energy_noise=0.0), "frame 2: the standard deviations `energy_noise`"),
        (_set_info(energy_noise=[1, 2]), "frame 2: the standard deviation `energy_noise`"),
        (_set_info(energy_noise="good"), "frame 2: `energy_noise`"),
        (_set_info(stress_noise=np.ones(5)), "frame 2: `stress_noise`"),
        (_set_info(weight=-1), "frame 2: the weight `weight`"),
        (_set_info(weight=np.nan), "frame 2: the weight `weight`"),
        (lambda atoms: atoms.calc.results.update(forces=np.full((7, 3), np.nan)), "frame 2, atom 0: force"),
    ],
)
def test_bad_data_name_the_frame_and_the_key(frames, spoil, message):
    spoil(frames[2])
    with pytest.raises(LabelError, match=message):
        _model(Observations()).fit(frames)


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"config_noise": {"liqiud": {"energy": 1.0}}}, "`config_noise` names .'liqiud'.*'default'"),
        ({"energy": "REF_energy"}, "energy 'REF_energy'"),
        ({"virial": "REF_virial"}, "stress 'REF_virial'"),
        ({"mask": "maks"}, "mask 'maks'"),
        ({"weight": "wieght"}, "weight 'wieght'"),
        ({"config_type": "conf", "config_noise": {"a": {"energy": 1.0}}}, "config_type 'conf'"),
        ({"noise_keys": {"forces": "sigma"}}, "'sigma'"),
    ],
)
def test_names_that_no_structure_has(frames, parameters, message):
    with pytest.raises(LabelError, match=message):
        _model(Observations(**parameters)).fit(frames)


def test_nothing_to_fit_says_what_was_looked_for(frames):
    with pytest.raises(LabelError, match="none of the 4 structures.*'stress': 'stress'"):
        _model(Observations(use="stress")).fit([labelled(atoms.copy(), ("energy",)) for atoms in frames])


def test_a_virial_of_the_wrong_sign_beside_a_stress(frames):
    frames[1].info["virial"] = frames[1].calc.results["stress"] * frames[1].get_volume()
    with pytest.raises(LabelError, match="frame 1 has a stress .* disagree"):
        _model(Observations(virial="virial")).fit(frames)
    frames[1].info["virial"] = -frames[1].info["virial"]
    assert _model(Observations(virial="virial")).fit(frames).n_observations_["stress"] == 24


def test_a_virial_without_a_cell(frames):
    frames[1].info["virial"], frames[1].calc = np.ones(6), None
    frames[1].pbc = (True, True, False)
    with pytest.raises(LabelError, match="frame 1 has a `virial` but is not periodic"):
        read_labels(frames, Observations(virial="virial", use=("stress",)))


def test_observations_of_another_type(frames):
    with pytest.raises(InputError, match="`observations`"):
        _model({"use": "energy"}).fit(frames)


def test_no_structure_has_the_groups_name(frames):
    with pytest.raises(InputError, match="`by`='phase'"):
        error_table(frames, _model().fit(frames).predict(frames), by="phase")


# --- other properties ------------------------------------------------------------------------------------------------


def test_properties_of_structures_and_atoms(frames):
    n = len(frames[0])
    for s, atoms in enumerate(frames):
        atoms.info["gap"] = 0.5 * s
        atoms.arrays["shielding"] = s + np.arange(n)
    values, owner = property_values(frames, "gap")
    np.testing.assert_array_equal(values, [0, 0.5, 1, 1.5])
    np.testing.assert_array_equal(owner, range(4))
    values, owner = property_values(frames, "shielding", "atom")
    np.testing.assert_array_equal(values, np.concatenate([s + np.arange(n) for s in range(4)]))
    np.testing.assert_array_equal(owner, np.repeat(range(4), n))


def test_properties_of_the_calculator_and_from_arrays(frames):
    energies, _ = property_values(frames, "energy")
    np.testing.assert_array_equal(energies, [atoms.calc.results["energy"] for atoms in frames])
    np.testing.assert_array_equal(property_values(frames, energies)[0], energies)
    charges = [np.arange(len(atoms)) + s for s, atoms in enumerate(frames)]
    flat, owner = property_values(frames, np.concatenate(charges), "atom")
    np.testing.assert_array_equal(property_values(frames, charges, "atom")[0], flat)
    assert len(owner) == len(flat)


def test_properties_of_structures_of_unequal_size():
    frames = [*variations("primitive", 2), *variations("vacancy", 1)]
    charges = [np.arange(len(atoms), dtype=float) for atoms in frames]
    values, owner = property_values(frames, charges, "atom")
    np.testing.assert_array_equal(values, np.concatenate(charges))
    np.testing.assert_array_equal(owner, [0, 0, 1, 1] + [2] * 7)


@pytest.mark.parametrize(
    "key, kind, message",
    [
        ("gap", "structure", "frame 3 has no 'gap'; its `info`"),
        ("charge", "atom", "frame 3 has no 'charge'; its `arrays`"),
        ("charge", "atoms", "`kind`"),
        ("vector", "structure", "frame 0: `vector` has shape"),
        ("tensor", "atom", "frame 0: `tensor` has shape"),
        ("hole", "atom", "frame 0, atom 4: `hole` is nan"),
        ("text", "structure", "frame 0: `text`"),
        ([1.0, 2.0], "structure", "2 values, expected 4"),
        ([1.0, 2.0, np.inf, 3.0], "structure", "frame 2: `key` is inf"),
    ],
)
def test_bad_properties(frames, key, kind, message):
    for atoms in frames:
        atoms.info |= {"vector": [1, 2], "text": "much"}
        atoms.arrays |= {"tensor": np.ones((len(atoms), 3)), "hole": np.where(np.arange(len(atoms)) == 4, np.nan, 1)}
    for atoms in frames[:3]:
        atoms.info["gap"] = 1.0
        atoms.arrays["charge"] = np.ones(len(atoms))
    with pytest.raises(InputError, match=message):
        property_values(frames, key, kind)
