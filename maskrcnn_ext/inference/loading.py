"""From a config and weights to a model that predicts, with what its outputs mean."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from omegaconf import DictConfig, OmegaConf
from torch import nn

from maskrcnn_ext.config.overrides import apply_overrides
from maskrcnn_ext.config.settings import add_missing_settings
from maskrcnn_ext.config.zoo import find_config
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.engine.checkpoint import history
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.env import setup_environment
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.sources import find_inputs
from maskrcnn_ext.modeling.fit_check import check_fit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classes:
    """What a model's outputs mean.

    Attributes:
        names: of the classes, in the order of the model's outputs.
        category_ids: the data set's id of every class, for results files.
        keypoint_names: in the order of the model's outputs; empty for a model without keypoints.
        keypoint_flip_map: pairs (left, right).
        skeleton: pairs of indices of keypoints that a line joins.
    """

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    keypoint_names: tuple[str, ...] = ()
    keypoint_flip_map: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A model in evaluation mode on its device; `mapper` is the one of the config's ``dataloader.test``."""

    model: nn.Module
    mapper: Any
    classes: Classes
    weights: str


def load(
    config: str | Path | DictConfig,
    weights: str | None = None,
    *,
    device: str | None = None,
    overrides: Sequence[str] = (),
) -> Loaded:
    """Builds a config's model and loads its weights.

    Args:
        config: the folder of a run; a LazyConfig as file, as name of a shipped one, or as object; or a yacs file of Detectron2 (.yaml).
        weights: a file, or a URL that Detectron2 knows. None: of a run, its best checkpoint (``model_best.pth``), else its last; of a
            config, what it begins from (``train.init_checkpoint``, ``MODEL.WEIGHTS``). "" leaves the weights random.
        device: such as "cuda:1"; None for CUDA where there is a device, else the CPU.
        overrides: ``key=value`` for the config.

    Raises:
        InputError: there is no such config; the weights do not exist, are damaged or leave a part of the model random.
    """
    setup_environment()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    cfg = config if isinstance(config, DictConfig) else read_config(config)
    if weights is None and isinstance(config, str | Path) and Path(config).is_dir():
        weights = _weights_of_run(Path(config))
    model, mapper, own_weights, data = (
        _from_lazy(cfg, device, overrides) if isinstance(cfg, DictConfig) else _from_yacs(cfg, device, overrides)
    )
    weights = own_weights if weights is None else weights
    if weights:
        _load_weights(model, weights)
    return Loaded(model.eval(), mapper, _classes(model, data), weights)


def reader(mapper: Any) -> Callable[[dict[str, Any]], Any]:
    """Returns what reads the pixels of a record, (H, W, C), as the mapper does.

    Detectron2's mapper reads photographs in 8 bits; a record with a ``window`` or a ``slice`` is read by ours whatever the mapper.
    """
    from detectron2.data.detection_utils import check_image_size, read_image

    from maskrcnn_ext.data.mapping.mapper import SafeMapper

    ours = not isinstance(mapper, DatasetMapper) or isinstance(mapper, SafeMapper)

    def read(record: dict[str, Any]) -> Any:
        if ours or "window" in record or "slice" in record:
            return read_pixels(record, mapper.image_format)
        try:
            image = read_image(record["file_name"], mapper.image_format)
        except FileNotFoundError:
            raise InputError(f"{record['file_name']}: no such file") from None
        except Exception as error:  # what the decoders raise at broken files has no common base class
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{record['file_name']}: cannot be read as an image ({reason:.200})") from error
        check_image_size(dict(record), image)
        return image

    return read


def read_config(config: str | Path) -> Any:
    """Returns the config of a run's folder or file, or a shipped one by its name: a DictConfig, or a yacs node of Detectron2.

    Raises:
        InputError: there is no such config, or it cannot be used.
    """
    if not Path(config).is_dir():
        return _read(find_config(str(config)))
    file = Path(config) / "config.yaml"
    if not file.is_file():
        raise InputError(f"{config} is not the folder of a run: it has no config.yaml")
    return _read(str(file))


def _weights_of_run(folder: Path) -> str:
    best = folder / "model_best.pth"
    chosen = best if best.is_file() else history.newest_whole(folder)
    if chosen is None:
        raise InputError(f"{folder} has no checkpoint: give the weights")
    logger.info("Weights: %s", chosen)
    return str(chosen)


def _read(file: str) -> Any:
    """A DictConfig, or a yacs node."""
    if Path(file).suffix in (".yaml", ".yml"):
        try:
            top = OmegaConf.load(file)
        except Exception:  # the tags of a saved LazyConfig are not plain YAML
            top = None
        if isinstance(top, DictConfig) and ("MODEL" in top or "_BASE_" in top):
            return _read_yacs(file)
    try:
        return LazyConfig.load(file)
    except FileNotFoundError as error:
        raise InputError(f"{file}: {error}") from error


def _read_yacs(file: str) -> Any:
    from detectron2.config import get_cfg

    from maskrcnn_ext.modeling.yacs import add_maskrcnn_ext_config

    cfg = get_cfg()
    add_maskrcnn_ext_config(cfg)
    try:
        cfg.merge_from_file(file)
    except (KeyError, ValueError, AssertionError, OSError) as error:
        raise InputError(f"{file}: not a config of Detectron2 that can be used here ({error})") from error
    return cfg


def _from_lazy(cfg: DictConfig, device: str, overrides: Sequence[str]) -> tuple[nn.Module, Any, str, Any]:
    cfg = apply_overrides(add_missing_settings(cfg.copy()), list(overrides))
    for key in ("model", "dataloader.test.mapper"):
        if OmegaConf.select(cfg, key) is None:
            raise InputError(f"the config has no `{key}`, which prediction needs")
    model = instantiate(cfg.model).to(device)
    check_fit(model)
    return model, instantiate(cfg.dataloader.test.mapper), cfg.train.init_checkpoint, _first(cfg)


def _from_yacs(cfg: Any, device: str, overrides: Sequence[str]) -> tuple[nn.Module, Any, str, Any]:
    from detectron2.modeling import build_model

    try:
        cfg.merge_from_list([part for override in overrides for part in override.split("=", 1)])
    except (AssertionError, KeyError, ValueError) as error:
        raise InputError(f"{' '.join(overrides)}: no overrides for this config ({error})") from error
    cfg.MODEL.DEVICE = device
    names = list(cfg.DATASETS.TEST)
    return build_model(cfg), DatasetMapper(cfg, is_train=False), cfg.MODEL.WEIGHTS, names[0] if names else None


def _first(cfg: DictConfig) -> str | None:
    """The first of the data sets that the config tests on."""
    names = OmegaConf.select(cfg, "dataloader.test.dataset.names")
    return names if isinstance(names, str) or not names else names[0]


def _load_weights(model: nn.Module, weights: str) -> None:
    checkpointer = Checkpointer(model)
    checkpointer.load(weights, checkpointables=[])
    assert checkpointer.report is not None
    fresh = checkpointer.report.fresh()
    if fresh:
        shown = ", ".join(fresh[:3]) + (f" and {len(fresh) - 3} more" if len(fresh) > 3 else "")
        raise InputError(
            f"{weights} leaves {len(fresh)} tensors of the model random ({shown}): give the config that it was trained with, such as the "
            "run's config.yaml"
        )


def _metadata(data: str) -> Any:
    """What Detectron2's catalogue knows of a data set: of many it knows no ids and keypoints before the data set is read."""
    try:
        ensure_registered(data)
        metadata = MetadataCatalog.get(data)
        if not metadata.get("thing_dataset_id_to_contiguous_id"):
            DatasetCatalog.get(data)
    except (InputError, OSError) as error:
        logger.warning("Class names and ids may not be known (%s)", error)
    return MetadataCatalog.get(data)


def _classes(model: nn.Module, data: str | None) -> Classes:
    """What the outputs mean, from the data set as far as it is at hand, else numbered."""
    heads = getattr(model, "roi_heads", None)
    number = getattr(heads, "num_classes", None) or 1
    metadata = _metadata(data) if data is not None else None
    names = (metadata.get("thing_classes") or []) if metadata else []
    if len(names) != number:
        if names:
            logger.warning("The model has %d classes and data set %s %d: they are numbered", number, data, len(names))
        names, metadata = [f"class {index}" for index in range(number)], None
    own_ids = metadata.get("thing_dataset_id_to_contiguous_id") if metadata else None
    if not own_ids and str(data).startswith("keypoints_coco_"):
        own_ids = {1: 0}  # COCO's person; Detectron2 knows it only after it has read the annotations
    # Without ids of its own, a data set is evaluated by Detectron2 under the numbers of its classes.
    ids = sorted(own_ids, key=lambda own: own_ids[own]) if own_ids else range(number)
    points = metadata.get("keypoint_names") if metadata else None
    joined = (metadata.get("keypoint_connection_rules") or []) if metadata else []
    place = {name: index for index, name in enumerate(points or ())}
    return Classes(
        names=tuple(names),
        category_ids=tuple(ids),
        keypoint_names=tuple(points or ()),
        keypoint_flip_map=tuple(tuple(pair) for pair in (metadata.get("keypoint_flip_map") or ())) if metadata else (),
        skeleton=tuple((place[a], place[b]) for a, b, _ in joined),
    )


def spread_images(given: str, count: int, mapper: Any) -> list[np.ndarray]:
    """Reads some of the images of a folder or a data set, taken evenly, as a mapper does."""
    items = find_inputs([given]).items
    read = reader(mapper)
    chosen = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [np.asarray(read(items[index].image)) for index in chosen]
