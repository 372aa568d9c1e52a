"""What the posterior says beyond one prediction: calibrated error bars, joint covariances, samples, which labels would help, and why."""

from soapkrr.uncertainty.joint import JointPosterior
from soapkrr.uncertainty.observables import Energy, Force, Observable, Stress, energy_difference

__all__ = ["Energy", "Force", "JointPosterior", "Observable", "Stress", "energy_difference"]
