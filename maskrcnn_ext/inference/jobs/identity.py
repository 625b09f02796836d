"""The settings that the results of a prediction job depend on, besides the images: an interrupted job continues only if they are equal."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from maskrcnn_ext.engine.manifest import config_hash
from maskrcnn_ext.inference.base_predictor import BasePredictor
from maskrcnn_ext.inference.loading import read_config
from maskrcnn_ext.inference.sources import file_state


def job_identity(
    configs: Sequence[str],
    predictor: BasePredictor,
    *,
    overrides: Sequence[str],
    dtype: str,
    optimize: bool,
    tile: int | None,
    overlap: float,
    category_ids: Sequence[Any],
    calibrate: str | None,
) -> dict[str, Any]:
    """Returns configs by content, weights by state, and the settings, as JSON stores them.

    Args:
        configs: of the model, or of each member of an ensemble.
        predictor: the loaded model or ensemble.
        overrides: of the configs.
        dtype: of the model.
        optimize: whether the model is optimized.
        tile: side of the tiles in pixels; None for whole images.
        overlap: of neighbouring tiles, as a fraction of their side; counts with tiles only.
        category_ids: of the results, one for each class.
        calibrate: the images that an 8-bit model was calibrated with; None for others.
    """
    states = [_config_state(config) for config in configs]
    weights = [file_state(member.weights) for member in getattr(predictor, "members", [predictor])]
    return {
        "config": states if states[1:] else states[0],
        "weights": weights if states[1:] else weights[0],
        "overrides": list(overrides),
        "dtype": dtype,
        "optimize": optimize,
        "tile": tile,
        "overlap": overlap if tile is not None else None,
        "category_ids": list(category_ids),
        **({} if calibrate is None else {"calibrate": calibrate}),
    }


def _config_state(config: str) -> str:
    """Returns the name of a config and a hash of its content."""
    cfg = read_config(config)
    digest = config_hash(cfg) if isinstance(cfg, DictConfig) else hashlib.sha256(cfg.dump().encode()).hexdigest()
    return f"{Path(config).name} {digest[:16]}"
