"""Attributes that are computed when they are first asked for."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from functools import cached_property
else:

    class cached_property(functools.cached_property):
        """`functools.cached_property` as Python 3.12 has it, without the lock of earlier versions.

        That lock is one for all objects of a class: threads would wait for each other, and the child of a fork, for ever, for a thread that
        it does not have. Two threads that ask at the same time may both compute; all get what came first.
        """

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            values = vars(instance)
            return values[self.attrname] if self.attrname in values else values.setdefault(self.attrname, self.func(instance))
