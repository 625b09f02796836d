"""Reads a yacs config key by key and records the keys, so that the remaining ones can be reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from detectron2.config import CfgNode, get_cfg


class YamlReader:
    """Returns values of a yacs config and records which keys were read."""

    def __init__(self, cfg: CfgNode) -> None:
        self._cfg, self._defaults = cfg, get_cfg()
        self.read: set[str] = set()

    def __call__(self, key: str) -> Any:
        """Returns the value of a key such as ``MODEL.RPN.NMS_THRESH``; sequences as lists."""
        self.read.add(key)
        return _at(self._cfg, key)

    def __contains__(self, key: str) -> bool:
        """Returns whether this release of Detectron2 has a top-level key."""
        return key in self._defaults

    def is_default(self, key: str) -> bool:
        """Returns whether the value of a key is Detectron2's default."""
        return bool(_at(self._cfg, key) == _at(self._defaults, key))

    def unread(self) -> list[str]:
        """Returns the keys that differ from their default and have not been read, sorted."""
        return sorted(key for key in _keys(self._cfg) if key not in self.read and not self.is_default(key))


def _at(cfg: CfgNode, key: str) -> Any:
    node: Any = cfg
    for part in key.split("."):
        node = node[part]
    return _tuples_to_lists(node)


def _tuples_to_lists(value: Any) -> Any:
    return [_tuples_to_lists(entry) for entry in value] if isinstance(value, list | tuple) else value


def _keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in cfg.items():
        found += _keys(value, f"{prefix}{name}.") if isinstance(value, CfgNode) else [f"{prefix}{name}"]
    return found


@dataclass
class Rules:
    """Values of a LazyConfig, translated from a yacs config.

    Attributes:
        yaml: the yacs config.
        values: values by dotted key of the LazyConfig.
        optional: keys whose values are Detectron2's defaults, so that a LazyConfig may omit them.
    """

    yaml: YamlReader
    values: dict[str, Any] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)

    def put(self, key: str, *sources: str, make: Callable[..., Any] | None = None) -> None:
        """Sets a value.

        Args:
            key: a key of the LazyConfig.
            sources: keys of the yacs config. The value is theirs, or a list of their values if there are several.
            make: computes the value from the values of `sources`.
        """
        values = [self.yaml(source) for source in sources]
        self.values[key] = make(*values) if make else values[0] if len(values) == 1 else values
        if all(self.yaml.is_default(source) for source in sources):
            self.optional.add(key)

    def put_all(self, prefix: str, section: str, names: str, **renamed: str) -> None:
        """Sets several values below a prefix.

        Args:
            prefix: the prefix of the LazyConfig's keys.
            section: the section of the yacs config.
            names: keys below `prefix`, separated by spaces. The source of ``head.conv_dims`` is ``CONV_DIMS``.
            renamed: source -> key below `prefix`, if the names differ.
        """
        sources = {name: name.rpartition(".")[2].upper() for name in names.split()}
        sources |= {name: source for source, name in renamed.items()}
        for name, source in sources.items():
            self.put(f"{prefix}.{name}", f"{section}.{source}")
