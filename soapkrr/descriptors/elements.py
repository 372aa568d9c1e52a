"""How alike elements are by their place in the periodic table, before any data are seen.

Group and period follow from the atomic number; covalent radii are those of `ase.data` (Cordero et al. 2008, doi 10.1039/b801115j);
electronegativities are Pauling's as revised by Allred 1961, doi 10.1016/0022-1902(61)80142-5. Species then overlap as in Willatt et al.
2018, doi 10.1039/C8CP05921G, there with similarities learnt from data.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase.data import atomic_numbers, covalent_radii

from soapkrr.descriptors.base import symbols
from soapkrr.descriptors.compression import similarity_embedding
from soapkrr.errors import InputError, require_positive

#: Pauling's electronegativities from hydrogen on, a row of the periodic table after the other. Tl and Pb: of Tl(I) and Pb(II).
_PAULING = """
2.20 4.16
0.98 1.57 2.04 2.55 3.04 3.44 3.98 4.79
0.93 1.31 1.61 1.90 2.19 2.58 3.16 3.24
0.82 1.00 1.36 1.54 1.63 1.66 1.55 1.83 1.88 1.91 1.90 1.65 1.81 2.01 2.18 2.55 2.96 3.00
0.82 0.95 1.22 1.33 1.60 2.16 1.90 2.20 2.28 2.20 1.93 1.69 1.78 1.96 2.05 2.10 2.66 2.60
0.79 0.89 1.10 1.12 1.13 1.14 1.155 1.17 1.185 1.20 1.21 1.22 1.23 1.24 1.25 1.26 1.27
1.30 1.50 2.36 1.90 2.20 2.20 2.28 2.54 2.00 1.62 1.87 2.02 2.00 2.20 2.20
0.79 0.90 1.10 1.30 1.50 1.38 1.36 1.28 1.28 1.28
"""

#: (n,) by atomic number, NaN for none (0).
ELECTRONEGATIVITY = np.array([np.nan, *map(float, _PAULING.split())])

#: Elements without a value of Pauling's: He, Ne, Ar have Allen's (1989, doi 10.1021/ja00207a003), lanthanides the mean of both neighbours
#: in their row, Rn that of At, Fr that of Cs, Am and Cm that of Pu.
ESTIMATED = ("He", "Ne", "Ar", "Pm", "Eu", "Tb", "Yb", "Rn", "Fr", "Am", "Cm")

#: Atomic numbers of the noble gases, with none before the first row.
_CLOSED = np.array([0, 2, 10, 18, 36, 54, 86, 118])

#: Distances over which elements stop being alike: columns, rows, Å, Pauling units.
LENGTHS = {"group": 4.0, "period": 4.0, "radius": 0.5, "electronegativity": 1.0}


def place_in_table(number: int) -> tuple[int, int]:
    """Group (1 to 18) and period of an element; lanthanides and actinides stand in group 3, from which none of them is far."""
    period = int(np.searchsorted(_CLOSED, number))
    place, length = number - _CLOSED[period - 1], _CLOSED[period] - _CLOSED[period - 1]
    left = {2: 1, 8: 2, 18: 3, 32: 3}[int(length)]
    inner = {2: 0, 8: 0, 18: 0, 32: 14}[int(length)]
    if place <= left:
        return int(place), period
    return (3 if place <= left + inner else int(18 - (length - place))), period


def element_features(species) -> np.ndarray:
    """(n_species, 4) group, period, covalent radius (Å) and electronegativity (Pauling), ordered by atomic number.

    Raises
    ------
    InputError : a species is no element, or lies beyond curium, where none of this is known.
    """
    rows = []
    for symbol in symbols(species):
        number = atomic_numbers[symbol]
        if number >= len(ELECTRONEGATIVITY):
            raise InputError(
                f"`species` holds {symbol}, of which no radius and no electronegativity are known (elements up to Cm have them); "
                "give a `similarity` of your own to `similarity_embedding`."
            )
        rows.append([*place_in_table(number), covalent_radii[number], ELECTRONEGATIVITY[number]])
    return np.array(rows, dtype=float)


def element_similarity(species, lengths: Mapping[str, float] | None = None) -> np.ndarray:
    """κ_zz′ = exp(−½ Σ_k (f_k(z) − f_k(z′))²/ℓ_k²), positive definite, of group, period, covalent radius and electronegativity f.

    Parameters
    ----------
    species : chemical symbols or atomic numbers.
    lengths : ℓ of some of {``"group"``, ``"period"``, ``"radius"`` (Å), ``"electronegativity"`` (Pauling units)}, `LENGTHS` for the
        others. The longer, the more alike elements are; ``numpy.inf`` leaves a property out.

    Returns
    -------
    (n_species, n_species), species ordered by atomic number as in `SOAP.species`; ones on the diagonal.

    Raises
    ------
    InputError : an element has no data, or a length is unknown or not positive.

    Examples
    --------
    >>> element_similarity(["Cu", "Ag", "Na"]).round(2).tolist()
    [[1.0, 0.02, 0.02], [0.02, 1.0, 0.94], [0.02, 0.94, 1.0]]
    """
    lengths = dict(lengths or {})
    unknown = sorted(set(lengths) - set(LENGTHS))
    if unknown:
        raise InputError(f"`lengths` has unknown names {unknown}; it takes {list(LENGTHS)}.")
    require_positive(**{f"lengths[{name!r}]": length for name, length in lengths.items() if length != np.inf})
    x = element_features(species) / np.array([lengths.get(name, length) for name, length in LENGTHS.items()])
    return np.exp(-0.5 * np.square(x[:, None] - x[None]).sum(axis=2))


def element_embedding(species, n_components: int, lengths: Mapping[str, float] | None = None) -> np.ndarray:
    """W (n_species, K) of unit rows with W Wᵀ ≈ `element_similarity`: K pseudo-species, each element a mixture of them.

    For ``CompressedSOAP(embedding=...)``, where W mixes the densities of neighbours, and `Coupled`, where it mixes what is learnt of
    centres. The rows are those of the best approximation of rank K, scaled to |w_z| = 1: no element counts less for being unlike others.

    Parameters
    ----------
    species, lengths : as of `element_similarity`.  n_components : K, from 1 to the number of species.

    Raises
    ------
    InputError : as of `element_similarity`, or K is out of range.

    Examples
    --------
    >>> W = element_embedding(["Cu", "Ag", "Au", "Pd"], 2)
    >>> W.shape, (W**2).sum(axis=1).round(12).tolist()
    ((4, 2), [1.0, 1.0, 1.0, 1.0])
    """
    similarity = element_similarity(species, lengths)
    whole = isinstance(n_components, (int, np.integer)) and not isinstance(n_components, bool)
    if not (whole and 1 <= n_components <= len(similarity)):
        raise InputError(
            f"`n_components` must be an integer from 1 to {len(similarity)}, the number of species; received {n_components!r}."
        )
    W = similarity_embedding(similarity, int(n_components))
    return W / np.linalg.norm(W, axis=1)[:, None]
