"""The report of a model: one page that needs nothing else, with the numbers of the tables; the card, which is saved with the model."""

import json
import pickle
import re
import sys
from functools import partial
from html.parser import HTMLParser

import numpy as np
import pytest
from ase.io import write
from command_line import outcome
from sklearn.exceptions import NotFittedError
from small import crystals, labelled, small_gp, soap

import soapkrr
from soapkrr import InputError, ModelFileError, PropertyGP
from soapkrr.checking.left_out import as_prediction
from soapkrr.estimators.card import ASKED, restored_card

SECTIONS = ["Data", "Model", "Errors and error bars", "Figures", "Data check", "Model check", "Cost", "Model card"]


@pytest.fixture(scope="module")
def frames():
    frames = crystals(8)
    for k, atoms in enumerate(frames):
        atoms.info["config_type"] = ["<hot>", "cold"][k % 2]
    return frames


@pytest.fixture(scope="module")
def model(frames):
    model = small_gp(threads=1).fit(frames).calibrate(frames)
    model.card = {"data": "Lennard-Jones <argon>", "licence": "CC0"}
    return model


class Page(HTMLParser):
    """Headings, cells of tables, and everything that a page refers to."""

    def __init__(self, text):
        super().__init__()
        self.headings, self.cells, self.links, self.open, self.unclosed = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.open += [tag] * (tag not in ("meta", "img", "br"))
        self.links += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        self.unclosed += [tag] * (self.open.pop() != tag)

    def handle_data(self, data):
        where = self.open[-1] if self.open else ""
        {"h2": self.headings, "td": self.cells}.get(where, []).append(data)


@pytest.fixture(scope="module")
def written(model, frames, tmp_path_factory):
    """The report of structures that were not fitted, and its page."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    return model.report(path, crystals(6, seed=4)), path.read_text(encoding="utf-8")


def test_the_page_is_sound_and_needs_nothing_else(written):
    page = Page(written[1])
    assert page.headings == SECTIONS and not page.unclosed and not page.open
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert sum(link.startswith("data:") for link in page.links) == 10
    assert not re.search(r"https?://|<script|@import|url\(", written[1])
    assert 'name="viewport"' in written[1] and "max-width:100%" in written[1]


def test_its_numbers_are_those_of_the_tables(written, model):
    found, text = written
    test = crystals(6, seed=4)
    table = soapkrr.metrics.error_table(test, model.predict(test, uncertainty=True))
    assert dict(found.errors) == pytest.approx(dict(table))
    cells = Page(text).cells
    assert all(f"{table[key]:.3g}" in cells for key in ("energy_mae_mev_per_atom", "forces_rmse_ev_per_angstrom", "stress_mae_gpa"))
    assert "6 structures that were not fitted" in text
    assert json.loads(json.dumps(found.to_dict()))["passed"] is found.check.passed
    assert [row[0] for row in found._rows()] == SECTIONS and "Mean absolute errors" in repr(found)


def test_the_card_is_on_the_page_and_text_is_escaped(written):
    assert "Lennard-Jones &lt;argon&gt;" in written[1] and "<argon>" not in written[1]
    assert f"not stated: {ASKED['intended use']}" in written[1]


def test_structures_of_the_fit_are_left_out(model, frames):
    found = model.report(frames=frames[::-1])
    left = model.leave_out(frames)
    assert found.errors["forces_rmse_ev_per_angstrom"] == pytest.approx(left.rmse("forces"))
    assert found.errors["energy_rmse_mev_per_atom"] == pytest.approx(1e3 * left.rmse("energy"))
    assert "predicted without its own labels" in repr(found)
    groups = next(section for section in found.sections if section.title == "Errors and error bars").tables[1]
    assert [row[0] for row in groups.rows] == ["<hot>", "cold"]


def test_left_out_labels_as_a_prediction(model, frames):
    alone = labelled(soapkrr.structures.Atoms("Ar"), energy=0.0)
    mixed = [*frames[:4], labelled(frames[4], energy=frames[4].get_potential_energy()), alone]
    model = small_gp(threads=1).fit(mixed)
    left = model.leave_out(mixed)
    some, prediction = as_prediction(left, mixed)
    assert len(some) == 5 and alone not in some
    mine = left.of_kind("forces")
    flat = np.concatenate([f.ravel() for f in prediction.forces[:4]])
    np.testing.assert_array_equal(flat, mine.mean)
    stress = left.of_kind("stress")
    np.testing.assert_allclose(prediction.stress_std[:4].ravel(), np.hypot(stress.std, stress.sigma), rtol=1e-12)
    assert np.isnan(prediction.forces[4]).all() and np.isfinite(prediction.energy).all()


def test_without_structures_or_matplotlib_there_is_less(model, frames, monkeypatch):
    assert [section.title for section in model.report().sections] == [s for s in SECTIONS if s not in SECTIONS[2:5]]
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    bare = model.report(frames=crystals(4, seed=4))
    figures = next(section for section in bare.sections if section.title == "Figures")
    assert not figures.images and "matplotlib is not installed" in figures.lines[0]


def test_what_cannot_be_reported_is_refused(model, frames, tmp_path):
    with pytest.raises(InputError, match="must end in .html"):
        model.report(tmp_path / "report.pdf")
    with pytest.raises(NotFittedError):
        small_gp().report()
    with pytest.raises(NotFittedError):
        small_gp().card  # noqa: B018


# --- the card --------------------------------------------------------------------------------------------------------


def test_the_card_is_saved_with_the_model(model, frames, tmp_path):
    model.save(tmp_path / "m.soapkrr")
    card = soapkrr.load(tmp_path / "m.soapkrr").card
    assert card == model.card and card.given == {"data": "Lennard-Jones <argon>", "licence": "CC0"}
    assert card.missing == ["level of theory", "references", "intended use"]
    assert "2.7" in card["where not to trust it"] or "3." in card["where not to trust it"]
    again = pickle.loads(pickle.dumps(card))
    assert again == card and again.given == card.given
    assert "Model card" in repr(card) and "<table>" in card._repr_html_()


def test_models_of_properties_have_cards_too(frames, tmp_path):
    model = PropertyGP(soap(), soapkrr.DotProduct(2), target="intensive", noise=0.1).fit(frames, np.arange(8.0))
    model.card = {"data": "made up"}
    model.save(tmp_path / "p.soapkrr")
    assert soapkrr.load(tmp_path / "p.soapkrr").card["data"] == "made up"


@pytest.mark.parametrize("card", [{"data": 3}, ["data"], {1: "x"}, {"": "x"}, {"data": "x" * 10_001}], ids=repr)
def test_cards_are_texts_by_name(model, card):
    with pytest.raises(InputError, match="`card`"):
        small_gp().card = card
    with pytest.raises(ModelFileError):
        restored_card(card)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(model, frames, monkeypatch, capsys, tmp_path):
    """Run a command line where m.soapkrr, train.xyz, test.xyz and card.json are: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    model.save("m.soapkrr")
    write("train.xyz", frames)
    write("test.xyz", crystals(6, seed=4))
    (tmp_path / "card.json").write_text('{"references": "doi 10.1000/1"}')
    return partial(outcome, capsys)


def test_the_command_writes_the_page(run, tmp_path):
    code, out, err = run("report", "m.soapkrr", "test.xyz", "--card", "card.json", "--threads", "1")
    assert (code, err) == (0, "") and "report.html" in out and "Mean absolute errors" in out
    assert Page((tmp_path / "report.html").read_text(encoding="utf-8")).headings == SECTIONS
    assert soapkrr.load("m.soapkrr").card.given == {"references": "doi 10.1000/1"}
    assert "card: references    doi 10.1000/1" in run("info", "m.soapkrr")[1]


def test_the_command_without_structures_and_as_json(run, tmp_path):
    code, out, _ = run("report", "m.soapkrr", "-o", "r.html", "--json")
    assert code == 0 and json.loads(out)["errors"] == {} and (tmp_path / "r.html").exists()


def test_the_command_says_what_is_wrong(run, tmp_path):
    (tmp_path / "bad.json").write_text("{")
    for words in (["--card", "bad.json"], ["--card", "none.json"], ["-o", "page.pdf"]):
        code, out, err = run("report", "m.soapkrr", *words)
        assert code == 2 and out == "" and len(err.splitlines()) == 1
