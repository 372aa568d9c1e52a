"""``soapkrr new FOLDER``: a commented script and a notebook, the same in both, for structures of one's own."""

from __future__ import annotations

import json
from pathlib import Path

from soapkrr.cli.files import read_structures
from soapkrr.cli.tables import Report
from soapkrr.cli.understood import as_text, understood
from soapkrr.errors import InputError

#: What the script is made of; cells of the notebook begin at ``# %%``.
TEMPLATE = """# %% [markdown]
# # A potential with error bars
#
# `train.xyz` holds labelled structures: energies in eV, forces in eV/Å, stress in eV/Å³ (any of them may be missing).

# %%
from ase.io import read

import soapkrr

frames = read("train.xyz", ":")
print(len(frames), "structures")

# %% [markdown]
# ## Is something wrong with the labels?
#
# Units, signs, outliers, duplicates: each with the line of code that mends it.

# %%
findings = soapkrr.check(frames)
print(findings)

# %% [markdown]
# ## Fit
#
# Every fifth structure is held out. If they come from one trajectory, better hold out another trajectory: neighbours in time are alike.

# %%
test = frames[4::5]
train = [atoms for k, atoms in enumerate(frames) if k % 5 != 4]
model = soapkrr.fit(train)  # chooses descriptor, kernel, noise; model.choices_ says why
print(soapkrr.auto.summary(model))
model.save("model.soapkrr")

# %% [markdown]
# ## How wrong is it, and does it know?

# %%
p = model.predict(test, uncertainty=True)
print(soapkrr.metrics.error_table(test, p))
lower, upper = p.interval("forces", 0.9)  # nine in ten reference forces should be in between
soapkrr.plot.parity(test, p, "forces").figure.savefig("parity.png", dpi=150)
soapkrr.plot.reliability(test, p).figure.savefig("reliability.png", dpi=150)

# %% [markdown]
# ## Would more structures help?

# %%
soapkrr.plot.learning_curve(model, train).figure.savefig("learning_curve.png", dpi=150)

# %% [markdown]
# ## Use it
#
# Any optimiser or dynamics of ASE. `novelty` is above 1 where surroundings are unlike all that were fitted.

# %%
from ase.optimize import BFGS

atoms = test[0].copy()
atoms.calc = model.calculator()
BFGS(atoms, logfile=None).run(fmax=0.02, steps=100)
q = model.predict(atoms, uncertainty=True)
print(f"{q.energy[0]:.3f} ± {q.energy_std[0]:.3f} eV, largest novelty {q.novelty[0].max():.2f}")
"""


def add_arguments(sub) -> None:
    """FOLDER and the structures."""
    sub.add_argument("folder", metavar="FOLDER", help="a folder that does not exist yet, or is empty")
    sub.add_argument("--data", metavar="FILE", help="labelled structures, which are copied (default: the package's silicon)")
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def new(args) -> Report:
    """Write FOLDER/potential.py, FOLDER/potential.ipynb and FOLDER/train.xyz."""
    from ase.io import write

    from soapkrr.datasets import silicon

    folder = Path(args.folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; choose another name.")
    frames = silicon().train if args.data is None else read_structures(args.data)
    found = understood(frames, folder / "train.xyz", None)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "train.xyz", frames, format="extxyz")
    (folder / "potential.py").write_text(TEMPLATE, encoding="utf-8")
    (folder / "potential.ipynb").write_text(notebook(TEMPLATE), encoding="utf-8")
    names = ["train.xyz", "potential.py", "potential.ipynb"]
    text = f"{as_text(found)}\n{folder} has {', '.join(names)}. Next: cd {folder} && python potential.py"
    return Report({"folder": str(folder), "files": names, "data": found}, text)


def notebook(script: str) -> str:
    """A script with ``# %%`` cells as a Jupyter notebook, without outputs."""
    cells = []
    for k, cell in enumerate(script.split("# %%")[1:]):
        head, _, body = cell.partition("\n")
        text, kind = body.strip("\n"), "markdown" if "[markdown]" in head else "code"
        if kind == "markdown":
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in text.splitlines())
        more = {"execution_count": None, "outputs": []} if kind == "code" else {}
        cells.append({"cell_type": kind, "id": f"cell-{k}", "metadata": {}, "source": text.splitlines(keepends=True), **more})
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"
