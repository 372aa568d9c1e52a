"""CUDA loops of the two-body features against their numba twins."""

import pytest
from ase import Atoms
from gpu_loops import assert_twins
from systems import build

from soapkrr import Pair, backends

VARIANTS = {"bspline": {"basis": "bspline"}, "gaussian": {"basis": "gaussian"}, "stretched": {"stretch": 1.0}}


@pytest.mark.parametrize("variant", VARIANTS)
def test_loops_of_an_alloy_equal_those_of_the_cpu(cuda, variant):
    assert_twins(cuda, Pair(["O", "Sr", "Ti"], 3.0, n_basis=9, **VARIANTS[variant]), [build("alloy")])


def test_more_features_than_threads_and_neighbours_that_are_images(cuda):
    assert_twins(cuda, Pair(["C", "Si"], 4, n_basis=70), [build("primitive")])


def test_species_that_do_not_occur_and_isolated_atoms(cuda):
    frames = [build("atom"), build("dimer"), build("atom"), Atoms("HClH", positions=[[0, 0, 0], [1.2, 0.1, 0], [0.3, 1.1, 0.2]])]
    assert_twins(cuda, Pair(["H", "Cl", "Ar", "Xe"], 3.0, n_basis=6), frames)


def test_blocks_of_a_batch(cuda):
    frames = [build("atom"), build("mixed"), build("alloy")]
    for start, stop in ((0, 1), (1, 4), (3, 7), (9, 10), (5, 5)):
        assert_twins(cuda, Pair(["Ar", "B", "N", "O", "Sr", "Ti"], 2.5, n_basis=5), frames, start, stop)


def test_many_neighbours_come_in_tiles(cuda, monkeypatch):
    monkeypatch.setattr(backends.of(cuda.empty(1)).pair, "TILE", 3)
    assert_twins(cuda, Pair(["O", "Sr", "Ti"], 3.0, n_basis=6), [build("alloy")], 1, 4)
