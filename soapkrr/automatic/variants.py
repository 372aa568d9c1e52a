"""Variants of the recipe that a fit without knobs tries."""

from __future__ import annotations

from soapkrr.descriptors.base import Descriptor
from soapkrr.descriptors.compression import CompressedSOAP
from soapkrr.descriptors.soap import SOAP


def of_species(soap: SOAP) -> list[tuple[str, Descriptor]]:
    """Descriptors in which species share what is learnt of them, by name; none for one species."""
    if len(soap.species) == 1 or type(soap) is not SOAP:
        return []
    return [("species with all", CompressedSOAP(**soap.get_params(deep=False), compression="mu1nu1"))]
