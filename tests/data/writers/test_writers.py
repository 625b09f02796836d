"""All writers: a written data set is read back unchanged, and errors leave no partial output."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskrcnn_ext import InputError
from maskrcnn_ext.cli import main
from maskrcnn_ext.data.formats.cvat import read_cvat
from maskrcnn_ext.data.formats.label_studio import read_label_studio
from maskrcnn_ext.data.formats.polygons import box_of_polygons
from maskrcnn_ext.data.formats.records import Annotation, DataSet
from maskrcnn_ext.data.formats.supervisely import read_supervisely
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.writers import WRITERS, find_writer
from maskrcnn_ext.data.writers.outlines import decode
from maskrcnn_ext.ops.rle import encode_mask
from tests.helpers.written_sets import READ, assert_same, make_set, square

READERS = {
    "cvat": lambda folder: read_cvat(folder / "annotations.xml"),
    "label_studio": lambda folder: read_label_studio(folder / "tasks.json", folder / "images", predictions=True),
    "supervisely": lambda folder: read_supervisely(folder),
}
coordinates = st.floats(0, 1).map(lambda value: value * 40)
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)


@pytest.mark.parametrize("format", READ)
@pytest.mark.parametrize("link", [False, True])
def test_shapes_are_restored(shapes, tmp_path, format, link, capsys):
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
def test_real_data_is_restored(real_data, tmp_path, file, format, capsys):
    source, target = f"coco:{real_data / file}@{(real_data / file).parent}", tmp_path / "out"
    assert main(["convert", source, str(target), "--to", format, "--link"]) == 0
    crowds = sum(a.crowd for record in load_dataset(source).images for a in record.annotations)
    assert ("crowds left out" in capsys.readouterr().err) == (crowds > 0 and format not in ("coco", "cvat"))
    after = load_dataset(READ[format].format(target))
    if format in ("coco", "cvat"):
        for record in after.images:
            record.annotations = [a for a in record.annotations if not a.crowd]
    # The outlines' boxes: some of COCO's own are more than a pixel off theirs.
    before = load_dataset(source)
    for record in before.images:
        for annotation in record.annotations:
            if format != "coco" and isinstance(annotation.segmentation, list):
                annotation.box = box_of_polygons(annotation.segmentation, record.height, record.width)
    assert_same(before, after)


@pytest.mark.parametrize("format", WRITERS)
def test_an_empty_set_and_images_without_objects_can_be_written(tmp_path, format):
    find_writer(format)(DataSet(["a"], []), tmp_path / "none", link=False)
    find_writer(format)(make_set(tmp_path, []), tmp_path / "empty", link=False)
    assert len(list((tmp_path / "empty").rglob("a.png"))) == (2 if format in ("label_image", "coco_panoptic") else 1)


@pytest.mark.parametrize("format", WRITERS)
def test_a_missing_image_or_a_slice_is_named(tmp_path, format):
    data = make_set(tmp_path, [])
    data.images[0].extra["slice"] = 3
    with pytest.raises(InputError, match=r"image 'a' is part of .*a\.png \(slice 3\): save such parts as images"):
        find_writer(format)(data, tmp_path / "out", link=False)
    data.images[0].extra.clear()
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"image 'a': no file .*a\.png"):
        find_writer(format)(data, tmp_path / "out2", link=True)


def test_an_unknown_writer_is_named():
    with pytest.raises(InputError, match="no writer for 'voc', expected one of coco, yolo, labelme, label_image"):
        find_writer("voc")


@pytest.mark.parametrize("format", READERS)
@settings(max_examples=25, deadline=None)
@given(mask=arrays(bool, (40, 60), fill=st.just(False)), points=polygons)
def test_any_mask_polygon_and_box_is_restored(format, mask, points, tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    mask[3, 7] = True
    polygon = [value for point in points for value in point]
    mask_object = Annotation(1, (0, 0, 60, 40), encode_mask(mask))
    outlined = Annotation(0, (0, 0, 40, 40), [polygon])
    box = Annotation(1, (1.25, 2, 30.5, 39.75))
    data = make_set(folder, [mask_object, outlined, box], classes=("a & <b>", "Käfer"))
    assert not find_writer(format)(data, folder / "out", link=True)
    after = READERS[format](folder / "out")
    (record,) = after.images
    names = [after.classes[each.category] for each in record.annotations]
    by_kind = {type(each.segmentation): (name, each) for name, each in zip(names, record.annotations, strict=True)}
    assert {kind: name for kind, (name, _) in by_kind.items()} == {dict: "Käfer", list: "a & <b>", type(None): "Käfer"}
    np.testing.assert_array_equal(decode(by_kind[dict][1].segmentation, 40, 60), mask)
    np.testing.assert_allclose(by_kind[list][1].segmentation[0], polygon, atol=1e-8)
    np.testing.assert_allclose(by_kind[type(None)][1].box, box.box, atol=1e-8)


@pytest.mark.parametrize("format", ["cvat", "label_studio", "supervisely", "geojson", "coco_panoptic"])
def test_contents_that_a_format_cannot_express_are_counted(tmp_path, format):
    crowd = Annotation(0, (1, 1, 9, 9), square(1, 1, 8).segmentation, crowd=True)
    outside = Annotation(0, (70, 1, 90, 9), [[70, 1, 90, 1, 90, 9]])
    kept = Annotation(0, (11, 1, 19, 9), square(11, 1, 8).segmentation, keypoints=[1.5, 1.5, 2])
    data = make_set(tmp_path, [crowd, outside, kept], classes=("thing", "other"))
    lost = find_writer(format)(data, tmp_path / "out", link=False)
    keeps_crowds = format in ("cvat", "coco_panoptic")
    expected = ["keypoints", "objects"] if keeps_crowds else ["crowds", "keypoints", "objects"]
    assert [text.split()[0] for text in sorted(lost)] == expected
    assert set(lost.values()) == {1}
