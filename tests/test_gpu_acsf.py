"""CUDA loops of the symmetry functions against their numba twins."""

import numpy as np
import pytest
from ase import Atoms
from gpu_loops import assert_twins
from systems import build

from soapkrr import ACSF, InputError, backends
from soapkrr.structures import Batch

FUNCTIONS = dict(
    g2_params=[(1.0, 0.0), (0.3, 1.5)],
    g3_params=[0.7, 2.0],
    g4_params=[(0.01, 1, 1), (0.05, 2, -1), (0.05, 3.5, 0.5), (0.2, 16, -1)],
    g5_params=[(0.02, 4, 1), (0.05, 1, -1)],
)
VARIANTS = {
    "elements": {},
    "weighted": {"weighted": True},
    "radial only": {"g4_params": (), "g5_params": ()},
    "G4 only": {"g2_params": (), "g3_params": (), "g5_params": ()},
    "G5 only": {"g2_params": (), "g3_params": (), "g4_params": ()},
}


def acsf(names, r_cut=3.0, **changes) -> ACSF:
    return ACSF(species=names, r_cut=r_cut, **{**FUNCTIONS, **changes})


def loops(cuda):
    return backends.of(cuda.empty(1)).acsf


@pytest.mark.parametrize("variant", VARIANTS)
def test_loops_of_an_alloy_equal_those_of_the_cpu(cuda, variant):
    assert_twins(cuda, acsf(["O", "Sr", "Ti"], **VARIANTS[variant]), [build("alloy")])


@pytest.mark.parametrize("variant", ["elements", "weighted"])
def test_species_that_do_not_occur_and_isolated_atoms(cuda, variant):
    frames = [build("atom"), build("dimer"), build("atom"), Atoms("HClH", positions=[[0, 0, 0], [1.2, 0.1, 0], [0.3, 1.1, 0.2]])]
    assert_twins(cuda, acsf(["H", "Cl", "Ar", "Xe"], **VARIANTS[variant]), frames)


def test_blocks_of_a_batch(cuda):
    frames = [build("atom"), build("mixed"), build("alloy")]
    descriptor = acsf(["Ar", "B", "N", "O", "Sr", "Ti"], 2.5, g5_params=())
    for start, stop in ((0, 1), (1, 4), (3, 7), (9, 10), (5, 5)):
        assert_twins(cuda, descriptor, frames, start, stop)


@pytest.mark.parametrize("tile, shared", [(1, 16), (4, 14), (7, 9)])
def test_many_neighbours_come_in_tiles_and_chunks(cuda, monkeypatch, tile, shared):
    monkeypatch.setattr(loops(cuda), "TILE", tile)
    monkeypatch.setattr(loops(cuda), "SHARED", shared * 1024)
    assert_twins(cuda, acsf(["O", "Sr", "Ti"]), [build("alloy")], 1, 4)
    assert_twins(cuda, acsf(["Si"], 4.0), [build("primitive")])


def test_more_neighbours_than_a_tile_holds(cuda):
    batch, descriptor = Batch.from_atoms([build("primitive")]), acsf(["Si"], 7.0)
    assert np.diff(batch.pairs(7.0).offsets).min() > loops(cuda).TILE
    assert_twins(cuda, descriptor, [build("primitive")], 0, 1)


def test_same_bits_every_time(cuda):
    descriptor, atoms = acsf(["B", "N"]), build("mixed")
    batch = Batch.from_atoms([atoms])
    pairs = backends.moved(cuda, descriptor.arrays(batch))
    first, second = (descriptor.compute(0, 4, pairs)[0].get() for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_too_many_functions_for_shared_memory_are_refused(cuda):
    descriptor = acsf(["B"], g4_params=[(0.01, 1 + 0.01 * k, 1) for k in range(4000)])
    with pytest.raises(InputError, match="4001 distinct"):
        assert_twins(cuda, descriptor, [Atoms("B")])
