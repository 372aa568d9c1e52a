"""Kernel rows of a fit, kept on a disk for a second pass over the same structures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from soapkrr import backends
from soapkrr.execution.scratch import Scratch
from soapkrr.regression.layout import Table


class KeptRows:
    """Rows K and prior variances of structures, by their places in the list that the user gave; 8 bytes for each label and sparse point."""

    def __init__(self):
        self._rows, self._priors = Scratch(), {}

    def put(self, tables: Sequence[Table], first: int, order: np.ndarray) -> None:
        """Keep the tables of consecutive structures from ``first`` on, whose places are ``order``."""
        structures = np.arange(first, first + len(order) + 1)
        bounds = [np.searchsorted(table.structure, structures) for table in tables]
        arrays = [backends.host(table.rows) for table in tables]
        for k, place in enumerate(order.tolist()):
            mine = [(t, slice(b[k], b[k + 1])) for t, b in enumerate(bounds) if b[k] < b[k + 1]]
            if mine:
                self._priors[place] = np.concatenate([tables[t].prior[rows] for t, rows in mine])
                content, at = np.empty((len(self._priors[place]), arrays[0].shape[1])), 0
                for t, rows in mine:  # from columns to rows in one copy
                    content[at : at + rows.stop - rows.start], at = arrays[t][rows], at + rows.stop - rows.start
                self._rows.put(place, content)

    def get(self, place: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows and prior variances of one structure, energy, forces, stress; None where they were not kept."""
        rows = self._rows.get(place)
        return None if rows is None else (rows, self._priors[place])
