"""Predictions whose standard deviations are those of (prediction − reference), with intervals and what they are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from soapkrr.prediction import Prediction, check_coverage
from soapkrr.uncertainty.conformal import ALL, Scores, quantiles
from soapkrr.uncertainty.repeats import Noise

#: What a standard deviation is made of: what the data do not determine, noise of labels, what no function of the descriptor can say.
PARTS = ("ignorance", "noise", "model_form")


@dataclass(frozen=True, eq=False, repr=False)
class CalibratedPrediction(Prediction):
    """A `Prediction` with calibrated standard deviations: 68 % of the errors of structures like the data are within one.

    `interval` is split conformal prediction on the scores |error| / standard deviation of left-out training labels, forces by species:
    where a structure is exchangeable with those of the data, the coverage holds on average over structures, whatever the law of the errors
    (Vovk et al. 2005, doi 10.1007/b106715). `promised` says where it cannot be.

    Attributes
    ----------
    energy_posterior, energies_posterior, forces_posterior, stress_posterior : standard deviations of the posterior itself, shaped as those
        that are calibrated.
    novelty : list of (n_atoms,), how far an atom is outside of the data: the expected error of its force or, where that was not asked for,
        the posterior standard deviation of its energy, 1 at the threshold that one in a hundred training atoms exceeds. None where no
        standard deviations were asked for.
    nearest : list of (n_atoms, 2), training structure and atom of the nearest surroundings, and ``distance`` (n_atoms,) to them, 1 at the
        threshold of one in a hundred training atoms to those of other structures; with the standard deviations of forces.
    symbols : list of (n_atoms,) chemical symbols.
    scores : {kind: {cell: `Scores`}}, from which intervals are made.  noise : {kind: `Noise`} of labels, where it is known, and from what.
    """

    SHARED = ("scores", "noise")

    energy_posterior: np.ndarray | None = None
    energies_posterior: list[np.ndarray] | None = None
    forces_posterior: list[np.ndarray] | None = None
    stress_posterior: np.ndarray | None = None
    novelty: list[np.ndarray] | None = None
    nearest: list[np.ndarray] | None = None
    distance: list[np.ndarray] | None = None
    symbols: list[np.ndarray] | None = None
    scores: Mapping[str, Mapping[str, Scores]] | None = None
    noise: Mapping[str, Noise] | None = None

    def balls(self, coverage: float = 0.9) -> list[np.ndarray]:
        """(n_atoms,) of each structure: radius around each force that holds the reference force of ``coverage`` of all atoms, eV/Å."""
        check_coverage(coverage)
        std = self._std("forces")
        return [q * np.linalg.norm(s, axis=1) for q, s in zip(self._by_species("balls", coverage), std, strict=True)]

    def promised(self, kind: str, coverage: float = 0.9) -> np.ndarray:
        """(n_structures,) whether the coverage is promised: there are scores enough, and nothing is outside of the data."""
        check_coverage(coverage)
        cells = self._cells(kind)
        if kind == "forces":
            names = [np.unique(symbols).tolist() for symbols in self._symbols]
            enough = np.array([all(cells.get(name, cells[ALL]).promises(coverage) for name in some) for some in names])
        else:
            enough = np.full(len(self), cells[ALL].promises(coverage))
        inside = np.ones(len(self), dtype=bool) if self.outside is None else ~self.outside
        if self.novelty is not None:
            inside &= np.array([x.max() <= 1.0 for x in self.novelty])
        return enough & inside

    def posterior_std(self, kind: str):
        """Standard deviations of the posterior itself, shaped as those that are calibrated."""
        self._std(kind)
        return getattr(self, f"{kind}_posterior")

    def parts(self, kind: str) -> dict[str, Any]:
        """{part of the standard deviation: values shaped as it}; their squares add up to its square.

        ``"ignorance"``: the posterior, as far as errors are as large; ``"noise"``: of labels, where it was given or
        structures that occur twice show it (`noise` says which); ``"model_form"``: the
        rest, what no function of this descriptor and kernel can say.
        """
        std, raw, known = self._std(kind), self.posterior_std(kind), (self.noise or {}).get(kind)
        noise = 0.0 if known is None else known.level
        if isinstance(std, list):
            found = [_split(s, r, noise) for s, r in zip(std, raw, strict=True)]
            return {name: [part[name] for part in found] for name in PARTS}
        sizes = np.array([len(e) for e in self.energies])
        return _split(std, raw, noise * np.sqrt(sizes) if kind == "energy" else noise)

    def _quantile(self, kind: str, coverage: float) -> float | list[np.ndarray]:
        if kind == "forces":
            return [q[:, None] for q in self._by_species("forces", coverage)]
        return self._cells(kind)[ALL].quantile(coverage)

    def _by_species(self, kind: str, coverage: float) -> list[np.ndarray]:
        cells = self._cells(kind)
        return [quantiles(cells, symbols, coverage) for symbols in self._symbols]

    def _cells(self, kind: str) -> Mapping[str, Scores]:
        """Scores of a kind; per-atom energies, which have no reference, go with total ones."""
        scores = self.scores or {}
        return scores.get("energy" if kind == "energies" else kind) or {ALL: Scores(np.zeros(0), 0)}

    @property
    def _symbols(self) -> list[np.ndarray]:
        return self.symbols or []


def _split(std: np.ndarray, raw: np.ndarray, noise) -> dict[str, np.ndarray]:
    ignorance = np.minimum(raw, std)
    noise = np.minimum(noise, np.sqrt(np.maximum(std**2 - ignorance**2, 0.0)))
    return {"ignorance": ignorance, "noise": noise, "model_form": np.sqrt(np.maximum(std**2 - ignorance**2 - noise**2, 0.0))}
