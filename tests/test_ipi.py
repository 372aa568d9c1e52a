"""i-PI's protocol: ASE's and i-PI's own servers get the numbers of `predict`, and beads that wait are predicted together."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.calculators.socketio import SocketIOCalculator
from ase.io import write
from small import crystals, small_gp

from soapkrr import InputError
from soapkrr.cli import main
from soapkrr.interfaces.ipi import Served, serve


@pytest.fixture(scope="module")
def model():
    return small_gp(threads=1).fit(crystals(6))


@pytest.fixture
def name(tmp_path):
    """Of a UNIX socket that no other run has."""
    return f"soapkrr_{os.getpid()}_{abs(hash(str(tmp_path))) % 10**8}"


def test_the_server_of_ase_gets_what_is_predicted(model, name):
    frames = crystals(3, seed=8)
    with ThreadPoolExecutor(1) as pool:
        with SocketIOCalculator(unixsocket=name, timeout=30) as server:
            served = pool.submit(serve, model, frames[0], unix=name, patience=20)
            for atoms in frames:
                expected, atoms = model.predict(atoms), atoms.copy()
                atoms.calc = server
                assert atoms.get_potential_energy() == pytest.approx(expected.energy[0], rel=1e-12)
                np.testing.assert_allclose(atoms.get_forces(), expected.forces[0], atol=1e-12)
                np.testing.assert_allclose(atoms.get_stress(), expected.stress[0], atol=1e-12)
        assert served.result(timeout=20) == Served(3, 3, 1)


class Server:
    """The few lines of a server that a test needs: n connections on a free port."""

    def __init__(self):
        self.open = [socket.create_server(("localhost", 0))]
        self.port = self.open[0].getsockname()[1]

    def accept(self, n):
        there = [self.open[0].accept()[0] for _ in range(n)]
        self.open += there
        return there


@pytest.fixture
def server():
    server = Server()
    yield server
    for sock in server.open:
        sock.close()


def posdata(atoms):
    """Message with the positions of a structure."""
    cell = atoms.cell[:].T / units.Bohr
    numbers = [cell.tobytes(), np.linalg.inv(cell).tobytes(), struct.pack("i", len(atoms)), (atoms.positions / units.Bohr).tobytes()]
    return b"POSDATA".ljust(12) + b"".join(numbers)


def received(sock, n):
    data = b""
    while len(data) < n:
        data += sock.recv(n - len(data))
    return data


def force(sock):
    """(energy, eV; forces, eV/Å; extras) of an answer."""
    assert received(sock, 12).strip() == b"FORCEREADY"
    energy, n = struct.unpack("=di", received(sock, 12))
    forces = np.frombuffer(received(sock, 24 * n)).reshape(n, 3)
    received(sock, 72)
    return energy * units.Ha, forces * units.Ha / units.Bohr, received(sock, struct.unpack("i", received(sock, 4))[0])


def test_beads_that_wait_are_one_prediction(model, server):
    frames = crystals(5, seed=9)
    expected = model.predict(frames, uncertainty="energy")
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, model, frames[0], port=server.port, connections=5, uncertainty="energy")
        there = server.accept(5)
        for sock, atoms in zip(there, frames, strict=True):
            sock.sendall(b"STATUS".ljust(12))
            assert received(sock, 12).strip() == b"READY"
            sock.sendall(posdata(atoms) + b"STATUS".ljust(12) + b"GETFORCE".ljust(12))
        for s, sock in enumerate(there):
            assert received(sock, 12).strip() == b"HAVEDATA"
            energy, forces, extras = force(sock)
            assert energy == pytest.approx(expected.energy[s], rel=1e-10)
            np.testing.assert_allclose(forces, expected.forces[s], atol=1e-10)
            assert extras.decode().startswith('{"energy_std": 0.0')
            sock.sendall(b"EXIT".ljust(12))
        found = served.result(timeout=20)
    assert found.structures == 5 and found.calls < 5 and found.largest > 1


@pytest.mark.parametrize(
    ("message", "expected"),
    [(posdata(crystals(1)[0] * (2, 1, 1)), "sends 8 atoms, .* has 4"), (b"GET / HTTP/1.1\r\n", "no message of i-PI's protocol")],
    ids=["another structure", "another protocol"],
)
def test_what_a_server_should_not_send_is_named(model, server, message, expected):
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, model, crystals(1)[0], port=server.port)
        server.accept(1)[0].sendall(message)
        with pytest.raises(InputError, match=expected):
            served.result(timeout=20)


def test_a_server_that_is_not_there_is_named(model, name):
    with pytest.raises(InputError, match=f"no server answers at /tmp/ipi_{name}"):
        serve(model, crystals(1)[0], unix=name, patience=0.0)
    with pytest.raises(InputError, match="`connections` must be a positive integer, received 0"):
        serve(model, crystals(1)[0], unix=name, connections=0)


INPUT = """<simulation verbosity='quiet'>
  <output prefix='run'>
    <properties stride='1' filename='out'> [ step, time{{picosecond}}, conserved{{electronvolt}}, potential{{electronvolt}} ] </properties>
    <trajectory filename='std' stride='1' extra_type='energy_std'> extras </trajectory>
  </output>
  <total_steps>20</total_steps>
  <prng><seed>11</seed></prng>
  <ffsocket name='gp' mode='unix' pbc='false'><address>{name}</address></ffsocket>
  <system>
    <initialize nbeads='4'><file mode='xyz' units='angstrom'> init.xyz </file>
      <velocities mode='thermal' units='kelvin'> 30 </velocities></initialize>
    <forces><force forcefield='gp'/></forces>
    <ensemble><temperature units='kelvin'> 30 </temperature></ensemble>
    <motion mode='dynamics'><dynamics mode='nve'><timestep units='femtosecond'> 2 </timestep></dynamics></motion>
  </system>
</simulation>
"""


def test_a_path_integral_of_ipi_conserves_energy(model, name, tmp_path, capsys):
    """Four beads of argon's ring polymer by i-PI itself: its conserved quantity stays, and the beads come in batches."""
    pytest.importorskip("ipi", reason="i-PI is not installed: pip install ipi, on Linux")
    atoms = crystals(1, seed=4)[0]
    model.save(tmp_path / "model.soapkrr")
    lengths = " ".join(f"{x:.8f}" for x in atoms.cell.lengths())
    lines = [f"Ar {x:.8f} {y:.8f} {z:.8f}" for x, y, z in atoms.positions]
    text = "\n".join([str(len(atoms)), f"# CELL(abcABC): {lengths} 90 90 90 positions{{angstrom}} cell{{angstrom}}", *lines])
    (tmp_path / "init.xyz").write_text(text + "\n")
    (tmp_path / "input.xml").write_text(INPUT.format(name=name))
    write(tmp_path / "start.extxyz", atoms, write_results=False)
    command = Path(sys.executable).with_name("i-pi")
    with open(tmp_path / "log", "w") as log, subprocess.Popen([command, "input.xml"], cwd=tmp_path, stdout=log, stderr=log) as server:
        watchdog = threading.Timer(120, server.kill)
        watchdog.start()
        words = ["ipi", str(tmp_path / "model.soapkrr"), str(tmp_path / "start.extxyz"), "--unix", name, "--connections", "4"]
        assert main([*words, "--uncertainty", "energy", "--json"]) == 0
        server.wait(timeout=60)
        watchdog.cancel()
    served = json.loads(capsys.readouterr().out)
    assert served["structures"] == 4 * 21 and served["calls"] < served["structures"] and served["largest"] == 4
    table = np.loadtxt(tmp_path / "run.out")
    assert len(table) == 21
    assert np.ptp(table[:, 2]) < 0.05 * np.ptp(table[:, 3])
    assert np.loadtxt(tmp_path / "run.std_0", comments="#").min() > 0
