"""Descriptors in which species share what is learnt of them: what is worth trying beside the plain SOAP of several species.

None of them is better everywhere. Errors of left-out training structures (root mean square, meV/atom, meV/Å; exact process, ζ = 3) of
elements and binary alloys of Cu, Ag, Au, Pd labelled by effective-medium theory: plain 15.8, 134; ``mu1nu1`` 5.4, 73; two pseudo-species
3.8, 36; four with four times the lengths 1.3, 22; the same with coupled centres 0.7, 11, and products of both (`Coupled`), six times as
costly, 1.1, 14.
"""

from __future__ import annotations

from ase import Atoms
from ase.data import atomic_numbers

from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.compression import CompressedSOAP
from soapkrr.descriptors.coupling import CoupledSum
from soapkrr.descriptors.elements import ELECTRONEGATIVITY, LENGTHS, element_embedding
from soapkrr.descriptors.soap import SOAP

#: Numbers of pseudo-species, and lengths of the similarity of elements in units of `LENGTHS`.
COMPONENTS, STRETCHES = (2, 3, 4, 6), (1.0, 4.0)

#: Part that the coupling of centres has in products of features.
SHARE = 0.5


def species_candidates(soap: SOAP, frames: list[Atoms]) -> list[tuple[str, Descriptor]]:
    """Descriptors to try beside ``soap`` for these structures, by what is different in them; those of few features first.

    None where the structures have one species only, or for descriptors other than `SOAP`; elements beyond curium have no similarity,
    and all that is left is ``mu1nu1``. Whoever takes one of them should have seen that it makes errors of left-out structures smaller.

    Examples
    --------
    >>> from ase import Atoms
    >>> [name for name, _ in species_candidates(SOAP(["Cu", "Au"], r_cut=4.0, n_max=3, l_max=2), [Atoms("CuAu")])]
    ['each species with all', '2 pseudo-species', '2 pseudo-species, more alike', '2 pseudo-species, more alike, centres coupled']
    """
    present = {symbol for atoms in frames for symbol in atoms.symbols}
    if type(soap) is not SOAP or len(present) < 2:
        return []
    own, species = soap.get_params(deep=False), soap.species
    found: list[tuple[str, Descriptor]] = [("each species with all", CompressedSOAP(**own, compression="mu1nu1"))]
    if all(atomic_numbers[str(s)] < len(ELECTRONEGATIVITY) for s in species):
        for k in (k for k in COMPONENTS if k <= len(species)):
            for stretch in STRETCHES:
                name = f"{k} pseudo-species" + (", more alike" if stretch > 1 else "")
                found.append((name, CompressedSOAP(**own, embedding=embedding(species, k, stretch))))
            if k > 2 or k == len(species):
                found.append((f"{name}, centres coupled", CoupledSum(found[-1][1], embedding(species, len(species)), SHARE)))
    return sorted(found, key=lambda candidate: candidate[1].n_features)


def embedding(species, n_components: int, stretch: float = 1.0):
    """`element_embedding` with all `LENGTHS` stretched."""
    return element_embedding(species, n_components, {name: stretch * length for name, length in LENGTHS.items()})
