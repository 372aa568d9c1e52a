"""What the scripts of the data sets share: jobs that are done once, one file a structure, so that a run can be stopped and restarted."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import read, write


def strained(atoms: Atoms, rng: np.random.Generator, volume: tuple[float, float], shear: float) -> Atoms:
    """Copy with a relative change of volume drawn from ``volume``, and a traceless symmetric strain of components up to ``shear``."""
    strain = rng.uniform(-shear, shear, (3, 3))
    strain = (strain + strain.T) / 2
    strain -= np.trace(strain) / 3 * np.eye(3)
    new = atoms.copy()
    new.set_cell(atoms.cell @ ((1 + rng.uniform(*volume)) ** (1 / 3) * (np.eye(3) + strain)), scale_atoms=True)
    return new


def rattled(atoms: Atoms, rng: np.random.Generator, width: float, shortest: float) -> Atoms:
    """Copy with normally distributed displacements, drawn again until no pair is closer than ``shortest`` (Å)."""
    for _ in range(1000):
        new = atoms.copy()
        new.positions += rng.normal(scale=width, size=(len(new), 3))
        if closest(new) > shortest:
            return new
    raise ValueError(f"no displacements of {width} Å keep {atoms.get_chemical_formula()} atoms {shortest} Å apart")


def closest(atoms: Atoms) -> float:
    """Shortest distance between two atoms, images too, Å (6 where all are farther apart)."""
    from ase.neighborlist import neighbor_list

    return min(neighbor_list("d", atoms, 6.0), default=6.0)


@dataclass
class DataSet:
    """Jobs ``(kind, split, index)`` of a set: ``make`` gives the structure of one, ``label`` a copy with energy, forces and stress."""

    folder: Path
    counts: dict[str, tuple[int, int]]  # of each kind, structures to fit and to test
    make: Callable[[str, np.random.Generator, int], Atoms]
    label: Callable[[Atoms], Atoms]

    def jobs(self) -> list[tuple[str, str, int]]:
        """All jobs, kinds in turn, so that what is finished after a while is a small set of its own."""
        jobs = [
            (kind, split, i)
            for kind, sizes in self.counts.items()
            for split, n in zip(("train", "test"), sizes, strict=True)
            for i in range(n)
        ]
        return sorted(jobs, key=lambda job: (job[2], list(self.counts).index(job[0]), job[1]))

    def structure(self, job: tuple[str, str, int]) -> Atoms:
        """The unlabelled structure; its random numbers depend on the job alone."""
        kind, split, index = job
        rng = np.random.default_rng([list(self.counts).index(kind), split == "test", index])
        atoms = self.make(kind, rng, index)
        atoms.info["config_type"] = kind
        return atoms

    def path(self, job: tuple[str, str, int]) -> Path:
        """Where the labelled structure is kept."""
        kind, split, index = job
        return self.folder / "cache" / f"{split}_{kind}_{index:03d}.xyz"

    def label_all(self) -> None:
        """Label what is not there yet; a failure goes to cache/failed.log and the rest goes on."""
        self.path(("", "", 0)).parent.mkdir(exist_ok=True)
        for job in self.jobs():
            path = self.path(job)
            if path.exists():
                continue
            start = time.process_time()
            try:
                done = self.label(self.structure(job))
            except Exception as error:  # calculations that do not converge must not stop the rest
                with (path.parent / "failed.log").open("a") as log:
                    log.write(f"{path.stem}: {type(error).__name__}: {error}\n")
                continue
            temporary = path.with_suffix(f".part{os.getpid()}")
            write(temporary, done, format="extxyz")
            temporary.rename(path)
            largest = np.abs(done.get_forces()).max()
            print(
                f"{path.stem:28s} {len(done):3d} atoms, largest force {largest:7.3f} eV/Å, {time.process_time() - start:5.1f} s", flush=True
            )

    def write(self) -> None:
        """Write train.xyz and test.xyz from what is finished, kind by kind."""
        kinds = list(self.counts)
        for split in ("train", "test"):
            jobs = sorted((job for job in self.jobs() if job[1] == split), key=lambda job: (kinds.index(job[0]), job[2]))
            frames = [read(self.path(job)) for job in jobs if self.path(job).exists()]
            write(self.folder / f"{split}.xyz", frames, format="extxyz")
            print(f"{split}.xyz: {len(frames)} of {len(jobs)} structures, {sum(map(len, frames))} atoms")

    def main(self, text: str | None) -> None:
        """Command line."""
        parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--write", action="store_true", help="only write the data files from what is finished")
        if not parser.parse_args().write:
            self.label_all()
        self.write()
