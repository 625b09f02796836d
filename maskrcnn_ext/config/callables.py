"""Imports the ``_target_`` of a LazyConfig node and checks the node's arguments against its signature."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from detectron2.utils.registry import locate
from omegaconf import OmegaConf

from maskrcnn_ext.common.text import did_you_mean, first_line, nearest
from maskrcnn_ext.errors import InputError

# The training script sets these before it instantiates the node.
_SET_BY_SCRIPT = {"optimizer.params": {"model"}}


def find_target(target: Any, key: str) -> Callable[..., Any] | None:
    """Imports a ``_target_``. Returns None for a node or an interpolation, which are resolved only when the node is instantiated.

    Args:
        target: a dotted path, a callable, or a node.
        key: the key of the node, for the message.

    Raises:
        InputError: `target` cannot be imported or is not callable.

    Example:
        >>> find_target("torch.nn.Linear", "model.head").__name__
        'Linear'
    """
    if isinstance(target, Mapping) or (isinstance(target, str) and "${" in target):
        return None
    found = target
    if isinstance(target, str):
        try:
            found = locate(target)
        except Exception as error:  # importing runs any code
            advice = _import_advice(target, error.__cause__ or error)
            raise InputError(f"{key}._target_={target} cannot be imported{advice}") from error
    if not callable(found):
        raise InputError(f"{key}._target_={target} is a {type(found).__name__}, expected a class or a function")
    return found


def _import_advice(target: str, error: BaseException) -> str:
    """Returns similar names of the target's module, or the reason why the import failed."""
    module, _, name = target.rpartition(".")
    if module in sys.modules:
        similar = nearest(name, dir(sys.modules[module]))
        if similar:
            return f": did you mean {' or '.join(f'{module}.{found}' for found in similar)}?"
    if not module:
        return ": write its module too, as in maskrcnn_ext.BoundaryMaskHead"
    return f" ({first_line(error)})"


def accepted_arguments(target: Callable[..., Any] | None) -> dict[str, inspect.Parameter] | None:
    """Returns the keyword arguments of a target by name, or None if it accepts any or has no readable signature.

    Example:
        >>> list(accepted_arguments(lambda size, *, stride=1: None))
        ['size', 'stride']
    """
    named, accepts_any = _signature(target)
    return None if accepts_any else named


def named_arguments(target: Callable[..., Any] | None) -> dict[str, inspect.Parameter]:
    """Returns the keyword arguments that are known by name.

    For a class with ``**kwargs`` these include the arguments of its base classes, which usually receive ``**kwargs``.
    """
    known: dict[str, inspect.Parameter] = {}
    for owner in inspect.getmro(target) if inspect.isclass(target) else [target]:
        named, accepts_any = _signature(owner)
        known = {**named, **known}
        if not accepts_any:
            break
    return known


def _signature(target: Callable[..., Any] | None) -> tuple[dict[str, inspect.Parameter], bool]:
    """Returns the keyword arguments by name, and whether the target accepts any others."""
    try:
        parameters = inspect.signature(target).parameters.values() if target else ()
    except (TypeError, ValueError):
        return {}, True
    named = {p.name: p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return named, target is None or any(p.kind is p.VAR_KEYWORD for p in parameters)


def iter_nodes(tree: Any, key: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields key and content of every node (a mapping with a ``_target_``) of a config in plain containers, outermost first.

    Example:
        >>> [key for key, _ in iter_nodes({"model": {"_target_": "a.B", "heads": [{"_target_": "a.C"}]}})]
        ['model', 'model.heads.0']
    """
    if isinstance(tree, Mapping):
        if "_target_" in tree:
            yield key, tree
        entries = tree.items()
    elif isinstance(tree, list):
        entries = dict(enumerate(tree)).items()
    else:
        return
    for name, value in entries:
        yield from iter_nodes(value, f"{key}.{name}" if key else str(name))


def node_faults(key: str, node: Mapping[str, Any]) -> list[str]:
    """Returns one line for each reason why a node cannot be called: a failed import, unknown arguments, missing arguments.

    Example:
        >>> node_faults("model.norm", {"_target_": "torch.nn.GroupNorm", "num_groups": 32})
        ['model.norm: GroupNorm needs num_channels: set model.norm.num_channels']
    """
    try:
        target = find_target(node["_target_"], key)
    except InputError as error:
        return [str(error)]
    return unknown_arguments(key, node, target) + missing_arguments(key, node, target)


def unknown_arguments(key: str, node: Mapping[str, Any], target: Callable[..., Any] | None) -> list[str]:
    """Returns one line for each argument of a node that its target does not accept."""
    parameters = accepted_arguments(target)
    if parameters is None:
        return []
    lines = []
    for name in node:
        if name != "_target_" and name not in parameters:
            advice = did_you_mean(str(name), parameters) or f"it takes {', '.join(parameters) or 'nothing'}"
            lines.append(f"{key}: {target_name(target)} takes no {name}: {advice}; ~{key}.{name} removes it")
    return lines


def missing_arguments(key: str, node: Mapping[str, Any], target: Callable[..., Any] | None) -> list[str]:
    """Returns a line with the required arguments of a target that its node lacks; an empty list if it has all."""
    parameters, _ = _signature(target)
    present = {*node, *_SET_BY_SCRIPT.get(key, ())}
    missing = [name for name, p in parameters.items() if p.default is p.empty and name not in present]
    return [f"{key}: {target_name(target)} needs {', '.join(missing)}: set {key}.{missing[0]}"] if missing else []


def target_name(target: Any) -> str:
    """Returns the name of a target for messages."""
    return target if isinstance(target, str) else getattr(target, "__qualname__", repr(target))


def to_plain(value: Any) -> Any:
    """Converts a config to plain containers without resolving its interpolations; returns anything else unchanged."""
    return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value
