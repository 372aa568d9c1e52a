"""Command line: ``soapkrr fit | evaluate | predict | relax | info``; one module for each command, named after it.

Heavy modules are imported inside the functions, so that ``soapkrr --help`` is quick, and all of ours inside `main`, so that Ctrl-C
during an import is an interruption like any other.
"""

from soapkrr.cli.signals import Interruptions

__all__ = ["build_parser", "main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code; argument errors leave through `SystemExit` with code 2."""
    with Interruptions() as interruptions:
        from soapkrr.cli.entry import run

        return run(argv)
    return interruptions.code  # of an interruption, which the context swallows


def build_parser():
    """The parser of all commands."""
    from soapkrr.cli.options import build_parser

    return build_parser()
