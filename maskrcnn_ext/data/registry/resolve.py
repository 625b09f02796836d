"""Resolves a name of ``dataset.names`` and registers the data set that it means.

A name is looked up in Detectron2's catalogue, in the team's catalogue and among the named data sets of ``domains/``. Any other name is
read as a string that names a format and files, such as ``coco:/data/train.json@/data/images``. After any of them, ``@map:FILE`` gives the
data set other classes, ``@tiles:SIDE`` cuts its images into tiles, and ``@list:FILE`` names the part whose images or tiles a file lists.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.text import did_you_mean
from maskrcnn_ext.data.formats import FORMATS, Format, get_format
from maskrcnn_ext.data.registry.class_map import mapped_name, split_mapped_name
from maskrcnn_ext.data.registry.detect import detect
from maskrcnn_ext.data.registry.domains import domain_sources
from maskrcnn_ext.data.registry.listed import listed_name, listed_source, split_listed_name
from maskrcnn_ext.data.registry.source import Source
from maskrcnn_ext.data.registry.team_catalog import read_team_catalog, team_catalog_files
from maskrcnn_ext.data.registry.tiled import split_tiled_name, tiled_name, tiled_source
from maskrcnn_ext.data.registry.undetected import explain_undetected
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)

# Options whose values are class names.
_OF_EVERY_FORMAT = ("classes", "ignored")


def ensure_registered(name: str) -> None:
    """Registers the data set that a name means, unless it is registered.

    Args:
        name: a registered name, or a string such as ``coco:/data/train.json@/data/images``.

    Raises:
        InputError: the name is neither, or the team's catalogue is broken.
    """
    from detectron2.data import DatasetCatalog

    register_named_datasets()
    if name in DatasetCatalog.list():
        return
    whole, side = split_tiled_name(name)
    if side:
        tiled_source(name, _whole_source(name, whole), side).register()
        return
    whole, file = split_mapped_name(name)
    if file is not None:
        source = _whole_source(name, whole)
        if source.class_map is not None:
            raise InputError(f"data set {name}: {whole} has a map of its classes already")
        replace(source, name=name, class_map=file).register()
        return
    whole, file = split_listed_name(name)
    if file is not None:
        listed_source(name, _whole_source(name, whole), file).register()
        return
    parsed = parse_source(name)
    if parsed is None:
        raise InputError(_unknown(name))
    parsed.register()


def _whole_source(name: str, whole: str) -> Source:
    """Returns the data set that another is a part of."""
    from detectron2.data import DatasetCatalog

    ensure_registered(whole)
    source = DatasetCatalog[whole]
    if not isinstance(source, Source):
        raise InputError(
            f"data set {name}: {whole} was registered by another program: @list, @map and @tiles need a data set that maskrcnn_ext reads"
        )
    return source


def _unknown(name: str) -> str:
    """Returns the error message for a name that means no data set."""
    from detectron2.data import DatasetCatalog

    if _exists(name):
        return explain_undetected(Path(name).expanduser().absolute(), name)
    prefix, colon, _ = name.partition(":")
    if colon and "/" not in prefix:
        advice = did_you_mean(prefix, FORMATS)
        return (
            f"data set {name!r}: unknown format {prefix!r}"
            + (f": {advice}" if advice else "")
            + f" (the formats are {', '.join(FORMATS)})"
        )
    # Strings that were resolved before are registered as well, but are no names to suggest.
    names = [known for known in DatasetCatalog.list() if ":" not in known and "/" not in known]
    advice = did_you_mean(name, names) or "write coco:/path/annotations.json@/path/images, or register it"
    return f"no data set {name!r} is registered: {advice}"


def register_named_datasets() -> None:
    """Registers the data sets of the team's catalogue and those of ``domains/``. Idempotent; reads no data.

    A name that the team or another program has registered keeps its meaning.

    Raises:
        InputError: the team's catalogue is broken, or a name of it is registered for other data.
    """
    from detectron2.data import DatasetCatalog

    for file in team_catalog_files():
        for source in read_team_catalog(file):
            try:
                source.register()
            except InputError as error:
                raise InputError(f"{file}: {error}") from error
    for source in domain_sources():
        if source.name not in DatasetCatalog.list():
            source.register()


def parse_source(name: str) -> Source | None:
    """Returns the data set that a string such as ``coco:/data/train.json@/data/images`` describes; None if it has another form.

    The path of a file or folder whose format is recognised is such a string as well.

    Paths are followed by the split, for a format that has splits, and by options: ``yolo:data.yaml@val``,
    ``via:a.json@images@attribute:species``. ``classes:a,b`` and ``ignored:c`` are options of every format. Relative paths are relative to
    the working directory.

    Raises:
        InputError: the string names too few files, or an option is unknown or broken.

    Example:
        >>> parse_source("coco:/data/train.json@/data/images").path_of("images")
        PosixPath('/data/images')
    """
    try:
        parts = _cut(name)
        if parts is None:
            return None
        format, paths, texts = parts
        values: dict[str, Any] = {key: _parse_value(format, key, text) for key, text in texts.items()}
    except InputError as error:
        raise InputError(f"data set {name!r}: {error}") from None
    classes, ignored = values.pop("classes", ()), values.pop("ignored", ())
    values |= dict(zip(format.shorthand, paths, strict=False))
    return Source(name, format.name, classes, options=values, ignored=ignored)


def described_source(name: str) -> Source | None:
    """Returns the data set that a path or string describes by itself; None for registered names and for parts of data sets.

    It does not import Detectron2, whose catalogue has the registered names: the import takes as long as reading thousands of images.

    Raises:
        InputError: as :func:`parse_source`.

    Example:
        >>> described_source("balloon_train")
    """
    is_part = any(split(name)[1] for split in (split_tiled_name, split_mapped_name, split_listed_name))
    source = parse_source(name) if not is_part and (":" in name or "/" in name) else None
    if source is not None:
        source.check()
    return source


def absolute_name(name: str) -> str:
    """Returns a name that means the same data in any working directory: paths become absolute, and a path gets its format.

    Raises:
        InputError: as :func:`parse_source`.

    Example:
        >>> absolute_name("balloon_train")
        'balloon_train'
    """
    whole, side = split_tiled_name(name)
    if side:
        return tiled_name(absolute_name(whole), side)
    whole, file = split_mapped_name(name)
    if file is not None:
        return mapped_name(absolute_name(whole), file)
    whole, file = split_listed_name(name)
    if file is not None:
        return listed_name(absolute_name(whole), file)
    try:
        parts = _cut(name)
    except InputError as error:
        raise InputError(f"data set {name!r}: {error}") from None
    if parts is None:
        return name
    format, paths, texts = parts
    texts = {key: str(_absolute(text)) if _is_path(format, key) else text for key, text in texts.items()}
    split = format.string_split
    places = [str(path) for path in paths]
    if split and split.name in texts and len(places) == len(format.shorthand):
        places.append(texts.pop(split.name))
    return f"{format.name}:{'@'.join([*places, *(f'{key}:{text}' for key, text in texts.items())])}"


def _is_path(format: Format, key: str) -> bool:
    option = format.option(key)
    return option is not None and option.is_path


def _cut(name: str) -> tuple[Format, list[Path], dict[str, str]] | None:
    """Returns the format, the absolute paths of its shorthand, and the texts of the split and of options; None as :func:`parse_source`."""
    prefix, _, places = name.partition(":")
    if prefix not in FORMATS:
        detected = detect(_absolute(name)) if _exists(name) else None
        if detected is None:
            return None
        logger.info("%s: read as %s", name, detected)
        prefix, _, places = detected.partition(":")
    if not places:
        return None
    format = get_format(prefix)
    places, texts = _cut_options(places, format)
    paths = _split_paths(places, format)
    if len(paths) < sum(option.required for option in format.options):
        raise InputError(f"write {format.usage}")
    split = format.string_split
    if split is not None and len(paths) > len(format.shorthand):
        texts = {split.name: paths.pop(), **texts}
    return format, [_absolute(path) for path in paths], texts


def _cut_options(places: str, format: Format) -> tuple[str, dict[str, str]]:
    """Returns the paths and the options of ``a.json@images@crowds:objects``."""
    options: dict[str, str] = {}
    while "@" in places:
        rest, _, last = places.rpartition("@")
        key, colon, text = last.partition(":")
        if not colon or not key.isidentifier() or _exists(last):
            break
        names = [*_OF_EVERY_FORMAT, *(option.name for option in format.options)]
        if key not in names:
            advice = did_you_mean(key, names) or f"it takes {', '.join(names)}"
            raise InputError(f"format {format.name} takes no `{key}`: {advice}")
        if key in options:
            raise InputError(f"`{key}` is set twice")
        places, options[key] = rest, text
    return places, options


def _parse_value(format: Format, key: str, text: str) -> Any:
    if key in _OF_EVERY_FORMAT:
        return tuple(text.split(","))
    option = format.option(key)
    assert option is not None
    return _absolute(text) if option.is_path else option.parse(text)


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _split_paths(places: str, format: Format) -> list[str]:
    """Splits ``a.json@images`` at its @. Paths may contain an @ as well, so a split after an existing path is preferred."""
    most = len(format.shorthand) + (format.string_split is not None)
    parts: list[str] = []
    while len(parts) < most - 1 and "@" in places:
        if len(parts) >= len(format.shorthand) - 1 and _exists(places):
            break
        cuts = [index for index, letter in enumerate(places) if letter == "@"]
        cut = next((index for index in cuts if _exists(places[:index])), cuts[0])
        parts.append(places[:cut])
        places = places[cut + 1 :]
    return [*parts, places]


def _exists(path: str) -> bool:
    return os.path.exists(os.path.expanduser(path))  # noqa: PTH110, PTH111, pathlib's raises if a name is too long
