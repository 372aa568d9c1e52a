"""``soapkrr report``."""

from __future__ import annotations

import json
from pathlib import Path

from soapkrr.cli.arguments import common, output
from soapkrr.cli.files import check_labels, check_structures, known_species, load_model, model_and_structures, named
from soapkrr.cli.tables import Report
from soapkrr.errors import InputError

REPORTED = (
    "Structures of the fit, all of them, are predicted without their own labels; others as they are. The card of MODEL, what its maker "
    "states of data, licence and use, is part of the page; --card writes it into MODEL first."
)


def report(args) -> Report:
    """Everything that is known of a model, on one page."""
    from soapkrr import check as check_data

    if args.file is None:
        model, frames = load_model(args.model, args.device, args.threads, args.memory_limit), None
    else:
        model, frames = model_and_structures(args)
        check_structures(frames, args.file, model.process_.descriptors, known_species(model))
        check_labels(frames, args.file, model.fitted_parameters_.get("observations"))
    if args.card:
        model.card = _card(args.card)
        model.save(args.model)
    findings = None
    if frames is not None and not args.quick:
        with named(args.file):
            findings = check_data(frames, observations=model.fitted_parameters_.get("observations"), threads=args.threads)
    found = model.report(args.output, frames, findings=findings, progress=not args.quiet)
    return Report({"file": args.file, "output": args.output, **found.to_dict(), "model": args.model}, f"{found!r}\n{args.output}")


def _card(path: str) -> dict:
    """Texts by name of a JSON file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f'cannot read the card {path}: {error}; expected JSON such as {{"licence": "CC-BY-4.0"}}.') from error


def report_arguments(sub) -> None:
    """Options of the command."""
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("file", nargs="?", metavar="FILE", help="labelled structures: those of the fit, or others")
    output(sub, "PAGE", "page to write (default %(default)s)")
    sub.set_defaults(output="report.html")
    sub.add_argument("--quick", action="store_true", help="of the data, only what takes no fit")
    sub.add_argument("--card", metavar="JSON", help="texts by name, for the model card: data, references, licence, intended use")
    common(sub)
