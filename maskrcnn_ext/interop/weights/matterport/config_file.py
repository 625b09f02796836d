"""Reads settings of Matterport's Mask R-CNN from what users have of them; nothing is executed."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_ext.errors import InputError

Values = dict[str, Any]

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
_CALLS: dict[str, Callable[..., Any]] = {"int": int, "float": float, "len": len, "max": max, "min": min, "array": list}
# Powers are bounded: a tower of them would never end.
_LARGEST_POWER = 64


@dataclass(frozen=True)
class NotLiteral:
    """Stands for a value that only executing the file would tell."""

    line: int


def read_values(file: Path) -> Values:
    """Returns the settings of a file by name; sequences as lists.

    Args:
        file: a .py with a subclass of Matterport's ``Config`` (``my.py:Name`` for one of several), a .json, or a text with lines of a name
            and a value, as ``Config.display()`` prints them.

    Raises:
        InputError: it cannot be read or has no settings, or has several classes.
    """
    stem, _, chosen = str(file).partition(".py:")
    path = Path(f"{stem}.py") if chosen else file
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a text ({error})") from error
    if path.suffix == ".py":
        values = _read_class(path, text, chosen)
    else:
        values = _read_json(path, text) if path.suffix == ".json" else _read_lines(text)
    if not values:
        raise InputError(f"{path}: no settings such as NUM_CLASSES in it")
    return values


def _read_json(path: Path, text: str) -> Values:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected an object with a value for each name, found {type(values).__name__}")
    return values


def _read_lines(text: str) -> Values:
    """A name and its value each, where texts stand without quotes and NumPy's arrays without commas."""
    values: Values = {}
    for line in text.splitlines():
        name, _, rest = line.strip().partition(" ")
        if _NAME.fullmatch(name) and rest:
            values[name] = _printed(rest.strip())
    return values


def _printed(text: str) -> Any:
    commas = re.sub(r"(?<=[\d.])\s+(?=[-\d.])", ", ", text) if text.startswith("[") else text
    try:
        value = ast.literal_eval(commas)
    except (ValueError, SyntaxError):
        return text
    return list(value) if isinstance(value, tuple) else value


def _read_class(path: Path, text: str, chosen: str) -> Values:
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{path}: not Python ({error})") from error
    classes = {node.name: node for node in ast.walk(module) if isinstance(node, ast.ClassDef) and _is_config(node)}
    used_as_base = {_last_name(base) for node in classes.values() for base in node.bases}
    chosen = chosen or _only(path, [name for name in classes if name not in used_as_base])
    if chosen not in classes:
        raise InputError(f"{path}: no class {chosen} of settings; it has {', '.join(classes) or 'none'}")
    scope = _assigned(module.body, {})
    values: Values = {}
    for node in reversed(_ancestry(chosen, classes)):
        values |= _assigned(node.body, scope | values)
    return {name: value for name, value in values.items() if _NAME.fullmatch(name)}


def _is_config(node: ast.ClassDef) -> bool:
    return any(name.endswith("Config") for name in (node.name, *map(_last_name, node.bases)))


def _last_name(node: ast.expr) -> str:
    """``Config`` of ``mrcnn.config.Config``."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _only(path: Path, names: list[str]) -> str:
    if not names:
        raise InputError(f"{path}: no class of settings in it: expected one whose base is Config")
    if len(names) > 1:
        raise InputError(f"{path}: has the classes {', '.join(names)}: choose one, as in {path}:{names[0]}")
    return names[0]


def _ancestry(name: str, classes: Mapping[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """A class and those of its bases that are in the file, the nearest first."""
    found: list[ast.ClassDef] = []
    while name in classes and classes[name] not in found:
        found.append(classes[name])
        name = next((base for base in map(_last_name, classes[name].bases) if base in classes), "")
    return found


def _assigned(body: list[ast.stmt], scope: Values) -> Values:
    """What statements ``NAME = value`` assign, each of which may use those before it."""
    values: Values = {}
    for node in body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value:
            targets = [node.target]
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and node.value:
                values[target.id] = _evaluated(node.value, scope | values)
    return values


def _evaluated(node: ast.expr, scope: Values) -> Any:
    try:
        return _value(node, scope)
    except (ArithmeticError, KeyError, TypeError, ValueError, RecursionError):
        return NotLiteral(node.lineno)


def _value(node: ast.expr, scope: Values) -> Any:
    """The value of literals, arithmetic with numbers, names in the scope, and a few functions; ValueError or KeyError for all else."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return scope[node.id]
        case ast.List() | ast.Tuple():
            return [_value(entry, scope) for entry in node.elts]
        case ast.Dict():
            keys = [_value(key, scope) for key in node.keys if key is not None]
            return dict(zip(keys, (_value(entry, scope) for entry in node.values), strict=True))
        case ast.UnaryOp():
            return _UNARY[type(node.op)](_number(node.operand, scope))
        case ast.BinOp():
            left, right = _number(node.left, scope), _number(node.right, scope)
            if isinstance(node.op, ast.Pow) and max(abs(left), abs(right)) > _LARGEST_POWER:
                raise ValueError("too large a power")
            return _BINARY[type(node.op)](left, right)
        case ast.Call(func=func, args=arguments):
            return _CALLS[_last_name(func)](*(_value(argument, scope) for argument in arguments))
    raise ValueError(f"{type(node).__name__} is no literal")


def _number(node: ast.expr, scope: Values) -> int | float:
    value = _value(node, scope)
    if not isinstance(value, int | float):
        raise ValueError("no number")
    return value
