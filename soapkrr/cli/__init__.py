"""Command line: ``soapkrr fit | evaluate | relax | info``; one module for each command, named after it.

Heavy modules are imported inside the functions, so that ``soapkrr --help`` is quick.
"""

from soapkrr.cli.entry import main
from soapkrr.cli.options import build_parser

__all__ = ["build_parser", "main"]
