"""Labels that cannot be right are named after a fit, right ones are not, and what is not read is said."""

import logging

import numpy as np
import pytest
from ase import units
from conftest import emt_copper
from small import crystals, labelled, small_gp, soap

from soapkrr import (
    SOAP,
    ConditionWarning,
    DataWarning,
    DotProduct,
    GaussianProcess,
    InputError,
    KernelRidge,
    LabelError,
    Observations,
    PropertyGP,
    SparseGP,
    Term,
    linear,
    metrics,
)
from soapkrr.labels import read_labels
from soapkrr.labels.families import family_of
from soapkrr.regression.causes import likely_cause
from soapkrr.regression.residuals import left_out, spread

COPPER = SOAP(species=["Cu"], r_cut=4.5, n_max=4, l_max=3, sigma=0.6)
NOISE = {"energy": 0.01, "forces": 0.1, "stress": 0.005}
MODELS = {
    "sparse": lambda: SparseGP(COPPER, DotProduct(zeta=3), n_sparse=60, noise=NOISE),
    "exact": lambda: GaussianProcess(COPPER, DotProduct(zeta=3), noise=NOISE),
    "ridge": lambda: KernelRidge(COPPER, DotProduct(zeta=3)),
    "observations": lambda: SparseGP(COPPER, DotProduct(zeta=3), n_sparse=300, noise=NOISE, representers="observations"),
}


def changed(frames, index, **changes):
    """The structures, of one of which labels are replaced by a function of what they were."""
    results = dict(frames[index].calc.results)
    results |= {kind: change(results[kind]) for kind, change in changes.items()}
    return [*frames[:index], labelled(frames[index], **results), *frames[index + 1 :]]


def one_component(forces):
    """Forces with one component 100 noise levels off."""
    wrong = np.array(forces)
    wrong[2, 1] += 10.0
    return wrong


WRONG = {
    "another zero of energy": ("energy", lambda e: e + 1000.0, "other settings"),
    "an energy some eV off": ("energy", lambda e: e + 8.0, "other settings"),
    "one force": ("forces", one_component, ""),
    "gradients": ("forces", lambda f: -10 * f, ""),
    "GPa": ("stress", lambda s: s / units.GPa, "GPa"),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_label_is_named_with_its_place_in_the_list(model, wrong):
    kind, change, cause = WRONG[wrong]
    frames = changed(emt_copper(16), 11, **{kind: change})
    model = MODELS[model]()
    with pytest.warns(DataWarning, match="frame 11"):
        model.fit(frames)
    mine = [suspect for suspect in model.suspects_ if suspect.kind == kind]
    assert [suspect.frame for suspect in mine] == [11]
    assert mine[0].size > 10 and cause in mine[0].cause


@pytest.mark.parametrize("model", MODELS)
def test_right_labels_raise_no_alarm(model):
    assert MODELS[model]().fit(emt_copper(16)).suspects_ == []


def test_too_few_structures_have_no_scale():
    assert small_gp().fit(changed(crystals(3), 0, energy=lambda e: e + 1.0)).suspects_ == []


def test_a_label_left_out_is_predicted_as_by_a_fit_without_it():
    """z and the left-out error by sweeps are those of a dense process of the other labels."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(7, 7))
    K, y = A @ A.T, rng.normal(size=7)
    y[3] += 100.0
    G = np.linalg.inv(K + np.eye(7))
    z, errors = left_out(G @ y, G, threshold=10.0)
    rest = np.delete(np.arange(7), 3)
    solved = np.linalg.solve(K[np.ix_(rest, rest)] + np.eye(6), np.column_stack([y[rest], K[rest, 3]]))
    error, variance = y[3] - K[3, rest] @ solved[:, 0], 1 + K[3, 3] - K[3, rest] @ solved[:, 1]
    np.testing.assert_allclose([errors[3], z[3]], [error, error / np.sqrt(variance)], rtol=1e-8)
    # The others are left out one by one, the bad one with each of them.
    two = np.delete(np.arange(7), [3, 5])
    weights = np.linalg.solve(K[np.ix_(two, two)] + np.eye(5), y[two])
    np.testing.assert_allclose(errors[5], y[5] - K[5, two] @ weights, rtol=1e-8)


def test_the_spread_is_that_of_a_normal_law_and_ignores_one_structure_of_few():
    t = np.random.default_rng(0).normal(scale=3.0, size=20_000)
    assert spread(t, 100) == pytest.approx(3.0, rel=0.03)
    assert spread(np.array([1.0, 1.0, 1.0, 1.0, 1e6]), 5) < 2


@pytest.mark.parametrize(
    ("kind", "factor", "cause"),
    [
        ("stress", 160.2, "GPa"),
        ("stress", -1.0, "sign"),
        ("forces", -1.0, "sign"),
        ("forces", 1 / 51.42, "Hartree/Bohr"),
        ("energy", 1 / 27.2114, "Hartree"),
    ],
)
def test_causes_follow_from_the_ratio(kind, factor, cause):
    expected = np.array([0.3, -0.2, 0.5])
    assert cause in likely_cause(kind, factor * expected, expected)


def test_one_structure_with_two_labels():
    frames = crystals(8)
    twin = changed(frames, 2, energy=lambda e: e + 1.0)[2]
    with pytest.warns(DataWarning, match="different labels in frames 2 and 8"):
        small_gp().fit([*frames, twin])


def test_large_stresses_are_asked_about():
    frames = [labelled(a, **{**a.calc.results, "stress": a.calc.results["stress"] + 2.0}) for a in crystals(6)]
    with pytest.warns(DataWarning, match=r"Stresses above 1 eV/Å³ \(160 GPa\) in frames 0, 1, 2, 3, 4 and others"):
        small_gp().fit(frames)


# --- conditioning ---


def test_conditions_in_doubt_warn_and_lost_ones_raise():
    linear.check_condition(1e11)
    with pytest.warns(ConditionWarning, match="raise `noise`"):
        linear.check_condition(1e13)
    for condition in (2e15, np.inf, np.nan):
        with pytest.raises(InputError, match="rounding errors.*raise `noise`, or `tolerance`"):
            linear.check_condition(condition)


def test_the_condition_of_a_covariance_is_that_of_the_scaled_matrix():
    rng = np.random.default_rng(1)
    A = rng.normal(size=(40, 40))
    C = A @ A.T + 1e-4 * np.eye(40)
    scale = 10.0 ** rng.uniform(-6, 6, size=40)
    d = 1 / np.sqrt(np.diagonal(C))
    true = np.linalg.cond(d[:, None] * C * d)
    estimate = linear.covariance_condition(np.linalg.cholesky(scale[:, None] * C * scale))
    assert true / 10 < estimate < 10 * true


def test_an_exact_fit_that_is_lost_in_rounding_is_refused():
    frames = [labelled(a, energy=a.calc.results["energy"]) for a in crystals(5)]
    twins = [labelled(a, **a.calc.results) for a in frames]
    with pytest.raises(InputError, match="raise `noise`"):
        GaussianProcess(soap(), DotProduct(zeta=2), noise={"energy": 1e-8}).fit([*frames, *twins])


def test_eigenvectors_of_rounding_are_refused():
    terms = Term(soap(), DotProduct(zeta=2), n_sparse=40) + Term(soap(l_max=1), DotProduct(zeta=2), n_sparse=40)
    with pytest.raises(InputError, match="tolerance"):
        SparseGP(terms, tolerance=1e-30).fit(crystals(10))


def test_evidence_does_not_stop_at_ill_conditioned_candidates():
    model = small_gp(noise={"energy": 1e-6, "forces": 1e-4, "stress": 1e-7}).fit(crystals(8), optimize=True)
    assert np.isfinite(model.log_likelihood_)


# --- labels that are not read ---


def referenced(frames, **names):
    """Copies whose labels are stored under other names."""
    out = []
    for atoms in frames:
        results, atoms = atoms.calc.results, atoms.copy()
        for kind, name in names.items():
            (atoms.arrays if kind == "forces" else atoms.info)[name] = results[kind]
        out.append(atoms)
    return out


def test_forces_of_a_family_whose_energy_is_read_are_missed():
    frames = referenced(crystals(6), energy="REF_energy", forces="REF_forces")
    with pytest.warns(DataWarning, match="REF_forces.*not read.*forces='REF_forces'.*--forces-key REF_forces"):
        small_gp(observations=Observations(energy="REF_energy")).fit(frames)


@pytest.mark.parametrize("changes", [{"forces": "REF_forces"}, {"use": ("energy",)}], ids=["all are read", "energies alone are wanted"])
def test_nothing_is_said_where_nothing_is_missed(changes):
    frames = referenced(crystals(6), energy="REF_energy", forces="REF_forces")
    small_gp(observations=Observations(energy="REF_energy", **changes)).fit(frames)


@pytest.mark.parametrize("family", ["REF", "dft", "gap", "mace", "DFT"])
def test_the_error_lists_the_labels_there_are_and_what_reads_them(family):
    frames = referenced(crystals(2), energy=f"{family}_energy", forces=f"{family}_forces")
    wanted = f"carry {family}_energy, {family}_forces; .*energy='{family}_energy', forces='{family}_forces'.*--energy-key {family}_energy"
    with pytest.raises(LabelError, match=wanted):
        read_labels(frames)


def test_families_of_names():
    assert family_of("REF_energy") == ("REF", "energy") and family_of("forces") == ("", "forces")
    assert family_of("free_energy") == ("", "energy") and family_of("dft_virial") == ("dft", "virial")
    assert family_of("energy_sigma") is None and family_of("positions") is None


# --- energy and free energy ---


def test_forces_are_fitted_with_the_energy_they_derive_from(caplog):
    frames = crystals(3)
    apart = changed(frames, 1)
    apart[1].calc.results["free_energy"] = apart[1].calc.results["energy"] - 0.02
    with caplog.at_level(logging.INFO, logger="soapkrr"):
        labels = read_labels(apart, noise={})
    assert labels[1].energy == apart[1].calc.results["free_energy"] and labels[0].energy == frames[0].calc.results["energy"]
    assert "1 structures are fitted to `free_energy`" in caplog.text


def test_energies_alone_and_energies_that_differ_by_rounding_stay():
    atoms = crystals(1)[0]
    energy = atoms.calc.results["energy"]
    alone = labelled(atoms, energy=energy, free_energy=energy - 0.02)
    rounded = labelled(atoms, energy=energy, free_energy=energy - 1e-7, forces=atoms.calc.results["forces"])
    assert [label.energy for label in read_labels([alone, rounded])] == [energy, energy]


# --- arguments of the wrong kind ---


@pytest.mark.parametrize(
    ("action", "match"),
    [
        (lambda: small_gp(noise=0.1).fit(crystals(2)), "`noise` must be a mapping.*received 0.1"),
        (lambda: GaussianProcess(soap(), DotProduct(), signal=1e200).fit(crystals(2)), "`signal`.*1e"),
        (lambda: DotProduct(zeta=None), "`zeta` must be a finite number ≥ 1, received None"),
        (lambda: small_gp(threads=-3).fit(crystals(2)), "`threads` must be a positive integer.*received -3"),
        (lambda: PropertyGP(soap(), DotProduct(), threads=1.5).fit(crystals(2), [1.0, 2.0]), "`threads`.*received 1.5"),
        (lambda: small_gp().fit(None), "`frames` must be a list of ase.Atoms objects, received NoneType"),
        (lambda: metrics.error_table(small_gp(), crystals(2)), "`frames` must be a list of ase.Atoms objects, received SparseGP"),
    ],
    ids=["noise", "signal", "zeta", "threads", "threads of a property", "frames", "swapped"],
)
def test_arguments_of_the_wrong_kind_are_named(action, match):
    with pytest.raises(InputError, match=match):
        action()


@pytest.mark.parametrize("model", ["sparse", "exact", "observations"])
@pytest.mark.parametrize(
    ("kind", "factor", "cause"),
    [("stress", -1.0, "sign"), ("stress", 1 / units.GPa, "GPa"), ("stress", -10 / units.GPa, "as VASP prints"), ("forces", -1.0, "sign")],
)
def test_a_kind_that_is_wrong_everywhere(model, kind, factor, cause):
    frames = [labelled(a, **{**a.calc.results, kind: factor * a.calc.results[kind]}) for a in emt_copper(16)]
    with pytest.warns(DataWarning, match=f"The {kind} of all structures.*{cause}"):
        MODELS[model]().fit(frames)
