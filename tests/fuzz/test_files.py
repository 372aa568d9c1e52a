"""Damaged model files are refused, or were damaged where it does not matter: never other numbers, never much memory."""

from __future__ import annotations

import pytest
import stored_models
from files import KINDS, attempts, mutants
from harness import REFUSED, Limits, failures, run


@pytest.mark.parametrize("kind", sorted(stored_models.models()))
def test_nothing_damaged_is_loaded(kind, tmp_path):
    """The same numbers come from bits that mean nothing, such as dates of members, and from changes of an array into itself."""
    table = run(kind, attempts(4 * len(KINDS), 1, tmp_path, (f"2-{kind}.soapkrr",)), Limits(seconds=30))
    assert not failures(table)
    assert table.total()[REFUSED] > 0.9 * 4 * len(KINDS)


@pytest.mark.parametrize("kind", ["sparse-terms", "exact-cg", "property-intensive"])
def test_nothing_damaged_of_version_1_ends_in_another_error(kind, tmp_path):
    table = run(kind, attempts(4 * len(KINDS), 2, tmp_path, (f"1-{kind}.soapkrr",)), Limits(seconds=30))
    assert not failures(table)
    assert table.total()[REFUSED] > 2 * len(KINDS)


def test_mutants_are_those_of_the_seed():
    path = stored_models.HERE / "2-sparse-terms.soapkrr"
    first, again, other = (list(mutants(path, 40, seed)) for seed in (3, 3, 4))
    assert [name for name, _ in first] == [name for name, _ in again] and sum(a != b for a, b in zip(first, again, strict=True)) == 0
    assert sum(a[1] != b[1] for a, b in zip(first, other, strict=True)) > 20
