"""`soapkrr.check`: what is wrong with labelled structures, before anything is fitted to them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from ase import Atoms

from soapkrr.auto import Settings, choose
from soapkrr.checking.findings import Finding, Findings, worst_first
from soapkrr.checking.groups import group_findings
from soapkrr.checking.judging import judge
from soapkrr.checking.plain import duplicates, plain_findings
from soapkrr.checking.probe import START, Probe
from soapkrr.checking.single import single_findings
from soapkrr.checking.whole import Mistake, whole_kinds
from soapkrr.labels import Labels, Observations, read_labels
from soapkrr.regression.terms import Term
from soapkrr.structures import Batch, as_frames
from soapkrr.threads import serial_blas

logger = logging.getLogger(__name__)

#: Structures from which labels can be held against each other.
FEWEST = 5

#: Sparse points at least and at most, and numbers of the table that they may fill; rows kept at most, and by which whole kinds are judged.
SPARSE, NUMBERS, ROWS, WHOLE = (300, 800), 20_000_000, 50_000, 6_000


def check(
    frames: Atoms | list[Atoms],
    *,
    observations: Observations | None = None,
    quick: bool = False,
    threads: int | None = None,
    names: Sequence[str] | None = None,
) -> Findings:
    """Look for what is wrong with labelled structures: units, signs and orders, structures that the others contradict, duplicates.

    Labels of one method fit together: a quick sparse model, fitted to some and held against the others, tells which do not
    (`soapkrr.checking`). What no model is needed for is looked at as well.

    Parameters
    ----------
    frames : structures with labels.  observations : names of labels, as in a fit.  threads : as in the estimators.
    quick : only what needs no model.
    names : what to call each structure in the table, in place of its index.

    Returns
    -------
    `Findings`, which shows as a table: severity, what, which frames, evidence, what to do and the line of code that does it.

    Raises
    ------
    InputError : a structure or a label cannot be read; the message names it.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from ase.calculators.emt import EMT
    >>> import soapkrr
    >>> frames = [bulk("Cu", a=a) for a in (3.5, 3.55, 3.6, 3.65, 3.7)]
    >>> for atoms in frames:
    ...     atoms.calc = EMT()
    ...     _ = atoms.get_potential_energy()
    >>> soapkrr.check(frames).clean
    True
    """
    frames = as_frames(frames)
    Batch.from_atoms(frames)
    labels = read_labels(frames, observations, dict(START))
    found = plain_findings(frames, labels)
    labelled = [s for s, label in enumerate(labels) if not label.empty and (len(frames[s]) > 1 or frames[s].pbc.any())]
    if not quick and len(labelled) >= FEWEST:
        places = np.array(_thinned(frames, labels, labelled))
        by = "config_type" if observations is None else observations.config_type
        term = _term([frames[s] for s in places], observations, threads)
        with serial_blas():
            some, whole = _with_a_model([frames[s] for s in places], [labels[s] for s in places], term, threads, by)
        found += [_placed(finding, places) for finding in some]
        labels = [_undone(label, whole, atoms) for label, atoms in zip(labels, frames, strict=True)]
        if len(places) < len(labelled):
            what = f"{len(places)} of {len(labelled)} structures, drawn at random, were held against each other: all would take long"
            found.append(Finding("note", what, advice="Check parts of the data one by one to see all of them."))
    elif not quick:
        what = f"{len(labelled)} labelled structures are too few to hold their labels against each other: {FEWEST} are needed"
        found.append(Finding("note", what, advice="Units and signs were not looked at."))
    found += duplicates(frames, labels)
    return Findings(worst_first(found), len(frames), None if names is None else tuple(names))


def _undone(label: Labels, whole: dict[str, Mistake], atoms: Atoms) -> Labels:
    """A structure's labels as they should be in general."""
    volume = atoms.get_volume() if atoms.pbc.all() else 1.0
    return replace(label, **{kind: mistake.undo(getattr(label, kind), volume) for kind, mistake in whole.items() if label.has(kind)})


def _placed(finding: Finding, places: np.ndarray) -> Finding:
    return Finding(**{**vars(finding), "frames": tuple(int(places[s]) for s in finding.frames)})


def _thinned(frames: list[Atoms], labels: list[Labels], labelled: list[int]) -> list[int]:
    """Structures whose rows are within `ROWS` together, drawn at random."""
    rows = np.array([1 + (3 * len(frames[s]) if labels[s].has("forces") else 0) + 6 * labels[s].has("stress") for s in labelled])
    if rows.sum() <= ROWS:
        return labelled
    order = np.random.default_rng(0).permutation(len(labelled))
    n = max(FEWEST, int(np.searchsorted(np.cumsum(rows[order]), ROWS)))
    return sorted(labelled[k] for k in order[:n])


def _term(frames: list[Atoms], observations: Observations | None, threads: int | None) -> Term:
    """Descriptor and kernel that a fit would take, with few sparse points."""
    environments = sum(map(len, frames))
    n = min(int(np.clip(NUMBERS // (3 * environments), *SPARSE)), environments)
    model = choose(frames, {"n_sparse": n}, Settings(observations, threads=threads, search=False)).model
    if isinstance(model.descriptor, list):
        return model.descriptor[-1]
    return Term(model.descriptor, model.kernel, n)


def _with_a_model(frames: list[Atoms], labels: list[Labels], term: Term, threads: int | None, by: str) -> tuple[list[Finding], dict]:
    probe = Probe.of(frames, labels, term, threads)
    whole, evidence = whole_kinds(probe.some(WHOLE)) if len(probe.kinds) else ({}, {})
    found = _whole_findings(whole, evidence)
    judged = judge(probe, whole)
    return [*found, *single_findings(judged), *group_findings(judged, by)], whole


def _whole_findings(whole: dict[str, Mistake], evidence: dict[str, float]) -> list[Finding]:
    return [
        Finding(
            "error",
            f"the {kind} of all structures: {mistake.cause}",
            (),
            evidence,
            "Convert them before a fit.",
            f"for atoms in frames: {mistake.code()}",
        )
        for kind, mistake in whole.items()
    ]
