"""`soapkrr compress`: a smaller model file, and messages that say what to do."""

import json

import pytest
from small import crystals, small_gp, soap

from soapkrr import DotProduct, GaussianProcess, load
from soapkrr.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from ase.io import write

    path = tmp_path_factory.mktemp("compress")
    small_gp(n_sparse=12).fit(crystals(8)).save(path / "m.soapkrr")
    GaussianProcess(soap(), DotProduct(2)).fit(crystals(2)).save(path / "exact.soapkrr")
    write(path / "test.xyz", crystals(2, seed=3))
    return path


def run(folder, *words):
    return main([word if word.startswith("-") or "." not in word or word[0].isdigit() else str(folder / word) for word in words])


def test_a_tolerance_makes_a_smaller_file(folder, capsys):
    assert run(folder, "compress", "m.soapkrr", "-o", "less.soapkrr", "--tolerance", "0.5", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["points"][1] < told["points"][0] == 12
    assert load(folder / "less.soapkrr").n_sparse_ == {"Ar": told["points"][1]}


def test_a_time_is_measured_on_structures(folder, capsys):
    assert run(folder, "compress", "m.soapkrr", "test.xyz", "-o", "timed.soapkrr", "--microseconds", "1000000000") == 0
    assert "µs per atom" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, message",
    [
        (["m.soapkrr"], "one of the two"),
        (["m.soapkrr", "--tolerance", "0"], "--tolerance"),
        (["m.soapkrr", "--microseconds", "5"], "needs FILE"),
        (["m.soapkrr", "test.xyz", "--microseconds", "0.000001"], "these structures take"),
        (["exact.soapkrr", "--tolerance", "0.1"], "no sparse points to leave out"),
    ],
)
def test_bad_input_is_one_line(folder, capsys, words, message):
    assert run(folder, "compress", *words, "-o", "new.soapkrr") == 2
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1
    assert not (folder / "new.soapkrr").exists()
