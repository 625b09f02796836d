"""Images that are too large for a model: predicted tile by tile, and put together by their masks."""
