"""Labels that structures carry: energies, forces, stresses and other properties, their names, and how far each is trusted."""

from soapkrr.labels.labels import KINDS, Labels, stacked
from soapkrr.labels.observations import Observations
from soapkrr.labels.read import read_labels
from soapkrr.labels.values import property_values

__all__ = ["KINDS", "Labels", "Observations", "property_values", "read_labels", "stacked"]
