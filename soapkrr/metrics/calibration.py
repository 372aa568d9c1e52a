"""Do error bars hold: coverage of intervals and scores of standard deviations, overall and of parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr.display import Tabular, counted
from soapkrr.labels import Observations
from soapkrr.metrics.comparison import UNIT_NAMES, UNITS, Comparison, check_lengths, comparisons_with_std, named_members
from soapkrr.metrics.scores import crps, ence, miscalibration_area, nll, rank_correlation, sharpness
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: Nominal coverages of the intervals that are counted.
COVERAGES = (0.5, 0.68, 0.9, 0.95, 0.99)

#: Nominal coverages at which the curve is known whose area is measured; closer near 1, where that of narrow intervals is steep.
CURVE = (*(k / 20 for k in range(1, 20)), 0.975, 0.99)

#: The nominal coverage whose intervals have their mean width told.
WIDTH = 0.9

#: Thirds of the components, in order of their standard deviations.
TERCILES = ("low", "middle", "high")


@dataclass(frozen=True, eq=False)
class Covered:
    """What one kind's error bars say of the labelled components that count.

    Attributes
    ----------
    within : {nominal coverage: (n,) bool, whether the interval holds the reference}.  width : (n,) of the intervals of `WIDTH`.
    errors, std : (n,).  atom : (n,) number of what a component belongs to: an atom for forces, else itself.
    """

    within: dict[float, np.ndarray]
    width: np.ndarray
    errors: np.ndarray
    std: np.ndarray
    atom: np.ndarray

    @classmethod
    def of(cls, found: Comparison, prediction: Prediction) -> Covered:
        """Without the components that vanish by symmetry."""
        keep, reference = found.counted, found.reference[found.counted]
        within, width = {}, np.zeros(len(reference))
        for coverage in sorted({*COVERAGES, *CURVE}):
            lower, upper = (found.of(limits)[keep] for limits in prediction.interval(found.kind, coverage))
            within[coverage] = (lower <= reference) & (reference <= upper)
            if coverage == WIDTH:
                width = upper - lower
        whole = np.column_stack([found.structure, found.component // 3 if found.kind == "forces" else found.component])
        atom = np.unique(whole, axis=0, return_inverse=True)[1].ravel()
        return cls(within, width, found.errors[keep], found.std[keep], atom[keep])

    def some(self, chosen: np.ndarray) -> Covered:
        """A part of them."""
        within = {coverage: inside[chosen] for coverage, inside in self.within.items()}
        return Covered(within, *(getattr(self, name)[chosen] for name in ("width", "errors", "std", "atom")))

    def scores(self, unit: str) -> dict[str, float]:
        """{name: score}; those that are no finite number are left out."""
        n = len(self.errors)
        fractions = {coverage: float(inside.mean()) if n else np.nan for coverage, inside in self.within.items()}
        found = {f"coverage_{100 * coverage:.0f}": fractions[coverage] for coverage in COVERAGES}
        found |= {
            "miscalibration_area": miscalibration_area(np.array(CURVE), np.array([fractions[c] for c in CURVE])),
            "ence": ence(self.errors, self.std),
            "nll": nll(self.errors, self.std),
            f"crps_{unit}": crps(self.errors, self.std),
            f"sharpness_{unit}": sharpness(self.std),
            f"width_{100 * WIDTH:.0f}_{unit}": float(self.width.mean()) if n else np.nan,
            "rank_correlation": rank_correlation(*self._norms()),
        }
        return {"n": n, **{name: score for name, score in found.items() if np.isfinite(score)}}

    def _norms(self) -> list[np.ndarray]:
        """Norms of standard deviations and errors of each atom; of other kinds their sizes."""
        owner = np.unique(self.atom, return_inverse=True)[1].ravel()
        return [np.sqrt(np.bincount(owner, values**2)) for values in (self.std, self.errors)]

    def terciles(self) -> dict[str, Covered]:
        """{name: a third}; nothing of fewer than three."""
        if len(self.std) < len(TERCILES):
            return {}
        thirds = np.array_split(np.argsort(self.std, kind="stable"), len(TERCILES))
        return {name: self.some(third) for name, third in zip(TERCILES, thirds, strict=True)}


class CalibrationTable(Tabular, dict):
    """{kind: scores} of plain numbers that shows as a table; see `calibration_table`."""

    def _kinds(self) -> list[str]:
        return [kind for kind in UNITS if kind in self]

    def _columns(self) -> list[str]:
        return ["", "n", *(f"{100 * c:.0f} %" for c in COVERAGES), "area", "ENCE", "NLL", "CRPS", "sharpness", "unit", "rank corr."]

    def _rows(self) -> list[list[str]]:
        return [row for kind in self._kinds() for row in self._rows_of(kind)]

    def _rows_of(self, kind: str) -> list[list[str]]:
        """The line of a kind, and those of its parts below."""
        rows = [_row(kind, kind, self[kind])]
        for parts, text in (("species", "{}"), ("groups", "{}"), ("terciles", "{} std")):
            found = self[kind].get(parts, {})
            if len(found) > 1:
                rows += [_row(f"  {text.format(name)}", kind, part) for name, part in found.items()]
        return rows

    def _notes(self) -> list[str]:
        left_out = [f"{n:,} {kind}" for kind in self._kinds() if (n := self[kind]["zero_by_symmetry"])]
        notes = [f"not counted: {', '.join(left_out)} components that are zero by symmetry"] if left_out else []
        if self.get("n_novel"):
            notes.append(f"{counted(self['n_novel'], 'structure')} with surroundings unlike the training data: novelty above 1")
        if self.get("n_outside"):
            notes.append(f"{counted(self['n_outside'], 'structure')} with atoms closer than any in the training data")
        return notes


def _row(name: str, kind: str, part: dict) -> list[str]:
    unit = UNITS[kind][0]
    shares = [_cell(part.get(f"coverage_{100 * c:.0f}"), ".1%") for c in COVERAGES]
    scores = [part.get(key) for key in ("miscalibration_area", "ence", "nll", f"crps_{unit}", f"sharpness_{unit}")]
    cells = [_cell(score, form) for score, form in zip(scores, (".3f", ".2f", ".2f", ".3g", ".3g"), strict=True)]
    return [name, f"{part['n']:,}", *shares, *cells, UNIT_NAMES[kind], _cell(part.get("rank_correlation"), ".2f")]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def calibration_table(frames, prediction: Prediction, by: str | None = None, observations: Observations | None = None) -> dict:
    """Do the error bars hold: coverage of intervals and scores of standard deviations, {kind: scores}, plain numbers throughout.

    Of each kind that has labels and standard deviations (energies per atom; units meV/atom, eV/Å, GPa):

    - ``n``, components that count, and ``zero_by_symmetry``, those that do not: reference, prediction and standard deviation vanish.
    - ``coverage_50`` … ``coverage_99``: fraction of the references within ``prediction.interval(kind, 0.5)`` … ``0.99``, conformal
      ones of a calibrated model, else Gaussian; ``width_90_<unit>``, mean width of those of 90 %.
    - ``miscalibration_area`` of the same intervals (Kuleshov 2018, Tran et al. 2020, doi 10.1088/2632-2153/ab7e1a).
    - ``ence`` (Levi et al. 2022, doi 10.3390/s22155540), ``nll`` and ``crps_<unit>`` of Gaussians (Gneiting and Raftery 2007, doi
      10.1198/016214506000001437), ``sharpness_<unit>``, of the standard deviations. `metrics.scores` has the formulas.
    - ``rank_correlation``: Spearman's, of standard deviations with \\|errors\\|; of forces of their norms, atom by atom.
    - ``terciles``: the same of thirds by standard deviation, {``"low"``, ``"middle"``, ``"high"``: scores}; ``species`` of forces,
      {symbol: scores}; with ``by`` also ``groups``, {value: scores}.

    A score that is no finite number is left out. Beside the kinds: ``n_outside``, structures with atoms closer than any in the training
    data, and ``n_novel``, with an atom of novelty above 1; None where the prediction does not know.

    Parameters
    ----------
    frames : the labelled structures that were predicted; best those that were not fitted.
    prediction : of ``frames``, in the same order, with standard deviations.
    by : a name in `info`, for example ``"config_type"``; structures without it are ``"default"``.
    observations : names of labels and masks, as in a fit; None: the calculators' results.

    Raises
    ------
    InputError : no kind has both labels and standard deviations, ``by`` is in no structure, or the numbers of structures differ.
    LabelError : no structure has a label.
    """
    frames = as_frames(frames)
    check_lengths(frames, prediction)
    members = {} if by is None else named_members(frames, by)
    found = comparisons_with_std(frames, prediction, observations)
    table = CalibrationTable({kind: _scores(part, prediction, frames, members) for kind, part in found.items()})
    table["n_outside"] = None if prediction.outside is None else int(prediction.outside.sum())
    novelty = getattr(prediction, "novelty", None)
    table["n_novel"] = None if novelty is None else sum(bool(x.max() > 1) for x in novelty)
    return table


def _scores(found: Comparison, prediction: Prediction, frames, members: dict[str, list[int]]) -> dict:
    """Scores of one kind and of its parts."""
    covered, unit, structure = Covered.of(found, prediction), UNITS[found.kind][0], found.structure[found.counted]
    scores = {**covered.scores(unit), "zero_by_symmetry": found.n_vanishing}
    scores["terciles"] = {name: part.scores(unit) for name, part in covered.terciles().items()}
    if found.kind == "forces":
        symbols = np.concatenate([atoms.symbols for atoms in frames])
        starts = np.cumsum([0, *map(len, frames)])
        of_label = symbols[starts[structure] + found.component[found.counted] // 3]
        scores["species"] = {str(symbol): covered.some(of_label == symbol).scores(unit) for symbol in np.unique(of_label)}
    if members:
        masks = {name: np.isin(structure, places) for name, places in sorted(members.items())}
        scores["groups"] = {name: covered.some(mask).scores(unit) for name, mask in masks.items() if mask.any()}
    return scores
