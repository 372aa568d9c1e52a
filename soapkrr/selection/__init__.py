"""Choice of sparse points: functions on rows of descriptors, and the specifications that a `Term` takes."""

from soapkrr.display import only_public
from soapkrr.selection.methods import cur, farthest_point_sampling, k_means, leverage, leverage_scores, random_selection, share, stratified
from soapkrr.selection.specifications import (
    CUR,
    FarthestPoint,
    GivenPoints,
    KMeans,
    Leverage,
    RandomSelection,
    Selection,
    Stratified,
    as_selection,
)

__all__ = [
    "CUR",
    "FarthestPoint",
    "GivenPoints",
    "KMeans",
    "Leverage",
    "RandomSelection",
    "Selection",
    "Stratified",
    "as_selection",
    "cur",
    "farthest_point_sampling",
    "k_means",
    "leverage",
    "leverage_scores",
    "random_selection",
    "share",
    "stratified",
]

__dir__ = only_public(__name__)
