"""Parts of the model. Each takes explicit arguments, so that a LazyConfig can build it."""
