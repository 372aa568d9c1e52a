"""Screenings: ranked like predictions, resumable, with broken entries listed; campaigns equal refits."""

import csv
import json
import re
import subprocess
import sys
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.io import read, write
from command_line import outcome

import soapkrr
from soapkrr import SOAP, Campaign, DotProduct, Energy, Force, GaussianProcess, InputError, SparseGP, screen
from soapkrr.active.candidates import stream
from soapkrr.active.quantity import Quantity


def _alloy(seed, n=None, size=4):
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", a=3.8, cubic=True).repeat((size // 4, 1, 1))
    atoms.numbers[rng.choice(size, rng.integers(0, size + 1) if n is None else n, replace=False)] = 79
    atoms.rattle(0.15, rng=rng)
    return atoms


def _labelled(atoms):
    atoms = atoms.copy()
    energy = EMT().get_potential_energy(atoms)
    atoms.calc = SinglePointCalculator(atoms, energy=energy)
    return atoms


@cache
def _training():
    return [_labelled(_alloy(k)) for k in range(12)]


def _soap():
    return SOAP(["Cu", "Au"], r_cut=4.0, n_max=3, l_max=2, sigma=0.5)


@cache
def _model():
    return SparseGP(_soap(), DotProduct(2), n_sparse=30, baseline="least-squares", threads=1).fit(_training())


@cache
def _exact():
    return GaussianProcess(_soap(), DotProduct(2), baseline={"Cu": 0.0, "Au": 0.0}, threads=1).fit(_training())


def _candidates(n=9):
    return [_alloy(100 + k, size=4 + 4 * (k % 2)) for k in range(n)]


def _broken():
    """Nine candidates, five of which cannot be used, and why."""
    frames = _candidates()
    frames[1].positions[2] = np.nan
    frames[2].numbers[0] = 10
    frames[4].positions[1] = frames[4].positions[0]
    frames[5] = Atoms()
    frames[7] = "no structure"
    return frames, {1: "not finite", 2: "Ne", 4: "coincide", 5: "no atoms", 7: "expected an ase.Atoms"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """m.soapkrr and c.xyz, nine candidates of which the fourth is truncated, in the current folder."""
    _model().save(tmp_path / "m.soapkrr")
    write(tmp_path / "c.xyz", _candidates(), format="extxyz")
    lines = (tmp_path / "c.xyz").read_text().splitlines(keepends=True)
    starts = [k for k, line in enumerate(lines) if line.strip().isdigit()]
    (tmp_path / "c.xyz").write_text("".join(lines[: starts[4] - 2] + lines[starts[4] :]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- values and ranks ---


def test_rows_are_the_predictions_ranked():
    frames = _candidates()
    found, p = screen(_model(), frames, best=3), _model().predict(frames, uncertainty="energy")
    sizes = np.array([len(atoms) for atoms in frames])
    assert [row["candidate"] for row in found.ranked] == list(np.argsort(p.energy / sizes))
    low, high = p.interval("energy", 0.9)
    for row in found.ranked:
        s = row["candidate"]
        expected = np.array([p.energy[s], p.energy_std[s], low[s], high[s]]) / sizes[s]
        np.testing.assert_allclose([row[name] for name in ("value", "std", "lower", "upper")], expected, rtol=1e-9)


@pytest.mark.parametrize("rank", ["value", "lower", "probability"])
def test_orders(rank):
    rows = screen(_model(), _candidates(), rank=rank, best=3).ranked
    key = [-row[rank] if rank == "probability" else row[rank] for row in rows]
    assert key == sorted(key) and sum(row["probability"] for row in rows) == pytest.approx(3, abs=1e-6)


def test_probability_of_being_below_is_that_of_a_normal_value():
    from scipy.stats import norm

    for row in screen(_model(), _candidates(), below=0.1).ranked:
        assert row["probability"] == pytest.approx(norm.cdf((0.1 - row["value"]) / row["std"]), abs=1e-9)


def test_formation_and_hull_energies():
    pure = {symbol: _labelled(bulk(symbol, a=a)) for symbol, a in (("Cu", 3.6), ("Au", 4.1))}
    levels = {symbol: atoms.get_potential_energy() for symbol, atoms in pure.items()}
    alloy = _alloy(3, 2)
    formation = Quantity(levels)
    assert formation.offset(alloy) == pytest.approx(2 * levels["Cu"] + 2 * levels["Au"])
    assert Quantity(list(pure.values())).offset(alloy) == pytest.approx(formation.offset(alloy))
    deep = _alloy(5, 1)
    deep.calc = SinglePointCalculator(deep, energy=-40.0)
    hull = Quantity([*pure.values(), deep])
    assert hull.offset(_alloy(6, 1)) == pytest.approx(-40.0)
    assert hull.offset(alloy) == pytest.approx(2 / 3 * -40.0 + 4 / 3 * levels["Au"])
    rows = screen(_model(), [alloy], references=levels, best=1).rows
    assert rows[0]["value"] == pytest.approx((_model().predict(alloy).energy[0] - formation.offset(alloy)) / 4)


def test_a_species_without_reference_fails_alone():
    found = screen(_model(), [_alloy(0, 0), _alloy(1, 2)], references={"Cu": 0.0}, best=1)
    assert [row["candidate"] for row in found.ranked] == [0] and "no mixture" in found.failed[0]["failed"]


def test_any_observable():
    def pull(atoms):
        return Force(atoms, 0, "x") + 0.1 * Energy(atoms)

    frames = _candidates(5)
    found = screen(_model(), frames, observable=pull, best=2, next=2)
    joint = _model().posterior([pull(atoms) for atoms in frames])
    for row in found.ranked:
        assert row["value"] == pytest.approx(joint.mean[row["candidate"]], rel=1e-8, abs=1e-9)
        assert row["std"] == pytest.approx(joint.std[row["candidate"]], rel=1e-6)
    assert found.quantity == "pull" and len(found.next) == 2


def test_copies_are_one_candidate_however_they_are_written():
    atoms = _alloy(9, 2)
    turned = atoms[[2, 0, 3, 1]]
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    near = atoms.copy()
    near.positions += 1e-4 * np.random.default_rng(0).standard_normal((4, 3))
    frames = [atoms, _alloy(10, 2), turned, atoms.repeat((2, 1, 1)), near]
    found = screen(_model(), frames, best=1)
    assert {row["candidate"]: row["duplicate_of"] for row in found.rows} == {0: None, 1: None, 2: 0, 3: 0, 4: 0}
    assert len(screen(_model(), frames, best=1, merge=0).ranked) == 5


def test_relaxation_of_each():
    found = screen(_exact(), _candidates(3), fmax=0.5, steps=3, best=1)
    rows = found.ranked
    assert all(row["relax_steps"] <= 3 for row in rows) and all(row["relaxed"] or "unrelaxed" in row["flags"] for row in rows)
    for row, atoms in zip(rows, found.structures([row["candidate"] for row in rows]), strict=True):
        assert _exact().predict(atoms).energy[0] / len(atoms) == pytest.approx(row["value"], abs=1e-9)


# --- what can be wrong ---


def test_broken_entries_are_listed_and_the_rest_ranked():
    frames, why = _broken()
    found = screen(_model(), frames, best=2, next=1)
    assert {row["candidate"] for row in found.failed} == set(why) and len(found.ranked) == 4
    assert all(why[row["candidate"]] in row["failed"] for row in found.failed)


def test_a_truncated_frame_does_not_take_the_next_with_it(folder):
    entries = list(stream("c.xyz"))
    assert [entry.atoms is None for entry in entries] == [k == 3 for k in range(9)]
    assert "truncated: 8 atoms announced, 6 found" in entries[3].reason
    assert list(stream("c.xyz"))[4].atoms == read("c.xyz@:3")[0] or len(entries[4].atoms) == 4


@pytest.mark.parametrize("tail", ["4\nLattice", "garbage\nmore\n", "3\nProperties=species:S:1:pos:R:3\nCu 0 0 0\nCu 0 x 0\nCu 1 1 1\n"])
def test_a_broken_end_is_one_entry(folder, tail):
    with open("c.xyz", "a") as file:
        file.write(tail)
    entries = list(stream("c.xyz"))
    assert len(entries) == 10 and entries[-1].atoms is None and entries[-1].reason


def test_sources_give_the_same_candidates(tmp_path):
    frames = _candidates(4)
    (tmp_path / "f" / "b").mkdir(parents=True)
    write(tmp_path / "f" / "a.xyz", frames[:2], format="extxyz")
    write(tmp_path / "f" / "b" / "c.cif", frames[2])
    with connect(tmp_path / "f" / "d.db") as db:
        db.write(frames[3])
    write(tmp_path / "g.traj", frames)
    expected = [len(atoms) for atoms in frames]
    for source in (tmp_path / "f", tmp_path / "g.traj", frames, (atoms for atoms in frames)):
        entries = list(stream(source))
        assert [len(entry.atoms) for entry in entries] == expected and [entry.index for entry in entries] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"below": np.nan}, "`below`"),
        ({"below": "low"}, "`below`"),
        ({"best": 0}, "`best`"),
        ({"next": -1}, "`next`"),
        ({"next": 10}, "`next` must be at most 9"),
        ({"coverage": 1.0}, "`coverage`"),
        ({"rank": "std"}, "`rank`"),
        ({"merge": 1.0}, "`merge`"),
        ({"fmax": 0.0}, "`fmax`"),
        ({"cell": True}, "`cell`"),
        ({"references": {"Cu": np.inf}}, "`references`"),
        ({"references": [Atoms("Cu")]}, "has no finite energy"),
        ({"references": {"Cu": 1.0}, "observable": Energy}, "`observable`"),
        ({"observable": 3}, "`observable`"),
        ({"bellow": 0.1}, "did you mean `below`"),
    ],
)
def test_settings_out_of_range_are_refused(settings, word):
    with pytest.raises(InputError, match=word):
        screen(_model(), _candidates(), **settings)


@pytest.mark.parametrize("name", ["g.xyz", "g.traj", "g.db"])
@pytest.mark.parametrize("some", [":", "0:3", "2:", "-1", "4", "::2", "-3:", "::-1", "1:100", "3:3"])
def test_some_of_a_file_are_those_that_ase_reads(tmp_path, name, some):
    frames = _candidates(6)
    write(tmp_path / name, frames)
    entries = list(stream(f"{tmp_path / name}@{some}"))
    write(tmp_path / "all.traj", frames)
    expected = read(tmp_path / "all.traj", index=some)
    expected = expected if isinstance(expected, list) else [expected]
    assert [entry.index for entry in entries] == list(range(len(expected)))
    for entry, atoms in zip(entries, expected, strict=True):
        np.testing.assert_allclose(entry.atoms.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(frames[int(entry.name.split("@")[1])].positions, atoms.positions, atol=1e-7)


@pytest.mark.parametrize("source", ["c.xyz@first", "c.xyz@1:2:3:4", "c.xyz@::0", ".@0:2", "none.xyz@0:2"])
def test_slices_that_are_none_are_refused(folder, source):
    with pytest.raises(InputError, match="`candidates`"):
        screen(_model(), source)


@pytest.mark.parametrize("source", ["nothing.xyz", "empty.xyz", "text.xyz", "text.db", "hollow", [], 3])
def test_sources_that_cannot_be_read_are_refused(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    Path("empty.xyz").touch()
    Path("text.xyz").write_text("dear diary\n")
    Path("text.db").write_text("dear diary, this is long enough to be taken for something " * 20)
    Path("hollow").mkdir()
    with pytest.raises(InputError, match="`candidates`"):
        screen(_model(), source)


def test_nothing_that_can_be_predicted_is_an_error():
    with pytest.raises(InputError, match="none of the 1 `candidates`"):
        screen(_model(), [Atoms("Ne")])


# --- files ---


def same_but_for_rounding(one: str, other: str) -> None:
    """Loops that a process compiles and those that it reads from the cache round differently."""
    number = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")
    assert number.split(one) == number.split(other)
    np.testing.assert_allclose([float(n) for n in number.findall(one)], [float(n) for n in number.findall(other)], rtol=1e-6, atol=1e-9)


def test_ten_kills_end_at_the_same_table(folder, monkeypatch):
    monkeypatch.setattr("soapkrr.active.evaluation.GROUP", 12)  # several transactions
    whole = screen(soapkrr.load("m.soapkrr", threads=1), "c.xyz", "whole.db", next=2, best=3)
    script = Path(__file__).parent / "killed_screening.py"
    moments = ["0", "1", "3", "3", "4", "5", "5", "6", "8", "1", "100"]
    command = [sys.executable, str(script), *moments]
    codes = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.split()
    assert codes == ["-9"] * 10 + ["0"]
    for suffix in ("csv", "html"):
        same_but_for_rounding(Path(f"killed.{suffix}").read_text(), Path(f"whole.{suffix}").read_text())
    rows = [[(row.candidate, row.get("rank"), row.digest) for row in connect(f"{n}.db").select()] for n in ("killed", "whole")]
    assert whole.failed and rows[0] == rows[1] and [row[0] for row in rows[0]] == list(range(9))


def test_a_second_call_predicts_nothing_and_can_decide_anew(folder, monkeypatch):
    screen(_model(), "c.xyz", "o.db")
    before = {row.id: row.ctime for row in connect("o.db").select()}
    monkeypatch.setattr("soapkrr.active.evaluation.Evaluation.__call__", None)
    found = screen(_model(), "c.xyz", "o.db", best=2, next=3)
    assert len(found.next) == 3 and {row.id: row.ctime for row in connect("o.db").select()} == before
    assert sum(row.get("next_label") is not None for row in connect("o.db").select()) == 3
    screen(_model(), "c.xyz", "o.db")
    assert not any("next_label" in row for row in connect("o.db").select())


def test_a_longer_source_goes_on_and_another_is_refused(folder):
    frames = _candidates()
    screen(_model(), frames[:4], "o.db")
    assert len(screen(_model(), frames, "o.db").rows) == 9
    with pytest.raises(InputError, match="is of another screening"):
        screen(_model(), frames, "o.db", coverage=0.5)
    with pytest.raises(InputError, match="has 2 entries"):
        screen(_model(), frames[:2], "o.db")
    frames[3] = frames[2]
    with pytest.raises(InputError, match="candidate@3 is not what"):
        screen(_model(), frames, "o.db")
    write("other.db", frames)
    with pytest.raises(InputError, match="no result of a screening"):
        screen(_model(), frames, "other.db")


def test_database_table_and_page_say_the_same(folder):
    found = screen(_model(), "c.xyz", "o.db", next=1)
    with open("o.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["candidate"]) for row in rows] == [row["candidate"] for row in found.rows]
    best = connect("o.db").get(rank=1)
    assert best.value == pytest.approx(float(rows[0]["value"])) and best.energy / best.natoms == pytest.approx(best.value)
    page = Path("o.html").read_text()
    assert page.count("<svg") == len(found.ranked) == 8 and "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "truncated: 8 atoms announced" in page


def test_on_the_command_line(folder, capsys):
    run = partial(outcome, capsys)
    code, out, err = run("screen", "m.soapkrr", "c.xyz", "-o", "o.db", "--next", "2", "--references", "Cu=0,Au=0", "--json")
    data = json.loads(out)
    assert code == 1 and err == "" and data["n_failed"] == 1 and len(data["next"]) == 2 and data["candidates"][0]["rank"] == 1
    code, out, _ = run("screen", "m.soapkrr", "c.xyz", "-o", "p.db")
    assert code == 1 and "Screening by energy (eV/atom): 8 candidates, 1 failed" in out and out.endswith("p.db, p.csv, p.html\n")
    code, out, _ = run("screen", "m.soapkrr", "c.xyz@:3", "-o", "r.db")
    assert code == 0 and "3 candidates\n" in out
    assert run("screen", "m.soapkrr", "c.xyz@:3", "-o", "c.db")[0] == 0
    for arguments, words in {
        ("m.soapkrr", "none.xyz", "-o", "q.db"): "there is no file or folder none.xyz",
        ("m.soapkrr", "c.xyz", "-o", "q.xyz"): "`--output` must be an ASE database",
        ("m.soapkrr", "c.xyz", "-o", "q.db", "--next", "50"): "`--next` must be at most 9",
        ("m.soapkrr", "m.soapkrr", "-o", "q.db"): "is a model file",
        ("m.soapkrr", "c.xyz", "-o", "q.db", "--below", "nan"): "`--below` must be a finite number",
    }.items():
        code, _, err = run("screen", *arguments)
        assert code == 2 and words in err and err.count("\n") == 1


# --- campaigns ---


def test_labels_condition_an_exact_process_as_a_refit_does():
    frames = _candidates(7)
    campaign = Campaign(_exact(), frames, best=2)
    known = [_labelled(atoms) for atoms in campaign.recommend(3)]
    campaign.add(known)
    refit = GaussianProcess(_soap(), DotProduct(2), baseline={"Cu": 0.0, "Au": 0.0}, threads=1).fit([*_training(), *known])
    p = refit.predict(frames, uncertainty="energy")
    for row in campaign.ranking().ranked:
        s = row["candidate"]
        n = len(frames[s])
        labelled = s in campaign.labels
        mean, std = (EMT().get_potential_energy(frames[s]), 0.0) if labelled else (p.energy[s], p.energy_std[s])
        assert row["value"] == pytest.approx(mean / n, abs=1e-7) and ("labelled" in row["flags"]) == labelled
        variance = std**2 + (0 if labelled else n * _exact().noise_["energy"] ** 2)
        assert row["std"] == pytest.approx(np.sqrt(variance) / n, rel=0.05, abs=1e-9)


def test_a_campaign_ends_at_the_truth_and_its_state_is_its_labels():
    frames = _candidates(8)
    campaign = Campaign(_model(), frames, EMT(), best=3)
    campaign.run(8, batch=3)
    truth = [EMT().get_potential_energy(atoms) / len(atoms) for atoms in frames]
    rows = campaign.ranking().ranked
    assert [row["candidate"] for row in rows] == list(np.argsort(truth)) and rows[2]["probability"] > 0.3
    again = Campaign(_model(), frames, best=3).add([_labelled(atoms) for atoms in reversed(frames)])
    assert [row["candidate"] for row in again.ranking().ranked] == list(np.argsort(truth))
    with pytest.raises(InputError, match="`n` must be 1 to 0"):
        campaign.recommend(1)


def test_with_training_data_the_model_is_fitted_again():
    frames = _candidates(7)
    campaign = Campaign(_model(), frames, training=_training(), best=2)
    campaign.add([_labelled(frames[0]), _labelled(frames[3])])
    assert campaign.model is _model()
    campaign.add([_labelled(frames[k]) for k in (1, 2, 4, 5)])
    assert campaign.model.n_observations_["energy"] == 18
    row = next(row for row in campaign.ranking().ranked if row["candidate"] == 3)
    assert row["value"] == pytest.approx(EMT().get_potential_energy(frames[3]) / len(frames[3])) and row["std"] == 0


def test_an_exact_model_learns_by_an_update_as_by_a_fit(monkeypatch):
    frames = _candidates(7)
    start = GaussianProcess(_soap(), DotProduct(2), baseline="least-squares", threads=1).fit(_training())
    labelled = [_labelled(atoms) for atoms in frames]
    refit = GaussianProcess(_soap(), DotProduct(2), baseline="least-squares", threads=1).fit([*_training(), *labelled[:6]])
    campaign = Campaign(start, frames, training=_training(), best=2)
    with monkeypatch.context() as patch:
        patch.setattr(GaussianProcess, "fit", None)
        campaign.add(labelled[:6])
    assert start.n_observations_["energy"] == 12 and campaign.model.n_observations_ == refit.n_observations_
    p, q = campaign.model.predict(frames, uncertainty=True), refit.predict(frames, uncertainty=True)
    np.testing.assert_allclose(p.energy, q.energy, rtol=0, atol=1e-8)
    np.testing.assert_allclose(np.concatenate(p.forces), np.concatenate(q.forces), rtol=0, atol=1e-8)
    np.testing.assert_allclose(p.energy_std, q.energy_std, rtol=0, atol=1e-8)
    labelled[0] = labelled[0].copy()  # another label of the same candidate: what was learnt is not forgotten by an update
    labelled[0].calc = SinglePointCalculator(labelled[0], energy=1.0)
    campaign.add(labelled)
    monkeypatch.setattr(GaussianProcess, "update", None)
    campaign._learn([*campaign.training, *campaign._labelled.values()])
    assert campaign.model.n_observations_["energy"] == 19


def test_references_that_fail_and_labels_that_cannot_be_used():
    frames = _candidates(5)

    def reference(atoms):
        if atoms.info["candidate"] == 2:
            raise RuntimeError("did not converge")
        return _labelled(atoms)

    campaign = Campaign(_model(), frames, reference, best=1)
    campaign.run(5)
    assert campaign.failed == {2: "RuntimeError: did not converge"} and len(campaign.labels) == 4
    other = Campaign(_model(), frames, best=1)
    for wrong, word in (
        (_labelled(_alloy(77)), "none of the 5 candidates"),
        (frames[0], "has an energy"),
        ([_labelled(frames[1]), frames[0]], "candidate 0, candidate@0, has no energy"),
        (Atoms("Cu", info={"candidate": 1}), "atoms are elsewhere"),
    ):
        with pytest.raises(InputError, match=word):
            other.add(wrong)
    assert not other.labels
    with pytest.raises(InputError, match="`reference` was not given"):
        other.run(1)
    with pytest.raises(InputError, match="`reference` must be"):
        Campaign(_model(), frames, 3)
    with pytest.raises(InputError, match="`next` is of `screen`"):
        Campaign(_model(), frames, next=3)
    with pytest.raises(InputError, match="`candidate` 9"):
        other.drop(9, "no")
