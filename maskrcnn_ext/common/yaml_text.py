"""Parses YAML of unknown origin: no tag runs code, and no alias makes a small file large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from maskrcnn_ext.errors import InputError

# The largest number of values after every alias is replaced by its value.
_MAX_VALUES = 1_000_000
# Characters of a text that count as one value.
_CHARACTERS = 1000


def load_yaml(text: str, file: str | Path, *, loader: Any = None) -> Any:
    r"""Returns the content of a YAML file as plain values.

    Args:
        text: the content of the file.
        file: its name, for messages.
        loader: a subclass of PyYAML's ``SafeLoader``; that class itself by default.

    Raises:
        InputError: the text is not YAML, has a tag that is not plain data, or its aliases make it too large or endless.

    Example:
        >>> load_yaml("names: [bolt, nut]", "data.yaml")
        {'names': ['bolt', 'nut']}
    """
    import yaml

    try:
        parser = (loader or yaml.SafeLoader)(text)
        node = parser.get_single_node()
        if node is None:
            return None
        _check_aliases(node, file)
        return parser.construct_document(node)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{file}: not a YAML file (nested too deeply)") from error
    except (yaml.YAMLError, ValueError) as error:  # int() raises ValueError for more than 4300 digits
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise InputError(f"{file}{place}: not a YAML file ({problem:.200})") from error


def _check_aliases(root: Any, file: str | Path) -> None:
    """Raises an InputError if a node contains itself, or if the nodes are too many once all aliases are replaced."""
    sizes: dict[int, int] = {}  # 0 while the node is counted

    def size(node: Any) -> int:
        known = sizes.get(id(node))
        if known == 0:
            raise InputError(f"{file}, line {node.start_mark.line + 1}: not a YAML file (a value contains itself)")
        if known is not None:
            return known
        if isinstance(node.value, str):
            sizes[id(node)] = 1 + len(node.value) // _CHARACTERS
        else:
            sizes[id(node)] = 0
            children = (part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,)))
            sizes[id(node)] = 1 + sum(map(size, children))
        return sizes[id(node)]

    values = size(root)
    if values > max(_MAX_VALUES, sum(1 for _ in sizes)):
        raise InputError(
            f"{file}: its aliases (*name) expand to {float(values):.3g} values, more than {_MAX_VALUES:,}: write the values out"
        )
