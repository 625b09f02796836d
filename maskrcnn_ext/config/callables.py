"""What a ``_target_`` of a LazyConfig is, and which arguments it takes."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detectron2.utils.registry import locate

from maskrcnn_ext.errors import InputError

# What the training script puts in before it instantiates a node.
_GIVEN_LATER = {"optimizer.params": {"model"}}


def find_target(target: Any, where: str) -> Callable[..., Any] | None:
    """Returns what a ``_target_`` names; None where that is only known when it is instantiated (a node, an interpolation).

    Args:
        target: a dotted path, something that can be called, or a node.
        where: the key of the node, for the message.

    Raises:
        InputError: it cannot be imported, or cannot be called.
    """
    if isinstance(target, Mapping) or (isinstance(target, str) and "${" in target):
        return None
    found = target
    if isinstance(target, str):
        try:
            found = locate(target)
        except Exception as error:  # importing it runs any code
            cause = error.__cause__ or error
            raise InputError(f"{where}._target_={target} cannot be imported{_near(target, cause)}") from error
    if not callable(found):
        raise InputError(f"{where}._target_={target} is a {type(found).__name__}, expected a class or a function")
    return found


def _near(target: str, error: BaseException) -> str:
    """Names of the target's module that are like it; else what went wrong."""
    module, _, name = target.rpartition(".")
    if module in sys.modules:
        near = difflib.get_close_matches(name, dir(sys.modules[module]), n=3)
        if near:
            return f": did you mean {' or '.join(f'{module}.{found}' for found in near)}?"
    if not module:
        return ": write its module too, as in maskrcnn_ext.BoundaryMaskHead"
    reason = str(error).strip().splitlines()[:1]
    return f" ({reason[0]})" if reason else ""


def parameters_of(target: Callable[..., Any] | None) -> dict[str, inspect.Parameter] | None:
    """Returns the keyword arguments that a target takes; None where it takes any, or does not say."""
    named, takes_any = _signature(target)
    return None if takes_any else named


def known_parameters(target: Callable[..., Any] | None) -> dict[str, inspect.Parameter]:
    """Returns the keyword arguments that are known by name: with ``**kwargs`` of a class also those of its bases, where they go mostly."""
    known: dict[str, inspect.Parameter] = {}
    for owner in inspect.getmro(target) if inspect.isclass(target) else [target]:
        named, takes_any = _signature(owner)
        known = {**named, **known}
        if not takes_any:
            break
    return known


def _signature(target: Callable[..., Any] | None) -> tuple[dict[str, inspect.Parameter], bool]:
    """Keyword arguments by name, and whether any other is taken too."""
    try:
        parameters = inspect.signature(target).parameters.values() if target else ()
    except (TypeError, ValueError):
        return {}, True
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, target is None or any(p.kind is p.VAR_KEYWORD for p in parameters)


def nodes(tree: Any, where: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the key and the content of every node (what has a ``_target_``) of a config as plain containers, outermost first."""
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            yield where, tree
        entries = tree.items()
    elif isinstance(tree, list):
        entries = dict(enumerate(tree)).items()
    else:
        return
    for key, value in entries:
        yield from nodes(value, f"{where}.{key}" if where else str(key))


def node_faults(where: str, node: Mapping[str, Any]) -> list[str]:
    """Returns, a line each, what would keep a node from being called: its import, arguments it does not take, arguments it lacks."""
    try:
        target = find_target(node["_target_"], where)
    except InputError as error:
        return [str(error)]
    return refused(where, node, target) + lacking(where, node, target)


def refused(where: str, node: Mapping[str, Any], target: Callable[..., Any] | None) -> list[str]:
    """Returns a line for every argument of a node that its target does not take."""
    parameters = parameters_of(target)
    if parameters is None:
        return []
    lines = []
    for key in node:
        if key != "_target_" and key not in parameters:
            near = difflib.get_close_matches(str(key), parameters, n=3)
            advice = f"did you mean {' or '.join(near)}?" if near else f"it takes {', '.join(parameters) or 'nothing'}"
            lines.append(f"{where}: {name_of(target)} takes no {key}: {advice}; ~{where}.{key} leaves it out")
    return lines


def lacking(where: str, node: Mapping[str, Any], target: Callable[..., Any] | None) -> list[str]:
    """Returns a line where a node lacks arguments that its target needs."""
    parameters, _ = _signature(target)
    given = {*node, *_GIVEN_LATER.get(where, ())}
    lacks = [name for name, p in parameters.items() if p.default is p.empty and name not in given]
    return [f"{where}: {name_of(target)} needs {', '.join(lacks)}: set {where}.{lacks[0]}"] if lacks else []


def name_of(target: Any) -> str:
    """Returns the name that a message calls a target by."""
    return target if isinstance(target, str) else getattr(target, "__qualname__", repr(target))
