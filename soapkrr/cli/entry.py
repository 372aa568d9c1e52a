"""Running one command: messages, errors and exit codes.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 a relaxation did not converge; 2 input that
cannot be used (one line says why); 130 interrupted.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import warnings
from contextlib import contextmanager

from soapkrr.cli.options import build_parser
from soapkrr.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; argument errors leave through `SystemExit` with code 2."""
    _tolerate_ascii(sys.stdout)
    _tolerate_ascii(sys.stderr)
    args = build_parser().parse_args(argv)
    try:
        with _messages(getattr(args, "quiet", False)):
            report = args.run(args)
            print(_strict_json(report.data) if args.json else report.text, flush=True)
            return report.code
    except KeyboardInterrupt:
        return _fail("interrupted; nothing half-written is left behind", 130)
    except (InputError, OSError, ArithmeticError) as error:
        return _fail(str(error), 2)
    except MemoryError:
        return _fail("out of memory: fewer sparse points (--n-sparse) or smaller structures need less", 2)


def _fail(message: str, code: int) -> int:
    print(f"soapkrr: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _tolerate_ascii(stream) -> None:
    """Print ``?`` where a terminal cannot show Å, rather than fail."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")


def _strict_json(value) -> str:
    """JSON on one line; NaN and infinities, which JSON does not have, become null."""

    def clean(v):
        if isinstance(v, dict):
            return {str(k): clean(x) for k, x in v.items()}
        if isinstance(v, (list, tuple)):
            return [clean(x) for x in v]
        if hasattr(v, "item"):
            v = v.item()
        return None if isinstance(v, float) and not math.isfinite(v) else v

    return json.dumps(clean(value), allow_nan=False)


@contextmanager
def _messages(quiet: bool):
    """Log records and Python warnings as single lines on standard error; ``quiet`` hides all but errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("soapkrr: %(message)s"))
    handler.setLevel(logging.ERROR if quiet else logging.WARNING)
    logger = logging.getLogger("soapkrr")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest: logger.warning("%s", " ".join(str(message).split()))
            yield
    finally:
        logger.removeHandler(handler)
