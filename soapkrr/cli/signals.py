"""Ctrl-C and SIGTERM end a command with one line and an exit code, whatever it was doing; importing this imports next to nothing."""

import signal
import sys

#: Exit codes and what is said.
SAID = {
    signal.SIGINT: (130, "interrupted; nothing half-written is left behind"),
    signal.SIGTERM: (143, "terminated; nothing half-written is left behind"),
}


class Interruptions:
    """Context in which the first SIGINT or SIGTERM raises `KeyboardInterrupt`, so that everything that is open is cleaned up.

    Whatever comes out of the context after that is the interruption in disguise (the import of an extension module may make an
    `ImportError` of it): it is swallowed, one line is printed, and ``code`` is the exit code.
    """

    def __init__(self):
        self.code = 0

    def __enter__(self):
        self.received, self.before = None, {}
        try:
            for number in SAID:
                self.before[number] = signal.signal(number, self._receive)
        except ValueError:  # not the main thread: signals are another's
            pass
        return self

    def _receive(self, number, frame):
        if self.received is None:
            self.received = number
            raise KeyboardInterrupt

    def __exit__(self, kind, error, traceback):
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if self.received is None and not (kind and issubclass(kind, KeyboardInterrupt)):
            return False
        if kind is None:
            return False
        exec("")  # CPython remembers an interruption that passed through exec, of a dataclass say, and would end by SIGINT; no longer
        self.code, message = SAID[self.received or signal.SIGINT]
        print(f"soapkrr: error: {message}", file=sys.stderr)
        return True
