"""Reads a yacs config with the files that it is based on. No tag of theirs runs code."""

from __future__ import annotations

import os
from pathlib import Path

import detectron2
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.common.yaml_text import load_yaml
from maskrcnn_ext.errors import InputError

_BASE = "_BASE_"
_MAX_FILES = 100


def merge_yacs_file(cfg: CfgNode, file: str) -> None:
    """Merges a yacs config and its ``_BASE_`` files into `cfg`.

    Args:
        cfg: changed in place.
        file: the YAML file.

    Raises:
        InputError: a file is missing, is not plain YAML, is based on itself, or has keys that `cfg` lacks.

    Example:
        >>> from detectron2.config import get_cfg
        >>> _ = (tmp_path / "a.yaml").write_text("SOLVER: {MAX_ITER: 7}")
        >>> cfg = get_cfg()
        >>> merge_yacs_file(cfg, str(tmp_path / "a.yaml"))
        >>> cfg.SOLVER.MAX_ITER
        7
    """
    # Some configs of Detectron2's model zoo have tags. They are as trusted as its code.
    shipped = Path(file).resolve().is_relative_to(Path(detectron2.__file__).resolve().parent)
    if not shipped:
        _check(file, [], ())
    try:
        cfg.merge_from_file(file, allow_unsafe=shipped)
    except Exception as error:  # AssertionError of yacs, KeyError, errors of yaml
        raise InputError(f"{file}: this yacs config cannot be used ({first_line(error)})") from error


def _check(file: str, read: list[str], path: tuple[str, ...]) -> None:
    """Raises an InputError if a file or one that it is based on is not plain YAML.

    Args:
        file: the YAML file.
        read: the files that were read; a file that several name is read several times.
        path: the files that led to this one.
    """
    if os.path.realpath(file) in map(os.path.realpath, path):
        raise InputError(f"{file}: is based on itself ({_BASE}: {' -> '.join([*path, file])})")
    read.append(file)
    if len(read) > _MAX_FILES:
        raise InputError(f"{read[0]}: is based on more than {_MAX_FILES} files ({_BASE})")
    try:
        with PathManager.open(file) as stream:
            text = stream.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    content = load_yaml(text, file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: not a config (expected a mapping, found {type(content).__name__})")
    bases = content.get(_BASE) or []
    for base in bases if isinstance(bases, list) else [bases]:
        _check(_resolve(str(base), file), read, (*path, file))


def _resolve(base: str, file: str) -> str:
    """Returns the path of a base, as fvcore resolves it: relative to the file that names it."""
    base = os.path.expanduser(base) if base.startswith("~") else base  # noqa: PTH111
    return base if base.startswith(("/", "https://", "http://")) else str(Path(file).parent / base)
