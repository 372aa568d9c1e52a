"""A potential for i-PI, and for whatever else speaks its protocol: all beads that wait are predicted in one call.

i-PI (Kapil et al. 2019, doi 10.1016/j.cpc.2018.09.020) moves the nuclei and sends positions through a socket; a client answers with
energy, forces and virial, in atomic units. It hands one bead to each connection, so that with as many connections as beads a step of a path
integral is one prediction.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from select import select
from typing import Any

import numpy as np
from ase import Atoms, units

from soapkrr.display import Fielded, counted
from soapkrr.errors import InputError
from soapkrr.prediction import Prediction, wanted_uncertainties

#: Port that i-PI and ASE use if nothing else is said; folder and prefix of UNIX sockets.
PORT, PREFIX = 31415, "/tmp/ipi_"

#: Seconds that a structure waits for those of other connections before it is predicted.
WAIT = 2e-3

#: Bytes of a message's head.
HEAD = 12


class Closed(ConnectionError):
    """The other side has hung up."""


@dataclass(frozen=True, repr=False)
class Served(Fielded):
    """What was predicted: numbers of structures and of calls of ``predict``, and structures in the largest call."""

    structures: int = 0
    calls: int = 0
    largest: int = 0

    def __str__(self) -> str:
        return f"{counted(self.structures, 'structure')} in {counted(self.calls, 'prediction')}, at most {self.largest} at once"

    def after(self, n: int) -> Served:
        """The same after a call with n structures."""
        return Served(self.structures + n, self.calls + 1, max(self.largest, n))


class Connection:
    """One socket: READY until positions have come, then HAVEDATA once they are predicted."""

    def __init__(self, sock: socket.socket, template: Atoms):
        self.sock, self.template = sock, template
        self.waiting: Atoms | None = None
        self.answer: bytes | None = None

    def take(self) -> None:
        """Read one message and answer it, unless it brings positions; raises `Closed` at the end."""
        message = self._read(HEAD).decode("ascii", "replace").strip().upper()
        if message == "STATUS":
            self._send("READY" if self.answer is None else "HAVEDATA")
        elif message == "INIT":
            self._read(4)
            self._read(int(np.frombuffer(self._read(4), np.int32)[0]))
        elif message == "POSDATA":
            self.waiting = self._structure()
        elif message == "GETFORCE" and self.answer is not None:
            self.sock.sendall(self.answer)
            self.answer = None
        elif message == "EXIT":
            raise Closed
        else:
            raise InputError(f"the server sent {message!r}, which is no message of i-PI's protocol, or not due.")

    def predicted(self, prediction: Prediction) -> None:
        """Keep the answer to what waits: energy, forces, virial, and standard deviations as JSON, which i-PI calls extras."""
        assert self.waiting is not None
        virial = np.zeros((3, 3))
        if np.isfinite(prediction.stress[0]).all():
            xx, yy, zz, yz, xz, xy = -self.waiting.get_volume() * prediction.stress[0]
            virial = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        forces, extras = prediction.forces[0] * units.Bohr / units.Ha, json.dumps(_deviations(prediction)).encode()
        parts = [b"FORCEREADY".ljust(HEAD), np.float64(prediction.energy[0] / units.Ha).tobytes(), np.int32(len(forces)).tobytes()]
        parts += [forces.tobytes(), (virial / units.Ha).tobytes(), np.int32(len(extras)).tobytes(), extras]
        self.waiting, self.answer = None, b"".join(parts)

    def _structure(self) -> Atoms:
        cell = np.frombuffer(self._read(72)).reshape(3, 3).T * units.Bohr
        self._read(72)  # the inverse cell
        n = int(np.frombuffer(self._read(4), np.int32)[0])
        if n != len(self.template):
            raise InputError(f"the server sends {n} atoms, the structure given has {len(self.template)}: give the one it was started with.")
        positions = np.frombuffer(self._read(24 * n)).reshape(n, 3) * units.Bohr
        atoms = self.template.copy()
        atoms.set_cell(cell)
        atoms.positions[:] = positions
        return atoms

    def _send(self, message: str) -> None:
        self.sock.sendall(message.encode().ljust(HEAD))

    def _read(self, n: int) -> bytes:
        parts, left = [], n
        while left:
            try:
                part = self.sock.recv(left)
            except ConnectionError as error:
                raise Closed from error
            if not part:
                raise Closed
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def serve(
    model: Any,
    atoms: Atoms,
    *,
    address: str = "localhost",
    port: int = PORT,
    unix: str | None = None,
    connections: int = 1,
    uncertainty: bool | str | Iterable[str] = False,
    patience: float = 60.0,
) -> Served:
    """Give i-PI energies, forces and virials until it says that it is done.

    What waits on all connections is predicted together. Standard deviations go to i-PI as extras, JSON with ``energy_std`` (eV) and
    ``largest_force_std`` (eV/Å), which ``<trajectory extra_type='energy_std'> extras </trajectory>`` writes.

    Parameters
    ----------
    model : a fitted potential.
    atoms : gives species, in the order of the server, and which directions are periodic; positions and cell come from the server.
    address, port : of the server.  unix : name of its UNIX socket, ``/tmp/ipi_NAME`` (or a path), in place of them.
    connections : how many to open; as many as beads are predicted at once.
    uncertainty : standard deviations to compute, as in `predict`.
    patience : seconds to wait for a server that is not there yet.

    Returns
    -------
    `Served`

    Raises
    ------
    InputError : there is no server, it sends another number of atoms or no such protocol, or a structure cannot be predicted.
    """
    if isinstance(connections, bool) or not isinstance(connections, (int, np.integer)) or connections < 1:
        raise InputError(f"`connections` must be a positive integer, received {connections!r}.")
    wanted, socks = wanted_uncertainties(uncertainty), []
    try:
        for _ in range(connections):
            socks.append(_connected(address, port, unix, patience))
        template = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        return _serve([Connection(sock, template) for sock in socks], lambda frames: model.predict(frames, uncertainty=wanted))
    finally:
        for sock in socks:
            sock.close()


def _serve(there: list[Connection], predict: Callable[[list[Atoms]], Prediction]) -> Served:
    """Answer all connections until the last is closed."""
    served = Served()
    while there:
        waiting = [c for c in there if c.waiting is not None]
        idle = [c for c in there if c.waiting is None]
        ready = select([c.sock for c in idle], [], [], WAIT if waiting else None)[0] if idle else []
        if waiting and not ready:
            prediction = predict([c.waiting for c in waiting if c.waiting is not None])
            for s, connection in enumerate(waiting):
                connection.predicted(prediction[s])
            served = served.after(len(waiting))
        for connection in [c for c in idle if c.sock in ready]:
            try:
                connection.take()
            except Closed:
                there.remove(connection)
    return served


def _connected(address: str, port: int, unix: str | None, patience: float) -> socket.socket:
    """A socket of the server, which is waited for."""
    path = None if unix is None else unix if "/" in unix else f"{PREFIX}{unix}"
    end = time.monotonic() + patience
    while True:
        sock = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        try:
            sock.connect((address, port) if path is None else path)
            if path is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError as error:
            sock.close()
            if time.monotonic() > end:
                where = f"{address}, port {port}" if path is None else str(Path(path))
                raise InputError(f"no server answers at {where} ({error.strerror or error}): start it first, or check the name.") from error
            time.sleep(0.05)


def _deviations(prediction: Prediction) -> dict[str, float]:
    """Standard deviations of one structure, as far as they were asked for."""
    found = {} if prediction.energy_std is None else {"energy_std": float(prediction.energy_std[0])}
    if prediction.forces_std is not None:
        found["largest_force_std"] = float(np.linalg.norm(prediction.forces_std[0], axis=1).max())
    return found
