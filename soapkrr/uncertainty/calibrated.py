"""Predictions whose standard deviations are those of (prediction − reference), with intervals and what they are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from soapkrr.errors import InputError
from soapkrr.prediction import Prediction, check_coverage
from soapkrr.uncertainty.conformal import ALL, ANY, EVERY, Cell, Scores, scores_for
from soapkrr.uncertainty.repeats import Noise
from soapkrr.uncertainty.shift import log_novelty, tilt, weighted_quantiles

#: What a standard deviation is made of: what the data do not determine, noise of labels, what no function of the descriptor can say.
PARTS = ("ignorance", "noise", "model_form")


@dataclass(frozen=True, eq=False, repr=False)
class CalibratedPrediction(Prediction):
    """A `Prediction` with calibrated standard deviations: 68 % of the errors of structures like the data are within one.

    `interval` is conformal prediction on the scores |error| / standard deviation of left-out training labels (Vovk et al. 2005, doi
    10.1007/b106715), Mondrian: forces by species, and all kinds by the configuration type of the structure, where `info` states one that
    at least `FEWEST_STRUCTURES` (20) structures of the data have, with at least `FEWEST` (50) scores; else by those of all types. Where the
    structure is exchangeable with the K of its cell, and scores of labels without their own structure are as those of new ones, an energy
    is within with a probability of at least c, and of forces and stress components an expected part of at least c·K/(K + 1), whatever the
    law of the errors and the number of structures. `promised` says where this is not so: limits are then a guess, wide with the
    posterior, which returns to the prior far from the data. `weighted` is for structures of another distribution.

    Attributes
    ----------
    energy_posterior, energies_posterior, forces_posterior, stress_posterior : standard deviations of the posterior itself, shaped as those
        that are calibrated.
    novelty : list of (n_atoms,), how far an atom is outside of the data: the expected error of its force or, where that was not asked for,
        the posterior standard deviation of its energy, 1 at the threshold that one in a hundred training atoms exceeds. None where no
        standard deviations were asked for.
    nearest : list of (n_atoms, 2), training structure and atom of the nearest surroundings, and ``distance`` (n_atoms,) to them, 1 at the
        threshold of one in a hundred training atoms to those of other structures; with the standard deviations of forces.
    symbols : list of (n_atoms,) chemical symbols.  config_types : (n_structures,), ``""`` where `info` states none.
    scores : {kind: {(species, configuration type): `Scores`}}, from which intervals are made.
    noise : {kind: `Noise`} of labels, where it is known, and from what.
    tilts : {kind: b} where scores are weighted by novelty^b, of `weighted`.
    """

    SHARED = ("scores", "noise", "tilts")

    energy_posterior: np.ndarray | None = None
    energies_posterior: list[np.ndarray] | None = None
    forces_posterior: list[np.ndarray] | None = None
    stress_posterior: np.ndarray | None = None
    novelty: list[np.ndarray] | None = None
    nearest: list[np.ndarray] | None = None
    distance: list[np.ndarray] | None = None
    symbols: list[np.ndarray] | None = None
    config_types: np.ndarray | None = None
    scores: Mapping[str, Mapping[Cell, Scores]] | None = None
    noise: Mapping[str, Noise] | None = None
    tilts: Mapping[str, float] | None = None

    def balls(self, coverage: float = 0.9) -> list[np.ndarray]:
        """(n_atoms,) of each structure: radius around each force that holds the reference force of ``coverage`` of all atoms, eV/Å."""
        check_coverage(coverage)
        std = self._std("forces")
        return [q * np.linalg.norm(s, axis=1) for (q, _), s in zip(self._quantiles("balls", coverage), std, strict=True)]

    def promised(self, kind: str, coverage: float = 0.9) -> np.ndarray:
        """(n_structures,) whether a finite interval of this ``coverage`` can be promised for all labels of a kind.

        It cannot where too few structures have scores (c > K/(K + 1)), or atoms are closer than any in the data, or more novel than 99 % of
        them; of a `weighted` prediction where atoms or labels are more novel than all, or a label has too large a part of the weights.
        """
        check_coverage(coverage)
        self._std(kind)
        enough = np.array([bool(np.all(known)) for _, known in self._quantiles(kind, coverage)], dtype=bool)
        inside = np.ones(len(self), dtype=bool) if self.outside is None else ~self.outside
        if self.novelty is not None:
            most = 1.0 if self._tilt(kind) is None else self._most_novel
            inside &= np.array([x.max() <= most for x in self.novelty], dtype=bool)
        return enough & inside

    @property
    def _most_novel(self) -> float:
        """The largest novelty of a left-out force; where there are none, and without standard deviations of forces, 1."""
        sample = self._cells("forces")[EVERY].sample
        return 1.0 if self.forces_std is None or not len(sample) else max(1.0, float(np.exp(sample[:, 1].max())) * (1 + 1e-9))

    def weighted(self) -> CalibratedPrediction:
        """The same with intervals for structures that are more novel, or less, than the data: weighted conformal prediction.

        Scores count by ν^b, with b learnt from how the novelties ν of all these structures differ from those of the left-out labels
        (Tibshirani, Barber, Candès and Ramdas 2019, arXiv:1904.06019): the coverage holds where errors in units of their standard
        deviations depend on structures as in the data, these are independent draws from another distribution, and the ratio of the two
        is such a power. Standard deviations remain; configuration types do not count. Parts of the result keep its weights.

        The novelty of a force is that of its atom, of an energy or a stress component the posterior standard deviation, of energies
        over √N.

        Raises
        ------
        InputError : no standard deviations were asked for.
        """
        if self.novelty is None:
            raise InputError("weights are learnt from the novelty, which standard deviations bring: predict(frames, uncertainty=True).")
        tilts = {}
        for kind in ("energy", "forces", "stress"):
            sample, new = self._cells(kind)[EVERY].sample[:, 1], self._novelty(kind)
            known = [x[np.isfinite(x)] for x in new or []]
            if len(sample) and sum(map(len, known)):
                structures = self._cells(kind)[EVERY].structures
                tilts[kind] = tilt(sample, np.concatenate(known), structures, sum(len(x) > 0 for x in known))
        return replace(self, tilts=tilts)

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

    def _quantile(self, kind: str, coverage: float) -> np.ndarray | list[np.ndarray]:
        found = [q for q, _ in self._quantiles(kind, coverage)]
        if kind == "energy":
            return np.concatenate([*found, np.zeros(0)])
        return np.array(found).reshape(len(self), -1) if kind == "stress" else [q[:, None] for q in found] if kind == "forces" else found

    def _quantiles(self, kind: str, coverage: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Of each structure standard deviations to the limits, and whether they are promised: (n_atoms,) of forces, (6,) of a stress with
        weights, else (1,).
        """
        cells, b, novelty = self._cells(kind), self._tilt(kind), self._novelty(kind)
        for s, symbols in enumerate(self.symbols or []):
            names, place = np.unique(symbols, return_inverse=True) if kind in ("forces", "balls") else (np.array([ALL]), np.zeros(1, int))
            if b is not None and novelty is not None:
                yield _weighted([scores_for(cells, name, ANY) for name in names.tolist()], place, novelty[s], b, coverage)
            else:
                config_type = ANY if self.config_types is None else str(self.config_types[s])
                mine = [scores_for(cells, name, config_type) for name in names.tolist()]
                yield tuple(np.array(x)[place] for x in zip(*((c.quantile(coverage), c.promises(coverage)) for c in mine), strict=True))

    def _tilt(self, kind: str) -> float | None:
        return (self.tilts or {}).get({"energies": "energy", "balls": "forces"}.get(kind, kind))

    def _novelty(self, kind: str) -> list[np.ndarray] | None:
        """Log of the novelty of each structure's labels of a kind: (n_atoms,) of forces, (1,) of energies, (6,) of the stress."""
        if kind in ("forces", "balls"):
            return None if self.forces_std is None else [log_novelty(x) for x in self.novelty or []]
        if kind == "stress":
            return None if self.stress_posterior is None else list(log_novelty(self.stress_posterior))
        sizes = np.array([len(e) for e in self.energies])
        return None if self.energy_posterior is None else list(log_novelty(self.energy_posterior / np.sqrt(sizes))[:, None])

    def _cells(self, kind: str) -> Mapping[Cell, Scores]:
        """Scores of a kind; per-atom energies, which have no reference, go with total ones."""
        return (self.scores or {}).get("energy" if kind == "energies" else kind) or {EVERY: Scores.of(np.zeros(0))}


def _weighted(cells: list[Scores], place: np.ndarray, novelty: np.ndarray, b: float, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """`weighted_quantiles` of labels with these novelties, each by the scores of its place; of a single place all labels."""
    place = np.broadcast_to(place, novelty.shape)
    quantile, promised = np.empty(len(novelty)), np.zeros(len(novelty), dtype=bool)
    for k, scores in enumerate(cells):
        mine = place == k
        quantile[mine], promised[mine] = weighted_quantiles(scores, novelty[mine], b, coverage)
    return quantile, promised


def _split(std: np.ndarray, raw: np.ndarray, noise) -> dict[str, np.ndarray]:
    ignorance = np.minimum(raw, std)
    noise = np.minimum(noise, np.sqrt(np.maximum(std**2 - ignorance**2, 0.0)))
    return {"ignorance": ignorance, "noise": noise, "model_form": np.sqrt(np.maximum(std**2 - ignorance**2 - noise**2, 0.0))}
