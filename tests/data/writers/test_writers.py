"""All writers: a written data set is read back unchanged, and errors leave no partial output."""

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.cli import main
from maskrcnn_ext.data.formats.polygons import box_of_polygons
from maskrcnn_ext.data.formats.records import DataSet
from maskrcnn_ext.data.registry.catalog import load_dataset
from maskrcnn_ext.data.writers import find_writer
from tests.helpers.written_sets import READ, assert_same, make_set


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


@pytest.mark.parametrize("format", ["coco", "yolo", "labelme", "label_image"])
def test_an_empty_set_and_images_without_objects_can_be_written(tmp_path, format):
    find_writer(format)(DataSet(["a"], []), tmp_path / "none", link=False)
    find_writer(format)(make_set(tmp_path, []), tmp_path / "empty", link=False)
    assert len(list((tmp_path / "empty").rglob("a.png"))) == (2 if format == "label_image" else 1)


@pytest.mark.parametrize("format", ["coco", "yolo", "labelme", "label_image"])
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
