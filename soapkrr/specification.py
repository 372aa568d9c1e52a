"""Immutable specifications with scikit-learn's parameter names: ``kernel__zeta``, ``descriptor__0__signal``.

scikit-learn changes parameters in place; a specification is replaced instead. What can be changed in place is the estimator that
holds it (`Nested`), so ``model.set_params(descriptor__r_cut=4.0)`` leaves every other holder of the old descriptor alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np

from soapkrr.display import brief, html_table
from soapkrr.errors import InputError


class Specification:
    """Mixin of frozen dataclasses: parameters can be read by nested names, and changed copies made.

    Examples
    --------
    >>> from soapkrr import DotProduct
    >>> (2.0 * DotProduct(zeta=2)).with_params(kernel__zeta=3)
    Scaled(kernel=DotProduct(zeta=3), factor=2.0)
    """

    def get_params(self, deep: bool = True) -> dict:
        """Parameters by name; with ``deep`` also those of the specifications inside, as ``outer__inner``."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return nested_params(own) if deep else own

    def with_params(self, **changes):
        """A copy with other parameters, nested names allowed.

        Raises
        ------
        InputError : a name is unknown, or a value is out of range.
        """
        own, nested = split_names(changes)
        known = self.get_params(deep=False)
        require_known(type(self).__name__, known, [*own, *nested])
        changed = replace(self, **own) if own else self
        inner = {name: changed_value(name, getattr(changed, name), value) for name, value in nested.items()}
        return replace(changed, **inner) if inner else changed

    def set_params(self, **changes):
        """Not possible: specifications never change."""
        if changes:
            asked = ", ".join(f"{name}=..." for name in changes)
            raise InputError(
                f"{type(self).__name__} is immutable: use `with_params({asked})` for a changed copy, or set the parameter through the "
                "estimator that holds it."
            )
        return self

    def _repr_html_(self) -> str:
        """A table of its parameters, for notebooks."""
        rows = [(f.name, brief(getattr(self, f.name))) for f in fields(self) if f.init and f.repr]
        return html_table((type(self).__name__, ""), rows)

    def __sklearn_clone__(self):
        """Immutable objects are their own clones."""
        return self


class ByValue:
    """Mixin, before other bases, of specifications that hold arrays: equal and hashed by the values of their parameters."""

    def __eq__(self, other):
        if type(other) is not type(self):
            return NotImplemented
        mine, yours = self.get_params(deep=False), other.get_params(deep=False)
        return all(np.array_equal(mine[name], yours[name]) for name in mine)

    def __hash__(self):
        return hash(repr(self))


class Nested:
    """Mixin for scikit-learn estimators (before `BaseEstimator`): nested names reach into specifications, lists and mappings."""

    def get_params(self, deep: bool = True) -> dict:
        """Parameters by name; with ``deep`` also those of the specifications inside, as ``outer__inner``."""
        own = super().get_params(deep=False)
        return nested_params(own) if deep else own

    def set_params(self, **params):
        """Change parameters, nested names allowed; specifications are replaced, never changed. All or nothing; returns self."""
        own, nested = split_names(params)
        values = super().get_params(deep=False)
        require_known(type(self).__name__, values, [*own, *nested])
        values |= own
        values |= {name: changed_value(name, values[name], value) for name, value in nested.items()}
        for name in {**own, **nested}:
            setattr(self, name, values[name])
        return self


def nested_params(own: Mapping) -> dict:
    """``own`` and, for every value with parts, the parts as ``name__part``."""
    out = dict(own)
    for name, value in own.items():
        for part, inner in _parts(value).items():
            out[f"{name}__{part}"] = inner
    return out


def _parts(value) -> dict:
    if hasattr(value, "get_params") and not isinstance(value, type):
        return value.get_params(deep=True)
    if isinstance(value, (list, tuple)) and any(isinstance(v, Specification) for v in value):
        return nested_params({str(k): v for k, v in enumerate(value)})
    return {}


def split_names(changes: Mapping) -> tuple[dict, dict[str, dict]]:
    """Plain names with their values, and {outer: {rest of the name: value}} of those with ``__``."""
    own, nested = {}, {}
    for name, value in changes.items():
        outer, separator, inner = name.partition("__")
        if separator:
            nested.setdefault(outer, {})[inner] = value
        else:
            own[outer] = value
    return own, nested


def require_known(owner: str, known: Mapping, names: list[str]) -> None:
    """Raise `InputError` naming the first parameter that ``owner`` does not have."""
    for name in names:
        if name not in known:
            raise InputError(f"{owner} has no parameter `{name}`; it has {sorted(known)}.")


def changed_value(name: str, value, changes: Mapping):
    """``value`` with parts replaced: of a specification, an estimator, a list (parts named by position) or a mapping."""
    if isinstance(value, Specification):
        return value.with_params(**changes)
    own, nested = split_names(changes)
    if isinstance(value, Mapping):
        inner = {key: changed_value(key, value[key], change) for key, change in nested.items() if key in value}
        require_known(f"`{name}`", value, list(nested))
        return {**value, **own, **inner}
    if isinstance(value, (list, tuple)):
        items = {str(k): v for k, v in enumerate(value)}
        require_known(f"`{name}`", items, [*own, *nested])
        items |= own
        items |= {key: changed_value(key, items[key], change) for key, change in nested.items()}
        return type(value)(items.values())
    raise InputError(f"`{name}`={value!r} has no parameters of its own, so `{name}__{next(iter(changes))}` cannot be set.")
