"""Errors and variances of labels as predicted without their own group, from one fit whose hyper-parameters and representers stay.

For labels y with covariance C = K + Σ let t = Σ^{1/2}C⁻¹y be the residuals of the fit in units of the noise and G = Σ^{1/2}C⁻¹Σ^{1/2}. Of
the labels g of a group, predicted from all others, the errors in units of the noise are z_g = (G_gg)⁻¹t_g, and the variance of the values
themselves, without noise, is diag((G_gg)⁻¹) − 1: for groups what equations 5.10 to 5.12 of Rasmussen and Williams 2006 are for single ones.

On features K is ΦΦᵀ, and with the triangle R of the posterior, RᵀR = 1 + Φ̃ᵀΦ̃ of rows Φ̃ = Σ^{-1/2}Φ, it follows that G_gg = 1 − B_gB_gᵀ
with B = Φ̃R⁻¹: one pass over the rows. Groups of more labels than features, whose inverse is 1 + B_g(1 − B_gᵀB_g)⁻¹B_gᵀ, take two. What
features cannot say, k_LL − |φ|², is added to their variances, as in predictions (DTC).
"""

from soapkrr.regression.without import features, observations  # noqa: F401  which say how, by the class of a process
from soapkrr.regression.without.partition import Found, Partition, without_groups

__all__ = ["Found", "Partition", "without_groups"]
