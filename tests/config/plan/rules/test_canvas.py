"""The scale follows the objects: small ones get enough pixels, large ones are not computed at full size."""

from dataclasses import replace

import numpy as np
import pytest

from maskrcnn_ext.config.plan.machine import Machine
from maskrcnn_ext.config.plan.rules.canvas import choose_canvas, choose_tile, resizing
from maskrcnn_ext.config.plan.situation import Situation
from tests.helpers.labelled_images import make_fingerprint

GPU = Machine(cores=16, gpu_memory=24 * 2**30)


def canvas_of(train, val=None, machine=None):
    return choose_canvas(Situation(train, val or train, machine or Machine()))


def test_large_objects_are_reduced_and_images_stay_whole():
    canvas, choice = canvas_of(make_fingerprint((200,), size=(1600, 1200)))
    assert canvas.scale * canvas.factors[0] == pytest.approx(0.8 * 64 / 200)
    assert canvas.scale == pytest.approx(1.25 * 64 / 200), "inference at the largest scale of the training"
    assert canvas.factors[1] == 1
    assert not canvas.crop
    assert "whole images" in choice.value
    assert "median 200" in choice.reason
    edges = resizing(canvas, make_fingerprint((200,), size=(1600, 1200)))[0].arguments["short_edge_length"]
    assert edges[0] >= 256
    assert all(edge % 32 == 0 for edge in edges)


def test_inference_does_not_enlarge_images_that_training_reduces():
    canvas, choice = canvas_of(make_fingerprint((70,), size=(800, 600)))
    assert canvas.scale == 1
    assert canvas.factors == pytest.approx((0.8 * 64 / 70, 1.25 * 64 / 70))
    assert choice.value.endswith(", inference at the original scale")
    assert choice.settings["dataloader.test.mapper.augmentations"] == []


def test_small_objects_are_enlarged_and_cropped():
    canvas, choice = canvas_of(make_fingerprint((10,), size=(640, 480), per_image=200))
    assert canvas.scale == pytest.approx(2.4)
    assert canvas.crop == 256
    assert choice.settings["dataloader.train.mapper.recompute_boxes"]
    assert choice.settings["dataloader.test.mapper.augmentations"][0].arguments["short_edge_length"] == 1152


@pytest.mark.parametrize(("per_image", "crop"), [(100, 256), (20, 320), (2, 352)])
def test_crops_grow_until_they_have_several_objects(per_image, crop):
    canvas, _ = canvas_of(make_fingerprint((26,), size=(768, 576), per_image=per_image))
    assert (canvas.scale, canvas.crop) == (1, crop)
    small_image, _ = canvas_of(make_fingerprint((26,), size=(480, 480), per_image=per_image))
    assert small_image.crop <= 0.6 * 480 + 32


def test_objects_that_differ_between_training_and_validation_widen_the_scales():
    train, val = make_fingerprint((11,), per_image=30), make_fingerprint((25,), per_image=30)
    canvas, choice = canvas_of(train, val)
    assert canvas.scale == 1
    assert canvas.factors == (0.75, 1.5)
    assert "11 in training" in choice.reason
    # The median of a few objects differs by chance.
    canvas, choice = canvas_of(train, make_fingerprint((25,), num_images=2, per_image=4))
    assert canvas.factors == (0.8, 1.25)
    assert "in training" not in choice.reason


def test_parts_of_data_with_objects_of_many_sizes_differ_by_chance():
    sides = np.exp(np.random.default_rng(0).normal(np.log(140), 1.0, 400))
    train = make_fingerprint(sides, size=(4000, 3000), num_images=400)
    canvas, choice = canvas_of(train, make_fingerprint(1.4 * sides, size=(4000, 3000), num_images=20))
    assert canvas.scale == canvas_of(train)[0].scale
    assert "in training" not in choice.reason
    # Twenty times as many images leave less to chance.
    _, choice = canvas_of(train, make_fingerprint(1.4 * sides, size=(4000, 3000), num_images=400))
    assert "in training" in choice.reason


def test_images_of_thin_objects_are_reduced_less_but_stay_whole():
    def lines(height):
        data = make_fingerprint((150,), size=(750, 500))
        boxes = np.resize(np.array([[0, 100, 150 * 150 / height, 100 + height]], np.float32), (100, 4))
        return replace(data, objects=replace(data.objects, boxes=boxes, image_sizes=data.objects.image_sizes[:100]))

    def reduction(canvas):
        return canvas.scale * np.sqrt(canvas.factors[0] * canvas.factors[1])

    canvas, choice = canvas_of(lines(25))
    assert reduction(canvas) == pytest.approx(20 / 25)
    assert choice.reason.endswith("; a tenth are narrower than 25")
    assert reduction(canvas_of(lines(75))[0]) < 0.6
    assert "narrower" not in canvas_of(lines(75))[1].reason
    data = lines(25)
    images, objects = (
        replace(data.images, sizes=4 * data.images.sizes),
        replace(data.objects, boxes=2.4 * data.objects.boxes),
    )
    canvas, _ = canvas_of(replace(data, images=images, objects=objects))
    assert (reduction(canvas), canvas.crop) == (pytest.approx(512 / 2000), 0)


def test_images_without_objects_do_not_make_crops_larger_or_tiles_necessary():
    data = make_fingerprint((45,), size=(768, 768), num_images=30, per_image=2)
    mixed = replace(data, objects=replace(data.objects, per_image=(2,) * 30 + (0,) * 100))
    assert choose_tile(mixed, Machine()) == choose_tile(data, Machine()) == 0
    assert canvas_of(mixed)[0] == canvas_of(data)[0]


def test_images_that_are_resized_to_one_height_are_measured_at_that_height():
    data = make_fingerprint((300,), size=(900, 700))
    sizes = np.repeat([[900, 700], [4500, 3500]], [70, 30], axis=0).astype(np.int32)
    scaled = replace(data, images=replace(data.images, sizes=sizes))
    assert canvas_of(scaled)[0].pixels == canvas_of(data)[0].pixels
    assert canvas_of(scaled)[1].value == canvas_of(data)[1].value


def test_a_crop_is_no_higher_than_the_images():
    canvas, choice = canvas_of(make_fingerprint((70,), size=(1600, 256), per_image=3))
    assert choice.value.startswith("crops of 512 x 320, shorter side 192 to 320")
    assert canvas.pixels == pytest.approx(512 * 256, rel=0.01)


def test_images_of_one_magnification_keep_their_size():
    data = make_fingerprint((20,), size=(256, 256), per_image=60)
    sizes = np.repeat([[256, 256], [1024, 1024]], 50, axis=0).astype(np.int32)
    boxes = np.resize(np.repeat([[256.0, 256.0], [1024.0, 1024.0]], 100, axis=0), data.objects.image_sizes.shape)
    data = replace(data, images=replace(data.images, sizes=sizes), objects=replace(data.objects, image_sizes=boxes))
    canvas, choice = canvas_of(data)
    assert (canvas.scale, canvas.train_edge, canvas.val_edge, canvas.crop) == (1, 0, 0, 256)
    assert "one magnification" in choice.reason
    assert choice.settings["dataloader.test.mapper.augmentations"] == []


def short_edge_at_inference(choice):
    (resize,) = choice.settings["dataloader.test.mapper.augmentations"]
    return resize.arguments["short_edge_length"]


def test_photographs_to_validate_on_are_resized_to_the_size_of_the_training():
    train = make_fingerprint((80,), size=(800, 600))
    val = make_fingerprint((160,), size=(1600, 1200), num_images=20)
    canvas, choice = canvas_of(train, val)
    assert canvas.train_edge == canvas.val_edge == 600
    assert short_edge_at_inference(choice) == 608
    assert choice.value.endswith("inference 608")
    assert "in training" not in choice.reason
    boxes = canvas.boxes(train, val)
    assert np.median(boxes[-100:, 2] - boxes[-100:, 0]) == pytest.approx(80)
    canvas, choice = canvas_of(train, make_fingerprint((250,), size=(1600, 1200), num_images=20))
    assert canvas.train_edge == canvas.val_edge == pytest.approx(1200 * 64 / 250)
    assert "; 160 in training, resized alike, hence scales of 0.75 to 1.5" in choice.reason


def test_images_of_one_magnification_are_reduced_alike():
    rng = np.random.default_rng(0)
    train = make_fingerprint(rng.uniform(100, 300, 500), size=(800, 600))
    val = make_fingerprint(rng.uniform(100, 300, 500), size=(1600, 1200))
    canvas, choice = canvas_of(train, val)
    assert canvas.val_edge == 2 * canvas.train_edge
    assert choice.value.endswith(f"inference {short_edge_at_inference(choice)}")
    assert "in training" not in choice.reason


def test_rasters_are_cut_into_tiles_of_the_side_that_the_machine_affords():
    raster = make_fingerprint((40,), size=(20_000, 20_000), num_images=2, per_image=3000)
    assert choose_tile(raster, Machine()) == 512
    assert choose_tile(raster, GPU) == 1024
    assert choose_tile(make_fingerprint((400,), size=(20_000, 20_000), per_image=3000), Machine()) == 3200
    assert choose_tile(make_fingerprint((40,), size=(1600, 1200), per_image=20), Machine()) == 0


def test_few_small_objects_in_large_images_are_tiled_so_that_tiles_have_objects():
    assert choose_tile(make_fingerprint((20,), size=(4000, 3000), per_image=1), Machine()) == 416


def test_a_gpu_sees_more():
    small, _ = canvas_of(make_fingerprint((200,), size=(1600, 1200)))
    large, _ = canvas_of(make_fingerprint((200,), size=(1600, 1200)), machine=GPU)
    assert large.scale > small.scale


def test_no_objects_to_validate_on():
    canvas, _ = canvas_of(make_fingerprint(), make_fingerprint(per_image=0, counts=(0,)))
    assert canvas.scale > 0
