"""Resolves a name of ``dataset.names`` and registers the data set that it means.

A name is looked up in Detectron2's catalogue, in the team's catalogue and among the named data sets of ``domains/``. Any other name is
read as a string that names a format and files, such as ``coco:/data/train.json@/data/images``.
"""

from __future__ import annotations

from pathlib import Path

from maskrcnn_ext.common.text import did_you_mean
from maskrcnn_ext.data.formats import FORMATS, get_format
from maskrcnn_ext.data.registry.domains import domain_sources
from maskrcnn_ext.data.registry.source import Source
from maskrcnn_ext.data.registry.team_catalog import read_team_catalog, team_catalog_files
from maskrcnn_ext.errors import InputError


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
    source = parse_source(name)
    if source is None:
        # Strings that were resolved before are registered as well, but are no names to suggest.
        names = [known for known in DatasetCatalog.list() if ":" not in known]
        advice = did_you_mean(name, names) or "write coco:/path/annotations.json@/path/images, or register it"
        raise InputError(f"no data set {name!r} is registered: {advice}")
    source.register()


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

    Relative paths are relative to the working directory.

    Raises:
        InputError: the string names too few files.

    Example:
        >>> parse_source("coco:/data/train.json@/data/images").path_of("images")
        PosixPath('/data/images')
    """
    prefix, _, places = name.partition(":")
    if prefix not in FORMATS or not places:
        return None
    format = get_format(prefix)
    paths = [Path(path).expanduser().absolute() for path in _split_at_sign(places, len(format.shorthand))]
    if len(paths) < sum(option.required for option in format.options):
        raise InputError(f"data set {name!r}: write {format.usage}")
    return Source(name, prefix, options=dict(zip(format.shorthand, paths, strict=False)))


def _split_at_sign(places: str, count: int) -> list[str]:
    """Splits ``a.json@images`` at its @. Paths may contain an @ as well, so a split after an existing path is preferred."""
    if count < 2 or "@" not in places:
        return [places]
    cuts = [index for index, letter in enumerate(places) if letter == "@"]
    cut = next((index for index in cuts if Path(places[:index]).expanduser().exists()), cuts[0])
    return [places[:cut], places[cut + 1 :]]
