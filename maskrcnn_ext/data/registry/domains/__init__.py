"""Named data sets, one domain a file. Each file has a table ``DATASETS`` of names and arguments of :func:`maskrcnn_ext.data.register`."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from maskrcnn_ext.data.registry.source import Source

DOMAINS = (
    "balloon",
    "bdd100k",
    "cityscapes",
    "crowdpose",
    "decathlon",
    "fruits_nuts",
    "isaid",
    "kangaroo",
    "kitti_mots",
    "kudzu_bugs",
    "nuclei",
    "ocid",
    "penn_fudan",
    "spacenet",
    "tree_crowns",
)


def domain_sources() -> Iterator[Source]:
    """Yields every named data set; reads no data.

    Example:
        >>> next(domain_sources()).name
        'balloon_train'
    """
    for domain in DOMAINS:
        for name, arguments in import_module(f"{__name__}.{domain}").DATASETS.items():
            yield Source.create(name, **arguments)
