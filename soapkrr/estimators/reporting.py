"""Whether a fitted potential is sound, and everything that is known of it on one page."""

from __future__ import annotations

import os
from typing import Any

from ase import Atoms
from sklearn.utils.validation import check_is_fitted

from soapkrr.checking.findings import Findings
from soapkrr.checking.model import check_model
from soapkrr.checking.report import ModelCheck
from soapkrr.checking.summary_page import ModelReport, model_report
from soapkrr.errors import InputError
from soapkrr.estimators.posterior import PosteriorMethods
from soapkrr.labels import Labels, read_labels
from soapkrr.modelfile import check_writable
from soapkrr.regression.leave_out import LeaveOut
from soapkrr.regression.origin import data_hash
from soapkrr.structures import as_frames


class ReportMethods(PosteriorMethods):
    """Checks and reports of a fitted potential."""

    def check(self, frames: Atoms | list[Atoms] | None = None) -> ModelCheck:
        """Check what any potential must do: derivatives, symmetries, cutoff, dimers, free atoms, conservation of energy.

        With labelled ``frames`` that were not fitted, errors and coverage too, by ``config_type``. Without, structures are made of what the
        model knows. The result shows as a table with value, bound and verdict; ``passed``, `to_dict`, `to_html`.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : a structure has a species that the model does not know, or cannot be used.
        """
        check_is_fitted(self)
        return check_model(self, frames)

    def report(
        self,
        path: str | os.PathLike | None = None,
        frames: Atoms | list[Atoms] | None = None,
        *,
        findings: Findings | None = None,
        progress: bool = True,
    ) -> ModelReport:
        """Everything that is known of the model on one page: data, choices, errors and error bars by group, figures, checks, cost, card.

        The page is one HTML file without links to anything; `card` is what its maker states, and is part of it.

        Parameters
        ----------
        path : where to write the page; None: nowhere.
        frames : labelled structures. Those of the fit, all of them and in any order, are predicted without their own labels (`leave_out`);
            others are predicted as they are. None: the page has no errors.
        findings : of ``soapkrr.check(frames)``, to go into the page; None: what needs no model.
        progress : as in `fit`.

        Returns
        -------
        `ModelReport`, which shows as a table; ``errors``, ``check``, `to_dict`, `to_html`.

        Raises
        ------
        sklearn.exceptions.NotFittedError : the model is not fitted.
        InputError : no file can be written there, or a structure cannot be used.
        """
        check_is_fitted(self)
        if path is not None and not str(check_writable(path)).lower().endswith((".html", ".htm")):
            raise InputError(f"`path`: a page for a browser is written, so the name must end in .html, received {path}.")
        given = None if frames is None else as_frames(frames)
        left = None if given is None else self._left_out(given, progress)
        found = model_report(self, given, left, findings, progress)
        if path is not None:
            found.to_html(path)
        return found

    def _left_out(self, frames: list[Atoms], progress: bool) -> LeaveOut | None:
        """The leave-out, where the structures and labels are those of the fit."""
        fitted: Any = self._as_fitted()
        labels = read_labels(frames, fitted.observations, fitted._noise())
        if self.origin_.get("data_sha256") != data_hash(frames, map(Labels.numbers, labels)):
            return None
        return self.leave_out(frames, progress=progress)
