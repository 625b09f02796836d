"""Signatures of functions that pass on the arguments of another one. Config checks read them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def with_keyword(function: Callable[..., Any], name: str, default: Any) -> inspect.Signature:
    """Returns the signature of a function with one more keyword argument.

    Example:
        >>> str(with_keyword(lambda a, **rest: None, "b", 1))
        '(a, *, b=1, **rest)'
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    has_rest = bool(parameters) and parameters[-1].kind == inspect.Parameter.VAR_KEYWORD
    added = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
    parameters.insert(len(parameters) - has_rest, added)
    return signature.replace(parameters=parameters)
