"""Mask heads, RoI poolers and data sets for Mask R-CNN on Detectron2, each swapped in by one override.

Importing this package imports nothing else and registers nothing: a public name is imported on first use (PEP 562).
``__init__.pyi`` lists the public names.
"""

from functools import cache
from typing import Any

__version__ = "0.2.0"


@cache
def _exports() -> dict[str, str]:
    """Returns the module of each public name, as ``__init__.pyi`` lists them."""
    import ast
    from pathlib import Path

    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _exports():
        return getattr(import_module(_exports()[name]), name)
    try:
        return import_module("maskrcnn_ext.common.moved").forward(__name__)(name)
    except AttributeError as error:
        raise AttributeError(f"{error}; it has {', '.join(sorted(_exports()))}") from None


def __dir__() -> list[str]:
    return sorted([*globals(), *_exports()])
