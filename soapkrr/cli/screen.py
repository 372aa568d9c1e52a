"""``soapkrr screen``."""

from __future__ import annotations

from pathlib import Path

from soapkrr.cli.files import is_model, load_model, read_structures
from soapkrr.cli.tables import Report
from soapkrr.errors import InputError

#: Options that are settings of a screening.
SETTINGS = ("next", "best", "below", "rank", "coverage", "merge", "fmax", "steps", "cell")


def screen(args) -> Report:
    from soapkrr.active.candidates import check_source
    from soapkrr.active.screening import check_output
    from soapkrr.active.screening import screen as screened
    from soapkrr.active.settings import Settings

    if is_model(args.candidates):
        raise InputError(f"`CANDIDATES`: {args.candidates} is a model file; it is `soapkrr screen MODEL CANDIDATES --output OUT.db`.")
    references = read_structures(args.references) if isinstance(args.references, str) else args.references
    settings = {name: getattr(args, name) for name in SETTINGS} | {"references": references}
    Settings.of(settings)
    if Path(args.model).exists() and Path(args.output).exists() and Path(args.output).samefile(args.model):
        raise InputError(f"`--output` {args.output} is an input file; choose another name.")
    check_source(args.candidates)
    check_output(args.output, args.candidates)
    model = load_model(args.model, args.device, args.threads, args.memory_limit)
    found = screened(model, args.candidates, args.output, progress=not args.quiet, **settings)
    data = {"quantity": found.quantity, "decision": found.decision, "candidates": found.rows, "next": found.next}
    data |= {"n_failed": len(found.failed), "output": str(args.output)}
    return Report(data, f"{found!r}\n{_written(Path(args.output))}", code=1 if found.failed else 0)


def _written(path: Path) -> str:
    return ", ".join(str(path.with_suffix(suffix)) for suffix in (".db", ".csv", ".html"))
