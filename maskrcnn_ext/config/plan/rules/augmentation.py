"""Chooses augmentations, mixing of images, and how often images of rare classes are drawn."""

from __future__ import annotations

from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.config.plan.choice import Call, Choice, Target
from maskrcnn_ext.config.plan.rules.canvas import TRANSFORMS, Canvas, resizing
from maskrcnn_ext.config.plan.situation import Situation
from maskrcnn_ext.data.registry.keypoints import flip_map

_LIGHT = {"intensity_min": 0.8, "intensity_max": 1.2}
_FEW_OBJECTS = 300  # in all, below which objects are pasted into other images
_FEW_OF_CLASS = 30  # of one class
_PASTE = 0.5  # probability
_LEAST_OUTLINED = 0.9  # share of the objects; those without an outline are not pasted
_MOSAIC = 0.3  # probability
_LEAST_IN_MOSAIC = 48.0  # pixels in the input of the median object, which a mosaic halves
_MIXED_SHARE = 0.9  # of the training, after which images are no longer mixed
_RARE = 0.1  # share of the images below which a class is drawn more often
_IMBALANCE = 10  # factor between the most and the least frequent class


def choose_augmentation(situation: Situation, canvas: Canvas, samples: int) -> Choice:
    """Returns the choice of augmentations and of the sampler.

    Args:
        situation: see there.
        canvas: how images are resized and cropped.
        samples: number of images that the training sees.
    """
    objects = situation.objects
    calls, names, reasons = resizing(canvas, situation.train), [], []
    settings: dict[str, Any] = {}
    pairs = flip_map(objects.keypoints)
    if situation.has_keypoints and not pairs and len(objects.keypoints) > 1:
        names.append("no flips")
        reasons.append("no keypoint is named left or right")
    else:
        calls.append(_call("RandomFlip", horizontal=True))
        names.append("flips" if not situation.any_orientation else "flips in both directions")
    if situation.any_orientation:
        calls.append(_call("RandomFlip", horizontal=False, vertical=True))
        reasons.append("objects have any orientation")
    else:
        reasons.append("objects are upright unless --any-orientation says otherwise")
    calls += [_call("RandomBrightness", **_LIGHT), _call("RandomContrast", **_LIGHT)]
    names.append("light")
    settings["dataloader.train.mapper.augmentations"] = calls
    if should_paste(situation):
        settings |= {
            "dataloader.train._target_": Target("maskrcnn_ext.build_train_loader"),
            "dataloader.train.copy_paste": {"probability": _PASTE, "level": "instance"},
            "dataloader.train.mixed_samples": round(_MIXED_SHARE * samples),
            "dataloader.train.mapper.instance_mask_format": "bitmask",
        }
        mixing = "copy-paste"
        # On a CPU, mapping four images for one takes time from the training.
        if situation.machine.has_gpu and objects.side(0.5) * canvas.scale >= _LEAST_IN_MOSAIC:
            settings["dataloader.train.mosaic"] = {"probability": _MOSAIC}
            mixing += " and mosaic"
        names.append(f"{mixing} until {_MIXED_SHARE:.0%}")
        reasons.append(_few(situation))
    present = [count for count in objects.images_with if count]
    if len(present) > 1 and max(present) >= _IMBALANCE * min(present) and min(present) < _RARE * objects.num_labelled:
        arguments = {"dataset": "${..dataset}", "threshold": _RARE}
        settings["dataloader.train.sampler"] = Call("maskrcnn_ext.repeat_factor_sampler", arguments)
        names.append("rare classes drawn more often")
        reasons.append(f"classes are in {min(present)} to {max(present)} of {objects.num_labelled} images")
    return Choice("augmentation", ", ".join(names), "; ".join(reasons), settings)


def _call(name: str, **arguments: Any) -> Call:
    return Call(f"{TRANSFORMS}.{name}", arguments)


def should_paste(situation: Situation) -> bool:
    """Returns whether objects are few and nearly all have outlines to cut them out along."""
    objects = situation.objects
    few = objects.total < _FEW_OBJECTS or min((count for count in objects.counts if count), default=0) < _FEW_OF_CLASS
    return few and objects.outlined >= _LEAST_OUTLINED and not situation.has_keypoints and objects.num_labelled > 1


def _few(situation: Situation) -> str:
    objects = situation.objects
    if objects.total < _FEW_OBJECTS:
        return f"{plural(objects.total, 'object')} in all"
    return f"a class with {plural(min(count for count in objects.counts if count), 'object')}"
