"""Reads the YAML of a config without running code that the file contains or names.

A LazyConfig in YAML is a program in two ways: a tag such as ``!!python/object/apply:os.system`` runs while the file is read, and a
``_target_`` runs when the config is built. :func:`read_lazy_yaml` runs no tag: it keeps each as a :class:`PythonTag`.
:func:`build_tags` replaces those that only name or build a part of a model, and :func:`check_parts` raises if the rest is needed.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import Any

import torch
import yaml
from detectron2.data import DatasetMapper
from detectron2.data.transforms import Augmentation, Transform
from detectron2.utils.registry import locate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from maskrcnn_ext.common.yaml_text import load_yaml
from maskrcnn_ext.config.config_yaml import from_source
from maskrcnn_ext.errors import InputError

_TAG = "tag:yaml.org,2002:python/"
_LOCATE = "detectron2.utils.registry.locate"
_FROM_SOURCE = ("maskrcnn_ext.config.config_yaml.from_source", "maskrcnn_ext.engine.saving.from_source")
# Packages whose functions and classes only build parts of a model or transform images.
_PARTS = (
    "detectron2.data.dataset_mapper",
    "detectron2.data.transforms",
    "detectron2.layers",
    "detectron2.modeling",
    "detectron2.structures",
    "fvcore.nn",
    "fvcore.transforms",
    "maskrcnn_ext.data.mapping",
    "maskrcnn_ext.modeling",
    "timm",
    "torch._C._nn",
    "torch.nn",
    "torchvision.models",
    "torchvision.ops",
)
# Classes from which parts are derived, also those of other packages.
_BASES = (nn.Module, Augmentation, Transform, DatasetMapper)
# Types of the values that a name may have.
_PLAIN = (str, int, float, bool, Enum, PurePath, torch.dtype, torch.device, torch.memory_format)
_LAMBDA_NODES = (ast.Lambda, ast.arguments, ast.arg, ast.keyword, ast.Name, ast.Load, ast.Constant)
_TRUST = "if you trust the file, add the override train.loading.allow_pickle=true"


class PythonTag:
    """A value of a YAML file that only code can build. Not a dataclass, because omegaconf would make a mapping of it."""

    def __init__(self, name: str, value: Any) -> None:
        """Keeps the tag.

        Args:
            name: the tag without its prefix, such as ``object/apply:os.system``.
            value: the arguments, as plain values.
        """
        self.name, self.value = name, value

    def __repr__(self) -> str:
        return f"PythonTag({self.name!r}, {self.value!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PythonTag) and (self.name, self.value) == (other.name, other.value)

    __hash__ = object.__hash__

    def __str__(self) -> str:
        """Returns the path of a function or class that the tag names, the source of a lambda, else the tag as in the file."""
        kind, _, path = self.name.partition(":")
        if kind in ("name", "module"):
            return path
        if path in (_LOCATE, *_FROM_SOURCE) and isinstance(self.value, list) and self.value:
            return str(self.value[0])
        return f"!!python/{self.name} {self.value}"


class _Loader(yaml.SafeLoader):
    pass


def _construct(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        value: Any = loader.construct_mapping(node, deep=True)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)
    return tuple(value) if name == "tuple" and isinstance(value, list) else PythonTag(name, value)


_Loader.add_multi_constructor(_TAG, _construct)


def read_lazy_yaml(file: Path) -> DictConfig:
    """Returns a LazyConfig in YAML as plain values and :class:`PythonTag`; no code runs and nothing is imported.

    Raises:
        InputError: the file cannot be read or is not such a config.

    Example:
        >>> _ = (tmp_path / "config.yaml").write_text("train: {hook: !!python/object/apply:os.system [ls]}")
        >>> read_lazy_yaml(tmp_path / "config.yaml").train.hook
        PythonTag('object/apply:os.system', ['ls'])
    """
    content = load_yaml(_text(file), file, loader=_Loader)
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a config (expected a mapping, found {type(content).__name__})")
    return OmegaConf.create(content, flags={"allow_objects": True})


def read_settings(file: Path) -> dict[str, Any]:
    """Returns the content of a LazyConfig in YAML as plain values. No code runs: a value that needs code becomes text.

    Raises:
        InputError: the file cannot be read or is not such a config.

    Example:
        >>> _ = (tmp_path / "config.yaml").write_text("train: {max_iter: 10, norm: !!python/name:torch.nn.LayerNorm }")
        >>> read_settings(tmp_path / "config.yaml")
        {'train': {'max_iter': 10, 'norm': 'torch.nn.LayerNorm'}}
    """
    settings: dict[str, Any] = _replaced(OmegaConf.to_container(read_lazy_yaml(file), resolve=False), str)
    return settings


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def build_tags(cfg: DictConfig) -> DictConfig:
    """Returns a config whose tags are replaced by their values, where this builds a part of a model and runs nothing else.

    These are names of parts, partials of them, dataclasses, named tuples, enumerations, dtypes, paths, and lambdas that only call parts.

    Example:
        >>> cfg = OmegaConf.create({"norm": PythonTag("name:torch.nn.LayerNorm", "")}, flags={"allow_objects": True})
        >>> build_tags(cfg).norm.__name__
        'LayerNorm'
    """
    return OmegaConf.create(
        _replaced(OmegaConf.to_container(cfg, resolve=False), _build), flags={"allow_objects": True}
    )


def check_parts(cfg: DictConfig, keys: tuple[str, ...], file: str) -> None:
    """Raises an InputError if a part of a config would run code other than that of models and mappers when it is built.

    Args:
        cfg: the config.
        keys: the keys of the object to build.
        file: the file that contains the config, for messages.

    Example:
        >>> cfg = OmegaConf.create({"model": {"_target_": "os.system", "command": "ls"}})
        >>> check_parts(cfg, ("model",), "config.yaml")
        Traceback (most recent call last):
        maskrcnn_ext.errors.InputError: config.yaml: ... can be any program: if you trust the file, ...
    """
    for key in keys:
        part = OmegaConf.select(cfg, key)
        tree = OmegaConf.to_container(part, resolve=True) if OmegaConf.is_config(part) else part
        for where, value in _entries(tree, key):
            if isinstance(value, PythonTag):
                raise InputError(f"{file}: {where} is !!python/{value.name}, which can be any program: {_TRUST}")
            if where.endswith("._target_") and not _is_part(_located(value) if isinstance(value, str) else value):
                raise InputError(f"{file}: {where}={value} can be any program: {_TRUST}")


def _entries(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    yield key, tree
    entries = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for name, value in entries:
        yield from _entries(value, f"{key}.{name}")


def _replaced(tree: Any, replace: Callable[[PythonTag], Any]) -> Any:
    """Returns plain values with each tag replaced."""
    if isinstance(tree, dict):
        return {key: _replaced(entry, replace) for key, entry in tree.items()}
    if isinstance(tree, list | tuple):
        entries = [_replaced(entry, replace) for entry in tree]
        return entries if isinstance(tree, list) else tuple(entries)
    return replace(tree) if isinstance(tree, PythonTag) else tree


def _build(tag: PythonTag) -> Any:
    """Returns the value that a tag names or builds, or the tag itself."""
    kind, _, path = tag.name.partition(":")
    positional, named = _arguments(_replaced(tag.value, _build))
    if path == _LOCATE and positional:
        kind, path = "name", str(positional[0])
    if kind in ("name", "module"):
        found = _located(path)
        return found if _is_part(found) or isinstance(found, _PLAIN) or inspect.ismodule(found) else tag
    if any(isinstance(entry, PythonTag) for _, entry in _entries([positional, named], "")):
        return tag
    if path in _FROM_SOURCE:
        source, names = (*positional, None, None)[:2]
        return from_source(source, names) if _only_calls_parts(source, names) else tag
    if path == "functools.partial" and positional and _is_part(positional[0]):
        function, *bound = positional
        return functools.partial(function, *bound, **named)
    found = _located(path)
    if inspect.isclass(found) and (_is_record(found) or issubclass(found, (Enum, PurePath, torch.device))):
        try:
            return found(*positional, **named)
        except Exception:  # other arguments than those of the class
            return tag
    return tag


def _arguments(value: Any) -> tuple[list[Any], dict[str, Any]]:
    """Returns the positional and the named arguments of a tag. A dataclass that PyYAML has written has its fields only."""
    if isinstance(value, dict):
        if set(value) <= {"args", "kwds"}:
            return list(value.get("args") or []), dict(value.get("kwds") or {})
        return [], value
    return (list(value), {}) if isinstance(value, list | tuple) else ([], {})


def _is_record(found: type) -> bool:
    return is_dataclass(found) or (issubclass(found, tuple) and hasattr(found, "_fields"))


def _only_calls_parts(source: Any, names: Any) -> bool:
    """Returns whether a source is a lambda that only passes plain values and its arguments to parts."""
    if not isinstance(source, str) or not isinstance(names, dict):
        return False
    try:
        body = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return isinstance(body, ast.Lambda) and all(
        _is_part(_named(node.func, names))
        if isinstance(node, ast.Call)
        else isinstance(node, _LAMBDA_NODES) or _named(node, names) is not None
        for node in ast.walk(body)
    )


def _named(node: ast.AST, names: Mapping[str, Any]) -> Any:
    """Returns the object of a name, or of a name in a module such as ``nn.LayerNorm``; None for anything else."""
    if isinstance(node, ast.Attribute):
        owner = _named(node.value, names)
        return getattr(owner, node.attr, None) if inspect.ismodule(owner) else None
    return names.get(node.id) if isinstance(node, ast.Name) else None


def _located(path: str) -> Any:
    """Imports a name. Returns None if it cannot be imported or belongs to Python's standard library."""
    if path.partition(".")[0] in sys.stdlib_module_names and not path.startswith("pathlib."):
        return None
    try:
        return locate(path)
    except Exception:  # importing runs the code of an installed package
        return None


def _is_part(thing: Any) -> bool:
    """Returns whether a function or class builds parts of a model: it is one of `_PARTS` or `_BASES`, or the user's own.

    The user's own are outside of Python's library and of the installed packages.
    """
    if not callable(thing):
        return False
    if inspect.isclass(thing) and issubclass(thing, _BASES):
        return True
    module = getattr(thing, "__module__", None) or ""
    if any(module == part or module.startswith(f"{part}.") for part in _PARTS):
        return True
    root = module.partition(".")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    if root in sys.stdlib_module_names or root in ("detectron2", "maskrcnn_ext") or file is None:
        return False
    return not {"site-packages", "dist-packages"} & set(Path(file).parts)
