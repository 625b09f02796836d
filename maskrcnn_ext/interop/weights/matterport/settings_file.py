"""Reads the settings of Matterport's Mask R-CNN from Python, JSON or printed text, without executing anything."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.nested import count_values
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
# Larger powers are refused: nested ones could take forever.
_LARGEST_POWER = 64
_MOST_VALUES = 100_000


@dataclass(frozen=True)
class NotLiteral:
    """Marks a value that cannot be computed without executing the file."""

    line: int


def read_settings_file(file: Path) -> Values:
    """Returns the settings in a file by name, sequences as lists.

    Args:
        file: a .py file with a subclass of Matterport's ``Config`` (``my.py:Name`` chooses one of several), a .json file, or a text file
            with a name and a value in each line, as printed by ``Config.display()``.

    Raises:
        InputError: the file cannot be read, has no settings, or has several classes and none is chosen.

    Example:
        >>> file = tmp_path / "my.py"
        >>> _ = file.write_text("class MyConfig(Config): IMAGE_MAX_DIM = 64 * 16")
        >>> read_settings_file(file)
        {'IMAGE_MAX_DIM': 1024}
    """
    stem, _, chosen = str(file).partition(".py:")
    path = Path(f"{stem}.py") if chosen else file
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read it as text ({error})") from error
    if path.suffix == ".py":
        values = _read_class(path, text, chosen)
    else:
        values = _read_json(path, text) if path.suffix == ".json" else _read_lines(text)
    if not values:
        raise InputError(f"{path}: contains no settings such as NUM_CLASSES")
    return values


def _read_json(path: Path, text: str) -> Values:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def _read_lines(text: str) -> Values:
    """Parses lines of a name and a value; strings have no quotes and NumPy's arrays no commas."""
    values: Values = {}
    for line in text.splitlines():
        name, _, rest = line.strip().partition(" ")
        if _NAME.fullmatch(name) and rest:
            values[name] = _parse_printed(rest.strip())
    return values


def _parse_printed(text: str) -> Any:
    commas = re.sub(r"(?<=[\d.])\s+(?=[-\d.])", ", ", text) if text.startswith("[") else text
    try:
        value = ast.literal_eval(commas)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return list(value) if isinstance(value, tuple) else value


def _read_class(path: Path, text: str, chosen: str) -> Values:
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise InputError(f"{path}: not Python ({error})") from error
    classes = {node.name: node for node in ast.walk(module) if isinstance(node, ast.ClassDef) and _is_config(node)}
    used_as_base = {_last_name(base) for node in classes.values() for base in node.bases}
    chosen = chosen or _only_class(path, [name for name in classes if name not in used_as_base])
    if chosen not in classes:
        raise InputError(f"{path}: no class {chosen} of settings: choose from {', '.join(classes) or 'none'}")
    scope = _assigned(module.body, {})
    values: Values = {}
    for node in reversed(_ancestry(chosen, classes)):
        values |= _assigned(node.body, scope | values)
    return {name: value for name, value in values.items() if _NAME.fullmatch(name)}


def _is_config(node: ast.ClassDef) -> bool:
    return any(name.endswith("Config") for name in (node.name, *map(_last_name, node.bases)))


def _last_name(node: ast.expr) -> str:
    """Returns the last part of a dotted name, such as ``Config`` for ``mrcnn.config.Config``."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _only_class(path: Path, names: list[str]) -> str:
    if not names:
        raise InputError(f"{path}: contains no class of settings: expected one whose base is Config")
    if len(names) > 1:
        raise InputError(f"{path}: contains the classes {', '.join(names)}: choose one, as in {path}:{names[0]}")
    return names[0]


def _ancestry(name: str, classes: Mapping[str, ast.ClassDef]) -> list[ast.ClassDef]:
    """Returns a class and its base classes in the file, nearest first."""
    found: list[ast.ClassDef] = []
    while name in classes and classes[name] not in found:
        found.append(classes[name])
        name = next((base for base in map(_last_name, classes[name].bases) if base in classes), "")
    return found


def _assigned(body: list[ast.stmt], scope: Values) -> Values:
    """Returns the values of assignments ``NAME = value``; each may use those before it."""
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
                values[target.id] = _evaluate_or_mark(node.value, scope | values)
    return values


def _evaluate_or_mark(node: ast.expr, scope: Values) -> Any:
    try:
        value = _evaluate(node, scope)
        if count_values(value) > _MOST_VALUES:
            raise ValueError(f"more than {_MOST_VALUES:,} values")
        return value
    except (ArithmeticError, KeyError, TypeError, ValueError, RecursionError):
        return NotLiteral(node.lineno)


def _evaluate(node: ast.expr, scope: Values) -> Any:
    """Returns the value of literals, arithmetic, names in the scope and a few functions.

    Raises:
        ValueError, KeyError: the expression is something else.
    """
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return scope[node.id]
        case ast.List() | ast.Tuple():
            return [_evaluate(entry, scope) for entry in node.elts]
        case ast.Dict():
            keys = [_evaluate(key, scope) for key in node.keys if key is not None]
            return dict(zip(keys, (_evaluate(entry, scope) for entry in node.values), strict=True))
        case ast.UnaryOp():
            return _UNARY[type(node.op)](_number(node.operand, scope))
        case ast.BinOp():
            left, right = _number(node.left, scope), _number(node.right, scope)
            if isinstance(node.op, ast.Pow) and max(abs(left), abs(right)) > _LARGEST_POWER:
                raise ValueError("the power is too large")
            return _BINARY[type(node.op)](left, right)
        case ast.Call(func=func, args=arguments):
            return _CALLS[_last_name(func)](*(_evaluate(argument, scope) for argument in arguments))
    raise ValueError(f"{type(node).__name__} is not a literal")


def _number(node: ast.expr, scope: Values) -> int | float:
    value = _evaluate(node, scope)
    if not isinstance(value, int | float):
        raise ValueError("not a number")
    return value
