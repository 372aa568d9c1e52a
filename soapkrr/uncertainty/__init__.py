"""What the posterior says beyond one prediction: calibrated error bars, joint covariances, whole potentials drawn from it."""
