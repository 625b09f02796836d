"""SafeMapper beside Detectron2's: the same on ordinary data, right where the stock one fails, and a limit to what is bad."""

import pickle
from itertools import islice

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetMapper, build_detection_train_loader
from detectron2.data import transforms as T
from detectron2.data.samplers import TrainingSampler
from detectron2.structures import BitMasks, BoxMode, Instances, PolygonMasks
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.mapping.bad_images import TOLERATED, logger
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from maskrcnn_ext.data.mapping.shared_masks import SharedBitMasks
from tests.conftest import ROOT

HEIGHT, WIDTH = 60, 80
FLIP = [0, 2, 1]
AUGMENTATIONS = [
    T.ResizeShortestEdge([50, 90], sample_style="range"),
    T.RandomCrop("relative", (0.7, 0.7)),
    T.RandomFlip(),
]


@pytest.fixture(scope="module")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    return path


def polygon_of(x, y, w=20, h=16):
    return [[x, y, x + w, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h]]


def rle_of(x, y, w=20, h=16, *, compressed=True):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + h, x : x + w] = 1
    if compressed:
        rle = mask_util.encode(np.asfortranarray(mask))
        return {**rle, "counts": rle["counts"].decode()}
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, flat.size]).tolist()}


def mask_of(x, y, w=20, h=16):
    return mask_util.decode(rle_of(x, y, w, h)).astype(bool)


def annotation(x=10, y=10, w=20, h=16, segmentation=None, **rest):
    found = {"bbox": [x, y, w, h], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": 0, **rest}
    return found if segmentation is None else {**found, "segmentation": segmentation}


def record_of(path, *annotations, **rest):
    record = {"file_name": str(path), "image_id": 7, "height": HEIGHT, "width": WIDTH}
    return {**record, "annotations": list(annotations), **rest}


def arguments(**changes):
    return {"augmentations": [], "image_format": "BGR", "use_instance_mask": True, **changes}


def both(record, augmentations=AUGMENTATIONS, seed=0, **changes):
    results = []
    for mapper in (DatasetMapper, SafeMapper):
        np.random.seed(seed)
        results.append(mapper(True, **arguments(augmentations=augmentations, **changes))(record))
    return results


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("mask_format", "kind"), [("polygon", polygon_of), ("bitmask", polygon_of), ("bitmask", rle_of)]
)
@pytest.mark.parametrize("recompute_boxes", [False, True])
def test_ordinary_data_gives_what_the_stock_mapper_gives(image_file, mask_format, kind, recompute_boxes, seed):
    points = [20.0, 20, 2, 30, 22, 2, 0, 0, 0]
    record = record_of(
        image_file,
        annotation(5, 6, segmentation=kind(5, 6), keypoints=points),
        annotation(40, 30, segmentation=kind(40, 30), keypoints=points),
        annotation(1, 1, segmentation=rle_of(1, 1), iscrowd=1, keypoints=points),
        extra="kept",
    )
    changes = {"recompute_boxes": recompute_boxes, "use_keypoint": True, "keypoint_hflip_indices": FLIP}
    stock, ours = both(record, seed=seed, instance_mask_format=mask_format, **changes)
    assert set(stock) == set(ours)
    assert torch.equal(stock["image"], ours["image"])
    assert stock["image"].dtype == ours["image"].dtype == torch.uint8
    a, b = stock["instances"], ours["instances"]
    assert set(a.get_fields()) == set(b.get_fields())
    assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
    assert torch.equal(a.gt_classes, b.gt_classes)
    assert torch.equal(a.gt_keypoints.tensor, b.gt_keypoints.tensor)
    assert isinstance(b.gt_masks, type(a.gt_masks))
    if mask_format == "bitmask":
        assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)
    else:
        for first, second in zip(a.gt_masks, b.gt_masks, strict=True):
            np.testing.assert_array_equal(first, second)


def test_the_record_is_left_as_it_was(image_file):
    record = record_of(image_file, annotation(segmentation=polygon_of(10, 10)), annotation(segmentation=rle_of(10, 10)))
    before = pickle.dumps(record)
    SafeMapper(True, **arguments(augmentations=AUGMENTATIONS))(record)
    assert pickle.dumps(record) == before


FAILURES = {
    "F2, no object": ([], {"recompute_boxes": True}, AttributeError, "gt_masks"),
    "F2, crowd": (
        [annotation(segmentation=rle_of(10, 10), iscrowd=1)],
        {"recompute_boxes": True},
        AttributeError,
        "gt_masks",
    ),
    "F3, later": ([annotation(segmentation=polygon_of(10, 10)), annotation(40, 30)], {}, KeyError, "segmentation"),
    "F4": ([annotation(segmentation=rle_of(10, 10))], {}, ValueError, "mask_format=='polygon'"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_where_the_stock_mapper_fails(image_file, name):
    annotations, changes, error, message = FAILURES[name]
    record = record_of(image_file, *annotations)
    with pytest.raises(error, match=message):
        DatasetMapper(True, **arguments(**changes))(record)
    instances = SafeMapper(True, **arguments(**changes))(record)["instances"]
    count = sum(not a["iscrowd"] for a in annotations)
    assert len(instances) == len(instances.gt_masks) == len(instances.gt_boxes) == count
    assert_masks_fit(instances, recomputed=True)


def test_where_the_stock_mapper_drops_all_masks_silently(image_file):
    """F3: the first annotation has no outline."""
    record = record_of(image_file, annotation(), annotation(40, 30, segmentation=polygon_of(40, 30)))
    stock, ours = both(record, augmentations=[])
    assert not stock["instances"].has("gt_masks")
    assert len(ours["instances"].gt_masks) == 2
    masks = bits(ours["instances"])
    np.testing.assert_array_equal(masks[0], mask_of(10, 10))
    assert 200 <= masks[1].sum() <= 300, "the triangle-cut outline, not the box of 320"


def bits(instances):
    if isinstance(instances.gt_masks, BitMasks):
        return instances.gt_masks.tensor.numpy()
    return BitMasks.from_polygon_masks(instances.gt_masks, *instances.image_size).tensor.numpy()


def assert_masks_fit(instances: Instances, *, recomputed):
    """Each mask is there, and with recomputed boxes no further than a pixel from its box."""
    for mask, box in zip(bits(instances), instances.gt_boxes.tensor.numpy(), strict=True):
        ys, xs = np.nonzero(mask)
        assert len(ys)
        if recomputed:
            np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1.001)


KINDS = [
    lambda x, y: polygon_of(x, y),
    lambda x, y: rle_of(x, y),
    lambda x, y: rle_of(x, y, compressed=False),
    lambda x, y: {**rle_of(x, y), "counts": rle_of(x, y)["counts"].encode()},
    lambda x, y: mask_of(x, y),
    lambda *_: None,
    lambda *_: [],
]


@settings(max_examples=25, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(range(len(KINDS))), max_size=6),
    mask_format=st.sampled_from(["polygon", "bitmask"]),
    seed=st.integers(0, 1000),
)
def test_every_mixture_of_outlines_gives_masks_with_tight_boxes(image_file, kinds, mask_format, seed):
    annotations = [
        annotation(5 + 8 * index, 4 + 6 * index, segmentation=KINDS[kind](5 + 8 * index, 4 + 6 * index))
        for index, kind in enumerate(kinds)
    ]
    np.random.seed(seed)
    mapper = SafeMapper(
        True, **arguments(augmentations=AUGMENTATIONS, instance_mask_format=mask_format, recompute_boxes=True)
    )
    instances = mapper(record_of(image_file, *annotations))["instances"]
    # What a crop leaves of an outline may be less than a pixel: it has no raster.
    visible = [index for index, mask in enumerate(bits(instances)) if mask.any()]
    assert_masks_fit(instances[visible], recomputed=True)
    polygons = mask_format == "polygon" and all(kind in (0, 5, 6) for kind in kinds)
    assert isinstance(instances.gt_masks, PolygonMasks if polygons else BitMasks)


def test_all_kinds_of_an_outline_are_the_same_mask(image_file):
    annotations = [annotation(12, 8, segmentation=kind(12, 8)) for kind in KINDS[1:]]
    mapper = SafeMapper(True, **arguments(augmentations=[T.HFlipTransform(WIDTH)]))
    masks = bits(mapper(record_of(image_file, *annotations))["instances"])
    for mask in masks:
        np.testing.assert_array_equal(mask, mask_of(12, 8)[:, ::-1])


def test_a_polygon_beyond_the_edge_has_the_box_of_what_is_inside(image_file):
    outline = [[-30, 20, 40, 10, 100, 70, 40, 55]]
    mapper = SafeMapper(True, **arguments(recompute_boxes=True))
    instances = mapper(record_of(image_file, annotation(0, 10, 80, 50, segmentation=outline)))["instances"]
    assert isinstance(instances.gt_masks, PolygonMasks)
    assert_masks_fit(instances, recomputed=True)


def test_padding_is_no_object(image_file):
    """Detectron2's main branch pads segmentations with 255 where it crops beyond the image."""
    pad = T.PadTransform(0, 0, 20, 10, WIDTH, HEIGHT, 128, 255)
    mapper = SafeMapper(True, **arguments(augmentations=[pad], recompute_boxes=True))
    instances = mapper(record_of(image_file, annotation(segmentation=rle_of(10, 10))))["instances"]
    assert bits(instances).sum() == mask_of(10, 10).sum()
    assert instances.gt_boxes.tensor.tolist() == [[10, 10, 30, 26]]


BROKEN = {
    "short RLE": {"size": [HEIGHT, WIDTH], "counts": rle_of(10, 10)["counts"][:2]},
    "RLE of another size": {"size": [HEIGHT, WIDTH + 1], "counts": rle_of(10, 10)["counts"]},
    "counts of another size": {"size": [HEIGHT, WIDTH], "counts": [5, 10]},
    "negative counts": {"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]},
    "no counts": {"size": [HEIGHT, WIDTH]},
    "strange letters": {"size": [HEIGHT, WIDTH], "counts": "\u00e4\u00f6"},
    "two points": [[1, 2, 3, 4]],
    "NaN": [[1, 2, 3, float("nan"), 5, 6]],
    "text": [["a", "b", "c", "d", "e", "f"]],
    "number": 5,
    "wrong mask": np.ones((3, 4), np.uint8),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_outline_is_treated_as_missing(image_file, name):
    record = record_of(
        image_file, annotation(40, 30, segmentation=polygon_of(40, 30)), annotation(segmentation=BROKEN[name])
    )
    filled = SafeMapper(True, **arguments())(record)["instances"]
    np.testing.assert_array_equal(bits(filled)[1], mask_of(10, 10))
    assert len(SafeMapper(True, **arguments(missing_masks="drop"))(record)["instances"]) == 1
    with pytest.raises(InputError, match=r"a\.png: image 7, annotation 1: has .*; fix it") as caught:
        SafeMapper(True, **arguments(strict=True))(record)
    assert "\n" not in str(caught.value)


def test_objects_without_keypoints_are_unlabelled(image_file):
    points = [20.0, 20, 2, 30, 22, 2, 40, 30, 1]
    changes = {"use_keypoint": True, "keypoint_hflip_indices": FLIP, "use_instance_mask": False}
    mapper = SafeMapper(True, **arguments(**changes))
    instances = mapper(record_of(image_file, annotation(), annotation(keypoints=points)))["instances"]
    assert instances.gt_keypoints.tensor.tolist() == [[[0.0] * 3] * 3, np.reshape(points, (3, 3)).tolist()]
    assert mapper(record_of(image_file))["instances"].gt_keypoints.tensor.shape == (0, 3, 3)
    assert torch.equal(
        mapper(record_of(image_file, annotation(keypoints=[])))["instances"].gt_keypoints.tensor, torch.zeros(1, 3, 3)
    )
    with pytest.raises(InputError, match=r"a\.png: image 7: keypoints contain NaN"):
        SafeMapper(True, **arguments(strict=True, **changes))(
            record_of(image_file, annotation(keypoints=[float("nan")] * 9))
        )
    with pytest.raises(InputError, match=r"keypoints of different numbers: 2, 3"):
        SafeMapper(True, **arguments(strict=True, **changes))(record_of(image_file, annotation(keypoints=points[:6])))


def test_images_that_are_not_8_bit_colours_are_augmented_as_numbers(tmp_path, image_file):
    values = np.random.default_rng(0).integers(0, 60000, (HEIGHT, WIDTH, 5)).astype(np.uint16)
    np.save(tmp_path / "a.npy", values)
    record = record_of(tmp_path / "a.npy", annotation(segmentation=polygon_of(10, 10)))
    flip = T.HFlipTransform(WIDTH)
    image = SafeMapper(True, **arguments(image_format="raw", augmentations=[flip]))(record)["image"]
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.numpy(), values[:, ::-1].transpose(2, 0, 1))
    resized = SafeMapper(True, **arguments(image_format="raw", augmentations=[T.ResizeShortestEdge(30)]))(record)[
        "image"
    ]
    assert resized.shape == (5, 30, 40)
    # Four channels of 8 bits are no transparency: a channel of zeros at the end takes nothing from the others.
    bytes_ = np.concatenate(
        [np.full((HEIGHT, WIDTH, 3), 200, np.uint8), np.zeros((HEIGHT, WIDTH, 1), np.uint8)], axis=2
    )
    np.save(tmp_path / "a.npy", bytes_)
    image = SafeMapper(True, **arguments(image_format="raw", augmentations=[T.ResizeShortestEdge(30)]))(record)["image"]
    assert image[:3].unique().tolist() == [200]


AUGMENTATIONS_OF_PIXELS = {
    "brightness": T.RandomBrightness(0.9, 0.9),
    "short edge": T.ResizeShortestEdge(30),
    "rotation": T.RandomRotation([30, 30]),
    "fixed size": T.FixedSizeCrop([100, 100], pad_value=-5),
    "scale": T.ResizeScale(0.5, 0.5, HEIGHT, WIDTH),
    "extent of a crop": T.RandomCrop("absolute", (20, 30)),
}


@pytest.mark.parametrize("name", AUGMENTATIONS_OF_PIXELS)
@pytest.mark.parametrize("channels", [1, 3, 6])
def test_deep_images_keep_channels_and_range_in_every_augmentation(tmp_path, name, channels):
    values = np.random.default_rng(0).integers(30000, 60000, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    np.save(tmp_path / "a.npy", values)
    mapper = SafeMapper(
        True, **arguments(image_format="raw", augmentations=[AUGMENTATIONS_OF_PIXELS[name]], strict=True)
    )
    image = mapper(record_of(tmp_path / "a.npy", annotation(segmentation=polygon_of(10, 10))))["image"]
    assert image.shape[0] == channels
    assert image.dtype == torch.float32
    expected = 45000 * (0.9 if name == "brightness" else 1)
    inside = image[image > 20000]  # neither padding nor what a rotation leaves open
    assert inside.numel() >= channels * 20 * 30
    assert abs(float(inside.mean()) - expected) < 1500
    assert float(image.max()) <= 60000
    if name == "fixed size":
        np.testing.assert_array_equal(image[:, :HEIGHT, :WIDTH], values.transpose(2, 0, 1))
        assert (image[:, HEIGHT:] == -5).all()


def test_evaluation_reads_no_annotations_and_refuses_bad_images(image_file, tmp_path):
    mapper = SafeMapper(False, augmentations=[T.ResizeShortestEdge(30)], image_format="BGR")
    mapped = mapper(record_of(image_file, annotation(segmentation=5)))
    assert mapped["image"].shape == (3, 30, 40)
    assert "instances" not in mapped
    assert "annotations" not in mapped
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        mapper(record_of(tmp_path / "gone.png"))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"width": 81}, r"the image is 80 x 60, its annotations are for 81 x 60 .*check-data"),
        ({"annotations": [{"bbox": [1, 2, 3, 4], "category_id": 1}]}, r"image 7, annotation 0: `bbox`, `bbox_mode`"),
        ({"annotations": [annotation(bbox=[1, 2, 3])]}, r"annotation 0: `bbox`"),
        ({"annotations": [annotation(bbox=[1, float("nan"), 3, 4])]}, r"annotation 0: `bbox`.* NaN"),
        ({"annotations": [annotation(bbox=None)]}, r"annotation 0: `bbox`"),
        ({"annotations": [annotation(category_id=None)]}, r"annotation 0: `bbox`"),
    ],
)
def test_a_record_that_cannot_be_used_is_skipped_or_named(image_file, record, message):
    record = {**record_of(image_file), **record}
    mapper = SafeMapper(True, **arguments())
    assert mapper(record) is None
    (reason,) = mapper.bad_images.listed().values()
    with pytest.raises(InputError, match=message) as caught:
        SafeMapper(True, **arguments(strict=True))(record)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instance_mask_format": "rle"}, "expected polygon or bitmask"),
        ({"missing_masks": "ignore"}, "expected box or drop"),
        ({"use_instance_mask": False, "recompute_boxes": True}, "needs use_instance_mask=true"),
        ({"max_bad_share": 2}, "a share from 0 to 1"),
    ],
)
def test_arguments_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        SafeMapper(True, **arguments(**changes))


def make_set(folder, count, bad):
    records = []
    for index in range(count):
        path = folder / f"{index}.png"
        Image.fromarray(np.full((16, 16, 3), index, np.uint8)).save(path)
        if index in bad:
            path.write_bytes(path.read_bytes()[:50])
        records.append({**record_of(path), "image_id": index, "height": 16, "width": 16})
    return records


@pytest.fixture
def told(caplog, monkeypatch):
    """What is logged of bad images, also where another test has set Detectron2's logging up."""
    monkeypatch.setattr(logger, "propagate", False)
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_images_are_skipped_counted_and_named_once(tmp_path, told, num_workers):
    mapper = SafeMapper(True, **arguments(max_bad_share=0.2))
    records = make_set(tmp_path, 20, bad={3, 11})
    loader = iter(build_detection_train_loader(records, mapper=mapper, total_batch_size=2, num_workers=num_workers))
    seen = {int(mapped["image_id"]) for _ in range(40) for mapped in next(loader)}
    assert seen == set(range(20)) - {3, 11}
    assert set(mapper.bad_images.listed()) == {f"{tmp_path}/{index}.png, image {index}" for index in (3, 11)}
    if not num_workers:  # the workers' log is not this process's
        assert sum("skipped a bad image" in message for message in told.messages) == 2
    told.clear()
    del loader, mapper
    (summary,) = told.messages
    assert summary.startswith("bad images that training skipped: 2: ")
    assert f"{tmp_path}/3.png: " in summary
    assert f"{tmp_path}/11.png: " in summary


def loader_with_too_many(folder, mapper, num_workers):
    """A quarter of the images is bad, in an order that gives every worker good ones first."""
    records = make_set(folder, 40, bad=[index for index in range(40) if index % 8 in (2, 3)])
    options = {"total_batch_size": 2, "num_workers": num_workers, "sampler": TrainingSampler(40, shuffle=False)}
    return iter(build_detection_train_loader(records, mapper=mapper, **options))


def test_too_many_bad_images_stop_the_run_with_the_list(tmp_path):
    mapper = SafeMapper(True, **arguments())
    loader = loader_with_too_many(tmp_path, mapper, 0)
    with pytest.raises(
        InputError, match=r"images that this process read are bad, more than max_bad_share=0\.01: fix"
    ) as caught:
        list(islice(loader, 40))
    listed = mapper.bad_images.listed()
    assert len(listed) > TOLERATED
    assert all(reason in str(caught.value) for reason in listed.values())


IN_WORKERS = """
import itertools, multiprocessing, os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.data.mapping.test_mapper import InputError, SafeMapper, arguments, loader_with_too_many

mapper = SafeMapper(True, **arguments())
try:
    list(itertools.islice(loader_with_too_many(pathlib.Path(), mapper, 2), 40))
except InputError as error:
    print(len(mapper.bad_images.listed()), flush=True)
# torch would wait for five seconds for each worker that has raised.
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
for worker in multiprocessing.active_children():
    worker.kill()
os._exit(0)
"""


def test_too_many_bad_images_in_workers_stop_the_run_too(tmp_path, run_python):
    done = run_python("-c", IN_WORKERS, ROOT, env={"TMPDIR": str(tmp_path)})
    count = int(done.stdout)
    assert count > TOLERATED
    named = [line for line in done.stderr.splitlines() if "skipped a bad image" in line]
    assert len(named) == len(set(named)) >= count, "each once, whichever process found it"


AT_EXIT = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from detectron2.utils.logger import setup_logger
setup_logger("log")  # as Detectron2's own script does
from tests.data.mapping.test_mapper import SafeMapper, arguments, make_set

mapper = SafeMapper(True, **arguments())
for record in make_set(pathlib.Path(), 3, bad=[1]):
    mapper(record)
"""


def test_the_summary_is_in_the_log_file_of_a_run_that_ends_with_its_process(tmp_path, run_python):
    done = run_python("-c", AT_EXIT, ROOT)
    assert done.returncode == 0
    assert "Logging error" not in done.stderr
    log = (tmp_path / "log/log.txt").read_text()
    assert log.count("skipped a bad image: 1.png: ") == 1
    assert log.count("bad images that training skipped: 1: 1.png: ") == 1


def test_nothing_but_bad_images_stops_at_once(tmp_path):
    mapper = SafeMapper(True, **arguments(max_bad_share=1))
    records = make_set(tmp_path, 4, bad=range(4))
    assert mapper(records[0]) is None
    assert mapper(records[1]) is None
    with pytest.raises(InputError, match=r"3 of the 3 images"):
        mapper(records[2])


def test_a_share_below_the_limit_never_stops(tmp_path):
    mapper = SafeMapper(True, **arguments(max_bad_share=0.3))
    good, *rest = make_set(tmp_path, 10, bad=range(1, 10))
    for attempt in range(2000):
        mapper(rest[attempt % 9] if attempt % 5 == 1 else good)  # a fifth
    assert len(mapper.bad_images.listed()) == 9


def test_a_copy_in_a_spawned_process_shares_the_list(tmp_path):
    mapper = SafeMapper(True, **arguments())
    copy = pickle.loads(pickle.dumps(mapper))
    assert copy(make_set(tmp_path, 1, bad=[0])[0]) is None
    assert list(mapper.bad_images.listed()) == [f"{tmp_path}/0.png, image 0"]
    del copy
    assert mapper.bad_images.listed(), "the list ends with the process that made it"


def test_polygons_and_bit_masks_of_different_images_make_one_batch(image_file):
    """Detectron2's mask loss and the package's heads crop the masks image by image."""
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.roi_heads import MaskRCNNConvUpsampleHead
    from detectron2.structures import Boxes
    from detectron2.utils.events import EventStorage

    from maskrcnn_ext import FCNMaskHead

    mapper = SafeMapper(True, **arguments())
    batch = [
        mapper(record_of(image_file, annotation(segmentation=segmentation)))["instances"]
        for segmentation in (polygon_of(10, 10), rle_of(10, 10))
    ]
    assert [type(image.gt_masks) for image in batch] == [PolygonMasks, SharedBitMasks]
    for image in batch:
        image.proposal_boxes = Boxes(image.gt_boxes.tensor + 1)
    features = torch.rand(2, 4, 14, 14)
    for head in (MaskRCNNConvUpsampleHead, FCNMaskHead):
        with EventStorage():
            losses = head(ShapeSpec(channels=4, height=14, width=14), num_classes=2, conv_dims=[4, 4])(features, batch)
        assert torch.isfinite(sum(losses.values()))


@pytest.mark.realdata
@pytest.mark.parametrize("folder", ["coco_open", "fruits_nuts", "kudzu_bugs", "nuclei_stardist"])
def test_real_data_keeps_all_objects(real_data, folder):
    records = get_dataset_dicts(
        f"coco:{real_data / folder / 'instances_val.json'}@{real_data / folder}", filter_empty=False
    )
    mapper = SafeMapper(True, **arguments(strict=True, recompute_boxes=True))
    for record in records[:6]:
        instances = mapper(record)["instances"]
        assert len(instances) == sum(not a["iscrowd"] for a in record["annotations"])
        visible = [index for index, mask in enumerate(bits(instances)) if mask.any()]
        assert_masks_fit(instances[visible], recomputed=True)
