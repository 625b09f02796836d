"""The settings of Matterport's Mask R-CNN: defaults, checks, and a report of how each was used."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.interop.weights.conversion import KeyReport
from maskrcnn_ext.interop.weights.matterport.settings_file import NotLiteral, Values, read_settings_file

# From Matterport's mrcnn/config.py.
DEFAULTS: Values = {
    "BACKBONE": "resnet101",
    "BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "DETECTION_MAX_INSTANCES": 100,
    "DETECTION_MIN_CONFIDENCE": 0.7,
    "DETECTION_NMS_THRESHOLD": 0.3,
    "FPN_CLASSIF_FC_LAYERS_SIZE": 1024,
    "GPU_COUNT": 1,
    "GRADIENT_CLIP_NORM": 5.0,
    "IMAGES_PER_GPU": 2,
    "IMAGE_CHANNEL_COUNT": 3,
    "IMAGE_MAX_DIM": 1024,
    "IMAGE_MIN_DIM": 800,
    "IMAGE_MIN_SCALE": 0.0,
    "IMAGE_RESIZE_MODE": "square",
    "LEARNING_MOMENTUM": 0.9,
    "LEARNING_RATE": 0.001,
    "LOSS_WEIGHTS": dict.fromkeys(
        ("rpn_class_loss", "rpn_bbox_loss", "mrcnn_class_loss", "mrcnn_bbox_loss", "mrcnn_mask_loss"), 1.0
    ),
    "MASK_POOL_SIZE": 14,
    "MASK_SHAPE": [28, 28],
    "MEAN_PIXEL": [123.7, 116.8, 103.9],
    "NUM_CLASSES": 1,
    "POOL_SIZE": 7,
    "POST_NMS_ROIS_INFERENCE": 1000,
    "POST_NMS_ROIS_TRAINING": 2000,
    "PRE_NMS_LIMIT": 6000,
    "ROI_POSITIVE_RATIO": 0.33,
    "RPN_ANCHOR_RATIOS": [0.5, 1, 2],
    "RPN_ANCHOR_SCALES": [32, 64, 128, 256, 512],
    "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "RPN_NMS_THRESHOLD": 0.7,
    "RPN_TRAIN_ANCHORS_PER_IMAGE": 256,
    "STEPS_PER_EPOCH": 1000,
    "TOP_DOWN_PYRAMID_SIZE": 256,
    "TRAIN_ROIS_PER_IMAGE": 200,
    "WEIGHT_DECAY": 0.0001,
}
# Settings for which one value is supported; another value is another network.
_FIXED = {
    "BACKBONE_STRIDES": [4, 8, 16, 32, 64],
    "RPN_ANCHOR_STRIDE": 1,
    "USE_RPN_ROIS": True,
    "COMPUTE_BACKBONE_SHAPE": None,
}
_NOT_NEEDED = {
    **dict.fromkeys(_FIXED, "has the only supported value"),
    "BATCH_SIZE": "is GPU_COUNT * IMAGES_PER_GPU",
    "IMAGE_META_SIZE": "the model has no such input",
    "IMAGE_SHAPE": "follows from IMAGE_RESIZE_MODE",
    "MAX_GT_INSTANCES": "Detectron2 has no such limit",
    "MINI_MASK_SHAPE": "masks are cropped from the full ground truth",
    "NAME": "the folder of a run is train.output_dir",
    "TRAIN_BN": "norms are frozen",
    "USE_MINI_MASK": "masks are cropped from the full ground truth",
    "VALIDATION_STEPS": "evaluation uses the whole data set",
}
# Settings for which None means 0.
_OPTIONAL = {"DETECTION_MIN_CONFIDENCE", "GRADIENT_CLIP_NORM", "IMAGE_MAX_DIM", "IMAGE_MIN_DIM", "IMAGE_MIN_SCALE"}
_LENGTHS = {"BBOX_STD_DEV": 4, "MASK_SHAPE": 2, "RPN_ANCHOR_SCALES": 5, "RPN_BBOX_STD_DEV": 4}


class MatterportSettings:
    """The settings of a file. Values that follow from the weights take precedence; Matterport's defaults fill the gaps.

    Example:
        >>> MatterportSettings("my.json", {"IMAGE_MAX_DIM": 512})["IMAGE_MIN_DIM"]
        800
    """

    def __init__(self, source: str, given: Values) -> None:
        """Checks the settings of a file.

        Args:
            source: name of the file in messages.
            given: name -> value; unknown names are reported, not refused.

        Raises:
            InputError: a value has the wrong type, or the network cannot be converted.
        """
        self._source, self._given = source, given
        self._facts: Values = {}
        self._used: dict[str, list[str]] = defaultdict(list)
        for name, value in given.items():
            if isinstance(value, NotLiteral) and (name in DEFAULTS or name in _FIXED):
                raise InputError(
                    f"{source}, line {value.line}: {name} is not a literal, and the file is not executed: write its value instead"
                )
            if name in DEFAULTS and not (value is None and name in _OPTIONAL):
                self._check(name, value)
        for name, only in _FIXED.items():
            if given.get(name, only) != only:
                raise InputError(f"{source}: {name}={given[name]}: only networks with {only} can be converted")
        match given.get("IMAGE_SHAPE"):
            case [int() as height, int(), *_] if self["IMAGE_RESIZE_MODE"] == "square":
                self.set_fact("IMAGE_MAX_DIM", height, "IMAGE_SHAPE")

    def __getitem__(self, name: str) -> Any:
        """Returns the value of a name of `DEFAULTS` in the default's type: 0 for None, and a dict completed from the default."""
        default: Any = DEFAULTS[name]
        value: Any = self._facts.get(name, self._given.get(name, default))
        if isinstance(default, dict):
            return {**default, **value}
        return type(default)(value or 0) if _is_number(default) else value

    def take(self, name: str, *targets: str) -> Any:
        """Returns a value and records the keys of the LazyConfig that it sets."""
        self._used[name] += targets
        return self[name]

    def set_fact(self, name: str, value: Any, source: str) -> None:
        """Sets a value that follows from something else, such as the weights.

        Raises:
            InputError: the file has another value.
        """
        if self._given.get(name, value) != value:
            raise InputError(f"{self._source}: {name}={self._given[name]} contradicts {source}, which has {value}")
        self._facts[name] = value

    def add_to_report(self, report: KeyReport) -> None:
        """Adds to a report how each setting of the file was used, why it is not needed, or that it is unknown."""
        for name in self._given:
            if name in self._used:
                report.used[name] = self._used[name]
            else:
                report.unused[name] = _NOT_NEEDED.get(name, "UNKNOWN: not a setting of Matterport")

    def _check(self, name: str, value: Any) -> None:
        """Raises InputError if a value does not have the type of the default."""
        default = DEFAULTS[name]
        if isinstance(default, list):
            length = _LENGTHS.get(name)
            fits = (
                isinstance(value, list) and all(map(_is_number, value)) and len(value) == (length or max(len(value), 1))
            )
            fits = fits and (name == "MEAN_PIXEL" or min(value) > 0)
            expected = f"{length or 'a list of'} numbers{'' if name == 'MEAN_PIXEL' else ' above 0'}"
        elif isinstance(default, dict):
            fits = isinstance(value, dict) and value.keys() <= default.keys() and all(map(_is_number, value.values()))
            expected = f"numbers for {', '.join(default)}"
        elif isinstance(default, str):
            fits, expected = isinstance(value, str), "a string"
        else:
            whole = isinstance(default, int)
            fits = _is_number(value) and value >= 0 and (not whole or value == int(value))
            expected = f"a {'whole ' if whole else ''}number, 0 or more"
        if not fits:
            raise InputError(f"{self._source}: {name}={value!r}: expected {expected}")


def read_settings(file: Path | None) -> MatterportSettings:
    """Returns the settings in a file, see :func:`read_settings_file`, or the defaults without a file.

    Raises:
        InputError: as `read_settings_file` and `MatterportSettings`.
    """
    if file is None:
        return MatterportSettings("Matterport's defaults", {})
    return MatterportSettings(str(file), read_settings_file(file))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
