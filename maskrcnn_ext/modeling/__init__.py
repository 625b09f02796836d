"""Parts of the model: each takes explicit arguments, so that a LazyConfig can build it."""
