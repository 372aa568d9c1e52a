"""The header of a model file: its version, and what older versions become."""

from __future__ import annotations

from soapkrr.errors import ModelFileError

FORMAT = "soapkrr-model"

VERSION = 2

#: What a header of this version states.
ENTRIES = {"format", "version", "estimator", "origin", "parameters", "state", "arrays", "sha256"}

#: Entries of a state of version 1 that told the kind of process.
VERSION_1_KINDS = {"terms": "SparseProcess", "transform": "SubsetProcess", "sparse": "IterativeProcess"}


def check_version(header) -> None:
    """Raise where a header is not of a version that can be read."""
    version = header.get("version") if isinstance(header, dict) else None
    if not isinstance(header, dict) or header.get("format") != FORMAT or not isinstance(version, int) or version < 1:
        raise ModelFileError("this is not a soapkrr model: model.json states no format and version of ours.")
    if version > VERSION:
        raise ModelFileError(f"format version {version} is newer than {VERSION}, the newest this soapkrr reads: update soapkrr.")
    if version == VERSION and set(header) != ENTRIES:
        raise ModelFileError(f"model.json lacks {sorted(ENTRIES - set(header))} or has more than belongs there.")


def upgraded(header: dict) -> dict:
    """A header as the newest version has it, the entry ``version`` as it was."""
    return _from_version_1(header) if header["version"] == 1 else header


def _from_version_1(header: dict) -> dict:
    """Of version 1: properties were estimators of potentials with a ``target``, and the state lay flat in the header."""
    parameters, common = dict(header["parameters"]), ("reference_energies", "n_observations", "noise", "log_likelihood")
    target, estimator = parameters.pop("target", "potential"), header["estimator"]
    own = {name: value for name, value in header.items() if name not in (*common, "format", "version", "estimator", "parameters")}
    state = {name: header[name] for name in common}
    if target != "potential":
        estimator = {"GaussianProcess": "PropertyGP", "KernelRidge": "PropertyRidge"}[estimator]
        kept = ("descriptor", "kernel", "noise", "signal", "alpha", "baseline")
        parameters = {name: parameters[name] for name in kept if name in parameters} | {"target": target}
        process = {"kind": "ScalarProcess", "target": target, **own}
    else:
        state["triangles"] = own.pop("factors", {})
        kind = next((kind for name, kind in VERSION_1_KINDS.items() if name in own), "ExactProcess")
        process = {"kind": kind, **own} | ({"tolerance": parameters["cg_tolerance"]} if kind == "IterativeProcess" else {})
    return {
        **{name: header[name] for name in ("format", "version")},
        "estimator": estimator,
        "origin": {},
        "parameters": parameters,
        "state": state | {"process": process},
    }
