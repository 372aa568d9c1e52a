"""Variants of the recipe that a fit without knobs tries: descriptors in which species share what is learnt of them.

None of them is better everywhere. Errors of left-out training structures (root mean square, meV/atom and meV/Å, exact process of the
recipe) of elements and binary alloys of four metals labelled by effective-medium theory; first Cu, Ag, Au, Pd, then Ni, Cu, Pt, Al: plain
15.3, 119 and 27.0, 173; ``mu1nu1`` 4.8, 64 and 15.1, 97; two pseudo-species with `LENGTHS` 5.2, 31 and 9.0, 45; three with four times the
lengths 0.7, 11.9 and 3.5, 32.5; four 0.8, 12.3 and 2.7, 32.0; the same with coupled centres 0.6, 7.9 and 3.2, 30.5. Products of both
(`Coupled`) cost six times as much and were no better than sums (`CoupledSum`). Leaving out all structures of a chemical system at once,
instead of one structure, tells plain SOAP from these too, but says less of how they compare: what of two metals was known from others alone
is too far away.
"""

from __future__ import annotations

from ase.data import atomic_numbers

from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.compression import CompressedSOAP
from soapkrr.descriptors.coupling import CoupledSum
from soapkrr.descriptors.elements import ELECTRONEGATIVITY, LENGTHS, element_embedding
from soapkrr.descriptors.soap import SOAP

#: Lengths of the similarity of elements, in units of `LENGTHS`.
STRETCHES = (2.0, 4.0)

#: Part that the coupling of centres has in products of features.
SHARE = 0.5

#: Species from which on there are this many pseudo-species, few and more.
SIZES = {6: (4, 6), 4: (3, 4)}


def of_species(soap: SOAP) -> list[tuple[str, Descriptor]]:
    """Descriptors in which species share what is learnt of them, by name; none for one species.

    Elements beyond curium have no `element_similarity`, and all that is left is ``mu1nu1``.

    Examples
    --------
    >>> [name for name, _ in of_species(SOAP(["Cu", "Au"], r_cut=4.0, n_max=3, l_max=2))]
    ['species with all', '2 pseudo-species', '2 pseudo-species, more alike', '2 pseudo-species, more alike, centres coupled']
    """
    species = soap.species
    if len(species) == 1 or type(soap) is not SOAP:
        return []
    own = soap.get_params(deep=False)
    found: list[tuple[str, Descriptor]] = [("species with all", CompressedSOAP(**own, compression="mu1nu1"))]
    if all(atomic_numbers[str(s)] < len(ELECTRONEGATIVITY) for s in species):
        few, more = next((sizes for least, sizes in SIZES.items() if len(species) >= least), (len(species),) * 2)
        less_alike, alike = STRETCHES
        for k, stretch in ((few, alike if few < more else less_alike), (more, alike)):
            name = f"{k} pseudo-species" + (", more alike" if stretch == alike else "")
            found.append((name, CompressedSOAP(**own, embedding=embedding(species, k, stretch))))
        name, mixed = found[-1]
        found.append((f"{name}, centres coupled", CoupledSum(mixed, embedding(species, len(species)), SHARE)))
    return found


def embedding(species, n_components: int, stretch: float = 1.0):
    """`element_embedding` with all `LENGTHS` stretched."""
    return element_embedding(species, n_components, {name: stretch * length for name, length in LENGTHS.items()})
