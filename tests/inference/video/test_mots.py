"""KITTI MOTS texts: our reader reads them back, and no two masks of a frame overlap, as the benchmark demands."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools import mask as mask_util

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.kitti_mots import read_kitti_mots
from maskrcnn_ext.inference.video.mots import MOTSWriter
from maskrcnn_ext.inference.video.tracking import Tracker
from maskrcnn_ext.ops.rle_masks import RLEMasks

SIZE = (24, 60)


def rectangle(x0, y0, x1, y1):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def frame(objects):
    """Instances of (mask, score, category)."""
    masks, scores, categories = zip(*objects, strict=True) if objects else ((), (), ())
    rles = [mask_util.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]
    found = Instances(SIZE, pred_masks=RLEMasks(rles, SIZE))
    found.pred_boxes = Boxes(found.pred_masks.boxes())
    found.scores = torch.tensor(scores, dtype=torch.float32)
    found.pred_classes = torch.tensor(categories, dtype=torch.int64)
    return found


@pytest.fixture
def frames(tmp_path):
    """The folder of a sequence of five frames."""
    (tmp_path / "image_02/0007").mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", SIZE[::-1]).save(tmp_path / f"image_02/0007/{number:06d}.png")
    return tmp_path / "image_02"


def test_our_reader_reads_the_tracks_back(tmp_path, frames):
    (tmp_path / "instances_txt").mkdir()
    tracker, expected = Tracker(), []
    with MOTSWriter(tmp_path / "instances_txt/0007.txt", [1, 2]) as writer:
        for number in range(5):
            car = (rectangle(2 + 4 * number, 4, 16 + 4 * number, 12), 0.9, 0)
            walker = (rectangle(50 - number, 2, 55 - number, 20), 0.8, 1)
            objects = [] if number == 3 else [walker, car][:: 1 if number % 2 else -1]
            kept = tracker.update(frame(objects))
            writer.write(number, kept)
            expected.append({(c, i): m for (m, _, c), i in zip(objects, kept.track_ids.tolist(), strict=True)})
    data = read_kitti_mots(tmp_path / "instances_txt", frames)
    assert [record.image_id for record in data.images] == [f"0007/{number:06d}" for number in range(5)]
    for record, objects in zip(data.images, expected, strict=True):
        read = {(a.category, a.id): mask_util.decode(a.segmentation).astype(bool) for a in record.annotations}
        assert read.keys() == objects.keys()
        assert all(np.array_equal(read[key], objects[key]) for key in objects)
    assert expected[0].keys() == expected[1].keys() == expected[4].keys() == {(0, 1), (1, 2)}


def test_a_pixel_belongs_to_the_best_object(tmp_path):
    masks = [rectangle(0, 0, 20, 10), rectangle(10, 0, 30, 10), rectangle(12, 2, 18, 8), rectangle(40, 0, 50, 10)]
    found = frame(list(zip(masks, [0.6, 0.9, 0.5, 0.7], [0, 0, 1, 1], strict=True)))
    found.track_ids = torch.tensor([4, 9, 5, 2])
    with MOTSWriter(tmp_path / "a.txt", [1, 2]) as writer:
        writer.write(12, found)
    rows = [line.split(" ") for line in (tmp_path / "a.txt").read_text().splitlines()]
    assert [row[:5] for row in rows] == [
        ["12", "4", "1", "24", "60"],
        ["12", "9", "1", "24", "60"],
        ["12", "2", "2", "24", "60"],
    ]
    written = [mask_util.decode({"size": list(SIZE), "counts": row[5].encode()}).astype(bool) for row in rows]
    assert np.array_equal(written[0], rectangle(0, 0, 10, 10))
    assert np.array_equal(written[1], masks[1])
    assert np.array_equal(written[2], masks[3])
    assert sum(mask.astype(int) for mask in written).max() == 1


def test_each_frame_is_written_at_once(tmp_path):
    found = frame([(rectangle(0, 0, 5, 5), 0.9, 0)])
    found.track_ids = torch.tensor([1])
    writer = MOTSWriter(tmp_path / "a.txt", [1])
    writer.write(0, found)
    assert (tmp_path / "a.txt").read_text().startswith("0 1 1 24 60 ")
    writer.close()


def test_a_model_without_masks_is_refused(tmp_path):
    found = frame([(rectangle(0, 0, 5, 5), 0.9, 0)])
    found.remove("pred_masks")
    with MOTSWriter(tmp_path / "a.txt", [1]) as writer, pytest.raises(InputError, match="MOTS files need masks"):
        writer.write(0, found)
