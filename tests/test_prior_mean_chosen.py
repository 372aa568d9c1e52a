"""Whether a fit without knobs takes a prior mean: by left-out structures, with the factor that the labels give, and said either way."""

from importlib import metadata

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import CalculationFailed, Calculator, all_changes
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from command_line import outcome
from small import crystals, labelled, soap

import soapkrr
from soapkrr import DataWarning, DotProduct, GaussianProcess, InputError, auto
from soapkrr.automatic.plans import Settings
from soapkrr.automatic.prior_mean import SPREAD, WithFactor
from soapkrr.baselines import ScaledBaseline, automatic_name, register, sources, without_auto

FACTOR = 1.15


def sharp():
    """What the prior mean knows: a steep repulsion and a well."""
    return LennardJones(sigma=3.0, epsilon=0.2, rc=12.0, smooth=True)


class Picky(LennardJones):
    """Does not get along with triangles whose first side is longer than some length, Å."""

    def __init__(self, longest):
        super().__init__(sigma=3.0, epsilon=0.2, rc=12.0, smooth=True)
        self.longest = longest

    def calculate(self, atoms=None, *args, **kwargs):
        if atoms.get_distance(0, 1) > self.longest:
            raise CalculationFailed("no convergence")
        super().calculate(atoms, *args, **kwargs)


class Ripples(Calculator):
    """A wave in each distance, which the labels do not have and a smooth kernel cannot take away."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vectors = self.atoms.positions[:, None] - self.atoms.positions
        r = np.linalg.norm(vectors, axis=2) + np.eye(len(self.atoms))
        off = 1 - np.eye(len(self.atoms))
        slopes = 0.3 * 40 * np.cos(40 * r) * off / r
        self.results = {"energy": 0.3 * (np.sin(40 * r) * off).sum() / 2, "forces": -(slopes[:, :, None] * vectors).sum(axis=1)}


register("sharp", sharp, version="of these tests")
register("ripples", Ripples)
register("picky", Picky)


@pytest.fixture(scope="module", autouse=True)
def nothing_on_the_disk(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOAPKRR_CACHE", "off")
        yield


def triangles(n, seed=0):
    """Three argon atoms, labelled with a multiple of what `sharp` says and a Morse potential."""
    rng, frames = np.random.default_rng(seed), []
    for _ in range(n):
        atoms = Atoms("Ar3", positions=[[0, 0, 0], [3.3, 0, 0], [1.6, 2.9, 0]])
        atoms.positions += 0.15 * rng.standard_normal((3, 3))
        probe, energy, forces = atoms.copy(), 0.0, np.zeros((3, 3))
        for weight, calculator in ((FACTOR, sharp()), (1.0, MorsePotential(epsilon=0.05, r0=4.0, rho0=4.0, rcut1=8.0, rcut2=10.0))):
            probe.calc = calculator
            energy, forces = energy + weight * probe.get_potential_energy(), forces + weight * probe.get_forces()
        frames.append(labelled(atoms, energy=energy, forces=forces))
    return frames


def said(model):
    return {c.name: c for c in model.choices_}


@pytest.fixture(scope="module")
def frames():
    return triangles(16)


@pytest.fixture(scope="module")
def taken(frames):
    return soapkrr.fit(frames, baseline="auto:sharp", threads=1)


# --- the choice ------------------------------------------------------------------------------------------------------


def test_a_prior_mean_that_pays_is_taken_with_its_factor(taken, frames):
    choices = said(taken)
    scaled = [part for part in taken.baseline if isinstance(part, ScaledBaseline)]
    assert [part.mean for part in scaled] == ["sharp"] and scaled[0].factor == pytest.approx(FACTOR, abs=0.05)
    assert "sharp" in choices["variant"].value and choices["prior mean"].value == f"{scaled[0].factor:.3f} × sharp"
    assert float(choices["tried"].value["plain SOAP"].split()[0]) > 1


def test_it_predicts_better_than_a_fit_without(taken, frames):
    test, bare = triangles(20, seed=1), soapkrr.fit(frames, threads=1)
    true = np.array([atoms.get_potential_energy() for atoms in test])
    with_it, without = (np.abs(m.predict(test).energy - true).mean() for m in (taken, bare))
    assert with_it < 0.7 * without


def test_the_model_is_read_back_by_name(taken, tmp_path):
    taken.save(tmp_path / "m.soapkrr")
    loaded, test = soapkrr.load(tmp_path / "m.soapkrr"), triangles(3, seed=1)
    np.testing.assert_array_equal(loaded.predict(test).energy, taken.predict(test).energy)
    assert said(loaded)["prior mean"] == said(taken)["prior mean"]


def test_a_prior_mean_that_does_not_pay_is_told_among_the_losers(frames):
    model = soapkrr.fit(frames, baseline="auto:ripples", threads=1)
    assert "ripples" not in said(model)["variant"].value and "prior mean" not in said(model)
    lost = {name: text for name, text in said(model)["tried"].value.items() if "ripples" in name}
    assert lost and all(float(text.split()[0]) > 1 for text in lost.values())


def test_reference_energies_stay(frames):
    model = soapkrr.fit(frames, baseline=[{"Ar": 0.0}, "auto:sharp"], threads=1)
    assert model.reference_energies_ == {"Ar": 0.0} and "sharp" in said(model)["variant"].value


def test_the_order_of_the_structures_changes_nothing(taken, frames):
    other = soapkrr.fit(frames[::-1], baseline="auto:sharp", threads=1)
    assert said(other)["prior mean"].value == said(taken)["prior mean"].value


def test_without_search_the_recipe_has_it_or_not(frames):
    model = soapkrr.fit(frames, baseline="auto:sharp", search=False, threads=1)
    assert set(said(model)["tried"].value) == {"plain SOAP"}


# --- where it is not tried -------------------------------------------------------------------------------------------


def test_crystals_are_no_molecules():
    plan = auto.choose(crystals(5), settings=Settings(baseline="auto"))
    assert plan.choices[-1].value == "none" and "gfn2 not tried: " in plan.choices[-1].reason
    assert not any("gfn2" in name for name in plan.variants)


def test_a_missing_package_is_told(monkeypatch):
    def missing(package):
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(sources.metadata, "version", missing)
    plan = auto.choose(triangles(5), settings=Settings(baseline="auto"))
    assert "needs tblite, which is not installed" in plan.choices[-1].reason and not any("gfn2" in name for name in plan.variants)


def test_elements_that_it_does_not_know(monkeypatch):
    monkeypatch.setitem(sources.OWN, "gfn2", sources.Source("gfn2", sources.gfn2, version="1", heaviest=10))
    plan = auto.choose(triangles(5), settings=Settings(baseline="auto"))
    assert plan.choices[-1].reason == "gfn2 not tried: it does not know all elements"


def test_without_auto_no_prior_mean_is_tried(frames):
    assert not any("gfn2" in name for name in auto.choose(frames).variants)


# --- failures --------------------------------------------------------------------------------------------------------


def test_structures_on_which_it_fails_are_named_and_counted():
    frames = triangles(16)
    longest = sorted(atoms.get_distance(0, 1) for atoms in frames)[-1]
    bad = [s for s, atoms in enumerate(frames) if atoms.get_distance(0, 1) == longest]
    with pytest.warns(DataWarning, match=f"1 of 16 structures have no prior mean and are left out of the fit: frame {bad[0]}: 'picky:"):
        model = soapkrr.fit(frames, baseline=f"auto:picky:{longest - 1e-6}", threads=1)
    assert list(model.without_prior_mean_) == bad
    assert said(model)["without labels"].value == 1 and f"frame {bad[0]}" in said(model)["without labels"].reason


def test_one_that_fails_for_many_is_not_taken():
    frames = triangles(16)
    longest = sorted(atoms.get_distance(0, 1) for atoms in frames)[-4]
    model = soapkrr.fit(frames, baseline=f"auto:picky:{longest}", threads=1)
    assert "picky" not in said(model)["variant"].value and not model.without_prior_mean_
    assert any(text.startswith("failed: it fails for 3 of 16 structures, frame ") for text in said(model)["tried"].value.values())


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (["auto", "emt"], "'auto' and .*emt.*left open or given, not both"),
        (["auto", ScaledBaseline("emt", 1.1)], "left open or given, not both"),
        (["auto", "auto:emt"], "left open or given, not both"),
        ("auto:nothing", "'nothing' is unknown"),
    ],
)
def test_contradictions(baseline, message):
    with pytest.raises(InputError, match=message):
        soapkrr.fit(triangles(3), baseline=baseline)


@pytest.mark.parametrize(
    ("baseline", "name", "rest"),
    [
        ("auto", "gfn2", None),
        ("auto:d3:pbe", "d3:pbe", None),
        (["isolated", "auto"], "gfn2", "isolated"),
        ({"Ar": 1.0}, None, {"Ar": 1.0}),
        (None, None, None),
    ],
)
def test_what_is_left_open(baseline, name, rest):
    assert automatic_name(baseline) == name and without_auto(baseline) == rest


# --- the factor ------------------------------------------------------------------------------------------------------


def test_the_factor_is_the_mean_of_the_rank_one_law(frames):
    """By the integral over factors of its prior times the evidence, 61 of them."""
    model = GaussianProcess(soap(["Ar"], r_cut=6.0), DotProduct(2), noise={"energy": 0.02, "forces": 0.1}, signal=0.3, baseline=["sharp"])
    fitted = model.fit(frames[:6])
    plan = auto.choose(frames, settings=Settings(search=False))
    plan.model.set_params(descriptor=model.descriptor, kernel=model.kernel)
    found = WithFactor(plan, "sharp")
    mean, std = found.factor(fitted, frames[:6])
    grid = np.linspace(mean - 6 * std, mean + 6 * std, 61)
    logs = np.array([found._evidence(fitted, frames[:6], c) for c in grid]) - 0.5 * ((grid - 1) / SPREAD) ** 2
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()
    assert mean == pytest.approx(weights @ grid, abs=1e-3 * std)
    assert std == pytest.approx(np.sqrt(weights @ (grid - weights @ grid) ** 2), rel=1e-3)


# --- the command line ------------------------------------------------------------------------------------------------


def test_the_command_line_takes_auto(tmp_path, capsys):
    from ase.io import write

    write(tmp_path / "ar.xyz", crystals(4))
    code, out, err = outcome(capsys, "fit", tmp_path / "ar.xyz", "--baseline", "auto", "-o", tmp_path / "m.soapkrr")
    assert code == 0, err
    code, out, err = outcome(capsys, "info", tmp_path / "m.soapkrr")
    assert code == 0 and "gfn2 not tried: for molecules only" in out


@pytest.mark.slow
def test_ethanol_like_labels_take_gfn2():
    """Labels of GFN1 for methanol: GFN2 says most of them."""
    pytest.importorskip("tblite", reason="tblite is not installed (extra xtb)")
    rng, frames = np.random.default_rng(0), []
    gfn1 = sources.gfn1()
    for _ in range(20):
        atoms = molecule("CH3OH")
        atoms.positions += 0.06 * rng.standard_normal((6, 3))
        frames.append(labelled(atoms, energy=gfn1.get_potential_energy(atoms), forces=gfn1.get_forces(atoms)))
    model = soapkrr.fit(frames, baseline="auto", threads=1)
    assert "gfn2" in said(model)["variant"].value and float(said(model)["tried"].value["plain SOAP"].split()[0]) > 1.5
