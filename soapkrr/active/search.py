"""What searches on a surrogate share: a reference that is asked for nothing twice, and a model that learns from every answer."""

from __future__ import annotations

from pathlib import Path

from ase import Atoms

from soapkrr.active.asking import HeldReference, ask, check_calculator
from soapkrr.active.records import Records
from soapkrr.active.surrogate import Surrogate
from soapkrr.display import counted
from soapkrr.errors import InputError
from soapkrr.estimators.gaussian_process import GaussianProcess


class Search:
    """A reference, the surrogate that learns from it, and the records of its calculations.

    Parameters
    ----------
    species : chemical symbols.  reference : an ASE calculator.  prior, model : as of `Surrogate.of`.  records : as of `Records`.
    """

    def __init__(self, species: list[str], reference, prior, model, records: str | Path | None):
        self.reference, self.surrogate = check_calculator(reference), Surrogate.of(species, prior, model)
        self.records, self.calls = Records(records), 0
        for known in self.records.references:
            self.surrogate.learn(known)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reference={type(self.reference).__name__}), {counted(self.calls, 'call')}"

    def _model(self) -> GaussianProcess:
        """The surrogate's model, once there is one."""
        if self.surrogate.model is None:
            raise InputError("`model`: nothing was calculated yet; call `run` first.")
        return self.surrogate.model

    def _ask(self, atoms: Atoms, name: str) -> HeldReference:
        """The reference of a structure, learnt from unless it is known."""
        known = self.records.find(atoms)
        if known is None:
            known = ask(self.reference, atoms, name)
            self.calls += 1
            self.records.add(known)
            self.surrogate.learn(known)
        return known
