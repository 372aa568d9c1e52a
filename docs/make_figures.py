"""Make the figures of the documentation: ``python docs/make_figures.py``."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

import soapkrr

FOLDER = Path(__file__).parent / "figures"


def first_fit() -> None:
    """Forces of silicon with nothing chosen by hand: predicted against reference, and coverage of the intervals."""
    train, test = soapkrr.datasets.silicon()
    p = soapkrr.fit(train).predict(test, uncertainty=True)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4))
    soapkrr.plot.parity(test, p, "forces", ax=left)
    soapkrr.plot.reliability(test, p, ax=right)
    figure.savefig(FOLDER / "first-fit.png", dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    first_fit()
