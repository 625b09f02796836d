"""Saves a config as YAML that loads again, whatever it holds: functions, lambdas, partials, enumerations, dtypes.

Detectron2's ``LazyConfig.save`` writes a function by its module and name, which is not enough for a lambda, for what a config file
defines, or for a method of a class; the file then cannot be read. Here such a value is written as a YAML tag that makes it again:
``!!python/object/apply:detectron2.utils.registry.locate`` with the path of what can be imported, and :func:`from_source` with the
source of what cannot.
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

from maskrcnn_ext.errors import InputError


def save(cfg: DictConfig, path: str | Path) -> None:
    """Writes a config that ``LazyConfig.load`` reads, as every ``_target_`` by its import path. Interpolations stay as they are.

    Args:
        cfg: a LazyConfig.
        path: of the YAML file; replaced as a whole.

    Raises:
        InputError: the config holds something that cannot be written; the message names its key.
    """
    tree = OmegaConf.to_container(cfg, resolve=False, structured_config_mode=SCMode.INSTANTIATE)
    text = "".join(_dump(name, value) for name, value in dict(tree).items())  # type: ignore[arg-type]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def from_source(source: str, names: Mapping[str, Any]) -> Any:
    """Makes the function that a config file has defined; what :func:`save` writes calls it.

    Args:
        source: a lambda, or a whole ``def``.
        names: what the source refers to.
    """
    scope = dict(names)
    tree = ast.parse(source)
    if isinstance(tree.body[0], ast.FunctionDef):
        exec(compile(tree, "<saved config>", "exec"), scope)
        made = scope[tree.body[0].name]
    else:
        made = eval(source, scope)
    # So that it can be saved again: there is no file that its source stands in.
    made.saved_source = source
    return made


class _Dumper(yaml.Dumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Writes a value twice rather than an anchor, which is hard to read."""
        return True


def _dump(name: str, value: Any) -> str:
    dumped = ""
    try:
        value = _with_paths(value)
        dumped = yaml.dump({name: value}, Dumper=_Dumper, default_flow_style=None, allow_unicode=True, width=9999)
        yaml.unsafe_load(dumped)
    except Exception as error:  # any object may refuse to be written or made again
        if isinstance(value, Mapping | list) and value:
            # Names the innermost key that is at fault.
            entries = value.items() if isinstance(value, Mapping) else enumerate(value)
            for key, entry in entries:
                _dump(f"{name}.{key}", entry)
        reason = str(error).strip().splitlines()[:1]
        raise InputError(
            f"{name} holds {type(value).__name__} {value!r:.80}, which cannot be saved ({reason[0] if reason else type(error).__name__})"
        ) from error
    return dumped


def _with_paths(value: Any) -> Any:
    """Targets as texts: that is how a config file on the command line would say them."""
    if isinstance(value, Mapping):
        entries = {key: _with_paths(entry) for key, entry in value.items()}
        target = entries.get("_target_")
        if callable(target):
            entries["_target_"] = _path_of(target) or target
        return entries
    return [_with_paths(entry) for entry in value] if isinstance(value, list) else value


def _path_of(thing: Any) -> str | None:
    """The shortest path that something can be imported by; None where there is none."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not module or not name or "<" in name:
        return None
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        path = ".".join([*parts[:count], name])
        try:
            # A bound method is made anew each time it is looked up: equal, and not the same.
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
    return _apply(dumper, from_source, source, _names_of(function, source))


def _source_of(function: types.FunctionType) -> str:
    """The source of a function; of a lambda its expression alone, found in the file that it stands in."""
    if function.__name__ != "<lambda>":
        return textwrap.dedent(inspect.getsource(function))
    code = function.__code__
    tree = ast.parse(Path(code.co_filename).read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda) and node.lineno == code.co_firstlineno]
    if len(found) > 1 and hasattr(code, "co_positions"):  # since Python 3.11
        spans = set(code.co_positions())
        found = [node for node in found if _span(node.body) in spans]
    if len(found) != 1:
        raise InputError(f"several lambdas stand on line {code.co_firstlineno} of {code.co_filename}")
    return ast.unparse(found[0])


def _span(node: ast.expr) -> tuple[int | None, ...]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _names_of(function: types.FunctionType, source: str) -> dict[str, Any]:
    """What a function refers to outside itself: modules, classes, functions and values of its file and of the function around it."""
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
    """A dataclass, a named tuple, a torch.dtype, or what is made again by one call with plain arguments, such as a torch.device or a path.

    Nothing else: a model, say, would become a file of its weights.
    """
    if is_dataclass(thing):
        return _apply(dumper, type(thing), **{field.name: getattr(thing, field.name) for field in fields(thing)})
    if isinstance(thing, tuple) and hasattr(thing, "_asdict"):
        return _apply(dumper, type(thing), **thing._asdict())
    made_by = thing.__reduce_ex__(2)
    if isinstance(made_by, str):  # it is a global of its module
        made_by = (locate, (f"{type(thing).__module__}.{made_by}",))
    call, arguments, *state = made_by
    if any(part is not None for part in state) or not all(
        isinstance(value, str | int | float | None) for value in arguments
    ):
        raise InputError("it is more than a call with plain arguments")
    return _apply(dumper, call, *arguments)


for _kind in (types.FunctionType, types.BuiltinFunctionType, types.MethodType):
    _Dumper.add_representer(_kind, _represent_function)
_Dumper.add_multi_representer(type, _represent_function)
_Dumper.add_representer(types.ModuleType, _represent_module)
_Dumper.add_representer(functools.partial, _represent_partial)
_Dumper.add_multi_representer(Enum, _represent_enum)
_Dumper.add_multi_representer(object, _represent_any)
