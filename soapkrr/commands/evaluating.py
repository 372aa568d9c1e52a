"""``soapkrr evaluate``."""

from __future__ import annotations

from soapkrr.commands.files import check_labels, check_structures, descriptors_of, known_species, load_model, read_structures
from soapkrr.commands.tables import Report, error_text, errors


def evaluate(args) -> Report:
    model = load_model(args.model, args.device, args.threads, args.memory_limit)
    frames = read_structures(args.file)
    check_structures(frames, args.file, descriptors_of(model), known_species(model))
    check_labels(frames, args.file, getattr(model, "observations", None), by=args.by)
    found = errors(model, frames, args.uncertainty, not args.quiet, args.by)
    return Report({**found, "model": args.model, "file": args.file}, error_text(f"{args.model} on {args.file}", found, args.by))
