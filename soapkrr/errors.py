"""Exceptions of the package: each is also a ``ValueError``, so that callers need no new import."""


class InputError(ValueError):
    """Data or parameters given by the user cannot be used; the message names the culprit and what to do."""


class LabelError(InputError):
    """A reference label (energy, forces, stress) is missing, malformed or not finite."""


class ModelFileError(InputError):
    """A file is not a readable soapkrr model."""
