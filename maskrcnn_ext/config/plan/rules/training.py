"""Chooses batch, learning rate, precision, length and evaluation of a training."""

from __future__ import annotations

import math
from typing import Any

from maskrcnn_ext.common.text import plural
from maskrcnn_ext.config.plan.choice import Choice, Target
from maskrcnn_ext.config.plan.machine import COCO, COCO_KEYPOINTS
from maskrcnn_ext.config.plan.rules.canvas import Canvas, input_sizes
from maskrcnn_ext.config.plan.rules.model import Base
from maskrcnn_ext.config.plan.situation import Situation

# R50-FPN in bf16 (docs/training.md): bytes of a step without images, and bytes for each pixel of an input.
_FIXED_BYTES = 2.1 * 2**30
_BYTES_A_PIXEL = 0.56 * 2**30 / 1e6
_MEMORY_SHARE = 0.8
_MOST_IMAGES = 16
_IMAGES_A_STEP = 8  # with accumulation, if fewer fit
_CPU_IMAGES = 2

# Images that a training sees: 12 epochs of COCO's 118 000 images suffice, and smaller sets are repeated more often.
_COCO_EPOCHS, _COCO_IMAGES = 12, 118_000
_SHARE_WITH_BACKBONE = 1 / 3  # of these images if the backbone is pre-trained
_SHARE_WITH_DETECTOR = 1 / 10  # if the whole detector is
_MOST_ON_CPU = 6000
_FEWEST_ITERATIONS = 300

_EVALUATION_COST = 0.15  # share of the training's cost that evaluations may have
_STEP_COST = 3  # a training step costs this many times a prediction
_EVALUATIONS = (2, 10)
_PANEL = 4


def num_images(situation: Situation, base: Base, canvas: Canvas) -> int:
    """Returns the number of images that go through the model at a time."""
    machine = situation.machine
    if machine.has_gpu:
        free = _MEMORY_SHARE * machine.gpu_memory - _FIXED_BYTES
        fitting = free / (_BYTES_A_PIXEL * canvas.pixels * canvas.factors[1] ** (0 if canvas.crop else 2))
        images = min(_MOST_IMAGES, 2 ** int(math.log2(max(1.0, fitting))))
    else:
        images = _CPU_IMAGES if base.weights else base.rate_images
    return min(images, machine.most_images or images)


def choose_batch(situation: Situation, base: Base, canvas: Canvas) -> Choice:
    """Returns the choice of images a step, learning rate, precision and workers."""
    machine, images = situation.machine, num_images(situation, base, canvas)
    accumulate = math.ceil(_IMAGES_A_STEP / images) if machine.has_gpu else 1
    step = images * accumulate
    factor = step / base.rate_images
    rate = float(f"{base.rate * (factor if base.uses_sgd else math.sqrt(factor)):.2g}")
    workers = min(8, max(2, machine.cores // 2)) if machine.has_gpu else min(4, max(1, machine.cores // 2))
    settings: dict[str, Any] = {
        "dataloader.train.total_batch_size": images,
        "dataloader.train.num_workers": workers,
        "dataloader.test.num_workers": workers,
        "optimizer.lr": rate,
        # The same results in less time and memory.
        "model.proposal_generator._target_": Target("maskrcnn_ext.FastRPN"),
        "train.channels_last": True,
    }
    if accumulate > 1:
        settings["train.accumulate"] = accumulate
    precision = "fp32"
    if machine.has_gpu:
        precision = "bf16"
        settings |= {"train.amp.enabled": True, "train.amp.dtype": "bf16"}
    elif machine.has_bf16:
        precision = "bf16"
        settings["train.amp.on_cpu"] = True
    size = plural(images, "image") + (f" x {accumulate}" if accumulate > 1 else "")
    rule = "proportional to the images" if base.uses_sgd else "with the root of the images"
    reason = f"{machine.description}; the rate grows {rule} from {base.rate:g} at {base.rate_images}"
    return Choice("batch", f"{size}, rate {rate:g}, {precision}, {plural(workers, 'worker')}", reason, settings)


def num_samples(situation: Situation, base: Base) -> int:
    """Returns the number of images that the training sees, repetitions counted."""
    samples = _wanted(situation, base)
    return int(samples if situation.machine.has_gpu else min(samples, _MOST_ON_CPU))


def _wanted(situation: Situation, base: Base) -> float:
    """Returns the number of images that a training sees if time does not matter."""
    samples = _COCO_EPOCHS * math.sqrt(_COCO_IMAGES * situation.objects.num_labelled)
    if base.weights in (COCO, COCO_KEYPOINTS):
        samples *= _SHARE_WITH_DETECTOR
    elif base.weights:
        samples *= _SHARE_WITH_BACKBONE
    return samples


def max_iter(situation: Situation, base: Base, batch: Choice) -> int:
    """Returns the number of iterations, with two significant digits."""
    images = batch.settings["dataloader.train.total_batch_size"] * batch.settings.get("train.accumulate", 1)
    return max(_FEWEST_ITERATIONS, int(float(f"{num_samples(situation, base) / images:.2g}")))


def choose_schedule(situation: Situation, base: Base, canvas: Canvas, batch: Choice) -> Choice:
    """Returns the choice of iterations, evaluations and what they decide."""
    iterations = max_iter(situation, base, batch)
    images = batch.settings["dataloader.train.total_batch_size"] * batch.settings.get("train.accumulate", 1)
    samples, num_train = iterations * images, situation.objects.num_labelled
    seen = float(input_sizes(situation.val, canvas.val_edge).prod(axis=1).sum())
    affordable = _EVALUATION_COST * _STEP_COST * samples * canvas.pixels / seen
    count = int(min(max(affordable, _EVALUATIONS[0]), _EVALUATIONS[1]))
    period = math.ceil(iterations / count)
    settings: dict[str, Any] = {
        "train.max_iter": iterations,
        "train.eval_period": period,
        "train.checkpointer.period": period,
        "train.checkpointer.max_to_keep": 2,
        "train.image_panel.count": _PANEL,
    }
    metric = metric_of(situation)
    kept = "no object to validate on"
    if metric:
        settings["train.best.metric"] = metric
        # Without early stopping, which would end runs before the learning rate falls, from which AP rises most.
        kept = f"best {metric} kept"
    each = plural(situation.val.num_images, "image")
    value = f"{iterations} iterations, {samples / num_train:.0f} epochs, {count} evaluations of {each}; {kept}"
    is_cut = not situation.machine.has_gpu and _wanted(situation, base) > _MOST_ON_CPU
    limit = f" (on a GPU {_wanted(situation, base):.0f})" if is_cut else ""
    reason = f"{plural(num_train, 'image')}, {base.weights_name}: {samples} samples in all{limit}; train.time=MINUTES sets another length"
    return Choice("schedule", value, reason, settings)


def metric_of(situation: Situation) -> str:
    """Returns the metric that decides which weights are best; "" if there is nothing to validate on."""
    val = situation.val.objects
    if not val.total:
        return ""
    if situation.has_masks and val.outlined == 1:
        return "segm/AP"
    return "keypoints/AP" if situation.has_keypoints else "bbox/AP"
