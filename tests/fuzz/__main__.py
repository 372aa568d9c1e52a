"""The long run: ``python -m tests.fuzz --n 10000 [--seed S] [--only structures|labels|files|cli|signals|forks]`` from a checkout's root."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent), str(HERE)]
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def areas() -> dict:
    """{name: function(n, seed, folder) that gives (attempts, limits)}, and of n each area takes the fraction that follows."""
    import commands
    import files
    import forks
    import labels
    import potentials
    import signals
    from harness import Limits

    return {
        "structures": (lambda n, seed, folder: potentials.attempts(n, seed), Limits(), 1),
        "labels": (lambda n, seed, folder: labels.attempts(n, seed), Limits(seconds=10), 10),
        "files": (files.attempts, Limits(seconds=10), 1),
        "cli": (commands.attempts, Limits(seconds=20), 10),
        "signals": (signals.attempts, Limits(60, 300, clock=time.perf_counter), 20),
        "forks": (lambda n, seed, folder: forks.attempts(n, seed), Limits(30, clock=time.perf_counter), 100),
    }


def main(argv: list[str] | None = None) -> int:
    """Run some or all areas; 1 where anything bad came."""
    known = areas()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Try to break soapkrr, and count what comes.")
    parser.add_argument("--n", type=int, default=10_000, help="attempts; labels and command lines get a tenth, signals 1/20, forks 1/100")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default %(default)s)")
    parser.add_argument("--only", choices=list(known), action="append", help="this area alone, with all n; may be repeated")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")
    bad = 0
    for area, (attempts, limits, share) in known.items():
        if args.only is None or area in args.only:
            n = args.n if args.only else max(1, args.n // share)
            bad += _run(area, n, args.seed, attempts, limits)
    return 1 if bad else 0


def _run(area: str, n: int, seed: int, attempts, limits) -> int:
    """Bad results of one area, which are printed as they come, and the table at the end."""
    from harness import run

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        table = run(f"{area}, seed {seed}", attempts(n, seed, Path(folder)), limits, told=_tell)
    print(f"\n{table}\n{time.perf_counter() - start:.0f} s\n", flush=True)
    return len(table.bad)


def _tell(result) -> None:
    print(f"{result.attempt.name[:300]}: {result.outcome}: {result.detail.strip()[-600:]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
