"""What is worth trying beside the recipe for solids with many labels: longer cutoffs, sharper kernels, more sparse points.

None of them is better everywhere. Errors of left-out structures (mean absolute, meV/atom, meV/Å; five folds of the training data), recipe
first: lithium, 241 structures, 0.29, 7.1, with the longer cutoff 0.23, 6.5; silicon, 214, 2.18, 56.2 and 2.14, 56.6; titanium dioxide,
300, 2.20, 94; longer and sharper 1.84, 86, with mixed channels and more points 1.88, 78; but copper with effective-medium labels, 40
structures, 2.6, 77 and 4.4, 93, and of four such metals a sharper kernel made all errors larger. What gave nothing on any of these:
sums of a short and a long SOAP at the same number of sparse points (lithium 0.29, 7.0; titanium dioxide 1.90, 79), pair potentials
beside the SOAP, more radial or angular functions, and other selections.
"""

from __future__ import annotations

import numpy as np
from ase import Atoms
from sklearn.base import clone

from soapkrr.description import SAMPLE, nearest_distance
from soapkrr.descriptors.compression import CompressedSOAP
from soapkrr.descriptors.soap import SOAP
from soapkrr.estimators.sparse_gp import SparseGP
from soapkrr.kernels import DotProduct

#: The longer cutoff in units of the usual distance of nearest neighbours, and its bounds, Å.
REACH, BOUNDS = 2.65, (4.0, 7.0)

#: Part of the channels that mixed ones keep: products of fewer features pay for `MORE` × the sparse points, up to `MOST` of them and
#: half of the environments.
MIXED, MORE, MOST = 2 / 3, 1.8, 3_000


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
    soap, found = recipe.descriptor, []
    nearest = nearest_distance(frames[:: max(1, len(frames) // SAMPLE)])
    longer = soap.with_params(r_cut=max(soap.r_cut, float(np.clip(round(REACH * nearest, 1), *BOUNDS))))
    if longer != soap:
        found.append(("longer cutoff", clone(recipe).set_params(descriptor=longer)))
    if len(soap.species) > 1:
        sharper = DotProduct(zeta=recipe.kernel.zeta + 1)
        found.append(("longer cutoff, sharper kernel", clone(recipe).set_params(descriptor=longer, kernel=sharper)))
        mixed = CompressedSOAP(**longer.get_params(deep=False), contraction=max(1, round(MIXED * soap.n_channels)))
        own = {"descriptor": mixed, "kernel": sharper, "n_sparse": _more(recipe.n_sparse, frames)}
        found.append(("the same, channels mixed, more sparse points", clone(recipe).set_params(**own)))
    return found


def _more(n_sparse, frames: list[Atoms]):
    """`MORE` × the sparse points; numbers by species stay."""
    if not isinstance(n_sparse, (int, np.integer)):
        return n_sparse
    return max(int(n_sparse), int(min(MORE * n_sparse, MOST, sum(map(len, frames)) // 2)))
