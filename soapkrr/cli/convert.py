"""``soapkrr convert``: a published potential becomes a model file."""

from __future__ import annotations

from soapkrr.cli.arguments import output
from soapkrr.cli.files import model_path
from soapkrr.cli.tables import Report

CONVERTED = "Parts of FILE that are not understood are named, never left out. Files of sparse points are expected beside it."


def convert(args) -> Report:
    """Read a GAP of QUIP and write it as a model file."""
    from soapkrr.gap.reading import load_gap

    path = model_path(args.output, args.file)
    model = load_gap(args.file, refit=args.refit)
    model.save(path)
    terms = [type(descriptor).__name__ for descriptor in model.process_.descriptors]
    bars = "with error bars" if args.refit else "coefficients alone, without error bars"
    text = f"{args.file}: {', '.join(terms)} of {', '.join(model.reference_energies_)}, {bars}; written to {path}"
    data = {
        "model": str(path),
        "terms": terms,
        "species": list(model.reference_energies_),
        "refit": args.refit,
        "n_sparse": model.n_sparse_,
    }
    return Report(data, text)


def convert_arguments(sub) -> None:
    sub.add_argument("file", metavar="FILE", help="XML file of a Gaussian approximation potential, as gap_fit writes it")
    output(sub, "MODEL", "model file to write", required=True)
    sub.add_argument("--refit", action="store_true", help="fit anew to the training structures that FILE embeds, for error bars")
    sub.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
