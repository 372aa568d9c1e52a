"""``soapkrr info``."""

from __future__ import annotations

from pathlib import Path

from soapkrr.commands.files import descriptors_of
from soapkrr.commands.tables import Report, counts, noise_text


def info(args) -> Report:
    from soapkrr import io
    from soapkrr.baselines import split_baseline

    name = io.baseline_calculator_name(args.model)
    model = io.load(args.model, **({} if name is None else {"baseline_calculator": _absent(name)}))
    header = io.read_header(args.model)
    terms = _terms(model)
    data = {
        "model": args.model,
        "format_version": header["version"],
        "estimator": header["estimator"],
        "species": sorted({symbol for descriptor in descriptors_of(model) for symbol in descriptor.species}),
        "parameters": header["parameters"] | _given_noise(model),
        "terms": terms,
        "n_sparse": getattr(model, "n_sparse_", None),
        "rank": getattr(model, "rank_", None),
        "condition": getattr(model, "condition_", None),
        "n_observations": model.n_observations_,
        "log_likelihood": getattr(model, "log_likelihood_", None),
        "noise": model.noise_,
        "signals": [term["signal"] for term in terms],
        "prior_means": [repr(mean) for mean in split_baseline(model.baseline)[1]],
        "observations": None if getattr(model, "observations", None) is None else repr(model.observations),
        "reference_energies": model.reference_energies_,
        "size_mb": Path(args.model).stat().st_size / 1e6,
    }
    return Report(data, "\n".join(f"{name:<20}{' '.join(value.split())}" for name, value in _rows(data, model)))


def _absent(name: str):
    """Stands for a calculator that only Python can give."""
    from ase.calculators.calculator import Calculator

    return type(name, (Calculator,), {"__repr__": lambda self: name})()


def _given_noise(model) -> dict:
    """The noise that the fit started from, defaults filled in."""
    from soapkrr.regression.sparse_gp import checked_noise

    return {"noise": checked_noise(model.noise)} if "noise" in model.get_params(deep=False) else {}


def _terms(model) -> list[dict]:
    """Descriptor, kernel, signal and sparse points of every term."""
    from soapkrr.descriptors.base import Descriptor
    from soapkrr.regression.terms import as_terms

    alone = isinstance(model.descriptor, Descriptor)
    given = [model] if alone else as_terms(model.descriptor)
    signals = [term.signal for term in model.terms_] if hasattr(model, "terms_") else model.signals_
    n_sparse = getattr(model, "n_sparse_", None)
    points = [n_sparse] if alone or n_sparse is None else n_sparse
    return [
        {
            "descriptor": repr(term.descriptor),
            "kernel": repr(term.kernel),
            "signal": float(signal),
            "n_sparse": None if n_sparse is None else points[k],
            "selection": None if n_sparse is None else _selection(term.selection),
        }
        for k, (term, signal) in enumerate(zip(given, signals, strict=True))
    ]


def _selection(selection) -> str:
    return selection if isinstance(selection, str) else repr(selection)


def _rows(data: dict, model) -> list[tuple[str, str]]:
    """Names and values as printed."""
    n_observations = data["n_observations"]
    rows = [
        ("model", f"{data['model']}, {data['size_mb']:.1f} MB, {data['estimator']}, format {data['format_version']}"),
        ("species", ", ".join(data["species"])),
    ]
    for k, term in enumerate(data["terms"], 1):
        rows += _term_rows(term, "" if len(data["terms"]) == 1 else f" {k}")
    if data["rank"] is not None:
        rows.append(("features", f"{data['rank']} (tolerance {model.tolerance:g})"))
    several = isinstance(n_observations, dict)
    rows.append(("observations", ", ".join(f"{kind} {n}" for kind, n in n_observations.items()) if several else str(n_observations)))
    rows.append(("noise", noise_text(data["noise"])))
    if data["observations"]:
        rows.append(("labels", data["observations"]))
    rows.append(("reference energies", ", ".join(f"{symbol} {energy:.6f} eV" for symbol, energy in data["reference_energies"].items())))
    rows += [("prior mean", mean) for mean in data["prior_means"]]
    if data["log_likelihood"] is not None:
        rows.append(("log likelihood", f"{data['log_likelihood']:.2f}"))
    if data["condition"] is not None:
        rows.append(("condition number", f"{data['condition']:.1e}"))
    return rows


def _term_rows(term: dict, number: str) -> list[tuple[str, str]]:
    rows = [
        (f"descriptor{number}", term["descriptor"]),
        (f"kernel{number}", term["kernel"]),
        (f"signal{number}", f"{term['signal']:.4g} eV"),
    ]
    if term["n_sparse"] is not None:
        rows.append((f"sparse points{number}", f"{counts(term['n_sparse'])} ({term['selection']})"))
    return rows
