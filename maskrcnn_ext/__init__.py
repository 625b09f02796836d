"""Mask heads, RoI poolers and data sets for Mask R-CNN on Detectron2, each swapped in by one override.

Importing this package imports nothing else and registers nothing: a public name is resolved when it is first used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name -> the module that defines it.
_EXPORTS = {
    "InputError": "maskrcnn_ext.errors",
    "get_config": "maskrcnn_ext.zoo",
    "get_dataset_dicts": "maskrcnn_ext.data.catalog",
}

if TYPE_CHECKING:
    from maskrcnn_ext.data.catalog import get_dataset_dicts as get_dataset_dicts
    from maskrcnn_ext.errors import InputError as InputError
    from maskrcnn_ext.zoo import get_config as get_config


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_EXPORTS))}")
    return getattr(import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
