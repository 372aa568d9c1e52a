"""Planted faults are found and named, clean data raise no alarm, and models are checked by what they predict."""

import json

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.io import write
from command_line import outcome
from conftest import emt_copper
from small import OPTIONS, crystals, labelled, small_gp

import soapkrr
from soapkrr import DataWarning, InputError, LabelError
from soapkrr.checking.figures import figures
from soapkrr.checking.findings import Finding
from soapkrr.checking.plain import plain_findings
from soapkrr.checking.report import Row
from soapkrr.checking.whole import mistakes
from soapkrr.labels import read_labels

KCAL = units.kcal / units.mol


@pytest.fixture(scope="module")
def frames():
    return emt_copper(40)


def changed(frames, places=None, **changes):
    """Copies, with labels at ``places`` (None: all) replaced by functions of what they were."""
    out = []
    for s, atoms in enumerate(frames):
        results = dict(atoms.calc.results)
        if places is None or s in places:
            results |= {kind: change(results[kind], atoms) for kind, change in changes.items()}
        out.append(labelled(atoms, **results))
    return out


def said(findings):
    return [f for f in findings if f.severity != "note"]


def test_clean_data_raise_no_alarm(frames):
    found = soapkrr.check(frames)
    assert found.clean and not said(found), str(found)


WHOLE = {
    "stress sign": ("stress", "sign", {"stress": lambda s, a: -s}),
    "GPa": ("stress", "GPa", {"stress": lambda s, a: s / units.GPa}),
    "kbar": ("stress", "kbar", {"stress": lambda s, a: -10 * s / units.GPa}),
    "VASP's order": ("stress", "VASP's", {"stress": lambda s, a: s[[0, 1, 2, 5, 3, 4]]}),
    "virial": ("stress", "virial", {"stress": lambda s, a: -s * a.get_volume()}),
    "Hartree/Bohr": ("forces", "Hartree/Bohr", {"forces": lambda f, a: f * units.Bohr / units.Hartree}),
    "gradients": ("forces", "sign", {"forces": lambda f, a: -f}),
    "Hartree": ("energy", "Hartree", {"energy": lambda e, a: e / units.Hartree}),
    "kcal/mol": ("energy", "kcal/mol", {"energy": lambda e, a: e / KCAL, "forces": lambda f, a: f / KCAL}),
}


@pytest.mark.parametrize("fault", WHOLE)
def test_a_kind_that_is_wrong_everywhere_is_named(frames, fault):
    kind, cause, changes = WHOLE[fault]
    found = said(soapkrr.check(changed(frames, **changes)))
    assert any(f.what.startswith(f"the {kind} of all") and cause in f.what for f in found)
    assert not any(f.frames for f in found)


def test_undoing_a_mistake_by_its_code_gives_back_the_labels():
    rng = np.random.default_rng(0)
    atoms = labelled(bulk("Cu"), stress=rng.normal(size=6))
    for mistake in mistakes("stress")[1:]:
        copy = labelled(atoms, stress=atoms.calc.results["stress"])
        exec(mistake.code(), {"np": np, "atoms": copy})
        np.testing.assert_allclose(copy.calc.results["stress"], mistake.undo(atoms.calc.results["stress"], atoms.get_volume()), rtol=1e-6)


def test_the_order_of_vasp_is_undone():
    stress = np.arange(6.0)
    vasp = next(m for m in mistakes("stress") if "VASP's" in m.cause and m.order)
    np.testing.assert_array_equal(vasp.undo(stress[[0, 1, 2, 5, 3, 4]]), stress)


SINGLE = {
    "stress sign": ([4, 17], "sign", {"stress": lambda s, a: -s}),
    "Hartree/Bohr": ([4, 17], "Hartree/Bohr", {"forces": lambda f, a: f * units.Bohr / units.Hartree}),
    "energy": ([11], "energy", {"energy": lambda e, a: e + 1.0}),
    "functional": ([11], "functional", {"energy": lambda e, a: e + 0.3 * len(a), "forces": lambda f, a: 1.1 * f}),
}


@pytest.mark.parametrize("fault", SINGLE)
def test_structures_that_the_others_contradict_are_named(frames, fault):
    places, cause, changes = SINGLE[fault]
    found = said(soapkrr.check(changed(frames, places, **changes)))
    assert {s for f in found if cause in f.what for s in f.frames} == set(places)
    assert {s for f in found for s in f.frames} == set(places)


def test_swapped_labels_are_named(frames):
    mixed = list(frames)
    mixed[6], mixed[20] = labelled(frames[6], **frames[20].calc.results), labelled(frames[20], **frames[6].calc.results)
    found = said(soapkrr.check(mixed))
    assert [f.frames for f in found] == [(6, 20)] and "each other's" in found[0].what


def test_copies_with_other_labels_are_errors_and_with_the_same_are_noted(frames):
    twin = changed(frames[:1], energy=lambda e, a: e + 0.5)[0]
    found = soapkrr.check([*frames, twin], quick=True)
    assert [(f.severity, f.frames) for f in found] == [("error", (0, 40))]
    turned = frames[3].copy()
    turned.wrap()
    turned = labelled(turned, **frames[3].calc.results)
    found = soapkrr.check([*frames, turned], quick=True)
    assert [(f.severity, f.frames) for f in found] == [("note", (40,))]


def test_what_needs_no_model():
    argon = crystals(4)
    pushed = labelled(argon[0], **{**argon[0].calc.results, "forces": argon[0].calc.results["forces"] + 0.5})
    close = labelled(Atoms("Ar2", positions=[[0, 0, 0], [0, 0, 0.6]]), energy=50.0)
    found = plain_findings(frames := [*argon, pushed, close], read_labels(frames))
    what = {f.what: f.frames for f in found}
    assert what["the forces do not add up to zero"] == (4,)
    assert what["atoms are too close"] == (5,)
    assert what["no forces where other structures have one"] == (5,)


def test_groups_of_another_method_are_named(frames):
    groups = changed(frames, range(0, 40, 2), energy=lambda e, a: e + 0.05 * len(a))
    for s, atoms in enumerate(groups):
        atoms.info["config_type"] = ["old", "new"][s % 2]
    found = said(soapkrr.check(groups))
    assert any("'old'" in f.what or "'new'" in f.what for f in found)


def test_findings_show_and_convert(frames):
    found = soapkrr.check(changed(frames, stress=lambda s, a: -s), names=[f"run {s}" for s in range(40)])
    assert "1 error" in repr(found) and "<table>" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["findings"][0]["severity"] == "error"
    assert Finding("error", "odd", (1, 2)).where(["a", "b", "c"]) == "frames b, c"


def test_too_few_structures_are_said():
    assert "too few" in soapkrr.check(crystals(3))[0].what


def test_a_fit_warns_and_strict_raises():
    argon = crystals(8)
    pushed = [labelled(a, **{**a.calc.results, "forces": a.calc.results["forces"] + 0.5}) for a in argon]
    with pytest.warns(DataWarning, match="do not add up to zero"):
        soapkrr.fit(pushed)
    with pytest.raises(LabelError, match="add up to zero.*`strict`"):
        soapkrr.fit(pushed, strict=True)
    soapkrr.fit(argon, strict=True)


# --- of a model ---


@pytest.fixture(scope="module")
def model():
    return small_gp().fit(crystals(6))


def test_a_sound_model_passes_what_it_must(model):
    rows = {f"{row.group}: {row.name}": row for row in model.check().rows}
    assert all(row.passed for name, row in rows.items() if not name.startswith("dimer"))
    assert {"derivatives: Taylor slope, forces", "derivatives: Taylor slope, stress", "dimer: Ar–Ar", "dynamics: drift"} <= set(rows)


class Wrong:
    """A model whose forces are one percent off."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def predict(self, *args, **kwargs):
        p = self._model.predict(*args, **kwargs)
        p.forces[:] = [1.01 * f for f in p.forces]
        return p


def test_forces_that_are_a_percent_off_fail(model):
    from soapkrr.checking.model import derivatives

    rows = {row.name: row.passed for row in derivatives(Wrong(model), [crystals(1)[0]])}
    assert rows == {"Taylor slope, forces": False, "Taylor slope, stress": True}


def test_held_out_structures_by_group_and_the_page(model, tmp_path):
    test = crystals(12, seed=1)
    for s, atoms in enumerate(test):
        atoms.info["config_type"] = ["cold", "hot"][s % 2]
    found = model.check(test)
    assert {"held out, all", "held out, cold", "held out, hot"} <= {row.group for row in found.rows}
    found.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == len(figures(found.curves)) and "Taylor slope" in page and "http" not in page
    assert json.loads(json.dumps(found.to_dict()))["passed"] == found.passed


def test_verdicts_are_those_of_the_rows():
    assert Row("a", "b", 1.0, "≤ 2", True).passed


def test_an_unknown_species_is_named(model):
    with pytest.raises(InputError, match="frame 0: species Cu"):
        model.check(emt_copper(1))


# --- on the command line ---


@pytest.fixture
def folder(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    write("good.xyz", crystals(8))
    write("bad.xyz", [*crystals(8), changed(crystals(8)[:1], energy=lambda e, a: e + 1.0)[0]])
    model.save("ar.soapkrr")
    return tmp_path


def test_files_of_structures(folder, capsys):
    code, out, err = outcome(capsys, "check", "good.xyz", "--quick")
    assert (code, err) == (0, "") and "0 errors" in out
    code, out, err = outcome(capsys, "check", "good.xyz", "bad.xyz", "--quick", "--json")
    data = json.loads(out)
    assert code == 1 and err == "" and "bad.xyz 8" in data["findings"][0]["names"]


def test_a_model_and_its_page(folder, capsys):
    code, out, err = outcome(capsys, "check", "ar.soapkrr", "good.xyz", "--html", "page.html")
    assert code in (0, 1) and err == "" and "Taylor slope" in out and (folder / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["good.xyz", "ar.soapkrr"], "MODEL comes first: it is `soapkrr check ar.soapkrr good.xyz`"),
        (["ar.soapkrr", "ar.soapkrr"], "one can be checked at a time"),
        (["ar.soapkrr", "good.xyz", "bad.xyz"], "one file of structures, received 2"),
        (["good.xyz", "--html", "x.html"], "name a model file first"),
        (["good.xyz", "--device", "auto"], "of checks of a model"),
        (["good.xyz", "--memory-limit", "1GB"], "of checks of a model"),
        (["ar.soapkrr", "--quick"], "of checks of data"),
        (["ar.soapkrr", "--html", "nowhere/x.html"], "nowhere"),
        (["ar.soapkrr", "--html", "new.soapkrr"], "must end in .html"),
        (["none.xyz"], "there is no file none.xyz"),
        ([], "required: FILE"),
    ],
)
def test_wrong_command_lines(folder, capsys, arguments, message):
    code, out, err = outcome(capsys, "check", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err


def test_strict_fits_are_refused(folder, capsys):
    code, out, err = outcome(capsys, "fit", "bad.xyz", "--output", "m.soapkrr", "--strict", *OPTIONS)
    assert code == 2 and "different labels" in err and not (folder / "m.soapkrr").exists()
