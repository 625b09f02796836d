"""Saves a config as YAML that can be loaded again, with functions, lambdas, partials, enumerations and dtypes.

Detectron2's ``LazyConfig.save`` writes a function by its module and name. A lambda, a function that a config file defines and a
method of a class cannot be loaded from that. Here such a value is written as a YAML tag that rebuilds it:
``!!python/object/apply:detectron2.utils.registry.locate`` with the import path if it can be imported, else :func:`from_source` with
its source.
"""

from __future__ import annotations

import ast
import functools
import inspect
import symtable
import textwrap
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf, SCMode

from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.errors import InputError


def save_config(cfg: DictConfig, path: str | Path) -> None:
    r"""Writes a config as YAML that ``LazyConfig.load`` reads. Each ``_target_`` is its import path; interpolations are not resolved.

    Args:
        cfg: a LazyConfig.
        path: the YAML file; it is replaced as a whole.

    Raises:
        InputError: the config contains a value that cannot be saved (the message names its key), or the file cannot be written.

    Example:
        >>> save_config(OmegaConf.create({"train": {"max_iter": 10}}), tmp_path / "config.yaml")
        >>> (tmp_path / "config.yaml").read_text()
        'train: {max_iter: 10}\n'
    """
    tree = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.INSTANTIATE)
    text = "".join(_dump(name, value) for name, value in dict(tree).items())  # type: ignore[arg-type]
    write_atomic(Path(path), text)


def from_source(source: str, names: Mapping[str, Any]) -> Any:
    """Rebuilds a function that a config file defined. Files that :func:`save_config` writes call it.

    Args:
        source: a lambda expression or a whole ``def``.
        names: the global names that the source uses, and their values.

    Example:
        >>> from_source("lambda x: x * factor", {"factor": 3})(2)
        6
    """
    scope = dict(names)
    tree = ast.parse(source)
    if isinstance(tree.body[0], ast.FunctionDef):
        exec(compile(tree, "<saved config>", "exec"), scope)
        made = scope[tree.body[0].name]
    else:
        made = eval(source, scope)
    # Kept for saving it again: no file contains its source.
    made.saved_source = source
    return made


class _Dumper(yaml.Dumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Returns True: a repeated value is written twice, because YAML anchors are hard to read."""
        return True


def _dump(name: str, value: Any) -> str:
    dumped = ""
    try:
        value = _with_target_paths(value)
        dumped = yaml.dump({name: value}, Dumper=_Dumper, default_flow_style=None, allow_unicode=True, width=9999)
        yaml.unsafe_load(dumped)
    except Exception as error:  # saving and loading an object runs any code
        if isinstance(value, Mapping | list) and value:
            # Raises for the innermost key that cannot be saved.
            entries = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, entry in entries:
                _dump(f"{name}.{key}", entry)
        raise InputError(
            f"{name} is a {type(value).__name__}, which cannot be saved ({first_line(error)}): {value!r:.80}"
        ) from error
    return dumped


def _with_target_paths(value: Any) -> Any:
    """Replaces each callable ``_target_`` by its import path, as an override would write it."""
    if isinstance(value, Mapping):
        entries = {key: _with_target_paths(entry) for key, entry in value.items()}
        target = entries.get("_target_")
        if callable(target):
            entries["_target_"] = _path_of(target) or target
        return entries
    return [_with_target_paths(entry) for entry in value] if isinstance(value, list) else value


def _path_of(thing: Any) -> str | None:
    """Returns the shortest import path of a class, function or method, or None if it cannot be imported."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not module or not name or "<" in name:
        return None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        path = ".".join([*parts[:count], name])
        try:
            # Each lookup of a bound method makes a new object that is equal but not identical.
            if locate(path) == thing:
                return path
        except Exception:  # hydra raises several kinds; importing runs any code
            continue
    return None


def _apply(dumper: yaml.Dumper, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> yaml.Node:
    tag = f"tag:yaml.org,2002:python/object/apply:{function.__module__}.{function.__qualname__}"
    if keywords:
        return dumper.represent_mapping(tag, {"args": list(arguments), "kwds": keywords})
    return dumper.represent_sequence(tag, list(arguments))


def _represent_function(dumper: yaml.Dumper, function: Any) -> yaml.Node:
    path = _path_of(function)
    if path:
        return _apply(dumper, locate, path)
    if not isinstance(function, types.FunctionType):
        raise InputError("it cannot be imported by its name")
    source = getattr(function, "saved_source", None) or _source_of(function)
    return _apply(dumper, from_source, source, _globals_used(function, source))


def _source_of(function: types.FunctionType) -> str:
    """Returns the source of a function; for a lambda only its expression, which is looked up in its file."""
    if function.__name__ != "<lambda>":
        return textwrap.dedent(inspect.getsource(function))
    code = function.__code__
    tree = ast.parse(Path(code.co_filename).read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno]
    if len(found) > 1 and hasattr(code, "co_positions"):  # since Python 3.11
        spans = set(code.co_positions())
        found = [node for node in found if _span(node.body) in spans]
    if len(found) != 1:
        raise InputError(f"several lambdas are on line {code.co_firstlineno} of {code.co_filename}")
    return ast.unparse(found[0])


def _span(node: ast.expr) -> tuple[int | None, ...]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _globals_used(function: types.FunctionType, source: str) -> dict[str, Any]:
    """Returns the names that a function uses from its file and from the enclosing function, and their values."""
    tables = [symtable.symtable(source, "<config>", "exec")]
    outside = {symbol.get_name() for symbol in tables[0].get_symbols() if not symbol.is_assigned()}  # such as defaults
    for table in tables:
        tables.extend(table.get_children())
        outside |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global()}
    around = inspect.getclosurevars(function).nonlocals
    known = {**function.__globals__, **around}
    return {name: known[name] for name in sorted(outside - {function.__name__}) if name in known}


def _represent_module(dumper: yaml.Dumper, module: types.ModuleType) -> yaml.Node:
    return _apply(dumper, locate, module.__name__)


def _represent_partial(dumper: yaml.Dumper, partial: functools.partial[Any]) -> yaml.Node:
    return _apply(dumper, functools.partial, partial.func, *partial.args, **partial.keywords)


def _represent_enum(dumper: yaml.Dumper, member: Enum) -> yaml.Node:
    return _apply(dumper, type(member), member.value)


def _represent_any(dumper: yaml.Dumper, thing: Any) -> yaml.Node:
    """Represents a dataclass, a named tuple, a torch.dtype, or an object that one call with plain arguments rebuilds, such as a path.

    Raises:
        InputError: for any other object. A model, for example, would become a file of its weights.
    """
    if is_dataclass(thing):
        return _apply(dumper, type(thing), **{field.name: getattr(thing, field.name) for field in fields(thing)})
    if isinstance(thing, tuple) and hasattr(thing, "_asdict"):
        return _apply(dumper, type(thing), **thing._asdict())
    rebuild = thing.__reduce_ex__(2)
    if isinstance(rebuild, str):  # the name of a global of its module
        rebuild = (locate, (f"{type(thing).__module__}.{rebuild}",))
    call, arguments, *state = rebuild
    if any(part is not None for part in state) or not all(
        isinstance(value, str | int | float | None) for value in arguments
    ):
        raise InputError("it cannot be rebuilt by one call with plain arguments")
    return _apply(dumper, call, *arguments)


for _kind in (types.FunctionType, types.BuiltinFunctionType, types.MethodType):
    _Dumper.add_representer(_kind, _represent_function)
_Dumper.add_multi_representer(type, _represent_function)
_Dumper.add_representer(types.ModuleType, _represent_module)
_Dumper.add_representer(functools.partial, _represent_partial)
_Dumper.add_multi_representer(Enum, _represent_enum)
_Dumper.add_multi_representer(object, _represent_any)
