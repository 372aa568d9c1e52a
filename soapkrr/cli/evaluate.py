"""``soapkrr evaluate``."""

from __future__ import annotations

from soapkrr.cli.files import check_labels, check_structures, known_species, model_and_structures
from soapkrr.cli.tables import Report, error_text, errors


def evaluate(args) -> Report:
    model, frames = model_and_structures(args)
    check_structures(frames, args.file, model.process_.descriptors, known_species(model))
    check_labels(frames, args.file, model.fitted_parameters_.get("observations"), by=args.by)
    found = errors(model, frames, args.uncertainty, not args.quiet, args.by, calibration=True)
    return Report({**found, "model": args.model, "file": args.file}, error_text(f"{args.model} on {args.file}", found, args.by))
