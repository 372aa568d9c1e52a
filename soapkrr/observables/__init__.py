"""Numbers that potentials are made for, with error bars: lattices, elastic constants, phonons, defects, curves, barriers, averages.

Each is one call on a fitted potential, or on any calculator of ASE, which then has no bars. Bars come from the exact joint posterior
where a number is linear in energies, forces and stresses, by the delta method where a minimum or a root is involved, and from samples of
the posterior where neither holds; `Number.method` says which.
"""

from soapkrr.display import only_public
from soapkrr.observables.averages import Average, average
from soapkrr.observables.barriers import barrier
from soapkrr.observables.curves import Curve, dimer, mixing, stacking_fault, torsion
from soapkrr.observables.elastic import ElasticConstants, elastic_constants
from soapkrr.observables.energies import (
    EnergyDifference,
    cohesive_energy,
    difference,
    formation_energy,
    interstitial,
    surface,
    vacancy,
)
from soapkrr.observables.eos import EquationOfState, equation_of_state
from soapkrr.observables.expansion import Expansion, expansion
from soapkrr.observables.lattice import Lattice, lattice
from soapkrr.observables.number import Next, Number, Result
from soapkrr.observables.phases import Phases, phases
from soapkrr.observables.phonons import Bands, Phonons, Spectrum, phonons
from soapkrr.observables.vibrations import Vibrations, vibrations

__all__ = [
    "Average",
    "Bands",
    "Curve",
    "ElasticConstants",
    "EnergyDifference",
    "EquationOfState",
    "Expansion",
    "Lattice",
    "Next",
    "Number",
    "Phases",
    "Phonons",
    "Result",
    "Spectrum",
    "Vibrations",
    "average",
    "barrier",
    "cohesive_energy",
    "difference",
    "dimer",
    "elastic_constants",
    "equation_of_state",
    "expansion",
    "formation_energy",
    "interstitial",
    "lattice",
    "mixing",
    "phases",
    "phonons",
    "stacking_fault",
    "surface",
    "torsion",
    "vacancy",
    "vibrations",
]

__dir__ = only_public(__name__)
