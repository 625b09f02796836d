"""Writers: what goes out through one comes back through its reader; nothing appears by halves."""

import json
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskrcnn_ext import InputError
from maskrcnn_ext.cli import main
from maskrcnn_ext.data.formats.label_image import read_label_image
from maskrcnn_ext.data.formats.records import Annotation, DataSet, ImageRecord, box_of_polygons
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.writers import find_writer
from maskrcnn_ext.data.writers.files import common_folder, image_names, staged
from maskrcnn_ext.data.writers.outlines import decode, outlines_of_mask
from maskrcnn_ext.ops.rle import encode_mask, segmentation_to_rle

READ = {"coco": "coco:{0}/annotations.json@{0}/images", "yolo": "yolo:{0}/data.yaml", "labelme": "labelme:{0}"}


def assert_same(before, after, *, lowest=0.99, pixel=1.0):
    """The same images, by stem, and in each the same objects: class, mask, box."""
    stems = {Path(record.file_name).stem: record for record in after.images}
    assert len(after.images) == len(before.images) == len(stems)
    for record in before.images:
        other = stems[Path(record.file_name).stem]
        assert (other.height, other.width) == (record.height, record.width)
        assert Path(other.file_name).read_bytes() == Path(record.file_name).read_bytes()
        ours = [annotation for annotation in record.annotations if not annotation.crowd]
        assert len(other.annotations) == len(ours)
        if not ours:
            continue
        masks = [
            [segmentation_to_rle(a.segmentation, record.height, record.width) for a in side]
            for side in (ours, other.annotations)
        ]
        overlap = mask_util.iou(*masks, [0] * len(ours))
        # Two objects may have one mask, so that the best match alone does not tell which is which.
        for index, annotation in enumerate(ours):
            found = [
                a
                for a, value in zip(other.annotations, overlap[index], strict=True)
                if value >= lowest
                and after.classes[a.category] == before.classes[annotation.category]
                and np.abs(np.subtract(a.box, annotation.box)).max() <= pixel
            ]
            assert found, (record.file_name, annotation.id, overlap[index].max())


@pytest.mark.parametrize("format", READ)
@pytest.mark.parametrize("link", [False, True])
def test_shapes_come_back(shapes, tmp_path, format, link, capsys):
    source, target = f"coco:{shapes}@{shapes.parent / 'images'}", tmp_path / "out"
    assert main(["convert", source, str(target), "--to", format, *(["--link"] if link else [])]) == 0
    assert "8 images" in capsys.readouterr().out
    assert_same(load_dataset(source), load_dataset(READ[format].format(target)), lowest=1.0)
    assert all(file.is_symlink() == link for file in target.rglob("*.jpg"))
    back = tmp_path / "back"
    assert main(["convert", READ[format].format(target), str(back), "--to", "coco"]) == 0
    assert_same(load_dataset(source), load_dataset(READ["coco"].format(back)), lowest=1.0)


@pytest.mark.realdata
@pytest.mark.parametrize("format", READ)
@pytest.mark.parametrize("file", ["coco_open/instances_val.json", "fruits_nuts/instances_val.json"])
def test_real_data_comes_back(real_data, tmp_path, file, format, capsys):
    source, target = f"coco:{real_data / file}@{(real_data / file).parent}", tmp_path / "out"
    assert main(["convert", source, str(target), "--to", format, "--link"]) == 0
    crowds = sum(a.crowd for record in load_dataset(source).images for a in record.annotations)
    assert (f"{crowds} crowds left out" in capsys.readouterr().err) == (crowds > 0 and format != "coco")
    after = load_dataset(READ[format].format(target))
    if format == "coco":
        for record in after.images:
            record.annotations = [a for a in record.annotations if not a.crowd]
    # The outlines' boxes: some of COCO's own are more than a pixel off theirs.
    before = load_dataset(source)
    for record in before.images:
        for annotation in record.annotations:
            if format != "coco" and isinstance(annotation.segmentation, list):
                annotation.box = box_of_polygons(annotation.segmentation, record.height, record.width)
    assert_same(before, after)


def test_coco_keeps_everything(people, tmp_path):
    data = load_dataset(people)
    record = data.images[0]
    mask = np.zeros((record.height, record.width), bool)
    mask[3:9, 4:20] = True
    record.annotations = [
        record.annotations[0],
        Annotation(0, (4, 3, 20, 9), encode_mask(mask), crowd=True),
        Annotation(0, (1.5, 2.5, 7.25, 8)),
    ]
    find_writer("coco")(data, tmp_path / "out", link=False)
    after = load_dataset(READ["coco"].format(tmp_path / "out"))
    for one, other in zip(data.images, after.images, strict=True):
        for a, b in zip(one.annotations, other.annotations, strict=True):
            assert (a.category, a.segmentation, a.crowd) == (b.category, b.segmentation, b.crowd)
            np.testing.assert_allclose(a.box, b.box)
            np.testing.assert_allclose(a.keypoints or [], b.keypoints or [])
    assert (after.keypoints, after.skeleton) == (data.keypoints, data.skeleton)
    content = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    crowd, box = content["annotations"][1:3]
    assert (crowd["iscrowd"], crowd["area"], box["area"]) == (1, 96, pytest.approx(5.75 * 5.5))
    assert content["annotations"][0]["num_keypoints"] == 17


def test_annotations_alone_have_names_below_the_common_folder(shapes, tmp_path, capsys):
    target = tmp_path / "all.json"
    assert main(["convert", f"coco:{shapes}@{shapes.parent / 'images'}", str(target), "--to", "coco"]) == 0
    spec = capsys.readouterr().out.split()[-1]
    assert spec == f"coco:{target}@{shapes.parent / 'images'}"
    assert len(load_dataset(spec).images) == 8
    assert list(tmp_path.iterdir()) == [target]


@settings(max_examples=150, deadline=None)
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=14)))
def test_outlines_enclose_exactly_the_pixels(mask):
    polygons = outlines_of_mask(mask)
    parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    assert len(polygons) == parts
    # By an even-odd rule at the centres of the pixels, which is independent of any rasteriser.
    ys, xs = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    inside = np.zeros(mask.shape, int)
    for polygon in polygons:
        points = np.reshape(polygon, (-1, 2))
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if y0 != y1:
                inside += ((y0 > ys) != (y1 > ys)) & (xs < x0 + (ys - y0) * (x1 - x0) / (y1 - y0))
    np.testing.assert_array_equal(inside % 2 == 1, mask)
    if polygons:
        np.testing.assert_array_equal(decode(polygons, *mask.shape), mask)


def make_set(tmp_path, annotations, *, height=40, width=60, classes=("thing",)):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((height, width, 3), np.uint8))
    return DataSet(list(classes), [ImageRecord(str(tmp_path / "a.png"), "a", height, width, annotations)])


def square(x, y, size, height=40, width=60):
    mask = np.zeros((height, width), bool)
    mask[y : y + size, x : x + size] = True
    return Annotation(0, (x, y, x + size, y + size), encode_mask(mask))


@pytest.mark.parametrize("format", ["yolo", "labelme"])
def test_parts_holes_and_spills_over_the_edge_survive_as_polygons(tmp_path, format):
    mask = np.zeros((40, 60), bool)
    mask[5:25, 5:25] = True
    mask[10:15, 10:20] = False
    mask[30:35, 40:55] = True
    mask[32, 50] = False
    spill = [[-10.0, 30.0, 20.0, 28.0, 20.0, 60.0]]
    rle = mask_util.merge(mask_util.frPyObjects(spill, 40, 60))
    x, y, w, h = mask_util.toBbox(rle)
    annotations = [Annotation(0, (5, 5, 55, 35), encode_mask(mask)), Annotation(0, (x, y, x + w, y + h), spill)]
    data = make_set(tmp_path, annotations)
    assert not find_writer(format)(data, tmp_path / "out", link=False)
    assert_same(data, load_dataset(READ[format].format(tmp_path / "out")), lowest=1.0)


@pytest.mark.parametrize("format", ["yolo", "labelme"])
def test_boxes_alone_come_back_as_boxes(tmp_path, format):
    data = make_set(tmp_path, [Annotation(0, (1.5, 2.0, 10.25, 12.0)), Annotation(0, (0, 0, 60, 40))])
    assert not find_writer(format)(data, tmp_path / "out", link=False)
    after = load_dataset(READ[format].format(tmp_path / "out")).images[0].annotations
    np.testing.assert_allclose([a.box for a in after], [a.box for a in data.images[0].annotations], atol=1e-4)


def test_yolo_counts_what_is_lost(tmp_path):
    keypoints = [1.5, 1.5, 2]
    data = make_set(
        tmp_path,
        [
            Annotation(0, (1, 1, 9, 9), crowd=True),
            Annotation(0, (1, 1, 9, 9), keypoints=keypoints),
            Annotation(0, (70, 1, 90, 9), [[70, 1, 90, 1, 90, 9]]),
            square(5, 5, 10),
        ],
    )
    lost = find_writer("yolo")(data, tmp_path / "out", link=False)
    assert sorted(lost.values()) == [1, 1, 1, 1]
    assert [text.split()[0] for text in sorted(lost)] == ["boxes", "crowds", "keypoints", "objects"]
    assert len(load_dataset(READ["yolo"].format(tmp_path / "out")).images[0].annotations) == 2


def test_label_images_come_back_pixel_by_pixel(tmp_path):
    data = make_set(tmp_path, [square(0, 0, 7), square(20, 5, 11), square(55, 35, 5)])
    assert not find_writer("label_image")(data, tmp_path / "out", link=False)
    labels = cv2.imread(str(tmp_path / "out/labels/a.png"), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint16
    after = read_label_image(tmp_path / "out/labels", tmp_path / "out/images", classes=["thing"])
    assert_same(data, after, lowest=1.0, pixel=0)


def test_label_images_keep_the_classes(tmp_path):
    objects = [square(0, 0, 7), square(20, 5, 11)]
    objects[1].category = 1
    data = make_set(tmp_path, objects)
    data.classes = ["cat", "dog"]
    find_writer("label_image")(data, tmp_path / "out", link=False)
    spec = f"label_image:{tmp_path / 'out/labels'}@{tmp_path / 'out/images'}"
    assert_same(data, load_dataset(spec), lowest=1.0, pixel=0)
    assert load_dataset(spec).classes == ["cat", "dog"]
    file = tmp_path / "out/classes.json"
    for text, message in (
        ('{"classes": ["cat"], "objects": {"a.png": [0, 1]}}', "expected"),
        ('{"classes": ["cat"], "objects": {"a.png": [0]}}', "beyond the 1 that classes.json knows"),
        ("[]", "expected"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            read_label_image(tmp_path / "out/labels", tmp_path / "out/images")


def test_in_a_label_image_the_later_object_wins_and_hidden_ones_leave(tmp_path, capsys):
    hidden, half, last = square(5, 5, 4), square(0, 0, 12), square(6, 6, 20)
    half.category, last.category = 1, 2
    data = make_set(tmp_path, [hidden, half, last], classes=("a", "b", "c"))
    lost = find_writer("label_image")(data, tmp_path / "out", link=False)
    assert lost["objects left out of which later ones leave no pixel"] == 1
    assert lost["pixels that two objects share, which the later one keeps"] == 16 + 36
    labels = cv2.imread(str(tmp_path / "out/labels/a.png"), cv2.IMREAD_UNCHANGED)
    assert (np.unique(labels).tolist(), labels[7, 7], labels[0, 0]) == ([0, 1, 2], 2, 1)
    content = json.loads((tmp_path / "out/classes.json").read_text())
    assert content == {"classes": ["a", "b", "c"], "objects": {"a.png": [1, 2]}}


@settings(max_examples=25, deadline=None)
@given(
    paths=st.sets(st.sampled_from([f"{a}/{b}.{c}" for a in "xyz" for b in "abA" for c in ("jpg", "png")]), min_size=1)
)
def test_names_in_one_folder_are_unique_by_stem(paths):
    data = DataSet(["a"], [ImageRecord(f"/data/{path}", path, 1, 1) for path in sorted(paths)])
    names = image_names(data)
    assert len({Path(name).stem.casefold() for name in names}) == len(paths)
    assert [Path(name).suffix for name in names] == [Path(path).suffix for path in sorted(paths)]
    assert str(common_folder(data)).startswith("/data")


@pytest.mark.parametrize("format", ["coco", "yolo", "labelme", "label_image"])
def test_an_empty_set_and_images_without_objects_can_be_written(tmp_path, format):
    find_writer(format)(DataSet(["a"], []), tmp_path / "none", link=False)
    find_writer(format)(make_set(tmp_path, []), tmp_path / "empty", link=False)
    assert len(list((tmp_path / "empty").rglob("a.png"))) == (2 if format == "label_image" else 1)


@pytest.mark.parametrize("format", ["coco", "yolo", "labelme", "label_image"])
def test_a_missing_image_or_a_slice_is_named(tmp_path, format):
    data = make_set(tmp_path, [])
    data.images[0].extra["slice"] = 3
    with pytest.raises(InputError, match=r"image 'a' is a part of .*a\.png \(slice 3\): save such parts as images"):
        find_writer(format)(data, tmp_path / "out", link=False)
    data.images[0].extra.clear()
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"image 'a': no file .*a\.png"):
        find_writer(format)(data, tmp_path / "out2", link=True)


def test_what_fails_on_the_way_leaves_the_old_one(tmp_path):
    target = tmp_path / "out"
    target.write_text("old")

    def fail():
        with staged(target, overwrite=True) as partial:
            partial.mkdir()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_unknown_writer_is_named():
    with pytest.raises(InputError, match="no writer for 'voc', expected one of coco, yolo, labelme, label_image"):
        find_writer("voc")
