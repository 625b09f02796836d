"""Batch and length follow memory, data and weights."""

from dataclasses import replace

import pytest

from maskrcnn_ext.config.plan.machine import COCO, LITE, Machine
from maskrcnn_ext.config.plan.rules.canvas import choose_canvas
from maskrcnn_ext.config.plan.rules.model import choose_base
from maskrcnn_ext.config.plan.rules.training import choose_batch, choose_schedule, metric_of
from maskrcnn_ext.config.plan.situation import Situation
from tests.helpers.labelled_images import make_fingerprint

GIB = 2**30


def choices(machine, val=None, **data):
    found = make_fingerprint(**data)
    situation = Situation(found, val or found, machine)
    base, (canvas, _) = choose_base(situation), choose_canvas(situation)
    batch = choose_batch(situation, base, canvas)
    return batch, choose_schedule(situation, base, canvas, batch)


def test_the_batch_follows_the_memory_of_the_gpu():
    sizes = {}
    for memory in (4, 8, 16, 80):
        batch, _ = choices(Machine(cores=8, gpu_memory=memory * GIB, weights=(COCO,)), sides=(60,), size=(1333, 800))
        images = sizes[memory] = batch.settings["dataloader.train.total_batch_size"]
        step = images * batch.settings.get("train.accumulate", 1)
        assert step >= 8
        assert batch.settings["optimizer.lr"] == pytest.approx(0.02 * step / 16, rel=0.1)
        assert batch.settings["train.amp.dtype"] == "bf16"
    assert sizes[4] < sizes[16] <= sizes[80] == 16


def test_a_trial_step_limits_the_batch():
    machine = Machine(cores=8, gpu_memory=80 * GIB, weights=(COCO,))
    batch, _ = choices(replace(machine, most_images=2))
    assert batch.settings["dataloader.train.total_batch_size"] == 2
    assert batch.settings["train.accumulate"] == 4


def test_a_cpu_uses_bf16_only_if_it_is_fast():
    batch, _ = choices(Machine(cores=4, weights=(LITE,)))
    assert "fp32" in batch.value
    assert batch.settings["train.channels_last"]
    assert batch.settings["dataloader.train.num_workers"] == 2
    batch, _ = choices(Machine(cores=4, weights=(LITE,), has_bf16=True))
    assert batch.settings["train.amp.on_cpu"]
    assert "train.amp.enabled" not in batch.settings


def test_more_images_and_worse_weights_need_a_longer_training():
    def samples(weights, num_images):
        batch, schedule = choices(Machine(gpu_memory=80 * GIB, weights=weights), num_images=num_images)
        return schedule.settings["train.max_iter"] * batch.settings["dataloader.train.total_batch_size"]

    assert samples((COCO,), 1000) < samples((LITE,), 1000) < samples((), 1000)
    assert samples((COCO,), 100) < samples((COCO,), 10_000)


def test_the_limit_of_a_cpu_is_named_where_it_applies():
    _, few = choices(Machine(weights=(LITE,)), num_images=1)
    assert few.reason.startswith("1 image, ImageNet weights: 1380 samples in all; train.time=")
    _, many = choices(Machine(weights=(LITE,)), num_images=1000)
    assert many.reason.startswith("1,000 images, ImageNet weights: 6000 samples in all (on a GPU 43451); train.time=")


def test_evaluations_keep_the_best_weights():
    _, schedule = choices(Machine(weights=(LITE,)), val=make_fingerprint(num_images=20))
    settings = schedule.settings
    assert settings["train.best.metric"] == "segm/AP"
    assert 2 <= settings["train.max_iter"] / settings["train.eval_period"] <= 10
    many = make_fingerprint(num_images=20_000)
    _, costly = choices(Machine(weights=(LITE,)), val=many)
    assert costly.settings["train.max_iter"] / costly.settings["train.eval_period"] == pytest.approx(2, rel=0.1)


def test_the_metric_is_one_that_the_validation_data_has():
    def metric(**objects):
        found = make_fingerprint(objects=objects)
        return metric_of(Situation(found, found, Machine()))

    assert metric() == "segm/AP"
    assert metric(outlined=0.9) == "bbox/AP"
    assert metric(outlined=0.0, keypoints=("a",)) == "keypoints/AP"
    empty = make_fingerprint(per_image=0, counts=(0,))
    assert metric_of(Situation(make_fingerprint(), empty, Machine())) == ""
