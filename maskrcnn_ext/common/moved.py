"""Import paths of version 0.1.0. They work for one release, with a DeprecationWarning that names the new path.

These are the modules whose names configs may hold as a ``_target_``, such as ``maskrcnn_ext.data.mapper.SafeMapper``, and those that
the documentation imported. A ``_target_`` is found through the ``__getattr__`` (PEP 562) of the package that the module has left;
an import statement needs a file at the old path, which forwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

# Old path -> new path, below maskrcnn_ext. A path is a module or a name in one.
MOVED = {
    "data.augmentation.albumentations": "data.mapping.augmentation.albumentations",
    "data.augmentation.copy_paste": "data.mapping.augmentation.copy_paste",
    "data.augmentation.letterbox": "data.mapping.augmentation.resizing",
    "data.augmentation.loader": "data.mapping.augmentation.loader",
    "data.augmentation.mosaic": "data.mapping.augmentation.mosaic",
    "data.augmentation.resizing": "data.mapping.augmentation.resizing",
    "data.augmentation.seeding": "data.mapping.augmentation.loader",
    "data.catalog": "data.registry.catalog",
    "data.domains.crowdpose": "data.registry.domains.crowdpose",
    "data.keypoints": "data.registry.keypoints",
    "data.mapper": "data.mapping.mapper",
    "data.sampling": "data.mapping.sampling",
    "data.tiles": "data.mapping.tiles",
    "engine.saving": "config.config_yaml",
    "interop.recipe": "interop.export.recipe",
    "interop.runtimes": "interop.export.runtimes",
    "interop.standalone.opencv_infer": "interop.export.standalone.opencv_infer",
    "interop.standalone.paste": "interop.export.standalone.paste",
    "modeling.matterport.pooler": "modeling.matterport.layers",
    "modeling.matterport.stem": "modeling.matterport.layers",
    "zoo": "config.zoo",
}

_PACKAGE = "maskrcnn_ext"


def forward(module: str) -> Callable[[str], Any]:
    """Returns a ``__getattr__`` that finds the moved modules and names of a package or module.

    Args:
        module: the ``__name__`` of the package or module.

    Example:
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", DeprecationWarning)
        ...     forward("maskrcnn_ext")("zoo").__name__
        'maskrcnn_ext.config.zoo'
    """

    def find(name: str) -> Any:
        old = f"{module}.{name}".removeprefix(f"{_PACKAGE}.")
        new = _new_path(old)
        if new is not None and not name.startswith("__"):
            warnings.warn(
                f"{_PACKAGE}.{old} has moved to {_PACKAGE}.{new}; the old path works in this release only",
                DeprecationWarning,
                stacklevel=2,
            )
            return _load(f"{_PACKAGE}.{new}")
        if any(path.startswith(f"{old}.") for path in MOVED) and find_spec(f"{_PACKAGE}.{old}") is None:
            return _OldPackage(f"{_PACKAGE}.{old}")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find


class _OldPackage:
    """Represents a folder that no longer exists, on the way to a module that was in it."""

    def __init__(self, path: str) -> None:
        self._find = forward(path)

    def __getattr__(self, name: str) -> Any:
        return self._find(name)


def _new_path(old: str) -> str | None:
    """Returns the new path of a module, or of a name in a moved module; None if `old` has not moved."""
    module, _, name = old.rpartition(".")
    return MOVED.get(old) or (f"{MOVED[module]}.{name}" if module in MOVED else None)


def _load(path: str) -> Any:
    """Imports a module, or a name in a module."""
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        module, _, name = path.rpartition(".")
        if error.name != path:
            raise
        return getattr(import_module(module), name)
