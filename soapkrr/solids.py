"""What is worth trying beside the recipe for solids: nearer scaling, longer cutoffs, sharper kernels, more sparse points.

None of them is better everywhere. Errors of left-out structures (mean absolute, meV/atom and meV/Å; five folds of the training data), the
recipe first: lithium, 241 structures, 0.29 and 7.1, with the longer cutoff 0.23 and 6.5; silicon, 214, 2.18 and 56.2, then 2.14 and 56.6;
titanium dioxide, 300, 2.20 and 94, nearer 1.94 and 89, longer and sharper too 1.84 and 86, and with mixed channels and more points 1.88 and
78. But copper with effective-medium labels, 40 structures, 3.2 and 87, nearer 2.6 and 77, became 4.4 and 93 with the longer cutoff, and a
sharper kernel was worse for four such metals. What did not pay: sums of a short and a long SOAP of as many sparse points in all, pair
potentials beside the SOAP, more radial or angular functions, lengths in units of the cube root of the volume per atom (a quarter of
titanium dioxide 17.5 and 240 → 243 and 439, of their square root 49 and 280, root mean squares).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from sklearn.base import clone

from soapkrr.description import nearest_distance, some_of
from soapkrr.descriptors.compression import CompressedSOAP
from soapkrr.descriptors.soap import SOAP
from soapkrr.estimators.sparse_gp import SparseGP
from soapkrr.kernels import DotProduct

#: Where the weight of neighbours starts to fall, in units of the usual distance of nearest neighbours.
NEAR = 1.3

#: The longer cutoff in units of the usual distance of nearest neighbours, and its bounds, Å.
REACH, BOUNDS = 2.65, (4.0, 7.0)

#: Part of the channels that mixed ones keep: products of fewer features pay for `MORE` × the sparse points, up to `MOST` of them and
#: half of the environments.
MIXED, MORE, MOST = 2 / 3, 1.8, 3_000

#: Parameters that candidates have other values of.
VARIED = ("r_cut", "scaling", "zeta", "n_sparse")


def candidates(frames: list[Atoms], recipe: SparseGP) -> list[tuple[str, SparseGP]]:
    """Estimators to try beside the ``recipe`` for these structures, unfitted, by what is different in them; cheapest first.

    None for molecules, for an exact process (which has few labels: the longer cutoff is for many), and for descriptors and kernels other
    than `SOAP` and `DotProduct`. Whoever takes one of them should have seen that it makes errors of left-out structures smaller.

    Parameters
    ----------
    frames : the structures.  recipe : what is chosen for them by `soapkrr.auto.choose`.
    """
    plain = isinstance(recipe, SparseGP) and type(recipe.descriptor) is SOAP and isinstance(recipe.kernel, DotProduct)
    if not (plain and any(atoms.pbc.any() for atoms in frames)):
        return []
    nearest = nearest_distance(some_of(frames))
    soap = _nearer(recipe.descriptor, nearest)
    longer = soap.with_params(r_cut=max(soap.r_cut, float(np.clip(round(REACH * nearest, 1), *BOUNDS))))
    if len(soap.species) == 1:  # the longer cutoff was better for few near neighbours, with the scaling of the recipe
        longer = longer.with_params(scaling=recipe.descriptor.scaling)
    own = [("nearer scaling", {"descriptor": soap}), ("longer cutoff", {"descriptor": longer})]
    if len(soap.species) > 1:
        sharper = DotProduct(zeta=recipe.kernel.zeta + 1)
        mixed = CompressedSOAP(**longer.get_params(deep=False), contraction=max(1, round(MIXED * soap.n_channels)))
        more = {"descriptor": mixed, "kernel": sharper, "n_sparse": _more(recipe.n_sparse, frames)}
        own.append(("longer cutoff, sharper kernel", {"descriptor": longer, "kernel": sharper}))
        own.append(("the same, channels mixed, more sparse points", more))
    found = [(name, _with(recipe, parts)) for name, parts in own]
    return [(name, model) for k, (name, model) in enumerate(found) if k > 1 or model.descriptor != recipe.descriptor]


def _with(recipe: SparseGP, parts: dict) -> SparseGP:
    """An unfitted copy with other parameters."""
    model: Any = clone(recipe)
    return model.set_params(**parts)


def _nearer(soap: SOAP, nearest: float) -> SOAP:
    """With a scaling that falls at the neighbours, unless it falls before them already."""
    r0 = round(NEAR * nearest, 1)
    return soap if soap.scaling is None or soap.scaling.r0 <= r0 else soap.with_params(scaling=replace(soap.scaling, r0=r0))


def _more(n_sparse, frames: list[Atoms]):
    """`MORE` × the sparse points; numbers by species stay."""
    if not isinstance(n_sparse, (int, np.integer)):
        return n_sparse
    return max(int(n_sparse), int(min(MORE * n_sparse, MOST, sum(map(len, frames)) // 2)))
