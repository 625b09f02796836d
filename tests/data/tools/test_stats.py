"""Pixel statistics against NumPy on all pixels at once, and the overrides against a model."""

import numpy as np
import pytest
from detectron2.config import LazyConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.data.tools.stats import overrides, pixel_statistics, sample_records
from tests.helpers.image_files import save_images


@settings(max_examples=20, deadline=None)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    channels=st.integers(1, 6),
    dtype=st.sampled_from(["uint8", "uint16", "int16", "float32"]),
    offset=st.sampled_from([0, 100]),
)
def test_they_are_those_of_all_pixels_at_once(tmp_path_factory, shapes, channels, dtype, offset):
    rng = np.random.default_rng(len(shapes))
    images = [(rng.random((*shape, channels)) * 100 + offset).astype(dtype) for shape in shapes]
    found = pixel_statistics(save_images(tmp_path_factory.mktemp("a"), images), "raw")
    pixels = np.concatenate([image.reshape(-1, channels) for image in images]).astype(np.float64)
    np.testing.assert_allclose(found.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal([found.minimum, found.maximum], [pixels.min(0), pixels.max(0)])
    assert found.dtypes == {dtype: len(images)}
    assert found.heights == (min(h for h, _ in shapes), max(h for h, _ in shapes))
    assert found.widths == (min(w for _, w in shapes), max(w for _, w in shapes))


def test_large_values_with_small_spread_keep_their_deviation(tmp_path):
    image = np.where(np.indices((200, 200)).sum(0) % 2, 60001, 59999).astype(np.uint16)
    found = pixel_statistics(save_images(tmp_path, [image] * 3), "raw")
    assert found.mean.tolist() == [60000]
    assert found.std.tolist() == [1]


def test_the_sample_depends_on_the_seed(tmp_path):
    records = [{"file_name": str(index)} for index in range(50)]
    sample = sample_records(records, 10, seed=3)
    assert sample == sample_records(records, 10, seed=3) != sample_records(records, 10, seed=4)
    assert len({record["file_name"] for record in sample}) == 10
    assert sample_records(records, 0, 0) == sample_records(records, 90, 0) == records


def test_bad_images_are_listed_and_other_channels_refused(tmp_path):
    good, bad, other = save_images(tmp_path, [np.ones((2, 2, 3)), np.ones((2, 2, 3)), np.ones((2, 2, 4))])
    (tmp_path / "1.npy").write_bytes(b"")
    found = pixel_statistics([bad, good], "raw")
    assert found.num_images == 1
    (reason,) = found.bad
    assert "1.npy" in reason
    with pytest.raises(InputError, match=r"2\.npy: has 4 channels, but .*0\.npy has 3"):
        pixel_statistics([good, other], "raw")
    with pytest.raises(InputError, match=r"no image could be read: .*1\.npy"):
        pixel_statistics([bad], "raw")
    with pytest.raises(InputError, match="no images"):
        pixel_statistics([], "raw")


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_the_printed_overrides_make_a_model_of_these_channels(tmp_path, channels):
    import torch
    from detectron2.config import instantiate

    images = [np.random.default_rng(0).integers(0, 60000, (32, 48, channels)).astype(np.uint16)]
    records = save_images(tmp_path, images)
    line = overrides(pixel_statistics(records, "raw"), "raw", pretrained=True)
    cfg = get_config("mask_rcnn_r18_fpn_scratch.py")
    cfg = LazyConfig.apply_overrides(cfg, [*line.split(), "model.vis_period=1"])
    cfg.dataloader.train.mapper.augmentations = []
    model = instantiate(cfg.model)
    mapper = instantiate(cfg.dataloader.train.mapper)
    box = {"bbox": [4, 4, 20, 20], "bbox_mode": 0, "category_id": 0}
    mapped = mapper({**records[0], "annotations": [box]})
    assert mapped["image"].shape == (channels, 32, 48)
    normalised = model.preprocess_image([mapped]).tensor[:, :, :32, :48]
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(channels), atol=0.1, rtol=0)
    torch.testing.assert_close(normalised.std((0, 2, 3)), torch.full((channels,), 57.7), atol=0.5, rtol=0)

    from detectron2.utils.events import EventStorage

    with EventStorage() as storage:
        losses = model([mapped])
    assert all(torch.isfinite(loss) for loss in losses.values())
    ((_, picture, _),) = [v for v in storage._vis_data if "GT bounding boxes" in v[0]]
    assert picture.shape[0] == 3, "the picture of training is drawn"


def test_records_that_only_our_mapper_reads_get_it(tmp_path):
    (record,) = save_images(tmp_path, [np.zeros((4, 4, 3), np.uint8)])
    (photo,) = save_images(tmp_path, [np.zeros((4, 4, 3), np.uint8)], "png")
    window = {**photo, "window": [0, 0, 2, 2]}
    lines = [overrides(pixel_statistics([r], "BGR"), "BGR", pretrained=False) for r in (record, window, photo)]
    assert ["SafeMapper" in line for line in lines] == [True, True, False]
