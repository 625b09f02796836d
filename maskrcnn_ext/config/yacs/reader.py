"""Reads a yacs config key by key, so that what nothing has read can be named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode, get_cfg


class YamlReader:
    """Reads keys of a yacs config, and remembers which."""

    def __init__(self, cfg: CfgNode) -> None:
        self._cfg, self._defaults = cfg, get_cfg()
        self.read: set[str] = set()

    def __call__(self, key: str) -> Any:
        """Returns the value of a key such as ``MODEL.RPN.NMS_THRESH``; sequences as lists."""
        self.read.add(key)
        return _at(self._cfg, key)

    def __contains__(self, key: str) -> bool:
        """Whether this Detectron2 has a key of the top level."""
        return key in self._defaults

    def is_default(self, key: str) -> bool:
        """Whether a key has Detectron2's default."""
        return bool(_at(self._cfg, key) == _at(self._defaults, key))

    def unread(self) -> list[str]:
        """Returns the keys that are not at their default and that nothing has read, sorted."""
        return sorted(key for key in _keys(self._cfg) if key not in self.read and not self.is_default(key))


def _at(cfg: CfgNode, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return _lists(node)


def _lists(value: Any) -> Any:
    return [_lists(entry) for entry in value] if isinstance(value, list | tuple) else value


def _keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in cfg.items():
        found += _keys(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else [f"{prefix}{name}"]
    return found


@dataclass
class Rules:
    """Values by key of the LazyConfig; `optional` are those at Detectron2's defaults, which a LazyConfig need not name."""

    yaml: YamlReader
    values: dict[str, Any] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)

    def put(self, key: str, *sources: str, make: Callable[..., Any] | None = None) -> None:
        """Sets a key to what keys of the yaml say, or to what `make` makes of them."""
        values = [self.yaml(source) for source in sources]
        self.values[key] = make(*values) if make else values[0] if len(values) == 1 else values
        if all(self.yaml.is_default(source) for source in sources):
            self.optional.add(key)

    def put_all(self, prefix: str, section: str, names: dict[str, str]) -> None:
        """Sets several keys below a prefix to those of a section of the yaml."""
        for name, source in names.items():
            self.put(f"{prefix}.{name}", f"{section}.{source}")
