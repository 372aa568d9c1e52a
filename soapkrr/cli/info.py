"""``soapkrr info``."""

from __future__ import annotations

from pathlib import Path

from soapkrr.cli.tables import Report, counts, told


def info(args) -> Report:
    """What a model file holds; with ``--verify`` only whether it is intact, after everything in it has been checked."""
    from soapkrr.modelfile import read_header

    model, header = _loaded(args.model), read_header(args.model)
    if args.verify:
        return _verified(args.model, model, header)
    given = model.fitted_parameters_
    data = {
        "model": args.model,
        "format_version": header["version"],
        "estimator": header["estimator"],
        **{name: model.origin_.get(name) for name in ("software", "date", "data_sha256")},
        "species": sorted({symbol for descriptor in model.process_.descriptors for symbol in descriptor.species}),
        "parameters": header["parameters"] | _given_noise(given),
        "terms": _terms(model),
        "n_sparse": getattr(model, "n_sparse_", None),
        "representers": given.get("representers"),
        "rank": getattr(model, "rank_", None),
        "condition": getattr(model, "condition_", None),
        "n_observations": model.n_observations_,
        "log_likelihood": model.log_likelihood_,
        "noise": model.noise_,
        "signals": [float(signal) for signal in model.signals_],
        "prior_means": [repr(mean) for mean in getattr(model, "prior_means_", ())],
        "observations": None if given.get("observations") is None else repr(given["observations"]),
        "reference_energies": model.reference_energies_,
        "card": model.card.given,
        "choices": told(getattr(model, "choices_", ())),
        "size_mb": Path(args.model).stat().st_size / 1e6,
    }
    text = "\n".join(f"{name:<20}{' '.join(value.split())}" for name, value in _rows(data, given.get("tolerance")))
    return Report(data, f"{text}\n\n{_chosen(model)}" if data["choices"] else text)


def _chosen(model) -> str:
    """What the fit chose and why, and its errors on test structures."""
    from soapkrr.auto import summary

    return f"chosen by the fit\n\n{summary(model)}"


def _loaded(path: str):
    """The model, with a stand-in where it needs a calculator; loading it checks everything that can be checked."""
    from soapkrr.loading import opened
    from soapkrr.modelfile import baseline_calculator_name

    name = baseline_calculator_name(path)
    return opened(path, **({} if name is None else {"baseline_calculator": _absent(name)}))


def _verified(path: str, model, header: dict) -> Report:
    """One line: what was compared and agrees."""
    arrays, size = header.get("arrays"), Path(path).stat().st_size
    digests = "no SHA-256 in it to compare" if arrays is None else f"SHA-256 of the header and {len(arrays)} arrays agree"
    data = {"model": path, "intact": True, "format_version": header["version"], "arrays_compared": len(arrays or ())}
    text = f"{path}: {type(model).__name__}, format {header['version']}, {size / 1e6:.1f} MB, readable and in range; {digests}"
    return Report(data | {"sha256": header.get("sha256")}, text)


def _absent(name: str):
    """Stands for a calculator that only Python can give."""
    from ase.calculators.calculator import Calculator

    return type(name, (Calculator,), {"__repr__": lambda self: name})()


def _given_noise(given: dict) -> dict:
    """The noise that the fit of a potential started from, defaults filled in."""
    from soapkrr.regression.data import checked_noise

    return {"noise": checked_noise(given["noise"])} if "noise" in given and "target" not in given else {}


def _terms(model) -> list[dict]:
    """Descriptor, kernel, signal and sparse points of every term, as they were given."""
    from soapkrr.descriptors.base import Descriptor
    from soapkrr.regression.terms import Term, as_terms

    given = model.fitted_parameters_
    if isinstance(given["descriptor"], Descriptor):
        known = {name: given[name] for name in ("n_sparse", "selection") if name in given}
        terms = [Term(given["descriptor"], given["kernel"], **known)]
    else:
        terms = as_terms(given["descriptor"])
    n_sparse = getattr(model, "n_sparse_", None)
    points = n_sparse if isinstance(n_sparse, list) else [n_sparse]
    of_environments = given.get("representers") == "environments"
    return [
        {
            "descriptor": repr(term.descriptor),
            "kernel": repr(term.kernel),
            "signal": float(signal),
            "n_sparse": points[k] if of_environments else None,
            "selection": (term.selection if isinstance(term.selection, str) else repr(term.selection)) if of_environments else None,
        }
        for k, (term, signal) in enumerate(zip(terms, model.signals_, strict=True))
    ]


def _rows(data: dict, tolerance: float | None) -> list[tuple[str, str]]:
    """Names and values as printed."""
    from soapkrr.estimators.summary import noise_text

    rows = [
        ("model", f"{data['model']}, {data['size_mb']:.1f} MB, {data['estimator']}, format {data['format_version']}"),
        ("fitted", f"{data['date']} by {data['software']}" if data["date"] else "date and software not stated"),
        ("data SHA-256", data["data_sha256"] or "not stated"),
        ("species", ", ".join(data["species"])),
    ]
    for k, term in enumerate(data["terms"], 1):
        rows += _term_rows(term, "" if len(data["terms"]) == 1 else f" {k}")
    if data["representers"] == "observations":
        rows.append(("representers", f"observations: {counts(data['n_sparse'])}"))
    if data["rank"] is not None:
        rows.append(("features", f"{data['rank']} (tolerance {tolerance:g})"))
    rows.append(("observations", counts(data["n_observations"])))
    rows.append(("noise", noise_text(data["noise"])))
    if data["observations"]:
        rows.append(("labels", data["observations"]))
    rows.append(("reference energies", ", ".join(f"{symbol} {energy:.6f} eV" for symbol, energy in data["reference_energies"].items())))
    rows += [("prior mean", mean) for mean in data["prior_means"]]
    rows.append(("log likelihood", f"{data['log_likelihood']:.2f}"))
    if data["condition"] is not None:
        rows.append(("condition number", f"{data['condition']:.1e}"))
    return rows + [(f"card: {name}"[:19], text) for name, text in data["card"].items()]


def _term_rows(term: dict, number: str) -> list[tuple[str, str]]:
    rows = [
        (f"descriptor{number}", term["descriptor"]),
        (f"kernel{number}", term["kernel"]),
        (f"signal{number}", f"{term['signal']:.4g} eV"),
    ]
    if term["n_sparse"] is not None:
        rows.append((f"sparse points{number}", f"{counts(term['n_sparse'])} ({term['selection']})"))
    return rows
