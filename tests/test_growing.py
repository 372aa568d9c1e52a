"""Exact processes that grow by rows are those that are fitted to everything at once."""

import copy
from pathlib import Path

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from small import assert_same_predictions, crystals

import soapkrr
from soapkrr import SOAP, DotProduct, GaussianProcess, InputError, KernelRidge, Pair, Term
from soapkrr.kernels import Linear

FILES = Path(__file__).parent / "files"

REFERENCES = {"Ar": -0.1}


def terms():
    return [
        Term(SOAP(["Ar"], r_cut=5.0, n_max=3, l_max=2), DotProduct(zeta=2)),
        Term(Pair(["Ar"], r_cut=5.0, n_basis=5), Linear(), signal=0.3),
    ]


def process(**options):
    return GaussianProcess(terms(), baseline=dict(REFERENCES), noise={"energy": 1e-3, "forces": 1e-2}, **options)


@pytest.mark.parametrize("parts", [[8], [1, 3, 4], [1] * 8], ids=str)
def test_growing_is_fitting_all(parts):
    frames = crystals(13)
    grown, start = process().fit(frames[:4]), 4
    for n in parts:
        grown.update(frames[start : start + n])
        start += n
    whole = process().fit(frames[:12])
    assert_same_predictions(grown, whole, frames[8:])
    assert grown.n_observations_ == whole.n_observations_
    assert grown.log_likelihood_ == pytest.approx(whole.log_likelihood_, abs=1e-6)
    assert grown.domain_.shortest == whole.domain_.shortest and grown.domain_.counts == whole.domain_.counts


def test_structures_of_other_sizes_and_kinds_of_labels():
    frames = crystals(6)
    more = [frames[3].repeat((2, 1, 1)), frames[4].copy(), frames[5]]
    more[0].calc, more[1].calc = None, None
    labelled = [frames[k] for k in range(3)]

    more[0].calc = SinglePointCalculator(more[0], energy=-1.0)
    partly = np.array(frames[4].calc.results["forces"])
    partly[0] = np.nan
    more[1].calc = SinglePointCalculator(more[1], forces=partly)
    more[1].set_array("force_mask", np.isnan(partly))
    observations = {"observations": soapkrr.Observations()}
    assert_same_predictions(process(**observations).fit(labelled).update(more), process(**observations).fit([*labelled, *more]), frames)


def test_references_can_change_as_it_grows():
    frames = crystals(8)
    grown = process().fit(frames[:5]).update(frames[5:], references={"Ar": 0.7})
    assert_same_predictions(grown, process().set_params(baseline={"Ar": 0.7}).fit(frames), frames)


def test_a_model_from_a_file_grows(tmp_path):
    frames = crystals(8)
    process().fit(frames[:5]).save(tmp_path / "m.soapkrr")
    assert_same_predictions(soapkrr.load(tmp_path / "m.soapkrr").update(frames[5:]), process().fit(frames), frames)


def test_kernel_ridge_regression_grows():
    frames = crystals(8)
    ridge = KernelRidge(terms(), alpha=1e-3, baseline=dict(REFERENCES))
    p, q = (
        model.predict(frames) for model in (ridge.fit(frames[:5]).update(frames[5:]), KernelRidge(**ridge.get_params(False)).fit(frames))
    )
    np.testing.assert_allclose(np.concatenate(p.forces), np.concatenate(q.forces), rtol=0, atol=1e-8)


def test_a_copy_grows_alone():

    frames = crystals(6)
    model = process().fit(frames[:4])
    before = model.predict(frames[5]).energy[0]
    copy.copy(model).update(frames[4])
    assert model.predict(frames[5]).energy[0] == before


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: process(solver="cg").fit(crystals(4)), "conjugate gradients has none"),
        (lambda: soapkrr.load(FILES / "2-exact-cholesky.soapkrr"), "does not state what it was fitted to"),
    ],
)
def test_what_cannot_grow(model, message):
    fitted = model()
    species = sorted(fitted.reference_energies_)
    frames = [atoms for atoms in crystals(1) if set(atoms.symbols) <= set(species)] or crystals(1)
    for atoms in frames:
        atoms.calc.atoms.numbers = atoms.numbers = np.full(len(atoms), atomic_numbers[species[0]])
    with pytest.raises(InputError, match=message):
        fitted.update(frames)


def test_the_data_of_a_grown_model_are_not_stated():
    frames = crystals(6)
    with pytest.raises(InputError, match="after an `update`"):
        process().fit(frames[:5]).update(frames[5]).leave_out(frames)
