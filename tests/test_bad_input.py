"""Bad input: a clear error that names the culprit, nothing lost and nothing modified."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from sklearn.exceptions import NotFittedError
from small import crystals, labelled, lennard_jones, small_gp, soap

import soapkrr
from soapkrr import InputError, LabelError, linear
from soapkrr.regression.sparse import fit as sparse_fit


@pytest.fixture
def frames():
    return crystals()


@pytest.fixture(scope="module")
def model():
    return small_gp().fit(crystals())


def fails_unfitted(model, frames, error, match=None):
    """The fit raises and leaves the estimator unfitted."""
    with pytest.raises(error, match=match):
        model.fit(frames)
    with pytest.raises(NotFittedError):
        model.predict(crystals(1))


def snapshot(frames):
    """Everything of structures that could be modified."""
    numbers = [np.concatenate([np.ravel(x) for x in (a.positions, a.cell.array, a.pbc, a.numbers)]) for a in frames]
    return numbers, [(dict(atoms.info), [*atoms.arrays], atoms.calc) for atoms in frames]


# --- structures ---


@pytest.mark.parametrize("empty", [[], (), iter(())], ids=["list", "tuple", "iterator"])
def test_empty_list(empty, model):
    fails_unfitted(small_gp(), empty, InputError, "`frames` is empty")
    with pytest.raises(InputError, match="`frames` is empty"):
        model.predict([])


def test_structure_without_atoms(frames):
    fails_unfitted(small_gp(), [*frames, Atoms()], InputError, "frame 6 has no atoms")


def test_something_that_is_no_structure(frames, model):
    fails_unfitted(small_gp(), [*frames, "Ar"], InputError, "frame 6: expected an ase.Atoms object, received str")
    with pytest.raises(InputError, match="received int"):
        model.predict([3])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_positions_that_are_not_finite(frames, model, value):
    frames[2].positions[3, 1] = value
    fails_unfitted(small_gp(), frames, InputError, "frame 2, atom 3: position .* is not finite")
    with pytest.raises(InputError, match="frame 2, atom 3: position"):
        model.predict(frames)


def test_periodic_axis_without_a_cell_vector(frames, model):
    chain = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 3.8]], pbc=[False, False, True])
    for call in (small_gp().fit, model.predict):
        with pytest.raises(InputError, match="frame 6: periodic along axis 2, but cell vector 2 is zero"):
            call([*frames, chain])


def test_cell_that_is_not_finite(frames, model):
    frames[1].cell[0, 0] = np.nan
    with pytest.raises(InputError, match="frame 1: .*cell"):
        model.predict(frames)


def test_linearly_dependent_cell(model):
    flat = Atoms("Ar", cell=[[4, 0, 0], [8, 0, 0], [0, 0, 4]], pbc=True)
    with pytest.raises(InputError, match="frame 0: the cell vectors are linearly dependent"):
        model.predict(flat)


def test_coincident_atoms(frames, model):
    twin = frames[4].copy()
    twin.positions[3] = twin.positions[1]
    for call in (small_gp().fit, model.predict):
        with pytest.raises(InputError, match="frame 4: atoms 1 and 3 coincide"):
            call([*frames[:4], labelled(twin, energy=0.0)])


def test_atom_on_its_own_image(model):
    with pytest.raises(InputError, match="frame 0: atoms 0 and 1 coincide"):
        model.predict(Atoms("Ar2", positions=[[0, 0, 0], [5, 0, 0]], cell=[5, 5, 5], pbc=True))


def test_frames_are_named_by_their_place_in_the_whole_list(model):
    good = bulk("Ar", cubic=True, a=5.3) * (5, 5, 5)
    bad = Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 0.001]])
    with pytest.raises(InputError, match="frame 9: "):
        model.predict([good] * 9 + [bad])


def test_species_unknown_to_the_model_is_named_with_those_known(model):
    with pytest.raises(InputError, match=r"Ne was not in the training data; this model knows \['Ar'\]"):
        model.predict(bulk("Ne", cubic=True, a=4.4))


def test_species_unknown_to_the_descriptor(frames):
    neon = labelled(bulk("Ne", cubic=True, a=4.4), energy=0.0)
    fails_unfitted(small_gp(), [*frames, neon], InputError, r"frame 6: species Ne is unknown to this descriptor; `species` lists \['Ar'\]")


def test_species_of_the_descriptor_without_data(frames):
    model = small_gp(["Ar", "Ne"]).fit(frames)
    assert model.n_sparse_ == {"Ne": 0, "Ar": 12}
    with pytest.raises(InputError, match="Ne was not in the training data"):
        model.predict(bulk("Ne", cubic=True, a=4.4))


def test_dummy_atoms(frames):
    frames[3].numbers[0] = 0
    fails_unfitted(small_gp(), frames, InputError, "frame 3, atom 0: atomic number 0")


# --- labels ---


def test_no_labels_at_all(frames):
    bare = [atoms.copy() for atoms in frames]
    fails_unfitted(small_gp(), bare, LabelError, "none of the 6 structures has an energy, forces or a stress")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_energy_that_is_not_finite(frames, value):
    frames[1] = labelled(frames[1], energy=value)
    fails_unfitted(small_gp(), frames, LabelError, "frame 1: energy .* is not finite")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_force_that_is_not_finite(frames, value):
    forces = np.zeros((4, 3))
    forces[2, 0] = value
    frames[1] = labelled(frames[1], forces=forces)
    fails_unfitted(small_gp(), frames, LabelError, "frame 1, atom 2: force .* is not finite")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stress_that_is_not_finite(frames, value):
    frames[5] = labelled(frames[5], stress=[0, 0, 0, 0, 0, value])
    fails_unfitted(small_gp(), frames, LabelError, "frame 5: stress .* is not finite")


@pytest.mark.parametrize("shape", [(3, 3), (4,), (4, 2), (12,)])
def test_forces_of_another_shape(frames, shape):
    frames[2].calc.results["forces"] = np.zeros(shape)
    fails_unfitted(small_gp(), frames, LabelError, r"frame 2: `forces` has shape .*, expected \(4, 3\)")


@pytest.mark.parametrize("shape", [(3,), (8,), (6, 1), (2, 3)])
def test_stress_of_another_shape(frames, shape):
    frames[2].calc.results["stress"] = np.zeros(shape)
    fails_unfitted(small_gp(), frames, LabelError, r"frame 2: `stress` has shape .*, expected \(6,\)")


@pytest.mark.parametrize("energy", [np.zeros(4), "low", [1.0, 2.0]], ids=["per atom", "text", "list"])
def test_energy_of_another_shape(frames, energy):
    frames[2].calc.results["energy"] = energy
    fails_unfitted(small_gp(), frames, LabelError, "frame 2: `energy`")


@pytest.mark.parametrize("name", ["forces", "stress"])
def test_labels_that_are_no_numbers(frames, name):
    frames[2].calc.results[name] = "none"
    fails_unfitted(small_gp(), frames, LabelError, f"frame 2: `{name}`")


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_complex_labels(frames, name):
    """NumPy would leave the imaginary part out, with a warning of its own."""
    frames[2].calc.results[name] = np.asarray(frames[2].calc.results[name]) * (1 + 0.5j)
    fails_unfitted(small_gp(), frames, LabelError, f"frame 2: `{name}` is .* not a number or an array of real numbers")


def test_what_is_no_label_is_shown_on_one_line(frames):
    frames[2].calc.results["forces"] = [["no", "number", "at all"]] * 100
    with pytest.raises(LabelError) as error:
        small_gp().fit(frames)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_stress_of_a_slab(frames):
    slab = frames[0].copy()
    slab.pbc = [True, True, False]
    fails_unfitted(small_gp(), [labelled(slab, stress=np.zeros(6))], LabelError, "frame 0 has a stress but is not periodic in three")


def test_stale_labels(frames):
    frames[3].positions[0] += 0.1
    fails_unfitted(small_gp(), frames, LabelError, "frame 3.* changed")


def test_stress_may_be_a_matrix(frames):
    matrices = [labelled(a, energy=a.get_potential_energy(), forces=a.get_forces(), stress=a.get_stress(voigt=False)) for a in frames]
    np.testing.assert_array_equal(small_gp().fit(matrices).predict(frames).energy, small_gp().fit(frames).predict(frames).energy)


@pytest.mark.parametrize("kinds", [["energy"], ["forces"], ["stress"], ["energy", "stress"]], ids="-".join)
def test_any_kind_of_label_alone_is_enough(frames, kinds):
    some = [lennard_jones(atoms, *kinds) for atoms in frames]
    model = small_gp().fit(some)
    assert set(model.n_observations_) == set(kinds)
    p = model.predict(frames, uncertainty=True)
    assert all(np.isfinite(np.concatenate([np.ravel(v) for v in getattr(p, name)])).all() for name in p.__dataclass_fields__)


def test_labels_may_differ_from_structure_to_structure(frames):
    mixed = [lennard_jones(frames[0], "energy"), lennard_jones(frames[1], "forces"), lennard_jones(frames[2], "stress"), frames[3].copy()]
    model = small_gp().fit([*mixed, *frames[4:]])
    assert model.n_observations_ == {"energy": 3, "forces": 36, "stress": 18}


# --- unusual but right ---


def test_more_sparse_points_than_environments(frames, caplog):
    model = small_gp(n_sparse=1000).fit(frames)
    assert model.n_sparse_ == {"Ar": 24}
    assert "`n_sparse`=1000 exceeds the 24 environments" in caplog.text
    assert np.isfinite(model.predict(frames).energy).all()


def test_duplicate_structures(frames):
    twice = small_gp(n_sparse=1000).fit([*frames, *frames])
    once = small_gp(n_sparse=1000).fit(frames)
    p, q = twice.predict(frames, uncertainty=True), once.predict(frames)
    assert twice.rank_ <= 24
    assert all(np.isfinite(np.concatenate([np.ravel(v) for v in getattr(p, name)])).all() for name in p.__dataclass_fields__)
    reference = np.array([atoms.get_potential_energy() for atoms in frames])
    assert np.abs(p.energy - reference).max() <= 1.05 * np.abs(q.energy - reference).max() + 1e-6


def test_one_structure_many_times(frames):
    same = [frames[0]] * 5
    p = small_gp().fit(same).predict(same, uncertainty=True)
    np.testing.assert_allclose(p.energy, p.energy[0], rtol=0, atol=1e-9)
    assert np.isfinite(np.concatenate(p.forces_std)).all()


def test_perfect_crystal_of_identical_atoms():
    crystal = lennard_jones(bulk("Ar", cubic=True, a=5.3), "energy", "forces", "stress")
    model = small_gp().fit([crystal])
    p = model.predict(crystal, uncertainty=True)
    np.testing.assert_allclose(p.energy, crystal.get_potential_energy(), atol=1e-3)
    assert np.isfinite(p.stress_std).all()


@pytest.mark.parametrize("atoms", [Atoms("Ar"), Atoms("Ar", cell=[20, 20, 20], pbc=True)], ids=["free", "in a box"])
def test_isolated_atom(model, atoms):
    p = model.predict(atoms, uncertainty=True)
    assert np.isfinite(p.energy).all() and np.isfinite(p.energy_std).all() and np.isfinite(p.energies_std[0]).all()
    np.testing.assert_array_equal(p.forces[0], 0.0)
    np.testing.assert_array_equal(p.forces_std[0], 0.0)
    np.testing.assert_array_equal(p.stress, np.where(atoms.pbc.all(), 0.0, np.nan) * np.ones((1, 6)))
    np.testing.assert_array_equal(p.stress_std, p.stress)


def test_isolated_atom_in_the_training_data(frames):
    lone = labelled(Atoms("Ar"), energy=0.01, forces=np.zeros((1, 3)))
    model = small_gp().fit([*frames, lone])
    assert model.reference_energies_ == {"Ar": 0.01}
    p = model.predict(lone, uncertainty=True)
    assert np.isfinite(p.energy).all() and np.isfinite(p.energy_std).all()
    np.testing.assert_array_equal(p.forces[0], 0.0)


def test_isolated_atom_among_others(model, frames):
    alone, together = model.predict(Atoms("Ar"), uncertainty=True), model.predict([frames[0], Atoms("Ar"), frames[1]], uncertainty=True)
    np.testing.assert_allclose(together.energy[1], alone.energy[0], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(together.forces[1], 0.0)


def test_isolated_atom_through_the_calculator(model):
    atoms = Atoms("Ar")
    atoms.calc = model.calculator()
    assert np.isfinite(atoms.get_potential_energy())
    np.testing.assert_array_equal(atoms.get_forces(), 0.0)
    assert "stress" not in atoms.calc.results


def test_energies_of_all_electron_size(frames):
    deep = [labelled(a, energy=a.get_potential_energy() - 4 * 14_000.0, forces=a.get_forces()) for a in frames]
    shallow = [labelled(a, energy=a.get_potential_energy(), forces=a.get_forces()) for a in frames]
    p, q = small_gp().fit(deep).predict(frames), small_gp().fit(shallow).predict(frames)
    np.testing.assert_allclose(p.energy + 4 * 14_000.0, q.energy, rtol=0, atol=1e-8)
    np.testing.assert_allclose(np.concatenate(p.forces), np.concatenate(q.forces), rtol=0, atol=1e-8)


# --- parameters ---


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"n_sparse": 0}, "`n_sparse`"),
        ({"n_sparse": -3}, "`n_sparse`"),
        ({"n_sparse": 2.5}, "`n_sparse`"),
        ({"n_sparse": {"Ne": 3}}, "`n_sparse`.*Ar"),
        ({"noise": {"energy": 0.0}}, "noise.*energy"),
        ({"noise": {"forces": -1.0}}, "noise.*forces"),
        ({"noise": {"stress": np.nan}}, "noise.*stress"),
        ({"noise": {"virial": 0.1}}, "virial"),
        ({"signal": 0.0}, "`signal`"),
        ({"signal": np.inf}, "`signal`"),
        ({"tolerance": -1.0}, "`tolerance`"),
        ({"selection": "farthest"}, "`selection`.*'farthest'"),
        ({"baseline": "zero"}, "`baseline`.*'zero'"),
        ({"baseline": "isolated"}, "no isolated atom .*Ar"),
        ({"baseline": {"Ne": 1.0}}, r"missing \['Ar'\]"),
        ({"baseline": {"Ar": 1.0, "Xx": 1.0}}, "Xx"),
        ({"baseline": {"Ar": np.nan}}, "not finite for .*Ar"),
    ],
    ids=str,
)
def test_parameters_of_the_regression(frames, changes, match):
    fails_unfitted(small_gp(**changes), frames, InputError, match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"species": []}, "`species` is empty"),
        ({"species": ["Xx"]}, "'Xx'"),
        ({"r_cut": 0.0}, "`r_cut`"),
        ({"r_cut": np.nan}, "`r_cut`"),
        ({"n_max": 0}, "`n_max`"),
        ({"n_max": 2.0}, "`n_max`"),
        ({"l_max": -1}, "`l_max`"),
        ({"sigma": -0.5}, "`sigma`"),
        ({"cutoff": "step"}, "`cutoff`.*'step'"),
        ({"rbf": "chebyshev"}, "`rbf`.*'chebyshev'"),
    ],
    ids=str,
)
def test_parameters_of_the_descriptor(changes, match):
    with pytest.raises(InputError, match=match):
        soap(**changes)


def test_uncertainty_that_does_not_exist(model, frames):
    with pytest.raises(InputError, match="`uncertainty`.*heat"):
        model.predict(frames, uncertainty=("heat",))


def test_predicting_before_fitting(frames):
    for use in (small_gp().predict, small_gp().score):
        with pytest.raises(NotFittedError):
            use(frames)
    with pytest.raises(NotFittedError):
        small_gp().calculator()


# --- nothing lost, nothing modified ---


@pytest.mark.parametrize("target", ["unwhitened", "kernel_triangles", "log_likelihood"])
def test_ctrl_c_in_a_fit_leaves_the_estimator_unfitted(frames, monkeypatch, target):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(sparse_fit, target, interrupted)
    fails_unfitted(small_gp(), frames, KeyboardInterrupt)


def test_a_second_fit_that_fails_keeps_the_first(frames):
    model = small_gp().fit(frames)
    before = model.predict(frames).energy
    with pytest.raises(LabelError):
        model.fit([atoms.copy() for atoms in frames])
    np.testing.assert_array_equal(model.predict(frames).energy, before)


def test_inputs_are_not_modified(frames, tmp_path):
    before = snapshot(frames)
    results = [{name: np.copy(value) for name, value in atoms.calc.results.items()} for atoms in frames]
    noise, baseline = {"energy": 0.001}, {"Ar": 0.0}
    model = small_gp(noise=noise, baseline=baseline).fit(frames)
    prediction = model.predict(frames, uncertainty=True)
    soapkrr.metrics.error_table(frames, prediction)
    model.save(tmp_path / "m.soapkrr")
    assert (noise, baseline) == ({"energy": 0.001}, {"Ar": 0.0})
    after = snapshot(frames)
    np.testing.assert_array_equal(np.concatenate(after[0]), np.concatenate(before[0]))
    assert after[1] == before[1]
    for old, atoms in zip(results, frames, strict=True):
        assert set(old) == set(atoms.calc.results)
        assert all(np.array_equal(old[name], atoms.calc.results[name]) for name in old)


def test_a_tolerance_of_one_or_more_would_leave_no_features(frames):
    fails_unfitted(small_gp(tolerance=2.0), frames, InputError, "`tolerance`")


def test_absurd_noise_is_an_error_not_a_model_of_nan():
    table = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    with np.errstate(all="ignore"), pytest.raises(ArithmeticError, match="noise level"):
        linear.solve({"energy": table}, {"energy": 5e-324})


def test_gaussians_of_no_width_are_refused():
    with pytest.raises(InputError, match="`sigma`"):
        soap(sigma=1e-9)


def test_predicting_an_untrained_species_names_the_frame(frames):
    model = small_gp(species=("Ar", "Ne")).fit(frames)
    strange = frames[1].copy()
    strange.numbers[0] = 10
    with pytest.raises(InputError, match="frame 1: species Ne"):
        model.predict([frames[0], strange])
