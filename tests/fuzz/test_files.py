"""Damaged model files are refused, or were damaged where it does not matter: never other numbers, never much memory."""

from __future__ import annotations

import tracemalloc

import pytest
import stored_models
from files import KINDS, mutants

import soapkrr
from soapkrr import InputError

#: Memory beside three times the file: what Python takes for a zip and the errors.
SPARE = 2**20


def outcome(content: bytes, path, wanted) -> str:
    """'refused', 'same', 'other' or 'large' of a file with this content."""
    path.write_bytes(content)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    try:
        model = soapkrr.load(path)
    except InputError as error:
        return "refused" if tracemalloc.get_traced_memory()[1] - before < 3 * len(content) + SPARE and path.name in str(error) else "large"
    return "same" if wanted is None or stored_models.predictions(model, stored_models.structures()[:2]) == wanted else "other"


def outcomes(name: str, n: int, seed: int, tmp_path) -> dict[str, str]:
    """{mutant: outcome}; of version 1, which has no digests, all that loads counts as the same."""
    path = stored_models.HERE / name
    loaded = soapkrr.load(path)
    wanted = stored_models.predictions(loaded, stored_models.structures()[:2]) if name.startswith("2") else None
    tracemalloc.start()
    try:
        return {mutant: outcome(content, tmp_path / "m.soapkrr", wanted) for mutant, content in mutants(path, n, seed)}
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", sorted(stored_models.models()))
def test_nothing_damaged_is_loaded(kind, tmp_path):
    """The same numbers come from bits that mean nothing, such as dates of members, and from changes of an array into itself."""
    found = outcomes(f"2-{kind}.soapkrr", 4 * len(KINDS), 1, tmp_path)
    assert set(found.values()) <= {"refused", "same"}, {name: what for name, what in found.items() if what in ("other", "large")}
    assert sum(what == "refused" for what in found.values()) > 0.9 * len(found)


@pytest.mark.parametrize("kind", ["sparse-terms", "exact-cg", "property-intensive"])
def test_nothing_damaged_of_version_1_ends_in_another_error(kind, tmp_path):
    found = outcomes(f"1-{kind}.soapkrr", 4 * len(KINDS), 2, tmp_path)
    assert set(found.values()) <= {"refused", "same"}
    assert sum(what == "refused" for what in found.values()) > len(found) / 2


def test_mutants_are_those_of_the_seed():
    path = stored_models.HERE / "2-sparse-terms.soapkrr"
    first, again, other = (list(mutants(path, 40, seed)) for seed in (3, 3, 4))
    assert [name for name, _ in first] == [name for name, _ in again] and sum(a != b for a, b in zip(first, again, strict=True)) == 0
    assert sum(a[1] != b[1] for a, b in zip(first, other, strict=True)) > 20
