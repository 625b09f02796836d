"""DICOM series with their labels: the order of slices, classes of segments, patients, and missing files."""

import json
import shutil
import sys

import numpy as np
import pycocotools.mask as mask_util
import pytest

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.dicom import read_dicom
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.dicts import to_dicts
from tests.helpers.dicom_files import (
    AXIAL,
    COLUMNS,
    ROWS,
    SAGITTAL,
    SLICES,
    assert_has_labels,
    overlapping_frames,
    random_labels,
    write_nrrd,
    write_seg,
    write_series,
)


@pytest.fixture
def labels():
    return random_labels()


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, [0.8, 0.6, 0, 0, 0, 1]], ids=["axial", "sagittal", "oblique"])
def test_slices_are_sorted_by_position(tmp_path, labels, orientation):
    series = write_series(tmp_path / "ct", orientation=orientation)
    data = read_dicom(series, write_nrrd(tmp_path / "l.nrrd", labels, orientation=orientation), classes=["a", "b"])
    assert [record.image_id for record in data.images] == [f"1.2.3.{index}" for index in range(SLICES)]
    assert [record.file_name[-6:] for record in data.images] == ["04.dcm", "03.dcm", "02.dcm", "01.dcm"]
    assert data.images[0].extra == {"level": [40, 400]}
    assert [a.category for a in data.images[0].annotations] == [0, 1]
    assert_has_labels(data, labels)
    assert read_dicom(series, tmp_path / "l.nrrd", level=(50, 350)).images[0].extra == {"level": [50, 350]}


def test_classes_of_segments(tmp_path):
    file = write_seg(tmp_path / "s.dcm", overlapping_frames(), ["liver", "heart"])
    series = write_series(tmp_path / "ct")
    assert read_dicom(series, file, classes=["heart", "liver"]).images[0].annotations[0].category == 0
    assert read_dicom(series, file, values={1: "organ", 2: None}).images[0].annotations == []
    with pytest.raises(InputError, match=r"s\.dcm: segment 2 is 'heart', expected one of liver; or give `values`"):
        read_dicom(series, file, classes=["liver"])
    folder = tmp_path / "labels"
    folder.mkdir()
    shutil.copy(file, folder)
    write_nrrd(folder / "l.nrrd", np.zeros((SLICES, ROWS, COLUMNS), np.int16))
    with pytest.raises(InputError, match="some files name their segments and others do not"):
        read_dicom(series, folder)


def test_pieces_of_a_segment_may_be_objects(tmp_path):
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[1:3, 1:3] = mask[6:8, 9:12] = True
    file = write_seg(tmp_path / "s.dcm", [(1, 1, mask)], ["node"])
    series = write_series(tmp_path / "ct")
    assert [a.box for a in read_dicom(series, file).images[1].annotations] == [(1, 1, 12, 8)]
    apart = read_dicom(series, file, instances="component").images[1].annotations
    assert [a.box for a in apart] == [(1, 1, 3, 3), (9, 6, 12, 8)]


def test_patients_are_folders_of_equal_name(tmp_path, labels):
    (tmp_path / "ct").mkdir()
    (tmp_path / "labels" / "two").mkdir(parents=True)
    for name in ("one", "two"):
        write_series(tmp_path / "ct" / name, uid=f"1.{len(name)}{name == 'one':d}")
    write_nrrd(tmp_path / "labels" / "one.nrrd", labels)
    write_nrrd(tmp_path / "labels" / "two" / "any.nrrd", labels * 0)
    records = get_dataset_dicts(f"dicom:{tmp_path / 'ct'}@{tmp_path / 'labels'}", filter_empty=False)
    assert [len(record["annotations"]) for record in records] == [2] * SLICES + [0] * SLICES
    (tmp_path / "labels" / "one.nrrd").unlink()
    with pytest.raises(InputError, match=r"ct/one: has 0 labels, expected one of .*labels/one\.nrrd"):
        read_dicom(tmp_path / "ct", tmp_path / "labels")


def test_empty_folders_are_named(tmp_path, labels):
    series = write_series(tmp_path / "ct")
    (tmp_path / "empty").mkdir()
    file = write_nrrd(tmp_path / "l.nrrd", labels)
    with pytest.raises(InputError, match="empty: no DICOM images"):
        read_dicom(tmp_path / "empty", file)
    with pytest.raises(InputError, match=r"empty: no file ends with \.nrrd or \.dcm"):
        read_dicom(series, tmp_path / "empty")
    with pytest.raises(InputError, match="expected the folder of a series, not a file"):
        read_dicom(file, file)
    with pytest.raises(InputError, match=r"01\.dcm: not a segmentation, expected a DICOM SEG"):
        read_dicom(series, series)


def test_the_mapper_reads_the_pixels_of_each_slice(tmp_path, labels):
    data = read_dicom(write_series(tmp_path / "ct"), write_nrrd(tmp_path / "l.nrrd", labels))
    for index, record in enumerate(to_dicts(data)):
        del record["level"]
        np.testing.assert_array_equal(read_pixels(record, "L")[:, :, 0], np.full((ROWS, COLUMNS), index))


@pytest.mark.parametrize("library", ["pydicom", "nrrd"])
def test_a_missing_library_is_named(tmp_path, labels, monkeypatch, library):
    series, file = write_series(tmp_path / "ct"), write_nrrd(tmp_path / "l.nrrd", labels)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=r'pip install "maskrcnn_ext\[medical\]"'):
        read_dicom(series, file)


ORGANS = ["liver", "spine", "heart"]


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_ct_equals_its_coco_file(real_data, tmp_path, split):
    folder = real_data / "medical_ct_dicom"
    for organ in ORGANS:
        shutil.copy(folder / f"{organ}_seg.nrrd", tmp_path)
    data = read_dicom(folder / "ct-3slice", tmp_path, classes=ORGANS)
    assert [record.file_name[-6:] for record in data.images] == ["03.dcm", "02.dcm", "01.dcm"]
    theirs = json.loads((folder / f"instances_{split}.json").read_text())
    for image in theirs["images"]:
        record = data.images[int(image["file_name"][-5])]
        expected = {a["category_id"]: a for a in theirs["annotations"] if a["image_id"] == image["id"]}
        assert {a.category + 1 for a in record.annotations} == set(expected)
        for annotation in record.annotations:
            other = expected[annotation.category + 1]
            x0, y0, x1, y1 = annotation.box
            assert [x0, y0, x1 - x0, y1 - y0] == other["bbox"]
            ours, others = (mask_util.decode(one) for one in (annotation.segmentation, other["segmentation"]))
            np.testing.assert_array_equal(ours, others)


def test_all_faults_are_listed_and_the_rest_is_read(tmp_path, labels):
    (tmp_path / "ct").mkdir()
    (tmp_path / "labels").mkdir()
    for name in ("a", "b"):
        write_series(tmp_path / "ct" / name)
        write_nrrd(tmp_path / f"labels/{name}.nrrd", labels)
    (tmp_path / "labels/b.nrrd").write_bytes(b"")
    faults = []
    data = read_dicom(tmp_path / "ct", tmp_path / "labels", classes=["a", "b"], faults=faults)
    assert len(data.images) == SLICES
    assert ["b.nrrd" in fault for fault in faults] == [True]
