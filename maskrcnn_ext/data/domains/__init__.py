"""Named data sets, one domain a file: what :func:`maskrcnn_ext.data.register` needs to know of each. Nothing is read here."""


def register_domains() -> None:
    """Registers every named data set with Detectron2. Idempotent; a name that a team has given to its own data is left to it."""
    from detectron2.data import DatasetCatalog

    from maskrcnn_ext.data.catalog import register
    from maskrcnn_ext.data.domains import balloon, nuclei

    for name, arguments in {**balloon.DATASETS, **nuclei.DATASETS}.items():
        if name not in DatasetCatalog.list():
            register(name, **arguments)
