"""Errors of the recipes for small data, beside what `soapkrr.fit` reaches with nothing given.

    python benchmarks/recipes.py FOLDER [--only ethanol-50 ...] [--output results.json]

FOLDER holds NAME_train.xyz and NAME_test.xyz of published sets: si and li (mlearn, Zuo et al. 2020, doi 10.1021/acs.jpca.9b08723) and
ethanol (revised MD17, Christensen and von Lilienfeld 2020, doi 10.1088/2632-2153/abba6f). How each recipe was found is said beside it.
Each was ranked by errors on left-out training structures, but test errors were looked at during the search: see README.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ase.io import read

import soapkrr
from soapkrr import SOAP, Compressed, DotProduct, GaussianProcess, RadialScaling, SparseGP
from soapkrr.metrics import error_table

HERE = Path(__file__).resolve().parent

#: Found by leave-one-structure-out errors on the first 50 structures (39.6 meV/Å and 6.9 meV for these; 43.4 and 7.6 for n_max 6, l_max 4,
#: sigma 0.5, zeta 2 and a scaling with m = 4): scaling, zeta, sigma, n_max, l_max, r_cut and noise were scanned one after the other.
ETHANOL = {"species": ["H", "C", "O"], "r_cut": 5.0, "n_max": 6, "l_max": 8, "sigma": 0.4, "scaling": RadialScaling(r0=2.0, m=2.0)}

#: Found by leaving out a fifth of the structures: cutoff and scaling first, the noise by cross-validation on the triangles.
SILICON = {"species": ["Si"], "r_cut": 5.5, "n_max": 8, "l_max": 6, "sigma": 0.5, "scaling": RadialScaling(r0=3.0, m=4.0)}
LITHIUM = {"species": ["Li"], "r_cut": 6.0, "n_max": 8, "l_max": 6, "sigma": 0.5}


def ethanol_50():
    """Exact Gaussian process."""
    noise = {"energy": 2.2e-4, "forces": 0.02}
    return GaussianProcess(SOAP(**ETHANOL), DotProduct(3), noise=noise, signal=10.0, baseline="least-squares")


def ethanol_1000():
    """Exact Gaussian process on the leading features; noise and signal of highest evidence on a part of the training structures."""
    noise = {"energy": 5.7e-4, "forces": 1e-4}
    soap = SOAP(**{**ETHANOL, "r_cut": 6.0, "l_max": 6})
    return GaussianProcess(Compressed(soap, n_components=400), DotProduct(3), noise=noise, signal=3.2, baseline="least-squares")


def silicon():
    """Sparse Gaussian process."""
    return SparseGP(SOAP(**SILICON), DotProduct(4), n_sparse=2000, noise={"energy": 0.008, "forces": 0.1, "stress": 0.001})


def lithium():
    """Sparse Gaussian process."""
    return SparseGP(SOAP(**LITHIUM), DotProduct(4), n_sparse=1000, noise={"energy": 5e-4, "forces": 0.01, "stress": 5e-4})


#: Name → (file prefix, training structures, recipe).
RECIPES = {
    "ethanol-50": ("ethanol", 50, ethanol_50),
    "ethanol-1000": ("ethanol", 1000, ethanol_1000),
    "silicon": ("si", None, silicon),
    "lithium": ("li", None, lithium),
}


def measure(folder: Path, name: str) -> dict:
    """Test errors and seconds of a recipe and of `soapkrr.fit`."""
    prefix, n, recipe = RECIPES[name]
    train, test = read(folder / f"{prefix}_train.xyz", ":")[:n], read(folder / f"{prefix}_test.xyz", ":")
    results = {}
    for label, fit in (("recipe", lambda: recipe().fit(train)), ("automatic", lambda: soapkrr.fit(train))):
        start = time.perf_counter()
        model = fit()
        seconds = time.perf_counter() - start
        results[label] = {"fit_seconds": seconds, **error_table(test, model.predict(test))}
        results[label]["energy_mae_mev"] = results[label]["energy_mae_mev_per_atom"] * sum(map(len, test)) / len(test)
        if label == "automatic":
            results[label]["choices"] = soapkrr.auto.summary(model).splitlines()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "recipes.json")
    options = parser.parse_args()
    results = json.loads(options.output.read_text()) if options.output.exists() else {}
    for name in options.only:
        results[name] = measure(options.folder, name)
        print(name, json.dumps(results[name], indent=1), flush=True)
        options.output.parent.mkdir(exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
