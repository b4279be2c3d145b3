"""Errors of the node itself, beside those of the core (clearing.errors).

Lives here: exceptions that more than one module of node/ raises. May not live here: reject codes,
gRPC status codes.
"""

from __future__ import annotations

from clearing.errors import ClearingError


class SetupError(ClearingError):
    """A file, key, certificate or setting of this node is not as it must be.

    Its text is one sentence for the operator: which one, what is wrong, what to do. It never holds
    secret bytes.
    """
