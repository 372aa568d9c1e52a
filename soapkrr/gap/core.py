"""The core potential under a GAP: pair splines of QUIP's ``Glue``."""

from __future__ import annotations

from xml.etree import ElementTree

from soapkrr.baselines import PairSpline
from soapkrr.errors import InputError
from soapkrr.structures import species_name

#: From so large a slope on, QUIP means a spline without curvature at its end.
NATURAL = 0.99e30


def core_potential(glue: ElementTree.Element) -> PairSpline:
    """The pair splines of ``Glue_params``; one with energies of a density is refused."""
    unknown = sorted({part.tag for part in glue} - {"per_type_data", "per_pair_data"})
    if unknown:
        raise InputError(f"<Glue_params> has the part <{unknown[0]}>, which is not understood.")
    names = {}
    for part in glue.findall("per_type_data"):
        names[part.get("type")] = species_name(int(part.get("atomic_num", "0")))
        for energy in part.iter():
            if energy.tag not in ("per_type_data", "density", "potential_density", "point"):
                raise InputError(f"<per_type_data> has the part <{energy.tag}>, which is not understood.")
        if any(float(point.get("E", "nan")) != 0 for energy in part.findall("potential_density") for point in energy):
            raise InputError("<potential_density> has energies of a density: only a core potential of pairs is understood.")
    curves = []
    for part in glue.findall("per_pair_data"):
        pair = part.find("potential_pair")
        if pair is None or len(part) != 1:
            raise InputError("<per_pair_data> needs one <potential_pair>.")
        r, energies = ([float(point.get(name, "nan")) for point in pair] for name in ("r", "E"))
        slopes = [_slope(pair.get(name, "0")) for name in ("y1", "yn")]
        curves.append((f"{names[part.get('type1')]}-{names[part.get('type2')]}", r, energies, slopes))
    if not curves:
        raise InputError("<Glue_params> has no <per_pair_data>: only a core potential of pairs is understood.")
    return PairSpline(curves)


def _slope(text: str) -> float | None:
    value = float(text)
    return None if value > NATURAL else value
