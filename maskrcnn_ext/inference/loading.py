"""Builds a model of a config, loads its weights, and finds the names of its classes."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.utils.file_io import PathManager
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import nn

from maskrcnn_ext.common.next_command import runs_near
from maskrcnn_ext.common.text import natural_sort_key, one_line, plural, short_list
from maskrcnn_ext.config.checkpoint_weights import expect_checkpoint
from maskrcnn_ext.config.overrides import apply_overrides
from maskrcnn_ext.config.settings import add_missing_settings
from maskrcnn_ext.config.yacs.file import merge_yacs_file
from maskrcnn_ext.config.yaml_file import build_tags, check_parts, read_lazy_yaml
from maskrcnn_ext.config.zoo import find_config
from maskrcnn_ext.data.formats.image_files import open_image
from maskrcnn_ext.data.images.photos import too_large
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.classes import Classes
from maskrcnn_ext.data.registry.resolve import ensure_registered
from maskrcnn_ext.engine.checkpoint import history
from maskrcnn_ext.engine.checkpoint.checkpointer import Checkpointer
from maskrcnn_ext.engine.manifest import config_hash
from maskrcnn_ext.env import setup_environment
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.sources import InputImage, find_inputs
from maskrcnn_ext.modeling.fit_check import check_fit

logger = logging.getLogger(__name__)

_YAML = (".yaml", ".yml")
_NEEDED = ("model", "dataloader.test.mapper")  # parts of a config that prediction builds


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to predict.

    Attributes:
        model: the model, in evaluation mode on its device.
        mapper: the mapper of the config's ``dataloader.test``.
        classes: the meaning of the model's outputs.
        weights: file or URL of the weights; "" if they are random.
        settings: hash of the model's config, with the overrides.
    """

    model: nn.Module
    mapper: Any
    classes: Classes
    weights: str
    settings: str


def load_model(
    config: str | Path | DictConfig,
    weights: str | None = None,
    *,
    device: str | None = None,
    overrides: Sequence[str] = (),
) -> LoadedModel:
    """Builds a config's model and loads its weights.

    Args:
        config: the folder of a run; a LazyConfig as a file, the name of a shipped one, or an object; or a yacs file of Detectron2 (.yaml).
        weights: a file or a URL that Detectron2 can read. None for the best checkpoint of a run (``model_best.pth``), else its last, or for
            the weights that a config starts from (``train.init_checkpoint``, ``MODEL.WEIGHTS``). "" leaves the weights random.
        device: such as "cuda:1"; None for CUDA if there is a device, else the CPU.
        overrides: ``key=value`` for the config. ``train.loading.allow_pickle=true`` says that the config may run any code: without it,
            the model and the mapper of a YAML file are built only from the parts that docs/security.md lists.

    Raises:
        InputError: the config does not exist, is invalid or would run other code, or the weights do not exist, are damaged, not finite,
            or leave a part of the model random.

    Example:
        ::

            loaded = load_model("output/run", device="cpu")
            loaded.model, loaded.classes.names
    """
    setup_environment()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    untrusted = "" if isinstance(config, DictConfig) or _allows_code(overrides) else _yaml_of(config)
    cfg = config if isinstance(config, DictConfig) else read_config(config, run_code=not untrusted)
    if weights is None and isinstance(config, str | Path) and Path(config).is_dir():
        weights = _weights_of_run(Path(config))
    if isinstance(cfg, DictConfig):
        model, mapper, weights, data, settings = _from_lazy(cfg, weights, device, overrides, untrusted)
    else:
        model, mapper, weights, data, settings = _from_yacs(cfg, weights, device, overrides)
    stored = _load_weights(model, weights) if weights else None
    return LoadedModel(model.eval(), mapper, stored or _find_classes(model, data), weights, settings)


def image_reader(mapper: Any) -> Callable[[dict[str, Any]], Any]:
    """Returns a function that reads the pixels (H, W, C) of a record as the mapper does.

    Detectron2's mapper reads photographs, and reduces deeper ones to 8 bits. A ``window`` or ``slice`` is read by this package with any
    mapper, and a window is reduced as the whole image would be.

    Example:
        ::

            read = image_reader(load_model("output/run").mapper)
            pixels = read({"file_name": "image.png"})
    """
    from detectron2.data.detection_utils import check_image_size, read_image

    from maskrcnn_ext.data.mapping.mapper import SafeMapper

    reads_all_formats = not isinstance(mapper, DatasetMapper) or isinstance(mapper, SafeMapper)
    has_warned = False

    def read(record: dict[str, Any]) -> Any:
        if reads_all_formats or "slice" in record:
            return read_pixels(record, mapper.image_format)
        if "window" in record:
            return _to_eight_bits(record, mapper.image_format)
        try:
            image = read_image(record["file_name"], mapper.image_format)
        except FileNotFoundError:
            raise InputError(f"{record['file_name']}: no such file") from None
        except Image.DecompressionBombError:
            raise too_large(str(record["file_name"])) from None
        except Exception as error:  # decoders raise errors of many unrelated types for broken files
            raise InputError(f"{record['file_name']}: cannot be read as an image ({one_line(error):.200})") from error
        check_image_size(dict(record), image)
        nonlocal has_warned
        if not has_warned and np.count_nonzero(image == 255) > image.size / 2:
            has_warned = _warn_if_cut(str(record["file_name"]))
        return image

    return read


def _warn_if_cut(file: str) -> bool:
    """Warns if the grey values of a file are deeper than 8 bits, which Detectron2's mapper cuts at 255. Returns whether they are."""
    with open_image(PathManager.get_local_path(file)) as image:
        is_deep = image.mode.startswith(("I", "F"))
        if is_deep:
            logger.warning(
                "The results may be wrong: Detectron2's mapper cuts the grey values of %s at 255; train and predict with "
                "dataloader.train.mapper._target_=maskrcnn_ext.SafeMapper dataloader.test.mapper._target_=maskrcnn_ext.SafeMapper",
                file,
            )
        return is_deep


def _to_eight_bits(record: dict[str, Any], image_format: str) -> np.ndarray:
    """Reads a window as Detectron2's mapper reads the whole image: it drops the low bits of colours, and cuts grey values at 255."""
    image = read_pixels(record, image_format)
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16 and (image != image[:, :, :1]).any():
        return (image >> 8).astype(np.uint8)
    return image.clip(0, 255).astype(np.uint8)


def read_config(config: str | Path, *, run_code: bool = False) -> Any:
    """Returns the config in a file or a run's folder, or a shipped one by its name: a DictConfig, or a yacs node of Detectron2.

    Args:
        config: the file, folder or name.
        run_code: whether tags in a YAML file may run any code. If not, those that need it remain
            :class:`maskrcnn_ext.config.yaml_file.PythonTag`.

    Raises:
        InputError: the config does not exist or cannot be used.

    Example:
        >>> read_config("mask_rcnn_r50_fpn_1x.py").model.roi_heads.num_classes
        80
    """
    if not Path(config).is_dir():
        return _read_file(find_config(str(config)), run_code)
    file = Path(config) / "config.yaml"
    if not file.is_file():
        raise InputError(f"{config} is not the folder of a run: it has no config.yaml{runs_near(Path(config))}")
    return _read_file(str(file), run_code)


def members_of(folder: str) -> list[str]:
    """Returns the runs in the folder of `maskrcnn-ext train --folds`, in the order of their numbers; empty for another folder.

    Raises:
        InputError: a fold is not trained.

    Example:
        >>> (tmp_path / "fold_1").mkdir()
        >>> (tmp_path / "fold_1" / "config.py").touch()
        >>> members_of(str(tmp_path))
        Traceback (most recent call last):
        maskrcnn_ext.errors.InputError: ...fold_1 has no checkpoint: run `maskrcnn-ext train --folds` to its end
    """
    # The plan of a fold is written before its training starts.
    plans = {str(file.parent) for file in Path(folder).glob("fold_*/config.*")}
    folds = sorted(plans, key=natural_sort_key)
    for fold in folds:
        if not is_run(fold):
            raise InputError(f"{fold} has no checkpoint: run `maskrcnn-ext train --folds` to its end")
    return folds


def is_run(folder: str) -> bool:
    """Returns whether a folder is that of a training run with a checkpoint."""
    return (Path(folder) / "config.yaml").is_file() and any(Path(folder).glob("*.pth"))


def _weights_of_run(folder: Path) -> str:
    best = folder / "model_best.pth"
    chosen = best if best.is_file() else history.find_newest(folder)
    if chosen is None:
        raise InputError(f"{folder} has no checkpoint: name the weights to load")
    logger.info("Weights: %s", chosen)
    return str(chosen)


def _allows_code(overrides: Sequence[str]) -> bool:
    """Returns whether the user has allowed code to run. A config cannot allow it for itself."""
    allow = [text.partition("=")[2] for text in overrides if text.lstrip("+").startswith("train.loading.allow_pickle=")]
    return bool(allow) and allow[-1].strip().lower() == "true"


def _yaml_of(config: str | Path) -> str:
    """Returns the YAML file of a config, or "" if it is a program in Python."""
    file = Path(config) / "config.yaml" if Path(config).is_dir() else Path(config)
    return str(file) if file.suffix in _YAML else ""


def _read_file(file: str, run_code: bool) -> Any:
    """Returns a DictConfig, or a yacs node if the file is a YAML with the keys of one."""
    if Path(file).suffix in _YAML:
        cfg = read_lazy_yaml(Path(file))
        if "MODEL" in cfg or "_BASE_" in cfg:
            return _read_yacs(file)
        if not run_code:
            return build_tags(cfg)
    try:
        return LazyConfig.load(file)
    except FileNotFoundError as error:
        raise InputError(f"{file}: {error}") from error


def _read_yacs(file: str) -> Any:
    from detectron2.config import get_cfg

    from maskrcnn_ext.modeling.yacs import add_maskrcnn_ext_config

    cfg = get_cfg()
    add_maskrcnn_ext_config(cfg)
    merge_yacs_file(cfg, file)
    return cfg


def _from_lazy(
    cfg: DictConfig, weights: str | None, device: str, overrides: Sequence[str], untrusted: str
) -> tuple[nn.Module, Any, str, list[str], str]:
    cfg = apply_overrides(add_missing_settings(cfg.copy()), list(overrides))
    for key in _NEEDED:
        if OmegaConf.select(cfg, key) is None:
            raise InputError(f"the config has no `{key}`, which prediction needs")
    if untrusted:
        check_parts(cfg, _NEEDED, untrusted)
    weights = cfg.train.init_checkpoint if weights is None else weights
    model = instantiate((expect_checkpoint(cfg) if weights else cfg).model).to(device)
    check_fit(model)
    return model, instantiate(cfg.dataloader.test.mapper), weights, _data_sets(cfg), config_hash(cfg.model)


def _from_yacs(
    cfg: Any, weights: str | None, device: str, overrides: Sequence[str]
) -> tuple[nn.Module, Any, str, list[str], str]:
    from detectron2.modeling import build_model

    try:
        cfg.merge_from_list([part for override in overrides for part in override.split("=", 1)])
    except (AssertionError, KeyError, ValueError) as error:
        raise InputError(f"{' '.join(overrides)}: the config does not accept these overrides ({error})") from error
    cfg.MODEL.DEVICE = device
    names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    weights = cfg.MODEL.WEIGHTS if weights is None else weights
    model = build_model(expect_checkpoint(cfg) if weights else cfg)
    settings = hashlib.sha256(cfg.MODEL.dump().encode()).hexdigest()
    return model, DatasetMapper(cfg, is_train=False), weights, names, settings


def _data_sets(cfg: DictConfig) -> list[str]:
    """Returns the names of the training data sets, then those for the test."""
    found = [OmegaConf.select(cfg, f"dataloader.{split}.dataset.names") or () for split in ("train", "test")]
    return [name for names in found for name in ([names] if isinstance(names, str) else names)]


def _load_weights(model: nn.Module, weights: str) -> Classes | None:
    """Loads the weights; returns the classes that the checkpoint stores, None if it stores none or others than the model has."""
    checkpointer = Checkpointer(model)
    content = checkpointer.load(weights, checkpointables=[])
    assert checkpointer.report is not None
    fresh = checkpointer.report.newly_initialised()
    if fresh:
        raise InputError(
            f"{weights} leaves {plural(len(fresh), 'tensor')} of the model random ({short_list(fresh, limit=3)}): use the "
            "config that it was trained "
            "with, such as the run's config.yaml"
        )
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():  # it would detect nothing, or in an optimized model noise
            raise InputError(f"{weights}: {name} is not finite, as its training diverged: use an earlier checkpoint")
    stored = Classes.from_state(content.get("classes"))
    return stored if stored is not None and len(stored.names) == _num_classes(model) else None


def _num_classes(model: nn.Module) -> int:
    return getattr(getattr(model, "roi_heads", None), "num_classes", None) or 1


def _find_classes(model: nn.Module, data: list[str]) -> Classes:
    """Returns the classes of the first data set that can be read and fits the model, or numbered classes."""
    count, reasons = _num_classes(model), []
    for name in data:
        try:
            ensure_registered(name)
            # Many data sets must be read before their category ids and keypoints are known.
            if not MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id"):
                DatasetCatalog.get(name)
        except (InputError, OSError) as error:
            reasons.append(str(error))
        classes = Classes.of_data_set(name)
        if classes is not None and len(classes.names) == count:
            return classes
        if classes is not None:
            reasons.append(
                f"the model has {plural(count, 'class', 'classes')} and data set {name} {len(classes.names)}"
            )
    if reasons:
        logger.warning("The class names are unknown, so the classes are numbered (%s)", "; ".join(reasons))
    return Classes(tuple(f"class {index}" for index in range(count)), tuple(range(count)))


def sample_inputs(given: str, count: int) -> list[InputImage]:
    """Returns up to `count` images of a folder or a data set, evenly spaced in its order.

    Raises:
        InputError: it has no images.
    """
    items = find_inputs([given]).items
    if not items:
        raise InputError(f"{given}: has no images")
    chosen = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[index] for index in chosen]


def sample_images(given: str, count: int, mapper: Any) -> list[np.ndarray]:
    """Reads the images of :func:`sample_inputs` as the mapper does."""
    read = image_reader(mapper)
    return [np.asarray(read(item.image)) for item in sample_inputs(given, count)]


def tta_overrides(config: str | Path) -> list[str]:
    """Returns the overrides that add test-time augmentation to a config.

    Raises:
        InputError: it is a config of Detectron2's yacs.
    """
    overrides = ["model._target_=maskrcnn_ext.TTARCNN"]
    indices = "dataloader.train.mapper.keypoint_hflip_indices"
    cfg = read_config(config)
    if not OmegaConf.is_config(cfg):
        raise InputError(f"--tta: {config} is a yacs config: convert it with `maskrcnn-ext yaml-to-lazy`")
    if OmegaConf.select(cfg, indices) is not None:
        overrides.append(f"model.tta_keypoint_flip_indices=${{{indices}}}")
    return overrides
