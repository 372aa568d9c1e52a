"""A screening that is killed with SIGKILL at its n-th write, for every n given, and then goes on: run by `test_screening.py`."""

import os
import signal
import sys

from ase.db.sqlite import SQLite3Database

import soapkrr
from soapkrr.active import evaluation, screening

evaluation.GROUP = 12  # several transactions


def deadly(function, count, last):
    """The function, which ends the process in place of the call after ``last`` of all that share the count."""

    def called(*args, **kwargs):
        count.append(1)
        if len(count) > last:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return called


def run(last: int) -> int:
    """One attempt in a process of its own; how it ended."""
    pid = os.fork()
    if pid == 0:
        count: list[int] = []
        for name in ("_write", "_update"):
            setattr(SQLite3Database, name, deadly(getattr(SQLite3Database, name), count, last))
        screening.write_whole = deadly(screening.write_whole, count, last)
        soapkrr.screen(soapkrr.load("m.soapkrr", threads=1), "c.xyz", "killed.db", next=2, best=3)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    print(*[run(int(n)) for n in sys.argv[1:]])
