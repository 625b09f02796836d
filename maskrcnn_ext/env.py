"""Detectron2's plugin hook: with ``DETECTRON2_ENV_MODULE=maskrcnn_ext.env``, ``import detectron2`` registers this package's parts."""


def setup_environment() -> None:
    """Registers the named data sets and, for yacs configs, the parts of this package. Idempotent; reads no data.

    Detectron2 calls it on import if ``DETECTRON2_ENV_MODULE`` names this module.

    Example:
        >>> from detectron2.data import DatasetCatalog
        >>> setup_environment()
        >>> "nuclei_train" in DatasetCatalog.list()
        True
    """
    # Imported here, because detectron2 itself is still being imported when this module is loaded.
    from maskrcnn_ext.data.registry.resolve import register_named_datasets
    from maskrcnn_ext.modeling.yacs import register_backbones, register_mask_heads, register_roi_heads, register_rpn

    register_named_datasets()
    register_mask_heads()
    register_rpn()
    register_roi_heads()
    register_backbones()
