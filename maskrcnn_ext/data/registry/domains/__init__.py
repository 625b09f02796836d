"""Named data sets, one domain a file: what :func:`maskrcnn_ext.data.register` needs to know of each. Nothing is read here."""

from importlib import import_module

DOMAINS = (
    "balloon",
    "bdd100k",
    "cityscapes",
    "crowdpose",
    "decathlon",
    "isaid",
    "kangaroo",
    "kitti_mots",
    "nuclei",
    "ocid",
    "penn_fudan",
    "spacenet",
    "tree_crowns",
)


def register_domains() -> None:
    """Registers every named data set with Detectron2. Idempotent; a name that a team has given to its own data is left to it."""
    from detectron2.data import DatasetCatalog

    from maskrcnn_ext.data.registry.catalog import register

    for domain in DOMAINS:
        for name, arguments in import_module(f"{__name__}.{domain}").DATASETS.items():
            if name not in DatasetCatalog.list():
                register(name, **arguments)
