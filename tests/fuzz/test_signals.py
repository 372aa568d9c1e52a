"""Commands that a signal ends leave whole files, every finished row, and nothing else; children of forks predict."""

import os

import pytest
from forks import attempts as forks
from harness import RIGHT, Limits, failures, run
from signals import attempts as signals

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Python 3.12 and later: of forks where there are threads
]


def test_signals(tmp_path):
    table = run("signals", signals(16, 1, tmp_path / "shop"), Limits(seconds=100, patience=200))
    assert not failures(table)
    assert table.total()[RIGHT] > 8


def test_forks_while_threads_predict():
    table = run("forks", forks(10, 1), Limits(seconds=60, patience=100))
    assert not failures(table) and table.total()[RIGHT] == 10
