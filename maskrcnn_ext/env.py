"""The plugin hook of Detectron2: with ``DETECTRON2_ENV_MODULE=maskrcnn_ext.env`` any program that imports detectron2 has our parts."""


def setup_environment() -> None:
    """Registers the named data sets and, for yacs configs, our parts. Idempotent, reads no data; called at ``import detectron2``."""
    # Imported here: this module is loaded while detectron2 itself is still being imported.
    from maskrcnn_ext.data.registry.resolve import register_named_datasets
    from maskrcnn_ext.modeling.yacs import register_mask_heads, register_rpn

    register_named_datasets()
    register_mask_heads()
    register_rpn()
