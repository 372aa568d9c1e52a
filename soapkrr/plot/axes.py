"""What the figures share: axes, and the units of each kind of observation."""

from __future__ import annotations

from ase import Atoms, units

from soapkrr.errors import InputError
from soapkrr.metrics import check_lengths
from soapkrr.prediction import Prediction
from soapkrr.structures import as_frames

#: Kind of observation → (unit on the axes, factor to it, title, unit of the errors, factor from one to the other).
KINDS = {
    "energy": ("eV/atom", 1.0, "Energy", "meV/atom", 1e3),
    "forces": ("eV/Å", 1.0, "Force components", "eV/Å", 1.0),
    "stress": ("GPa", 1 / units.GPa, "Stress components", "GPa", 1.0),
}


def checked_frames(frames, prediction: Prediction, kind: str) -> list[Atoms]:
    """The list of structures that were predicted, checked."""
    if kind not in KINDS:
        raise InputError(f"`kind` must be one of {sorted(KINDS)}, received {kind!r}.")
    frames = as_frames(frames)
    check_lengths(frames, prediction)
    return frames


def new_axes():
    """Square axes of a new figure."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise InputError('plots need matplotlib, which is not installed: pip install "soapkrr[plot]".') from error
    return plt.subplots(figsize=(4.6, 4.6), layout="constrained")[1]
