"""Whether a prior mean pays: plans with it beside plans without, and the factor in front of it.

A factor c with prior N(1, s²) is a rank-one kernel s² v vᵀ, v = [E, ∇E] of the prior mean, on top of the others. The posterior mean of
the process with it is that of the process without it on labels less ĉ·v (Rasmussen and Williams 2006, section 2.7), ĉ the mean of c under
the labels; log p(labels | c) is a parabola, which three evidences determine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from sklearn.base import clone

from soapkrr.automatic.plans import RECIPE, Plan
from soapkrr.automatic.search import MARGIN
from soapkrr.baselines import SUGGESTED, NamedBaseline, ScaledBaseline, is_computed, left_out_text, named, split_baseline, with_mean
from soapkrr.choices import Choice, Choices
from soapkrr.descriptors.cutoff import RadialScaling
from soapkrr.descriptors.projection import Compressed
from soapkrr.descriptors.soap import SOAP
from soapkrr.errors import InputError
from soapkrr.estimators.base import Potential

#: Prior standard deviation of the factor in front of a prior mean, and the step of the parabola.
SPREAD, STEP = 0.2, 0.05

#: Part of the structures for which a prior mean that is tried may fail.
FAILING = 0.1

#: What is said of a SOAP for what a prior mean leaves to learn.
SMOOTHER = "wider density"

#: Parameters of the SOAP that make it one.
OF_SMOOTHER = ("sigma", "n_max", "scaling")


def with_prior_mean(plan: Plan, frames: list[Atoms], name: str | None, given: Mapping, search: bool = True) -> Plan:
    """The plan with variants that have the prior mean ``name``, or why there are none; one that has a prior mean gets a wider density.

    Parameters
    ----------
    name : of the prior mean that may be added; None: none.
    given : parameters of the descriptor that are not chosen.  search : whether descriptors are tried.
    """
    smoother = {} if set(given) & set(OF_SMOOTHER) or not search else _smoother(plan)
    if name is None:
        computed = any(map(is_computed, split_baseline(plan.model.baseline)[1]))
        return replace(plan, variants={**plan.variants, **smoother}) if computed else plan
    if reason := not_for(name, frames):
        return replace(plan, choices=(*plan.choices, Choice("prior mean", "none", f"{name} not tried: {reason}")))
    bare = {RECIPE: replace(plan, variants={}), **smoother}
    variants = {f"{what}, {name}": WithFactor(variant, name) for what, variant in bare.items()}
    return replace(plan, variants={**plan.variants, **variants})


def not_for(name: str, frames: list[Atoms]) -> str:
    """Why a prior mean is not tried for some structures; empty where it is."""
    mean = named(name)
    try:
        mean.check()
    except InputError as error:
        return str(error)
    heaviest = mean.heaviest if isinstance(mean, NamedBaseline) else None
    if heaviest is not None and max(int(atoms.numbers.max()) for atoms in frames) > heaviest:
        return "it does not know all elements"
    if name == SUGGESTED and any(atoms.pbc.any() for atoms in frames):
        return "for molecules only"
    return ""


def _smoother(plan: Plan) -> dict[str, Plan]:
    """The plan with a SOAP for what a prior mean leaves: smoother, and less of it between nearest neighbours."""
    descriptor = plan.model.descriptor
    soap = descriptor.descriptor if isinstance(descriptor, Compressed) else descriptor
    if not isinstance(soap, SOAP) or not isinstance(soap.scaling, RadialScaling):
        return {}
    scaling = soap.scaling.with_params(r0=soap.scaling.r0 + 0.5)
    other = soap.with_params(sigma=round(soap.sigma + 0.05, 6), n_max=soap.n_max + 2, scaling=scaling)
    wider = replace(plan.with_descriptor(other), variants={})
    chosen = {"sigma": other.sigma, "n_max": other.n_max, "scaling": other.scaling}
    choices = [replace(c, value=chosen[c.name], reason="for what a prior mean leaves") if c.name in chosen else c for c in plan.choices]
    return {SMOOTHER: replace(wider, choices=tuple(choices))}


@dataclass(frozen=True)
class WithFactor:
    """A plan with a prior mean on top, and the factor in front of it where that pays. Fits like a `Plan`.

    Attributes
    ----------
    plan : without the prior mean.  name : of the prior mean.
    """

    plan: Plan
    name: str

    def smaller(self, part: float) -> WithFactor:
        """See `search.Fits`."""
        return replace(self, plan=self.plan.smaller(part))

    def refined(self, model: Potential, frames: list[Atoms], part: float) -> WithFactor:
        """See `search.Fits`: as it is, for noise is not all that its fits find."""
        return self

    def fit(self, frames: list[Atoms], progress: bool = False, check: bool = True) -> Potential:
        """See `search.Fits`; raises `InputError` where the prior mean fails for more than `FAILING` of the structures."""
        failed = named(self.name).prepare(frames, self.plan.model.threads)
        if len(failed) > FAILING * len(frames):
            raise InputError(f"it fails for {len(failed)} of {len(frames)} structures, {left_out_text(failed)}")
        model = self._with(self.name).fit(frames, progress, check)
        factor, std = self.factor(model, frames)
        if not np.isfinite(factor):
            return _said(model, self.name, "no factor, for want of an evidence")
        scaled = self._as_fitted(model, factor).fit(frames, progress, check)
        before, after = (self.plan.score(m.left_out_errors_) if m.left_out_errors_ else np.inf for m in (model, scaled))
        how, beside = f"± {std:.3f}, of the evidence", f"{after / before:.3f} × the error of factor 1"
        if after < before * (1 - MARGIN):
            return _said(scaled, f"{factor:.3f} × {self.name}", f"factor {how}; {beside}")
        return _said(model, self.name, f"factor {factor:.3f} {how}, does not pay: {beside}")

    def factor(self, model: Potential, frames: list[Atoms]) -> tuple[float, float]:
        """Mean and standard deviation of the factor under the labels, with noise and signal of the model; NaN without an evidence."""
        low, high = (self._evidence(model, frames, 1 + step) for step in (-STEP, STEP))
        slope, curvature = (high - low) / (2 * STEP), (high + low - 2 * model.log_likelihood_) / STEP**2
        precision = 1 / SPREAD**2 - curvature
        return 1 + slope / precision, precision**-0.5 if precision > 0 else np.nan

    def _evidence(self, model: Potential, frames: list[Atoms], factor: float) -> float:
        plan = self._as_fitted(model, factor)
        return clone(plan.model).learn(frames, False, False, check=False).log_likelihood_

    def _with(self, mean: str | ScaledBaseline) -> Plan:
        bare = self.plan.model
        return replace(self.plan, model=clone(bare).set_params(baseline=with_mean(bare.baseline, mean)))

    def _as_fitted(self, model: Potential, factor: float) -> Plan:
        """With a factor, noise and signal of a fit."""
        plan = self._with(ScaledBaseline(self.name, float(factor)))
        plan.model.set_params(noise=dict(model.noise_), signal=model.signals_[0])
        return replace(plan, way=False, found=self.plan.way or "")


def _said(model: Potential, value: str, reason: str) -> Potential:
    model.choices_ = Choices([*model.choices_, Choice("prior mean", value, reason)])
    return model
