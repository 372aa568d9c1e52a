"""Everything public shows: as short text in a terminal, as a table in a notebook; tab completion offers public names alone."""

import inspect
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.lj import LennardJones
from small import EPSILON, SIGMA, crystals, small_gp, soap

import soapkrr
from soapkrr import ACSF, Compressed, DotProduct, Energy, Observations, Pair, PropertyGP, Standardized, Term
from soapkrr.active.certificate import Certificate
from soapkrr.interfaces.ipi import Served
from soapkrr.selection import KMeans

#: Lines of a terminal that a thing may take.
LINES = 40


@pytest.fixture(scope="module")
def frames():
    return crystals(12)


@pytest.fixture(scope="module")
def model(frames):
    return soapkrr.fit(frames, search=False, learn=False)


@pytest.fixture(scope="module")
def shown(model, frames):
    """{name: a thing that people look at, which shows as a table}."""
    prediction = model.predict(frames, uncertainty=True)
    return {
        "SOAP": soap(),
        "ACSF": ACSF(species=["Ar"], r_cut=4.0),
        "Pair": Pair(species=["Ar"], r_cut=4.0),
        "Compressed": Compressed(soap(), n_components=3),
        "Standardized": Standardized.of(soap(), soap().create(frames)),
        "kernel": 2.0 * DotProduct(2),
        "term": Term(soap(), DotProduct(2)),
        "selection": KMeans(),
        "observations": Observations(energy="e"),
        "estimator": model,
        "unfitted": small_gp(),
        "property": PropertyGP(soap(), DotProduct(2), target="intensive"),
        "prediction": prediction,
        "one": prediction[0],
        "sampled property": PropertyGP(soap(), DotProduct(2), target="intensive", noise=0.1).fit(frames, np.arange(12.0)).predict(frames),
        "summary": model.summary(),
        "choices": model.choices_,
        "plan": model.plan(frames),
        "errors": soapkrr.metrics.error_table(frames, prediction),
        "leave-out": model.leave_out(frames),
        "attribution": model.attribution(frames[0], "energy", frames),
        "joint": model.posterior([Energy(frames[0]), Energy(frames[1])]),
        "variance drop": model.variance_drop(frames[:2], [Energy(frames[2])]),
        "contributions": model.contributions(frames[:2]),
        "model check": model.check(),
        "data check": soapkrr.check(frames, quick=True),
        "report": model.report(),
        "card": model.card,
        "certificate": Certificate(True, 0.01, 5, 20, 1e-4, 1e-3, 2.0, 0.1),
        "served": Served(4, 1, 4),
    }


NAMES = """SOAP ACSF Pair Compressed Standardized kernel term selection observations estimator unfitted property prediction one
choices plan errors leave-out attribution joint certificate served report card summary contributions""".split()
NAMES += ["sampled property", "variance drop", "model check", "data check"]


@pytest.mark.parametrize("name", NAMES)
def test_it_shows_as_a_table_in_a_notebook_and_as_text_in_a_terminal(shown, name):
    thing = shown[name]
    html, text = thing._repr_html_(), repr(thing)
    assert "<table" in html or "sk-top-container" in html
    assert " object at 0x" not in text and "<" not in text.splitlines()[0] and len(text.splitlines()) <= LINES


def test_everything_that_is_shown_is_looked_at(shown):
    assert set(shown) == set(NAMES)


def test_what_works_says_what_it_is(model, frames):
    calculator = LennardJones(sigma=SIGMA, epsilon=EPSILON)
    moved = frames[0].copy()
    moved.positions[0] += 0.2
    things = [
        model.calculator(),
        model.sample(3),
        model.sample(3)[0],
        soapkrr.SurrogateDimer(frames[0], calculator, np.full((4, 3), 0.1)),
        soapkrr.SurrogateNEB(frames[0], moved, calculator),
        soapkrr.Campaign(model, frames),
        soapkrr.OnTheFly(None, calculator, lambda atoms: None, threshold=0.1),
    ]
    for thing in things:
        assert " object at 0x" not in repr(thing) and type(thing).__name__[:9] in repr(thing) + " potentials drawn PotentialSamples"


def test_choices_stay_a_list(model):
    names = [choice.name for choice in model.choices_]
    assert isinstance(model.choices_, list) and names[0] == "species" and repr(model.choices_).splitlines()[0].startswith("chosen")
    assert all(name in model.choices_._repr_html_() for name in names)


def test_choices_of_a_loaded_model_show_too(model, tmp_path):
    model.save(tmp_path / "m.soapkrr")
    assert repr(soapkrr.load(tmp_path / "m.soapkrr").choices_) == repr(model.choices_)


# --- tab completion --------------------------------------------------------------------------------------------------


def test_the_package_offers_what_is_public():
    offered = {name for name in dir(soapkrr) if not name.startswith("__")}
    assert offered == set(soapkrr.__all__)


@pytest.mark.parametrize("name", soapkrr._MODULES)
def test_modules_offer_what_is_public(name):
    module = getattr(soapkrr, name)
    assert dir(module) and not [other for other in dir(module) if other.startswith("_")]
    assert not {"np", "annotations", "Atoms", "InputError", "dataclass", "only_public"} & set(dir(module))
    assert all(hasattr(module, other) for other in dir(module))


@pytest.mark.parametrize("name", ["estimator", "prediction", "SOAP", "leave-out"])
def test_objects_have_public_names_that_can_be_asked_for(shown, name):
    """What tab completion offers exists, and is described where it is a method of ours."""
    thing = shown[name]
    public = [other for other in dir(thing) if not other.startswith("_")]
    methods = [getattr(type(thing), other, None) for other in public if hasattr(thing, other)]
    ours = [m for m in methods if inspect.isfunction(m) and m.__module__.startswith("soapkrr")]
    assert ours and all(inspect.getdoc(m) for m in ours)


def test_the_package_says_that_it_has_types():
    assert (Path(soapkrr.__file__).parent / "py.typed").exists()
