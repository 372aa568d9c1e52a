"""Running one command: messages, errors and exit codes.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 a relaxation did not converge, or a structure
failed while the others are done; 2 input that cannot be used (one line says why); 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import warnings
from contextlib import contextmanager

from soapkrr.cli.messages import in_options
from soapkrr.cli.options import build_parser
from soapkrr.errors import InputError


def run(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; argument errors leave through `SystemExit` with code 2."""
    _tolerate_ascii(sys.stdout)
    _tolerate_ascii(sys.stderr)
    args = build_parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
    try:
        with _messages(args):
            report = args.run(args)
            print(_strict_json(report.data) if args.json else report.text, flush=True)
            return report.code
    except BrokenPipeError:
        return _closed()
    except (InputError, OSError, ArithmeticError) as error:
        return _fail(in_options(str(error), args))
    except MemoryError:
        return _fail(
            f"out of memory: {'fewer sparse points (--n-sparse) or ' if args.run.__name__ == 'fit' else ''}smaller structures need less"
        )


def _fail(message: str) -> int:
    print(f"soapkrr: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _closed() -> int:
    """Standard output is read no further, by ``head`` for example: what is left to print goes nowhere, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


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
def _messages(args):
    """Log records and Python warnings as single lines on standard error; ``--quiet`` hides all but errors."""
    handler = logging.StreamHandler(sys.stderr)
    handler.format = lambda record: f"soapkrr: {in_options(record.getMessage(), args)}"
    handler.setLevel(logging.ERROR if getattr(args, "quiet", False) else logging.WARNING)
    logger = logging.getLogger("soapkrr")
    logger.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *rest: logger.warning("%s", " ".join(str(message).split()))
            yield
    finally:
        logger.removeHandler(handler)
