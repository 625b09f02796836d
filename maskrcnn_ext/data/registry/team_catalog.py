"""Reads a team's data sets from YAML files: ``MASKRCNN_EXT_CATALOG=/team/sets.yaml`` makes them known by name to every tool.

The variable may name several files, separated as in ``$PATH``. A file maps names to arguments of :func:`maskrcnn_ext.data.register`::

    parts_train:
      format: coco
      json: annotations/train.json      # relative to the folder of this file
      images: images
      classes: [bolt, nut]              # optional
      ignored: [DontCare]               # optional: classes whose objects are ignore regions
      layout: annotations/*.json and images/*.jpg      # optional, shown if the data is missing
      skeleton:                         # optional: see maskrcnn_ext.data.registry.keypoints.Skeleton
        names: [nose, left_ear, right_ear]
        sigmas: [0.03, 0.05, 0.05]
        links: [[nose, left_ear], [nose, right_ear]]
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.encodings import decode
from maskrcnn_ext.common.yaml_text import load_yaml
from maskrcnn_ext.data.formats import get_format
from maskrcnn_ext.data.registry.keypoints import Skeleton
from maskrcnn_ext.data.registry.source import Source
from maskrcnn_ext.errors import InputError

VARIABLE = "MASKRCNN_EXT_CATALOG"


def team_catalog_files() -> list[Path]:
    """Returns the files that ``$MASKRCNN_EXT_CATALOG`` names."""
    return [Path(file).expanduser().absolute() for file in os.environ.get(VARIABLE, "").split(os.pathsep) if file]


def read_team_catalog(file: Path) -> list[Source]:
    """Returns the data sets of a catalogue file; reads no data.

    Raises:
        InputError: the file is missing, not YAML or not such a mapping; the message names file, entry and field.
    """
    import yaml

    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); ${VARIABLE} names it") from error
    text = decode(content, file)
    entries = load_yaml(text, file, loader=_unique_keys(yaml))
    if entries is None:
        return []
    if not isinstance(entries, dict):
        raise InputError(f"{file}: is a {type(entries).__name__}, expected a mapping from names to data sets")
    return [_source(file, name, entry) for name, entry in entries.items()]


def _source(file: Path, name: Any, entry: Any) -> Source:
    where = f"{file}: entry {name!r}"
    if not isinstance(name, str):
        raise InputError(f"{where}: a name must be text; put it in quotes")
    if not isinstance(entry, dict) or not all(isinstance(key, str) for key in entry):
        raise InputError(f"{where}: expected a mapping with `format` and its options, such as `json`")
    options = dict(entry)
    format, layout = options.pop("format", None), options.pop("layout", "")
    classes, ignored = (options.pop(key, None) or [] for key in ("classes", "ignored"))
    skeleton = options.pop("skeleton", None)
    if not isinstance(format, str):
        raise InputError(f"{where}: `format` is {format!r}, expected the name of a format, such as coco")
    if not isinstance(layout, str):
        raise InputError(f"{where}: `layout` is {layout!r}, expected text")
    for key, names in (("classes", classes), ("ignored", ignored)):
        if not isinstance(names, list) or not all(isinstance(value, str) for value in names):
            raise InputError(
                f"{where}: `{key}` is {names!r}, expected a list of names (quote yes, no, on, off, numbers)"
            )
    try:
        record = get_format(format)
    except InputError as error:
        raise InputError(f"{where}: `format`: {error}") from None
    for key, value in options.items():
        option = record.option(key)
        try:
            if option and value is not None:
                option.check(value)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    parsed = None if skeleton is None else _skeleton(where, skeleton)
    return Source(name, format, tuple(classes), layout, file.parent, options, skeleton=parsed, ignored=tuple(ignored))


def _skeleton(where: str, entry: Any) -> Skeleton:
    keys = [field.name for field in fields(Skeleton)]
    has_keys = isinstance(entry, dict) and "names" in entry and set(entry) <= set(keys)
    if not has_keys or not all(isinstance(value, list) for value in entry.values()):
        raise InputError(
            f"{where}: `skeleton`: expected a mapping with `names` and, if known, {', '.join(keys[1:])}, each a list"
        )
    try:
        return Skeleton(**entry)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _unique_keys(yaml: Any) -> Any:
    """Returns a variant of PyYAML's safe loader that raises on duplicate keys instead of keeping the last."""

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = Counter(str(key.value) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge")
            double = next((key for key, count in keys.items() if count > 1), None)
            if double is not None:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {double!r}", node.start_mark)
            return super().construct_mapping(node, deep)

    return Loader
