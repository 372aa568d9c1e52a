"""Model files: one versioned zip of JSON and plain arrays with digests, written whole and renamed; reading executes nothing from it.

A header names the estimator and holds its parameters, its state, when it was fitted and to what, and the digest of every array and of
itself; arrays lie beside it, not compressed. What an estimator is, `loading` knows.
"""

from soapkrr.modelfile.archive import ModelFile, baseline_calculator_name, damage, read, read_header, write
from soapkrr.modelfile.encoding import calculator_places, from_json, prior_mean_names, specifications, to_json
from soapkrr.modelfile.versions import FORMAT, VERSION
from soapkrr.modelfile.writing import check_writable, write_whole

__all__ = [
    "FORMAT",
    "VERSION",
    "ModelFile",
    "baseline_calculator_name",
    "calculator_places",
    "check_writable",
    "damage",
    "from_json",
    "prior_mean_names",
    "read",
    "read_header",
    "specifications",
    "to_json",
    "write",
    "write_whole",
]
