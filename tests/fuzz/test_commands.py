"""Command lines with something wrong in them end with one line and exit code 2, whatever it is; nothing is left behind."""

import argparse
import os

import pytest
from command_line import outcome
from commands import MAKERS, attempts, options
from harness import REFUSED, RIGHT, Limits, failures, run
from small import crystals, small_gp

from soapkrr import InputError, cli, load


@pytest.mark.filterwarnings("default::soapkrr.DataWarning")  # which a command prints
def test_command_lines(tmp_path, capsys):
    table = run("cli", attempts(12 * len(MAKERS), 1, tmp_path / "shop"), Limits(seconds=30))
    assert not failures(table)
    assert table.rows["sound"][RIGHT] == 12 and table.total()[REFUSED] > 6 * len(MAKERS)


def test_options_are_read_off_the_parser():
    assert ("--r-cut", True) in options()["fit"] and ("--resume", False) in options()["relax"]
    assert isinstance(cli.build_parser(), argparse.ArgumentParser)


# --- past failures ---


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with m.soapkrr."""
    small_gp().fit(crystals(4)).save(tmp_path / "m.soapkrr")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names on this system")
@pytest.mark.parametrize("line", ["relax m.soapkrr pipe -o o.xyz", "info pipe", "predict pipe m.soapkrr -o o.csv"])
def test_a_pipe_is_not_waited_for(folder, capsys, line):
    os.mkfifo(folder / "pipe")
    code, out, err = outcome(capsys, *line.split())
    assert (code, out, err.count("\n")) == (2, "", 1) and "pipe" in err
    with pytest.raises(InputError, match="a pipe or a device"):
        load(folder / "pipe")


@pytest.mark.parametrize("count", [10**12, 10**30, 50])
def test_a_count_of_atoms_that_the_file_cannot_hold(folder, capsys, count):
    (folder / "huge.xyz").write_text(f"1\n\nAr 0 0 0\n{count}\n\nAr 0 0 0\n")
    code, out, err = outcome(capsys, "evaluate", "m.soapkrr", "huge.xyz")
    assert (code, out) == (2, "") and f"it announces {count} atoms, more than it has bytes left" in err


def test_two_dashes_are_no_value(folder, capsys):
    """Some versions of `argparse` make an empty list of them."""
    code, out, err = outcome(capsys, "evaluate", "m.soapkrr", "m.soapkrr", "--by=--")
    assert (code, out, err.count("\n")) == (2, "", 1) and "argument --by: expected a value" in err
