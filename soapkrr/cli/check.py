"""``soapkrr check``: of labelled structures, or of a model."""

from __future__ import annotations

from soapkrr.cli.files import is_model, load_model, named, read_structures
from soapkrr.cli.parameters import observations_of
from soapkrr.cli.tables import Report
from soapkrr.errors import InputError


def check(args) -> Report:
    """By what the files are: one model and at most one file of structures, or files of structures."""
    models = [path for path in args.file if is_model(path)]
    if not models:
        return _of_data(args)
    if len(models) > 1:
        raise InputError(f"`FILE`: {' and '.join(models)} are models; one can be checked at a time.")
    data = [path for path in args.file if path not in models]
    if args.file[0] != models[0]:
        raise InputError(f"MODEL comes first: it is `soapkrr check {models[0]} {' '.join(data)}`.")
    if len(data) > 1:
        raise InputError(f"`FILE`: a model is checked on one file of structures, received {len(data)}: {', '.join(data)}.")
    if args.quick or observations_of(args) is not None:
        raise InputError(
            "`--quick` and names of labels are of checks of data; a model knows the names of the labels that it was fitted to."
        )
    return _of_model(args, models[0], data[0] if data else None)


def _of_data(args) -> Report:
    from soapkrr import check as check_data

    if args.html:
        raise InputError("`--html` writes the page of a model; name a model file first.")
    if args.device != "cpu" or args.memory_limit is not None:
        raise InputError(
            "`--device` and `--memory-limit` are of checks of a model; labels are held against each other by a small one on CPU."
        )
    frames, names = [], []
    for path in args.file:
        some = read_structures(path)
        frames += some
        prefix = f"{path} " if len(args.file) > 1 else ""
        names += [f"{prefix}{s}{_own_name(atoms)}" for s, atoms in enumerate(some)]
    with named(", ".join(args.file)):
        found = check_data(frames, observations=observations_of(args), quick=args.quick, threads=args.threads, names=names)
    return Report({"files": args.file, **found.to_dict()}, repr(found), 0 if found.clean else 1)


def _own_name(atoms) -> str:
    """What a structure calls itself, in brackets."""
    name = next((atoms.info[key] for key in ("id", "name", "label", "uid") if isinstance(atoms.info.get(key), (str, int))), None)
    return "" if name is None else f" ({name})"


def _of_model(args, path: str, data: str | None) -> Report:
    model = load_model(path, args.device, args.threads, args.memory_limit)
    if args.html:
        from soapkrr.modelfile import check_writable

        if not args.html.lower().endswith((".html", ".htm")):
            raise InputError(f"`--html` writes a page for a browser: its name must end in .html, received {args.html}.")
        check_writable(args.html)
    frames = None if data is None else read_structures(data)
    with named(data or path):
        found = model.check(frames)
    if args.html:
        found.to_html(args.html)
    return Report({"file": data, **found.to_dict(), "model": path}, repr(found), 0 if found.passed else 1)
