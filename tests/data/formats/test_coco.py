"""The COCO reader returns what Detectron2's returns, names the fault of a broken file, and keeps the memory of workers flat."""

import json
import logging
import os
import random

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.coco import read_coco
from maskrcnn_ext.evaluation.truth import load_truth
from maskrcnn_ext.ops.rle import encode_mask, with_text_counts
from maskrcnn_ext.ops.rle_checks import decode_counts
from tests.helpers.coco_files import HEIGHT, WIDTH, as_text, rle_of, write_coco_file


def assert_same_as_detectron2(file, images):
    spec = f"coco:{file}@{images}"
    ours = get_dataset_dicts(spec, filter_empty=False)
    name = f"detectron2's {file}"
    theirs = load_coco_json(str(file), str(images), name)
    for key in ("thing_classes", "thing_dataset_id_to_contiguous_id"):
        assert MetadataCatalog.get(spec).get(key) == MetadataCatalog.get(name).get(key)
    MetadataCatalog.remove(name)
    assert len(ours) == len(theirs)
    count = 0
    for our, their in zip(ours, theirs, strict=True):
        pairs = list(zip(our.pop("annotations"), their.pop("annotations"), strict=True))
        assert our == their
        for a, b in pairs:
            box = BoxMode.convert(b.pop("bbox"), b.pop("bbox_mode"), BoxMode.XYXY_ABS)
            assert a.pop("bbox_mode") == BoxMode.XYXY_ABS
            np.testing.assert_allclose(a.pop("bbox"), box, rtol=0, atol=1e-4)  # theirs is in 32 bits
            b.setdefault("iscrowd", 0)
            if isinstance(b.get("segmentation"), dict):
                b["segmentation"] = as_text(b["segmentation"])
            assert a == b
            count += 1
    return count


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "images", "count"),
    [
        ("coco_open/annotations/instances_train2017.json", "coco_open/train2017", 498),
        ("coco_open/annotations/instances_val2017.json", "coco_open/val2017", 469),
        ("coco_open/annotations/person_keypoints_val2017.json", "coco_open/val2017", 44),
        ("fruits_nuts/data/trainval.json", "fruits_nuts/data/images", 165),
    ],
)
def test_real_files_read_as_detectron2_reads_them(real_data, file, images, count):
    assert assert_same_as_detectron2(real_data / file, real_data / images) == count


def test_generated_files_read_as_detectron2_reads_them(tmp_path):
    assert assert_same_as_detectron2(write_coco_file(tmp_path), tmp_path) == 7


def test_records_are_in_the_order_of_ids_and_keep_names_and_skeleton(tmp_path):
    data = read_coco(write_coco_file(tmp_path), tmp_path)
    assert [record.image_id for record in data.images] == [0, 3, 7, 12]
    assert (data.classes, data.category_ids) == (["cat", "dog"], [4, 90])
    assert (data.keypoints, data.skeleton) == (["left_ear", "right_ear"], [(0, 1)])
    assert data.images[1].annotations == []
    assert data.images[2].annotations[0].keypoints == [3.5, 4.5, 2, 0.5, 0.5, 0]


def test_an_outline_without_area_is_left_out_with_a_warning(tmp_path, caplog):
    annotation = {"id": 9, "image_id": 0, "category_id": 4, "bbox": [0, 0, 2, 2], "segmentation": [[1, 2, 3, 4]]}
    with caplog.at_level(logging.WARNING):
        data = read_coco(write_coco_file(tmp_path, annotations=[annotation]), tmp_path)
    assert all(not record.annotations for record in data.images)
    assert "left out 1 annotation whose outline has no area, such as id 9" in caplog.text


def test_files_of_other_tools_are_read(tmp_path):
    from PIL import Image

    (tmp_path / "sub").mkdir()
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "sub" / "a.jpg")
    rle = rle_of(np.random.default_rng(0), compressed=True)
    images = [
        {"id": 0, "file_name": "sub\\a.jpg"},  # from Windows, without a size
        {"id": 1, "file_name": "b.jpg", "height": float(HEIGHT), "width": float(WIDTH)},  # through pandas
    ]
    annotations = [
        {"id": 1, "image_id": 0.0, "category_id": 4, "bbox": [0, 0, 2, 2], "segmentation": [[]]},  # boxes alone
        {
            **GOOD,
            "id": 2,
            "image_id": 1,
            "segmentation": {**rle, "size": [float(HEIGHT), float(WIDTH)]},
            "iscrowd": True,
        },
    ]
    file = write_coco_file(tmp_path, images=images, annotations=annotations)
    first, second = read_coco(file, tmp_path).images
    assert (first.file_name, first.height, first.width) == (str(tmp_path / "sub/a.jpg"), HEIGHT, WIDTH)
    assert (first.annotations[0].segmentation, first.annotations[0].box) == (None, (0, 0, 2, 2))
    assert (second.height, second.annotations[0].crowd) == (HEIGHT, True)
    mask_util.decode(second.annotations[0].segmentation)  # refuses a size of floats


@pytest.mark.parametrize("segmentation", [[1, 2, 11, 2, 11, 12], [[1, 2], [11, 2], [11, 12]]])
def test_a_polygon_that_is_nested_otherwise_is_one_polygon(tmp_path, segmentation):
    file = write_coco_file(tmp_path, annotations=[{**GOOD, "segmentation": segmentation}])
    (annotation,) = read_coco(file, tmp_path).images[0].annotations
    assert annotation.segmentation == [[1, 2, 11, 2, 11, 12]]


def test_an_outline_of_many_points_is_not_taken_for_a_far_one(tmp_path):
    outline = np.stack([np.linspace(0, 9000, 2000), np.linspace(0, 8000, 2000)], axis=1).ravel().tolist()
    image = {**IMAGE, "height": 9000, "width": 9000}
    annotation = {**GOOD, "segmentation": [outline]}
    (record,) = read_coco(write_coco_file(tmp_path, images=[image], annotations=[annotation]), tmp_path).images
    assert record.annotations[0].segmentation == [outline]


@pytest.mark.parametrize("change", [{"image_id": "0"}, {"image_id": 0.0}, {"category_id": "4"}, {"category_id": 4.0}])
def test_an_id_of_another_type_finds_its_record(tmp_path, change):
    records = read_coco(write_coco_file(tmp_path, annotations=[{**GOOD, **change}]), tmp_path).images
    assert [each.category for each in records[0].annotations] == [0]


def test_ids_of_text_are_found_by_numbers(tmp_path):
    file = write_coco_file(tmp_path, images=[{**IMAGE, "id": "0"}], annotations=[GOOD])
    assert len(read_coco(file, tmp_path).images[0].annotations) == 1


def test_a_list_of_rles_is_their_union(tmp_path):
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    masks[0, 2:5, 3:9] = masks[1, 10:20, 3:9] = 1
    parts = [with_text_counts(encode_mask(mask)) for mask in masks]
    parts[0] = {"size": [HEIGHT, WIDTH], "counts": decode_counts(parts[0]["counts"]).tolist()}
    file = write_coco_file(tmp_path, annotations=[{**GOOD, "segmentation": parts}])
    (annotation,) = read_coco(file, tmp_path).images[0].annotations
    np.testing.assert_array_equal(mask_util.decode(annotation.segmentation), masks.max(axis=0))


GOOD = {"id": 1, "image_id": 0, "category_id": 4, "bbox": [0, 0, 2, 2]}
IMAGE = {"id": 0, "file_name": "a.jpg", "height": HEIGHT, "width": WIDTH}
ROTATED = {**GOOD, "bbox": [15, 15, 30, 10], "segmentation": [], "attributes": {"rotation": 30.0}}
XYWHA = {**GOOD, "bbox": [30, 20, 30, 10, -30]}  # Detectron2 counts counterclockwise


@pytest.mark.parametrize("annotation", [ROTATED, XYWHA], ids=["CVAT", "XYWHA"])
def test_a_rotated_box_becomes_a_polygon(tmp_path, annotation, caplog):
    file = write_coco_file(tmp_path, annotations=[annotation])
    (found,) = read_coco(file, tmp_path).images[0].annotations
    expected = cv2.boxPoints(((30, 20), (30, 10), 30))
    np.testing.assert_allclose(
        sorted(np.reshape(found.segmentation, (-1, 2)).tolist()), sorted(expected.tolist()), atol=1e-4
    )
    np.testing.assert_allclose(found.box, [*expected.min(axis=0), *expected.max(axis=0)], atol=1e-4)
    assert "1 rotated box became a polygon" in caplog.text
    (true,) = load_truth(str(file)).annotations
    np.testing.assert_allclose(true["bbox"][:2], expected.min(axis=0), atol=1e-4)
    assert true["segmentation"] == found.segmentation


def test_a_rotation_beside_an_outline_is_not_read_again(tmp_path):
    annotation = {**ROTATED, "segmentation": [[15, 15, 45, 15, 45, 25]]}
    (found,) = read_coco(write_coco_file(tmp_path, annotations=[annotation]), tmp_path).images[0].annotations
    assert (found.box, found.segmentation) == ((15, 15, 45, 25), annotation["segmentation"])


def test_keypoints_without_names_are_warned_of(tmp_path, caplog):
    found = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4], "keypoints": [2, 2, 2]}
    content = {"images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 8}], "annotations": [found]}
    for category in ({"id": 1, "name": "cat"}, {"id": 1, "name": "cat", "keypoints": ["nose"]}):
        caplog.clear()
        (tmp_path / "a.json").write_text(json.dumps({**content, "categories": [category]}))
        read_coco(tmp_path / "a.json", tmp_path)
        assert ("objects have keypoints, which no category names" in caplog.text) == ("keypoints" not in category)


def test_crowds_are_objects_by_an_option(tmp_path, caplog):
    file = write_coco_file(tmp_path, annotations=[{**GOOD, "iscrowd": 1}, {**GOOD, "id": 2, "iscrowd": 1}])
    with pytest.raises(InputError, match=r"objects of its 4 images are all crowds .2.* add @crowds:objects"):
        get_dataset_dicts(f"coco:{file}@{tmp_path}")
    assert "all 2 objects are crowds, on which nothing is trained" in caplog.text
    name = f"coco:{file}@{tmp_path}@crowds:objects"
    (record,) = get_dataset_dicts(name)
    assert [each["iscrowd"] for each in record["annotations"]] == [0, 0]
    assert "json_file" not in MetadataCatalog.get(name).as_dict(), "the evaluator counts them as objects, too"
    with pytest.raises(InputError, match="`crowds` is 'all', expected ignore or objects"):
        read_coco(file, tmp_path, crowds="all")


def test_the_chosen_classes_are_read_in_their_order(tmp_path):
    file = write_coco_file(tmp_path)
    whole, part = read_coco(file, tmp_path), read_coco(file, tmp_path, only=["dog", "cat"])
    assert (whole.classes, whole.category_ids) == (["cat", "dog"], [4, 90])
    assert (part.classes, part.category_ids) == (["dog", "cat"], [90, 4])
    pairs = zip(whole.images, part.images, strict=True)
    assert all([1 - a.category for a in x.annotations] == [a.category for a in y.annotations] for x, y in pairs)
    cats = read_coco(file, tmp_path, only=["cat"])
    assert sum(len(record.annotations) for record in cats.images) == sum(
        annotation.category == 0 for record in whole.images for annotation in record.annotations
    )
    with pytest.raises(InputError, match="`only` names the class 'cat' twice"):
        read_coco(file, tmp_path, only=["cat", "cat"])
    with pytest.raises(InputError, match="`only` names the class 'cats': did you mean cat"):
        read_coco(file, tmp_path, only=["cats"])


def test_the_placeholder_class_of_roboflow_gives_a_warning_with_the_option(tmp_path, caplog):
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}]
    categories += [{"id": number, "name": name, "supercategory": "pets"} for number, name in ((4, "cat"), (5, "dog"))]
    file = write_coco_file(tmp_path, annotations=[GOOD], categories=categories)
    assert read_coco(file, tmp_path).classes == ["pets", "cat", "dog"]
    assert "class 'pets' has no object and is the supercategory of all others" in caplog.text
    assert "add @only:cat,dog" in caplog.text
    caplog.clear()
    data = read_coco(file, tmp_path, only=["cat", "dog"])
    assert (data.classes, data.images[0].annotations[0].category) == (["cat", "dog"], 0)
    read_coco(write_coco_file(tmp_path, annotations=[{**GOOD, "category_id": 0}], categories=categories), tmp_path)
    assert not caplog.text, "the class has an object"


def test_empty_files_are_data_sets_without_images(tmp_path):
    data = read_coco(write_coco_file(tmp_path, images=[], annotations=[], categories=[]), tmp_path)
    assert (data.images, data.classes) == ([], [])


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [0, 0, 2]}, r"annotation 1 has the `bbox` \[0, 0, 2\], expected \[x, y, width, height\]"),
        ({"bbox": [0, 0, -2, 2]}, "width and height of at least 0"),
        ({"bbox": [0, 0, NAN, 2]}, "`bbox`"),
        ({"bbox": [INFINITY, 0, 2, 2]}, "`bbox`"),
        ({"bbox": ["1", "2", "3", "4"]}, "`bbox`"),
        ({"bbox": [[], [], 2, 2]}, "`bbox`"),
        ({"bbox": {"x": 1, "y": 2, "w": 3, "h": 4}}, "`bbox`"),
        ({"bbox": None}, "has no `bbox`"),
        ({"image_id": 5}, "annotation 1 refers to image 5, which is missing"),
        ({"image_id": [5]}, r"`image_id` \[5\], expected a number"),
        ({"category_id": 1}, "annotation 1 refers to category 1, which is missing"),
        ({"id": 77}, "annotation 77 has an `id` that another annotation has"),
        ({"ignore": 1}, "`ignore`.*use `iscrowd`"),
        ({"segmentation": [1, 2, 3, 4, 5]}, "neither a list of polygons"),
        ({"segmentation": [["1", "2", "3", "4", "5", "6"]]}, "neither a list of polygons"),
        ({"segmentation": [[1, 2, 3, 4, 5, NAN]]}, "`segmentation`: nan is far outside"),
        ({"segmentation": [[[1, 2], [3, 4], [5, 6], [1, 1], [2, 2], [3, 3]]]}, "neither a list of polygons"),
        ({"segmentation": "polygon"}, "neither a list of polygons"),
        ({"segmentation": [{"size": [1, 1], "counts": "1"}]}, r"RLE of size \[1, 1\], but its image is 40 x 60"),
        ({"segmentation": {"size": [WIDTH, HEIGHT], "counts": "1"}}, "RLE of size .*but its image is 40 x 60"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1, 2]}}, "add up to 3, not to its 40 x 60 pixels"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": [3000, -600]}}, "not all whole numbers of at least 0"),
        ({"segmentation": {"size": [HEIGHT, WIDTH], "counts": ["2400"]}}, "not all whole numbers of at least 0"),
        ({"segmentation": {"size": [HEIGHT, WIDTH]}}, "of type NoneType, expected a list or a text"),
        (
            {"segmentation": {"size": [HEIGHT, WIDTH], "counts": "no RLE"}},
            "annotation 1 has an RLE whose `counts` are broken: no RLE has the character ' '",
        ),
        ({"segmentation": [[1, 2, 3, 4, 5, 1e9]]}, r"`segmentation`: 1e\+09 is far outside of the image of 60 x 40"),
        ({"segmentation": [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]]}, "neither a list of polygons"),
        ({"bbox": [10**400, 0, 2, 2]}, "`bbox`"),
        ({"iscrowd": "0"}, "the `iscrowd` '0', expected 0 or 1"),
        ({"keypoints": [10**400, 2, 2, 1, 2, 1]}, "`keypoints` that are not 6 numbers"),
        ({"keypoints": [1, 2, 2]}, "`keypoints` that are not 6 numbers"),
        ({"keypoints": [1, 2, 2, None, 2, 1]}, "`keypoints` that are not 6 numbers"),
        ({"keypoints": "left"}, "`keypoints` that are not 6 numbers"),
    ],
)
def test_a_broken_annotation_is_named(tmp_path, change, message):
    file = write_coco_file(tmp_path, annotations=[{**GOOD, "id": 77}, {**GOOD, **change}])
    with pytest.raises(InputError, match=message) as caught:
        read_coco(file, tmp_path)
    assert str(caught.value).startswith(f"{file}: annotation ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", GOOD)
def test_a_missing_field_of_an_annotation_is_named(tmp_path, field):
    broken = {key: value for key, value in GOOD.items() if key != field}
    where = "entry 1 of `annotations`" if field == "id" else "annotation 1"
    with pytest.raises(InputError, match=f"{where} has no `{field}`"):
        read_coco(write_coco_file(tmp_path, annotations=[{**GOOD, "id": 77}, broken]), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {}}, "not a COCO annotation file"),
        ({"annotations": {"1": GOOD}}, "`annotations` is a dict, expected a list"),
        ({"annotations": [GOOD, "x"]}, "entry 1 of `annotations` is a str, expected a mapping"),
        ({"images": [IMAGE, IMAGE]}, "two images have the id 0"),
        ({"images": [IMAGE, {**IMAGE, "id": "0"}]}, "the ids of `images` are of different types"),
        ({"images": [{**IMAGE, "file_name": "../a.jpg"}]}, "image 0: file name '../a.jpg' leads out of"),
        ({"images": [{**IMAGE, "file_name": "/a.jpg"}]}, "leads out of"),
        ({"images": [{**IMAGE, "file_name": None}]}, "image 0: `file_name` is None"),
        ({"images": [{**IMAGE, "height": "40"}]}, "image 0: `height` is '40', expected a whole number"),
        ({"images": [{**IMAGE, "width": 0}]}, "image 0: `width` is 0"),
        (
            {"images": [{"id": 0, "file_name": "a.jpg", "width": 1}]},
            "image 0: `height` is None, expected a whole number",
        ),
        ({"images": ["a.jpg"]}, "image has no `id`"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "two categories have the id 1"),
        ({"categories": [{"id": 1}]}, "category 1 has no `name`"),
        ({"categories": [{"id": 1, "name": None}]}, "category 1: `name` is None, expected a text"),
        ({"images": [{**IMAGE, "id": [0]}], "annotations": []}, r"image has the `id` \[0\], expected a number"),
        ({"images": [{**IMAGE, "id": None}], "annotations": []}, "image has the `id` None, expected a number"),
        ({"images": [{**IMAGE, "file_name": "..\\a.jpg"}]}, "leads out of"),
        ({"images": [{**IMAGE, "file_name": "C:\\a.jpg"}]}, "leads out of"),
        ({"images": [{**IMAGE, "height": 40.5}]}, "image 0: `height` is 40.5"),
        ({"images": [{"id": 0, "file_name": "a.jpg"}]}, "image 0 has no `height` and `width`: cannot read image"),
        ({"categories": [{"id": 1, "name": "a", "keypoints": ["b"], "skeleton": [1]}]}, "`skeleton` that is not"),
        (
            {"categories": [{"id": 1, "name": "a", "keypoints": 17}]},
            "category 1 has the `keypoints` 17, expected a list of names",
        ),
        (
            {"categories": [{"id": 1, "name": "a", "keypoints": "tip"}]},
            "category 1 has the `keypoints` 'tip', expected a list",
        ),
    ],
)
def test_a_broken_file_is_named(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_coco(write_coco_file(tmp_path, **changes), tmp_path)


def test_a_truncated_file_is_named(tmp_path):
    file = write_coco_file(tmp_path)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"coco\.json: not a JSON file"):
        read_coco(file, tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_coco(tmp_path, tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 100) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(field=st.sampled_from([*GOOD, "segmentation", "keypoints", "iscrowd", "ignore"]), value=json_values)
def test_any_value_of_a_field_is_read_or_reported(tmp_path_factory, field, value):
    folder = tmp_path_factory.mktemp("coco")
    file = write_coco_file(folder, annotations=[{**GOOD, field: value}])
    try:
        data = read_coco(file, folder)
    except InputError as error:
        assert str(error).startswith(f"{file}: ")  # noqa: PT017
    else:
        for record in data.images:
            for annotation in record.annotations:
                assert np.isfinite(annotation.box).all()
                if annotation.segmentation is not None:
                    as_rles = annotation.segmentation
                    if isinstance(as_rles, list):
                        as_rles = mask_util.frPyObjects(as_rles, HEIGHT, WIDTH)
                    mask_util.decode(as_rles)


def test_garbage_collection_is_enabled_after_reading(tmp_path):
    import gc

    read_coco(write_coco_file(tmp_path), tmp_path)
    assert gc.isenabled()
    with pytest.raises(InputError):
        read_coco(write_coco_file(tmp_path, images=[IMAGE, IMAGE]), tmp_path)
    assert gc.isenabled()


class Touch:
    """Takes what a mapper takes from a record, and now and then the memory that is the process's own, in bytes."""

    def __call__(self, record):
        import psutil

        points = sum(len(polygon) for a in record["annotations"] for polygon in a["segmentation"])
        own = psutil.Process().memory_full_info().uss if record["image_id"] % 1000 in (0, 999) else None
        return points, os.getpid(), own


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="needs Linux's account of shared memory")  # noqa: PTH110
def test_the_memory_of_workers_stays_flat(tmp_path, monkeypatch):
    """Detectron2's DatasetFromList keeps records as one array: reading them in a forked worker copies nothing."""
    import torch.utils.data
    from detectron2.data import DatasetFromList, MapDataset

    monkeypatch.setenv("MASKRCNN_EXT_CACHE", "off")  # the home folder is not the tests'
    rng = random.Random(0)
    count = 20_000
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 480, "width": 640} for i in range(count)]
    outline = [round(rng.uniform(0, 480), 2) for _ in range(60)]
    annotations = [
        {
            "id": i,
            "image_id": i % count,
            "category_id": 1,
            "bbox": [0, 0, 9, 9],
            "segmentation": [[i % 480, *outline[1:]]],
        }
        for i in range(5 * count)
    ]
    categories = [{"id": 1, "name": "thing"}]
    file = tmp_path / "many.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    spec = f"coco:{file}@{tmp_path}"
    dataset = MapDataset(DatasetFromList(get_dataset_dicts(spec), copy=False), Touch())
    size = file.stat().st_size
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=500, num_workers=2, persistent_workers=True, collate_fn=list, multiprocessing_context="fork"
    )
    memory = {}
    for _ in range(3):
        for batch in loader:
            for points, process, own in batch:
                assert points == 300
                if own is not None:
                    memory.setdefault(process, []).append(own)
    assert len(memory) == 2
    for own in memory.values():
        assert len(own) > 50
        growth = max(own) - own[0]
        assert growth < 16e6 < size / 3, f"a worker grew by {growth / 1e6:.0f} MB, the file has {size / 1e6:.0f} MB"
    DatasetCatalog.remove(spec)
    MetadataCatalog.remove(spec)


def test_images_are_found_by_the_last_parts_of_their_names_and_in_any_case(tmp_path, caplog):
    names = ["old/images/a.jpg", "B.JPG", "gone.jpg", "c.jpg"]
    images = [{"id": index, "file_name": name, "height": 8, "width": 8} for index, name in enumerate(names)]
    content = {"images": images, "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "images").mkdir()
    for name in "abc":
        (tmp_path / f"images/{name}.jpg").write_bytes(b"")
    found = [record.file_name for record in read_coco(tmp_path / "a.json", tmp_path / "images").images]
    assert found == [str(tmp_path / "images" / name) for name in ("a.jpg", "b.jpg", "gone.jpg", "c.jpg")]
    assert "2 images are missing and found under a similar name, such as old/images/a.jpg: " in caplog.text
    # Images of other records are not taken, and a folder below may have the only image of a name.
    (tmp_path / "images/c.jpg").unlink()
    (tmp_path / "images/gone.jpg").write_bytes(b"")
    (tmp_path / "images/later").mkdir()
    (tmp_path / "images/later/c.png").write_bytes(b"")
    content["images"].append({"id": 8, "file_name": "gone.png", "height": 8, "width": 8})
    (tmp_path / "a.json").write_text(json.dumps(content))
    found = [record.file_name for record in read_coco(tmp_path / "a.json", tmp_path / "images").images]
    assert found[2:] == [str(tmp_path / "images" / name) for name in ("gone.jpg", "later/c.png", "gone.png")]
    content["images"].append({"id": 9, "file_name": "new/a.jpg", "height": 8, "width": 8})
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"found under similar names: .*images/a\.jpg occurs twice"):
        read_coco(tmp_path / "a.json", tmp_path / "images")
