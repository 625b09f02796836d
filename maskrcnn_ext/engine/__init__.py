"""Training and evaluation of a LazyConfig, on Detectron2's own trainer, hooks and launcher."""
