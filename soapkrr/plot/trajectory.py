"""What a model says of its own trustworthiness along a trajectory."""

from __future__ import annotations

import numpy as np

from soapkrr.errors import InputError
from soapkrr.plot.axes import BLUE, GREY, ORANGE, new_axes
from soapkrr.prediction import Prediction


def trajectory(prediction: Prediction, time=None, ax=None):
    """Novelty along a trajectory: the largest of each frame's atoms and their median; frames beyond the threshold are shaded.

    Novelty 1 is the threshold that one in a hundred training atoms exceeds; where it is crossed, forces are extrapolated. Frames with
    atoms closer than any in the training data have a mark on the time axis.

    Parameters
    ----------
    prediction : of the frames in their order, by a calibrated model, with any standard deviations.
    time : (n_frames,) ps, None: the numbers of the frames.
    ax : matplotlib axes to draw on; None makes a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError : matplotlib is not installed, the prediction has no novelty, or ``time`` is of another length.
    """
    known = getattr(prediction, "novelty", None)
    if known is None:
        raise InputError(
            "`prediction` has no novelty: predict with `uncertainty=True` by a calibrated model, of `soapkrr.fit` or after "
            "`model.calibrate(frames)`."
        )
    x = np.arange(len(prediction)) if time is None else np.asarray(time, dtype=float)
    if x.shape != (len(prediction),):
        raise InputError(f"`time` must hold one number for each of the {len(prediction)} frames, received shape {x.shape}.")
    largest, median = np.array([n.max() for n in known]), np.array([np.median(n) for n in known])
    ax = new_axes(3.4) if ax is None else ax
    top = 1.15 * max(float(largest.max()), 1.1)
    ax.fill_between(x, 0, top, where=largest > 1, step="mid", color=ORANGE, alpha=0.18, linewidth=0, zorder=0)
    ax.axhline(1.0, color=GREY, linewidth=1, linestyle="--", zorder=1, label="threshold")
    ax.plot(x, largest, color=ORANGE, linewidth=1.6, label="largest", zorder=3)
    ax.plot(x, median, color=BLUE, linewidth=1.6, label="median of the atoms", zorder=2)
    if prediction.outside is not None and prediction.outside.any():
        ax.plot(
            x[prediction.outside], np.zeros(int(prediction.outside.sum())), "x", color="k", clip_on=False, label="atoms too close", zorder=4
        )
    ax.set(xlabel="frame" if time is None else "time (ps)", ylabel="novelty", ylim=(0, top), xlim=(x[0], x[-1] if len(x) > 1 else x[0] + 1))
    ax.set_title(f"{int((largest > 1).sum()):,} of {len(x):,} frames beyond what is known")
    ax.legend(frameon=False, fontsize=9, ncols=2, loc="upper left")
    return ax
