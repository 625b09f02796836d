"""Finds the file or the override that set each value of a config.

The config file and every file that it imports from are loaded separately. A value is followed through the import of its name into the
imported file as long as it is equal there; the last such file is its origin. Two forms of import are followed:
``from .common.optim.sgd import optimizer`` (also with ``as``) and ``x = get_config("f.py").x``. Consequences:

* A file that sets a value without changing it is not named.
* A value that a function changes belongs to the file that calls the function.
* A name that reaches a file in any other way belongs to that file.
* A value that an override names belongs to the override, even if it was equal before.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from detectron2 import model_zoo
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maskrcnn_ext.config.callables import target_name, to_plain
from maskrcnn_ext.config.overrides import Override, apply_overrides, parse_override
from maskrcnn_ext.config.settings import add_missing_settings
from maskrcnn_ext.config.zoo import config_path, config_root
from maskrcnn_ext.errors import InputError

Keys = tuple[str | int, ...]  # the path to a value
DEFAULT = "default of maskrcnn_ext"


def describe_config(config_file: str, overrides: list[str]) -> str:
    """Returns a config as lines of ``key: value  # origin``, with interpolations resolved and the missing settings added.

    Args:
        config_file: path of a LazyConfig.
        overrides: as for :func:`maskrcnn_ext.config.overrides.apply_overrides`.

    Raises:
        InputError: an override is wrong.

    Example:
        >>> text = describe_config(str(config_path("mask_rcnn_r50_fpn_1x.py")), ["optimizer.lr=0.1"])
        >>> next(line for line in text.splitlines() if line.startswith("optimizer.lr:"))
        "optimizer.lr: 0.1  # override 'optimizer.lr=0.1'"
    """
    file = _File(Path(config_file), {})
    cfg = apply_overrides(LazyConfig.load(config_file), overrides)
    in_files = {path for path, _ in _leaves(to_plain(cfg))}
    if OmegaConf.is_dict(cfg.get("train")):
        add_missing_settings(cfg)
    parsed = [parse_override(text) for text in overrides]
    lines = []
    for path, value in _leaves(to_plain(cfg)):
        if path in in_files:
            setter = _override_of(path, parsed)
            origin = f"override {setter.text!r}" if setter else _shortened(file.origin(path))
        else:
            origin = DEFAULT
        interpolation = f": {value}" if isinstance(value, str) and "${" in value else ""
        lines.append(
            f"{'.'.join(map(str, path))}: {_yaml_value(_resolved(cfg, path, value))}  # {origin}{interpolation}"
        )
    return "\n".join(lines)


def is_shipped_value(config_file: str, overrides: list[str], key: str) -> bool:
    """Returns whether a value comes from a config of this package or of Detectron2, and not from a user's file or an override.

    Example:
        >>> is_shipped_value(str(config_path("mask_rcnn_r50_fpn_1x.py")), [], "model.roi_heads.num_classes")
        True
    """
    path = tuple(key.split("."))
    if _override_of(path, [parse_override(text) for text in overrides]):
        return False
    origin = _File(Path(config_file), {}).origin(path).resolve()
    roots = (config_root(), Path(model_zoo.get_config_file("common/train.py")).parents[1])
    return any(origin.is_relative_to(root.resolve()) for root in roots)


class _File:
    """A config file and the files from which it imports its names."""

    def __init__(self, path: Path, known: dict[Path, _File]) -> None:
        self.path = path
        self._known = known  # a file that several others import is loaded once
        known[path.resolve()] = self

    @cached_property
    def _values(self) -> dict[str, Any]:
        loaded = LazyConfig.load(str(self.path))
        return to_plain(loaded) if OmegaConf.is_dict(loaded) else {}

    @cached_property
    def _sources(self) -> dict[str, tuple[_File, str]]:
        """Maps a name to the file that it is imported from and to its name there. The last import of a name counts."""
        found: dict[str, tuple[_File, str]] = {}
        loaded: dict[str, Path | None] = {}  # file of `base = get_config("...")` by the name that it is assigned to
        if self.path.suffix == ".py":
            for node in ast.parse(self.path.read_text(encoding="utf-8")).body:
                for name, path, original in _imports(node, self.path, loaded):
                    if path.is_file():
                        found[name] = self._known.get(path.resolve()) or _File(path, self._known), original
        return found

    def origin(self, path: Keys) -> Path:
        """Returns the file that set a value. The first key of its path is a name in this file."""
        name, *keys = path
        if name in self._sources:
            file, original = self._sources[str(name)]
            if _are_equal_at(file._values.get(original), self._values.get(str(name)), keys):
                return file.origin((original, *keys))
        return self.path


def _imports(node: ast.stmt, file: Path, loaded: dict[str, Path | None]) -> Iterator[tuple[str, Path, str]]:
    """Yields the imports of a statement from other config files: the local name, the other file, and the name there."""
    if isinstance(node, ast.ImportFrom) and node.level:
        folder = file.parent
        for _ in range(node.level - 1):
            folder = folder.parent
        path = folder.joinpath(*(node.module or "").split("."))
        for alias in node.names:
            yield alias.asname or alias.name, path.with_name(f"{path.name}.py"), alias.name
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        name, value = node.targets[0].id, node.value
        original = None
        if isinstance(value, ast.Attribute):  # model = get_config("mask_rcnn_r50_fpn_1x.py").model
            original, value = value.attr, value.value
        elif isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):  # ... or ["model"]
            original, value = str(value.slice.value), value.value
        source: Path | None = None
        if isinstance(value, ast.Call):
            source = _loaded_file(value, file)
        elif isinstance(value, ast.Name):
            source = loaded.get(value.id)
        if original is None:
            loaded[name] = source
        elif source is not None:
            yield name, source, original


def _loaded_file(call: ast.Call, file: Path) -> Path | None:
    """Returns the file that ``get_config``, ``model_zoo.get_config``, ``LazyConfig.load`` or ``load_rel`` loads; None for other calls."""
    function = ast.unparse(call.func)
    if not call.args or not isinstance(call.args[0], ast.Constant) or not isinstance(call.args[0].value, str):
        return None
    name = call.args[0].value
    if function.endswith("load_rel"):
        return file.parent / name
    if function.endswith("LazyConfig.load"):
        return Path(name)
    try:
        if function == "model_zoo.get_config":
            return Path(model_zoo.get_config_file(name))
        return config_path(name) if function.endswith("get_config") else None
    except (RuntimeError, InputError):  # no such config
        return None


def _leaves(tree: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """Yields path and value of every leaf of a config. A list is one leaf, unless it contains mappings."""
    if isinstance(tree, Mapping) and tree:
        entries = list(tree.items())
    elif isinstance(tree, list) and any(isinstance(entry, Mapping) for entry in tree):
        entries = list(enumerate(tree))
    else:
        yield path, tree
        return
    for key, value in entries:
        yield from _leaves(value, (*path, key))


def _are_equal_at(a: Any, b: Any, keys: list[str | int]) -> bool:
    """Returns whether two configs have equal values at `keys`.

    Lists whose entries have different targets differ in every entry, because one list has replaced the other.
    """
    for key in keys:
        if isinstance(a, Mapping) and isinstance(b, Mapping) and key in a and key in b:
            a, b = a[key], b[key]
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and isinstance(key, int):
            if not all(_is_equal(_target(x), _target(y)) for x, y in zip(a, b, strict=True)):
                return False
            a, b = a[key], b[key]
        else:
            return False
    return _is_equal(a, b)


def _target(entry: Any) -> Any:
    return entry.get("_target_") if isinstance(entry, Mapping) else None


def _is_equal(a: Any, b: Any) -> bool:
    if callable(a) and callable(b):
        # Each load of a config file creates new functions.
        return a is b or (target_name(a), getattr(a, "__code__", a)) == (target_name(b), getattr(b, "__code__", b))
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:  # such as the truth value of a comparison of tensors
        return False


def _override_of(path: Keys, parsed: list[Override]) -> Override | None:
    """Returns the last override of a value, of a part of it or of a mapping around it; None if no override sets it."""
    key = ".".join(map(str, path))
    for override in reversed(parsed):
        for named in () if override.deletes else _set_keys(override.key, override.value):
            if key == named or key.startswith(f"{named}.") or named.startswith(f"{key}."):
                return override
    return None


def _set_keys(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:  # merged: keys that it does not name are kept
        for name, entry in value.items():
            yield from _set_keys(f"{key}.{name}", entry)
    else:
        yield key


def _resolved(cfg: DictConfig, path: Keys, value: Any) -> Any:
    try:
        node: Any = cfg
        for key in path:
            node = node[key]
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException:  # it refers to a value that the training script sets later
        return value


def _yaml_value(value: Any) -> str:
    if isinstance(value, list | dict):
        return yaml.safe_dump(value, default_flow_style=True, width=10**9).strip() if _is_plain(value) else str(value)
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else repr(value)
    return yaml.safe_dump(value).removesuffix("...\n").strip() if _is_plain(value) else repr(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_plain(entry) for entry in value.values())
    if isinstance(value, list):
        return all(_is_plain(entry) for entry in value)
    return isinstance(value, str | int | float | bool | None)


def _shortened(path: Path) -> str:
    """Returns a path relative to the working directory if it is inside it, else the absolute path."""
    path = path.resolve()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
