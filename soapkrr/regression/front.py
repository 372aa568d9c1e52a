"""What noise levels trade: errors of energies, forces and stresses of left-out structures, of which none falls unless another one rises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from soapkrr.display import Tabular
from soapkrr.errors import ModelFileError
from soapkrr.labels import KINDS
from soapkrr.regression import stored

#: Unit of each kind of error in a table, and the factor to it from the one of the rows (`Front`).
UNITS = {"energy": ("meV/√atom", 1e3), "forces": ("meV/Å", 1e3), "stress": ("meV/Å³", 1e3)}


@dataclass(frozen=True, eq=False, repr=False)
class Front(Tabular):
    """The Pareto front of a cross-validation: noise levels that it tried and that no other one beats in every kind of label.

    Means depend on the ratios of noise levels and signals alone: those here go with the signals of the fitted model. Errors are those of
    folds of structures left out, with the sparse points of the fit. Shows as a table, by rising error of the first kind.

    Attributes
    ----------
    noise : {kind: (n,) σ}, eV/atom, eV/Å, eV/Å³.
    errors : {kind: (n,) root mean square error}, of energies that of ΔE/√N (eV/√atom), as they are weighted in a fit; eV/Å, eV/Å³.
    chosen : which one the fit took.
    """

    noise: Mapping[str, np.ndarray]
    errors: Mapping[str, np.ndarray]
    chosen: int

    @classmethod
    def of(cls, tried: Mapping[tuple[float, ...], Mapping[str, float]], chosen: tuple[float, ...]) -> Front:
        """From {levels of the kinds in the order of the errors: errors}."""
        kinds = [kind for kind in KINDS if kind in tried[chosen]]
        levels = np.array([[dict(zip(errors, key, strict=True))[kind] for kind in kinds] for key, errors in tried.items()])
        E = np.array([[errors[kind] for kind in kinds] for errors in tried.values()])
        own = list(tried).index(chosen)
        beaten = [bool(((E <= e).all(axis=1) & (E < e).any(axis=1)).any()) for e in E]
        kept = [k for k in np.lexsort(E.T[::-1]) if k == own or np.isfinite(E[k]).all() and not beaten[k]]
        noise, errors = ({kind: part[kept, k] for k, kind in enumerate(kinds)} for part in (levels, E))
        return cls(noise, errors, kept.index(own))

    def scaled(self, scale: float) -> Front:
        """The same for signals that are ``scale`` times as large."""
        return replace(self, noise={kind: scale * levels for kind, levels in self.noise.items()})

    def __len__(self) -> int:
        return len(next(iter(self.errors.values())))

    @property
    def least(self) -> dict[str, float]:
        """{kind: its least error}, whatever that of the others."""
        return {kind: float(e.min()) for kind, e in self.errors.items()}

    @property
    def over_least(self) -> dict[str, float]:
        """{kind: error of the chosen levels over the least of this kind}."""
        return {kind: float(self.errors[kind][self.chosen]) / max(least, 1e-300) for kind, least in self.least.items()}

    def state(self) -> dict:
        """For a model file."""
        return {"noise": dict(self.noise), "errors": dict(self.errors), "chosen": self.chosen}

    def _title(self) -> str:
        return f"errors of left-out structures, {len(self)} choices of noise"

    def _columns(self) -> Sequence[str]:
        of_noise = [f"noise, {kind}" for kind in self.noise]
        return ["", *of_noise, *(f"{kind} ({UNITS[kind][0]}, of the least)" for kind in self.errors)]

    def _rows(self) -> Sequence[Sequence[str]]:
        least = self.least
        return [
            [
                "chosen" if k == self.chosen else "",
                *(f"{levels[k]:.3g}" for levels in self.noise.values()),
                *(f"{UNITS[kind][1] * e[k]:.4g}  {e[k] / max(least[kind], 1e-300):.2f} ×" for kind, e in self.errors.items()),
            ]
            for k in range(len(self))
        ]


def restored_front(state: Mapping | None) -> Front | None:
    """A front from the state in a model file; raises `ModelFileError` where something in it cannot be."""
    if state is None:
        return None
    state = stored.mapping(state, "front")
    tables = [stored.mapping(state[name], f"front.{name}") for name in ("noise", "errors")]
    if not tables[0] or set(tables[0]) != set(tables[1]) or not set(tables[0]) <= set(KINDS):
        raise ModelFileError(f"noise and errors of the front are of {[sorted(t) for t in tables]}, expected the same of {KINDS}.")
    noise, errors = ({kind: stored.array(a, f"front.{kind}", shape=(None,)) for kind, a in table.items()} for table in tables)
    chosen, sizes = state["chosen"], {len(a) for table in (noise, errors) for a in table.values()}
    if len(sizes) != 1 or not isinstance(chosen, int) or not 0 <= chosen < max(sizes):
        raise ModelFileError(f"the front has lengths {sorted(sizes)}, of which {chosen!r} was chosen.")
    return Front(noise, errors, chosen)
