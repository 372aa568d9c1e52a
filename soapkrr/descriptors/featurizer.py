"""A scikit-learn transformer around any descriptor: structures in, arrays out."""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from soapkrr.descriptors.base import Descriptor
from soapkrr.errors import InputError
from soapkrr.specification import Nested
from soapkrr.structures import as_frames

AVERAGES = ("off", "outer")


class Featurizer(TransformerMixin, Nested, BaseEstimator):
    """Descriptors of lists of `ase.Atoms` for principal components, clustering or regression.

    Parameters
    ----------
    descriptor : any soapkrr descriptor.
    average : ``"off"``, one row per atom, structures one after the other; ``"outer"``, one row per structure, the mean of its atoms'.

    Attributes
    ----------
    descriptor_ : the descriptor in use; where one learns from the data (`Compressed`), what it learnt.

    Raises
    ------
    InputError : a parameter cannot be used; the message names it.

    Examples
    --------
    >>> from ase.build import bulk
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.pipeline import make_pipeline
    >>> from soapkrr import SOAP, Featurizer
    >>> pipeline = make_pipeline(Featurizer(SOAP(species=["Si"], r_cut=4.0), average="outer"), PCA(2))
    >>> pipeline.set_params(featurizer__descriptor__n_max=4).fit_transform([bulk("Si", a=a) for a in (5.3, 5.4, 5.5)]).shape
    (3, 2)
    """

    def __init__(self, descriptor: Descriptor, *, average: str = "off"):
        self.descriptor = descriptor
        self.average = average

    def fit(self, frames, y=None) -> Featurizer:
        """Learn what the descriptor learns from data, if anything; ``y`` is ignored."""
        if not isinstance(self.descriptor, Descriptor):
            raise InputError(f"`descriptor` must be a soapkrr descriptor, received {type(self.descriptor).__name__}.")
        if self.average not in AVERAGES:
            raise InputError(f"`average` must be one of {AVERAGES}, received {self.average!r}.")
        self.descriptor_ = self.descriptor.fitted(self.descriptor.create(frames)) if self.descriptor.learns else self.descriptor
        return self

    def transform(self, frames) -> np.ndarray:
        """(n_atoms or n_structures, n_features) array."""
        check_is_fitted(self)
        frames = as_frames(frames)
        X = self.descriptor_.create(frames)
        if self.average == "off":
            return X
        starts = np.cumsum([0] + [len(atoms) for atoms in frames[:-1]])
        return np.add.reduceat(X, starts, axis=0) / np.array([[len(atoms)] for atoms in frames])

    def get_feature_names_out(self, input_features=None) -> np.ndarray:
        """A readable name of each column."""
        check_is_fitted(self)
        return self.descriptor_.get_feature_names_out()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.no_validation = False, True
        return tags
