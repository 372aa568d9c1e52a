"""What a model of tensors predicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from soapkrr.display import Tabular, counted, ends


@dataclass(frozen=True, eq=False, repr=False)
class TensorPrediction(Tabular):
    """Predicted tensors; NumPy takes it for the array of its values.

    Attributes
    ----------
    values : (n_values, ...) Cartesian tensors, one for each structure, or for each atom, structure after structure.
    std : posterior standard deviations of the components, as ``values``, without the noise of an observation; None when not asked for.
    covariance : (n_values, n_components, n_components) posterior covariance of the components; None when not asked for.
    sizes : (n_structures,) values of each structure.
    """

    values: np.ndarray
    std: np.ndarray | None
    covariance: np.ndarray | None
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def by_structure(self) -> list[np.ndarray]:
        """The values of each structure, (1, ...), or (n_atoms, ...) of a tensor of atoms."""
        return np.split(self.values, np.cumsum(self.sizes)[:-1])

    def _title(self) -> str:
        return f"Prediction of {counted(len(self), 'tensor')} of {counted(len(self.sizes), 'structure')}"

    def _columns(self) -> list[str]:
        return ["structure", "components", *([] if self.std is None else ["largest std"])]

    def _rows(self) -> list[list[str]]:
        structure = np.repeat(np.arange(len(self.sizes)), self.sizes)
        return [["…"] * len(self._columns()) if k is None else self._row(k, structure[k]) for k in ends(len(self))]

    def _row(self, k: int, structure: int) -> list[str]:
        shown = " ".join(f"{x:.4g}" for x in np.ravel(self.values[k]))
        return [str(structure), shown, *([] if self.std is None else [f"{np.max(self.std[k]):.2g}"])]
