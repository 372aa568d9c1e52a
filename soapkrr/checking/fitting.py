"""A fit that first looks at its data, as far as no model is needed for it."""

from __future__ import annotations

from ase import Atoms

from soapkrr.checking.findings import fatal, warn_of
from soapkrr.checking.plain import quick_findings
from soapkrr.labels import read_labels


def checked_fit(plan, frames: list[Atoms], progress: bool = False, strict: bool = False):
    """``plan.fit(frames)``, where ``plan`` is of `soapkrr.auto`: what is odd is a `DataWarning`, with ``strict`` a `LabelError`."""
    with fatal(strict):
        warn_of(quick_findings(frames, read_labels(frames, plan.model.observations)))
        return plan.fit(frames, progress)
