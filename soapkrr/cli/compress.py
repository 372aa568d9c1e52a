"""``soapkrr compress``."""

from __future__ import annotations

from dataclasses import asdict

from soapkrr.cli.arguments import common, number, output
from soapkrr.cli.files import load_model, model_path, read_structures
from soapkrr.cli.tables import Report
from soapkrr.errors import InputError

COMPRESSED = "The posterior is that of a fit with the points that are left, without data. Give --tolerance, or --microseconds with FILE."


def compress(args) -> Report:
    """A fitted sparse model on fewer of its points."""
    path = model_path(args.output, args.model, args.file)
    if args.microseconds is not None and args.file is None:
        raise InputError("`--microseconds` needs FILE, structures whose prediction is timed.")
    model = load_model(args.model, args.device, args.threads, args.memory_limit)
    if not hasattr(model, "compress"):
        raise InputError(f"{args.model} is a {type(model).__name__}: there are no sparse points to leave out, only a `SparseGP` has some.")
    frames = None if args.file is None else read_structures(args.file)
    smaller = model.compress(tolerance=args.tolerance, microseconds_per_atom=args.microseconds, frames=frames)
    smaller.save(path)
    return Report({"output": str(path), **asdict(smaller.compression_)}, f"{smaller.compression_}\nwritten to {path}")


def compress_arguments(sub) -> None:
    """Options of the command."""
    sub.add_argument("model", metavar="MODEL", help="model file of a sparse model")
    sub.add_argument("file", nargs="?", metavar="FILE", help="structures whose prediction is timed")
    output(sub, "OUT", "model file to write", required=True)
    number(sub, "--tolerance", float, None, "part by which errors of left-out labels may grow, 0.02 for two per cent")
    number(sub, "--microseconds", float, None, "time of a prediction per atom, in place of a tolerance")
    common(sub)
