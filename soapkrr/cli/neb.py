"""``soapkrr neb``: a path over a barrier, by few calls of a reference."""

from __future__ import annotations

import math

from soapkrr.cli.arguments import number, output
from soapkrr.cli.files import model_path, structure_path
from soapkrr.cli.growing import extended_xyz
from soapkrr.cli.relax import check_fmax
from soapkrr.cli.searches import (
    GOES_ON,
    asked_of,
    begin,
    beside,
    calculators,
    kept,
    one_structure,
    reference_arguments,
    search_arguments,
    warn_of_forces,
)
from soapkrr.cli.tables import Report
from soapkrr.cli.types import positive_int

NEB = (
    "OUT holds the images with energies, forces and, in the comment lines, neb_energy_std; those of the ends and of the saddle are the "
    f"reference's. {GOES_ON} They are in OUT.calls.xyz. The exit code is 1 when the path did not converge."
)


def neb_arguments(sub) -> None:
    sub.add_argument("initial", metavar="INITIAL", help="file of the first end, relaxed; constraints are kept")
    sub.add_argument("final", metavar="FINAL", help="file of the last end: the same atoms in the same order")
    reference_arguments(sub)
    output(sub, "OUT", "the path, extended XYZ", required=True)
    number(sub, "--images", positive_int, 7, "images of the path, with its ends")
    number(sub, "--std", float, 0.01, "standard deviation of the barrier that is enough, eV")
    sub.add_argument("--mic", action="store_true", help="start by the shortest ways of a periodic cell")
    search_arguments(sub)


def neb(args) -> Report:
    from soapkrr.active.asking import force_of
    from soapkrr.active.barrier import SurrogateNEB
    from soapkrr.modelfile import write_whole

    out = structure_path(args.output, args.initial, args.final)
    check_fmax(args.fmax)
    saved = None if args.save_model is None else model_path(args.save_model, args.initial, args.final, args.model)
    initial, final = one_structure(args.initial), one_structure(args.final)
    reference, prior, model = calculators(args)
    options = {"n_images": args.images, "std": args.std, "prior": prior, "model": model, "mic": args.mic}
    SurrogateNEB(initial, final, reference, **options)  # what cannot be is refused before a file is written
    calls = beside(out, "calls.xyz")
    begin(beside(out, "run.json"), calls, "neb", asked_of(args, ("images", "mic"), initial=initial, final=final))
    with kept(calls, beside(out, "run.json")):
        search = SurrogateNEB(initial, final, reference, **options, records=calls)
        path = search.run(fmax=args.fmax, steps=args.steps)
    known = [search.records.find(image) for image in path.images]
    warn_of_forces({args.initial: force_of(known[0]), args.final: force_of(known[-1])}, args.fmax)
    text = "".join(extended_xyz(image) for image in _images(path, known))
    write_whole(out, lambda file: file.write(text.encode()))
    if saved is not None:
        path.model.save(saved)
    data = _data(path, known) | {"output": str(args.output), "calls_file": str(calls)}
    return Report(data, f"{_table(data)}\n{args.output}: {path}", code=0 if path.converged else 1)


def _images(path, known) -> list:
    """The path as it is written."""
    for k, image in enumerate(path.images):
        image.info |= {"neb_image": k, "neb_energy_std": float(path.stds[k]), "neb_calculated": known[k] is not None}
    return path.images


def _data(path, known) -> dict:
    way = _ways(path.images)
    rows = [
        {"image": k, "way_angstrom": way[k], "energy_ev": float(e), "energy_std_ev": float(s), "calculated": known[k] is not None}
        for k, (e, s) in enumerate(zip(path.energies, path.stds, strict=True))
    ]
    return {
        "images": rows,
        "barrier_ev": path.barrier,
        "reverse_barrier_ev": path.reverse,
        "barrier_std_ev": path.std,
        "saddle": path.saddle,
        "fmax_ev_per_angstrom": None if math.isnan(path.force) else path.force,
        "converged": path.converged,
        "calls": path.calls,
    }


def _ways(images) -> list[float]:
    """Lengths of the path up to each image, Å."""
    import numpy as np

    steps = [np.linalg.norm(b.positions - a.positions) for a, b in zip(images, images[1:], strict=False)]
    return [0.0, *np.cumsum(steps).tolist()]


def _table(data: dict) -> str:
    from soapkrr.display import text_table

    rows = [
        (str(row["image"]), f"{row['way_angstrom']:.2f}", f"{row['energy_ev']:.4f}", f"{row['energy_std_ev']:.4f}", _remark(row, data))
        for row in data["images"]
    ]
    return text_table(("image", "way (Å)", "energy (eV)", "± std (eV)", ""), rows, left=0)


def _remark(row: dict, data: dict) -> str:
    marks = ["saddle"] if row["image"] == data["saddle"] else []
    return ", ".join([*marks, *(["calculated"] if row["calculated"] else [])])
