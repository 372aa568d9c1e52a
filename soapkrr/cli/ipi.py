"""``soapkrr ipi``."""

from __future__ import annotations

from dataclasses import asdict

from soapkrr.cli.arguments import common
from soapkrr.cli.files import check_structures, known_species, model_and_structures
from soapkrr.cli.tables import UNCERTAINTY, Report
from soapkrr.cli.types import positive_int

SERVED = "It ends when the server does. Start i-PI before or after; give --connections as many as beads, and all are predicted at once."


def ipi(args) -> Report:
    """Give a server that speaks i-PI's protocol energies, forces and virials."""
    from soapkrr.interfaces.ipi import serve

    model, frames = model_and_structures(args)
    check_structures(frames[:1], args.file, model.process_.descriptors, known_species(model))
    served = serve(
        model,
        frames[0],
        address=args.address,
        port=args.port,
        unix=args.unix,
        connections=args.connections,
        uncertainty=UNCERTAINTY[args.uncertainty],
        patience=args.patience,
    )
    return Report({"model": args.model, "file": args.file, **asdict(served)}, f"{args.model}: {served}")


def ipi_arguments(sub) -> None:
    """Options of the command."""
    sub.add_argument("model", metavar="MODEL", help="model file")
    sub.add_argument("file", metavar="INIT", help="structure that the server starts from: its first gives species and periodicity")
    sub.add_argument("--address", default="localhost", metavar="HOST", help="where the server runs (default %(default)s)")
    sub.add_argument("--port", type=positive_int, default=31415, metavar="N", help="port of the server (default %(default)s)")
    sub.add_argument("--unix", metavar="NAME", help="UNIX socket /tmp/ipi_NAME, in place of an address")
    sub.add_argument("--connections", type=positive_int, default=1, metavar="N", help="connections to open (default %(default)s)")
    sub.add_argument(
        "--uncertainty", choices=list(UNCERTAINTY), default="none", help="standard deviations sent as extras (default %(default)s)"
    )
    sub.add_argument("--patience", type=float, default=60.0, metavar="S", help="seconds to wait for the server (default %(default)g)")
    common(sub)
