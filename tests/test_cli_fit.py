"""`soapkrr fit` beyond its hyperparameters: errors on structures left out, and messages that name its options."""

import argparse
import json
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from command_line import outcome
from small import OPTIONS, crystals, labelled

import soapkrr
from soapkrr import cli
from soapkrr.cli import held_out
from soapkrr.cli.messages import in_options
from soapkrr.metrics import error_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train.xyz: ten crystals and an isolated atom, which comes first."""
    folder = tmp_path_factory.mktemp("fit")
    write(folder / "train.xyz", [labelled(Atoms("Ar"), energy=0.0), *crystals(10)])
    return folder


@pytest.fixture
def run(folder, monkeypatch, capsys, tmp_path):
    """Run `soapkrr fit train.xyz -o m.soapkrr` with options: (exit code, standard output, standard error)."""
    monkeypatch.chdir(folder)
    return partial(outcome, capsys, "fit", "train.xyz", "-o", tmp_path / "m.soapkrr")


def test_only_training_errors_are_called_so(run):
    assert "These are training errors" in run(*OPTIONS)[1]
    for options in (["--test", "train.xyz@1:3"], ["--test-fraction", "0.3"], ["--cv", "3"]):
        assert "These are training errors" not in run(*OPTIONS, *options)[1]


def test_a_random_part_is_left_out_of_the_fit(run, folder, tmp_path):
    data = json.loads(run(*OPTIONS, "--test-fraction", 0.3, "--json")[1])
    frames, out = read(folder / "train.xyz", ":"), data["test_places"]
    assert (data["n_structures"], data["test"]["n_structures"]) == (8, 3) and 0 not in out
    rest = [atoms for s, atoms in enumerate(frames) if s not in out]
    expected = soapkrr.load(tmp_path / "m.soapkrr")
    again = soapkrr.SparseGP(**expected.get_params(deep=False)).fit(rest)
    np.testing.assert_allclose(expected.predict(frames).energy, again.predict(frames).energy, rtol=1e-10)
    left_out = [frames[s] for s in out]
    assert data["test"]["forces_mae_ev_per_angstrom"] == pytest.approx(
        error_table(left_out, again.predict(left_out))["forces_mae_ev_per_angstrom"]
    )
    assert json.loads(run(*OPTIONS, "--test-fraction", 0.3, "--json")[1])["test_places"] == out
    assert json.loads(run(*OPTIONS, "--test-fraction", 0.3, "--seed", 1, "--json")[1])["test_places"] != out


def test_cross_validation_predicts_every_structure_from_a_fit_without_it(run, folder):
    data = json.loads(run(*OPTIONS, "--cv", 3, "--uncertainty", "none", "--json")[1])["cv"]
    frames = read(folder / "train.xyz", ":")
    small = soapkrr.SparseGP(soapkrr.SOAP(["Ar"], r_cut=4.5, n_max=3, l_max=2, sigma=0.5), soapkrr.DotProduct(2), n_sparse=12)
    errors = []
    for out in held_out.parts(frames, 3, 0):
        model = small.fit([atoms for s, atoms in enumerate(frames) if s not in out])
        errors += [np.ravel(model.predict(frames[s]).forces[0] - frames[s].get_forces()) for s in out]
    assert data["forces_rmse_ev_per_angstrom"] == pytest.approx(np.sqrt(np.mean(np.concatenate(errors) ** 2)), rel=1e-6)
    assert data["k"] == 3 and [fold["n_structures"] for fold in data["folds"]] == [4, 3, 3]


def test_cross_validation_finds_noise_and_signal_anew_in_every_part(run, monkeypatch):
    fitted = []
    learn = soapkrr.GaussianProcess.learn

    def watched(self, frames, optimize, *rest, **options):
        fitted.append((len(frames), optimize))
        return learn(self, frames, optimize, *rest, **options)

    monkeypatch.setattr(soapkrr.GaussianProcess, "learn", watched)
    assert run("--cv", 2, "--r-cut", 4.5, "--n-max", 3, "--l-max", 2)[0] == 0
    assert fitted == [(11, "evidence"), (6, "evidence"), (6, "evidence")]


def test_standard_deviations_of_training_structures_are_left_out_where_they_cost_more_than_the_fit(run):
    told = [json.loads(run(*options, "--json")[1])["energy_within_1_std"] for options in (["--r-cut", 4.5, "--n-max", 3], OPTIONS)]
    assert told[0] is None and told[1] >= 0


def test_automatic_choices_are_in_json(run):
    data = json.loads(run("--r-cut", 4.5, "--json")[1])
    choices = {c["name"]: c for c in data["choices"]}
    assert (choices["r_cut"]["value"], choices["r_cut"]["reason"]) == (4.5, "given")
    assert choices["scaling"]["value"].startswith("RadialScaling") and data["estimator"] == "GaussianProcess"
    assert data["n_sparse"] is None and set(data["noise"]) == {"energy", "forces", "stress"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (["--rcut", "4"], "there is no option --rcut; did you mean --r-cut?"),
        (["--r_cut=4"], "there is no option --r_cut; did you mean --r-cut?"),
        (["--nsparse", "4"], "did you mean --n-sparse?"),
        (["-output", "m"], "did you mean --output?"),
        (["--quux"], "there is no option --quux (see soapkrr fit --help)"),
        (["--noise-energy", "0"], "error: `--noise-energy` must be a positive finite number"),
        (["--test-fraction", "1"], "--test-fraction"),
        (["--test-fraction", "0.99"], "leaves none to fit"),
        (["--test-fraction", "0.2", "--test", "train.xyz"], "exclude each other"),
        (["--cv", "1"], "at least 2"),
        (["--cv", "11"], "there are only 10 structures"),
        (["--scaling-r0", "2", "--no-scaling"], "exclude each other"),
        (["--memory-limit", "1kB", "--n-sparse", "9"], "`--memory-limit"),
    ],
    ids=str,
)
def test_messages_name_options(run, tmp_path, options, match):
    code, out, err = run(*options)
    assert (code, out, err.count("\n")) == (2, "", 1) and match in err
    assert not list(tmp_path.iterdir())


def test_mistyped_commands(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evalute", "m.soapkrr", "f.xyz"])
    assert "there is no command 'evalute'; did you mean evaluate?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("`n_sparse`=9 exceeds", "`--n-sparse 9` exceeds"),
        (
            "no `noise` makes it positive; lower `signal`.",
            "no `--noise-energy, --noise-forces, --noise-stress` makes it positive; lower `--signal`.",
        ),
        ("frame 0: `forces` has shape (1,)", "frame 0: `forces` has shape (1,)"),
        ("`stress`='a' and `virial`='b' both", "`--stress-key a` and `--virial-key b` both"),
        ("`soapkrr.load(path)`", "`soapkrr.load(path)`"),
    ],
)
def test_parameters_in_messages_become_options(message, expected):
    names = ("n_sparse", "signal", "noise_energy", "noise_forces", "noise_stress", "stress_key", "virial_key")
    assert in_options(message, argparse.Namespace(**dict.fromkeys(names))) == expected
    assert in_options(message, argparse.Namespace(model="m")) == message  # a command without such options


def test_a_species_only_in_what_is_left_out_is_named():
    frames = [*crystals(3), Atoms("Ne2", positions=[[0, 0, 0], [3, 0, 0]])]
    with pytest.raises(soapkrr.InputError, match=r"`--cv` 4: part \d has species Ne \(frame 3\)"):
        held_out.parts(frames, 4, 0)


def test_info_says_what_the_fit_chose(run, capsys, tmp_path):
    run()
    text, data = (outcome(capsys, "info", tmp_path / "m.soapkrr", *more)[1] for more in ((), ("--json",)))
    model = soapkrr.load(tmp_path / "m.soapkrr")
    assert [c["name"] for c in json.loads(data)["choices"]] == [c.name for c in model.choices_]
    assert soapkrr.auto.summary(model) in text
