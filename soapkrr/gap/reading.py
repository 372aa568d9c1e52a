"""`load_gap`: a published Gaussian approximation potential as a model of this package."""

from __future__ import annotations

import os

import numpy as np
from ase import Atoms

from soapkrr.errors import InputError
from soapkrr.estimators.sparse_gp import SparseGP
from soapkrr.gap.core import core_potential
from soapkrr.gap.document import Document, read_document
from soapkrr.gap.parts import elements, terms_of
from soapkrr.gap.training import noise_of, terms_to_fit, training_structures
from soapkrr.regression.sparse.published import PublishedProcess
from soapkrr.regression.terms import Term
from soapkrr.structures import species_name


def load_gap(path: str | os.PathLike, *, refit: bool = False, threads: int | None = None, device: str = "cpu") -> SparseGP:
    """The Gaussian approximation potential of an XML file of QUIP, with the files of sparse points beside it.

    E = Σ_i e0(z_i) + Σ_i Σ_q δ² α_q (p_i·p_q)^ζ + Σ_i Σ_j f_c(r_ij) Σ_q δ² α_q exp(−(r_ij − x_q)²/2θ²), of descriptors ``soap`` and
    ``distance_2b`` (Bartók and Csányi 2015, doi 10.1002/qua.24927). The model predicts energies, forces and stresses, is an ASE calculator
    and can be saved; it has no error bars, as such files hold no covariance.

    Parameters
    ----------
    path : the XML file.  threads, device : as of the estimators.
    refit : fit anew to the training structures that the file embeds, with its sparse points, kernels and noise: nearly the same energies,
        and all that a posterior offers: error bars, leave-out (`gap_structures` are its data), calibration, updates.

    Raises
    ------
    InputError : a part of the file is not understood (its name is said; nothing is ignored), a file of sparse points is of the wrong
        length or another one, or the XML declares a document type.
    FileNotFoundError : a file is missing.
    """
    document = read_document(path)
    return fitted(document, threads, device) if refit else published(document, threads, device)


def gap_structures(path: str | os.PathLike) -> list[Atoms]:
    """The training structures that the file of a GAP embeds, with energies, forces and stresses as their labels.

    Raises
    ------
    InputError : there are none, or the file is not understood.
    """
    return training_structures(read_document(path))


def fitted(document: Document, threads: int | None, device: str) -> SparseGP:
    """The model of a file's data."""
    frames = training_structures(document)
    terms_of(document)  # raises where a part is not understood
    terms, noise = terms_to_fit(document, frames), noise_of(document, frames)
    return SparseGP(terms, noise=noise, baseline=baseline(document), threads=threads, device=device).fit(frames)


def published(document: Document, threads: int | None, device: str) -> SparseGP:
    """The model of a file's coefficients."""
    terms, weights = zip(*terms_of(document), strict=True)
    references = reference_energies(document)
    given = [Term(t.descriptor, t.kernel, max(1, max(map(len, t.points))), t.signal) for t in terms]
    model = SparseGP(given, baseline=baseline(document), threads=threads, device=device)
    process = PublishedProcess(terms, weights)
    model.restore(
        {
            "process": {"kind": PublishedProcess.__name__, **process.state()},
            "reference_energies": references,
            "n_observations": {},
            "noise": model._noise(),
            "log_likelihood": np.nan,
            "triangles": {},
        }
    )
    model.origin_ = {}
    return model


def baseline(document: Document) -> list:
    """Reference energies, and the core potential where there is one."""
    return [reference_energies(document), *([] if document.core is None else [core_potential(document.core)])]


def reference_energies(document: Document) -> dict[str, float]:
    """{symbol: eV} of the elements of the file."""
    numbers = elements(document)
    missing = [species_name(z) for z in numbers if not np.isfinite(document.e0.get(z, np.nan))]
    if missing:
        raise InputError(f"<GAP_data> has no energy `e0` of {missing[0]}.")
    return {species_name(z): document.e0[z] for z in numbers}
