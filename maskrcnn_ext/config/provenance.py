"""Which file, or which override, set each value of a config.

How it is decided: the config file and every file that it is made of are loaded, each by itself. A value that a name has in a file is
followed through the import of that name into the file that it comes from, as long as it is the same there, and is ascribed to the last
of them. Followed are ``from .common.optim.sgd import optimizer``, also with ``as``, and ``x = get_config("f.py").x``. So a file that
sets a value to what it already was is not named; what a function changes is ascribed to the file that calls it; and a name that reaches
a file by other ways than these is ascribed to that file. A value that an override names is ascribed to it, even if it was the same.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from maskrcnn_ext.config import settings
from maskrcnn_ext.config.callables import name_of
from maskrcnn_ext.config.overrides import Override, apply, parse
from maskrcnn_ext.config.value_kinds import plain
from maskrcnn_ext.config.zoo import config_path
from maskrcnn_ext.errors import InputError

Keys = tuple[str | int, ...]  # that lead to a value
DEFAULT = "default of maskrcnn_ext"


def describe(config_file: str, overrides: list[str]) -> str:
    """Returns a config as lines of ``key: value  # where it comes from``, with interpolations resolved and our defaults put in.

    Args:
        config_file: a LazyConfig, as a path.
        overrides: as for :func:`maskrcnn_ext.config.overrides.apply`.

    Raises:
        InputError: an override is wrong.
    """
    file = _File(Path(config_file), {})
    cfg = apply(LazyConfig.load(config_file), overrides)
    given = {path for path, _ in _leaves(plain(cfg))}
    if OmegaConf.is_dict(cfg.get("train")):
        settings.complete(cfg)
    parsed = [parse(text) for text in overrides]
    lines = []
    for path, value in _leaves(plain(cfg)):
        if path in given:
            setter = _override_of(path, parsed)
            origin = f"override {setter.text!r}" if setter else _shown(file.origin(path))
        else:
            origin = DEFAULT
        written = f": {value}" if isinstance(value, str) and "${" in value else ""
        lines.append(f"{'.'.join(map(str, path))}: {_told(_resolved(cfg, path, value))}  # {origin}{written}")
    return "\n".join(lines)


class _File:
    """A config file, and the files that its names come from."""

    def __init__(self, path: Path, known: dict[Path, _File]) -> None:
        self.path = path
        self._known = known  # so that a file that several others build on is loaded once
        known[path.resolve()] = self

    @cached_property
    def _values(self) -> dict[str, Any]:
        loaded = LazyConfig.load(str(self.path))
        return plain(loaded) if OmegaConf.is_dict(loaded) else {}

    @cached_property
    def _sources(self) -> dict[str, tuple[_File, str]]:
        """Name -> the file that it comes from, and its name there. The last import of a name counts."""
        found: dict[str, tuple[_File, str]] = {}
        wholes: dict[str, list[Path]] = {}  # what `base = get_config("...")` has loaded, by its name
        if self.path.suffix == ".py":
            for node in ast.parse(self.path.read_text(encoding="utf-8")).body:
                for name, path, there in _imports(node, self.path, wholes):
                    if path.is_file():
                        found[name] = self._known.get(path.resolve()) or _File(path, self._known), there
        return found

    def origin(self, path: Keys) -> Path:
        """Returns the file that set the value at a path, the first key of which is a name of this file."""
        name, *keys = path
        if name in self._sources:
            file, there = self._sources[str(name)]
            if _agree(file._values.get(there), self._values.get(str(name)), keys):
                return file.origin((there, *keys))
        return self.path


def _imports(node: ast.stmt, file: Path, wholes: dict[str, list[Path]]) -> Iterator[tuple[str, Path, str]]:
    """What a statement of a config file takes from another one: its own name for it, the file, and the name there."""
    if isinstance(node, ast.ImportFrom) and node.level:
        folder = file.parent
        for _ in range(node.level - 1):
            folder = folder.parent
        path = folder.joinpath(*(node.module or "").split("."))
        for alias in node.names:
            yield alias.asname or alias.name, path.with_name(f"{path.name}.py"), alias.name
    elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        name, value = node.targets[0].id, node.value
        there = None
        if isinstance(value, ast.Attribute):  # model = get_config("mask_rcnn_r50_fpn_1x.py").model
            there, value = value.attr, value.value
        elif isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant):  # ... or ["model"]
            there, value = str(value.slice.value), value.value
        paths = list(_loaded_by(value, file)) if isinstance(value, ast.Call) else []
        if isinstance(value, ast.Name):
            paths = wholes.get(value.id, [])
        if there:
            yield from ((name, path, there) for path in paths)
        else:
            wholes[name] = paths


def _loaded_by(call: ast.Call, file: Path) -> Iterator[Path]:
    """The file that ``get_config("...")``, ``model_zoo.get_config("...")``, ``LazyConfig.load("...")`` or ``load_rel`` loads."""
    function = ast.unparse(call.func)
    if not call.args or not isinstance(call.args[0], ast.Constant) or not isinstance(call.args[0].value, str):
        return
    name = call.args[0].value
    if function.endswith("load_rel"):
        yield file.parent / name
    elif function.endswith("LazyConfig.load"):
        yield Path(name)
    elif function == "model_zoo.get_config":
        from detectron2 import model_zoo

        try:
            yield Path(model_zoo.get_config_file(name))
        except RuntimeError:  # there is none
            return
    elif function.endswith("get_config"):
        try:
            yield config_path(name)
        except InputError:
            return


def _leaves(tree: Any, path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """The values of a config; a list counts as one value, unless it holds nodes."""
    if isinstance(tree, Mapping) and tree:
        entries = list(tree.items())
    elif isinstance(tree, list) and any(isinstance(entry, Mapping) for entry in tree):
        entries = list(enumerate(tree))
    else:
        yield path, tree
        return
    for key, value in entries:
        yield from _leaves(value, (*path, key))


def _agree(a: Any, b: Any, keys: list[str | int]) -> bool:
    """Whether two configs have the same value at some keys. Lists of other nodes do not agree in any entry: one was replaced."""
    for key in keys:
        if isinstance(a, Mapping) and isinstance(b, Mapping) and key in a and key in b:
            a, b = a[key], b[key]
        elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and isinstance(key, int):
            if not all(_same(_target(x), _target(y)) for x, y in zip(a, b, strict=True)):
                return False
            a, b = a[key], b[key]
        else:
            return False
    return _same(a, b)


def _target(entry: Any) -> Any:
    return entry.get("_target_") if isinstance(entry, Mapping) else None


def _same(a: Any, b: Any) -> bool:
    if callable(a) and callable(b):
        # A function of a config file is made anew whenever that file is loaded.
        return a is b or (name_of(a), getattr(a, "__code__", a)) == (name_of(b), getattr(b, "__code__", b))
    try:
        return type(a) is type(b) and bool(a == b)
    except Exception:  # such as a tensor, which compares entry by entry
        return False


def _override_of(path: Keys, parsed: list[Override]) -> Override | None:
    """The last override that set a value, a part of it, or what holds it."""
    key = ".".join(map(str, path))
    for override in reversed(parsed):
        for named in () if override.deletes else _keys(override.key, override.value):
            if key == named or key.startswith(f"{named}.") or named.startswith(f"{key}."):
                return override
    return None


def _keys(key: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:  # merged: what it does not name stays
        for name, entry in value.items():
            yield from _keys(f"{key}.{name}", entry)
    else:
        yield key


def _resolved(cfg: DictConfig, path: Keys, value: Any) -> Any:
    try:
        node: Any = cfg
        for key in path:
            node = node[key]
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except OmegaConfBaseException:  # it cannot be resolved before the training script has set more
        return value


def _told(value: Any) -> str:
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


def _shown(path: Path) -> str:
    """Relative to the working directory where it lies below it."""
    path = path.resolve()
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
