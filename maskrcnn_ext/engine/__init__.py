"""Training of a LazyConfig with Detectron2's trainer, hooks and launcher."""
