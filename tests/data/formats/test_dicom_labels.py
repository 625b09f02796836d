"""NRRD label maps and DICOM segmentations: axes, spaces, overlapping segments, and damaged files."""

import itertools
import shutil

import nrrd
import numpy as np
import pycocotools.mask as mask_util
import pytest
from pydicom.sequence import Sequence

from maskrcnn_ext import InputError
from maskrcnn_ext.data.formats.dicom import read_dicom
from tests.helpers.dicom_files import (
    COLUMNS,
    ROWS,
    SAGITTAL,
    SPACING,
    assert_has_labels,
    overlapping_frames,
    position,
    random_labels,
    write_nrrd,
    write_seg,
    write_series,
)


@pytest.fixture
def labels():
    return random_labels()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(), (0,), (1, 2), (0, 1, 2)])
def test_a_label_map_may_run_along_its_axes_in_any_way(tmp_path, labels, order, flips):
    steps = np.diag([SPACING[1], SPACING[0], 2.5])
    origin = np.array(position(0))
    volume = labels.transpose(2, 1, 0)
    for axis in flips:
        volume = np.flip(volume, axis)
        origin = origin + steps[axis] * (volume.shape[axis] - 1)
        steps[axis] *= -1
    file = tmp_path / "l.nrrd"
    write_nrrd(file, volume.transpose(order), directions=steps[list(order)], origin=origin)
    assert_has_labels(read_dicom(write_series(tmp_path / "ct"), file), labels)


def test_every_space_of_nrrd_is_converted(tmp_path, labels):
    series = write_series(tmp_path / "ct")
    signs = np.array([-1, -1, 1])
    directions = np.diag([SPACING[1], SPACING[0], 2.5]) * signs
    write_nrrd(
        tmp_path / "l.nrrd",
        labels.transpose(2, 1, 0),
        space="right-anterior-superior",
        directions=directions,
        origin=np.array(position(0)) * signs,
    )
    assert_has_labels(read_dicom(series, tmp_path / "l.nrrd"), labels)


def test_a_label_map_on_another_grid_is_refused(tmp_path, labels):
    series = write_series(tmp_path / "ct")
    directions = np.diag([SPACING[1], SPACING[0], 2.5])
    volume = labels.transpose(2, 1, 0)
    for changes in (
        {"origin": np.add(position(0), [0.4, 0, 0])},  # half a pixel
        {"origin": np.array(position(1))},
        {"directions": directions * 1.05},
        {"directions": directions * [1, 1, -1]},
    ):
        write_nrrd(tmp_path / "l.nrrd", volume, **{"directions": directions, **changes})
        with pytest.raises(InputError, match=r"l\.nrrd: its voxels are not the pixels of .*\.dcm"):
            read_dicom(series, tmp_path / "l.nrrd")
    write_nrrd(tmp_path / "l.nrrd", labels[1:])
    with pytest.raises(InputError, match=r"the label map is 13 x 9 x 3, the series in .* 13 x 9 x 4"):
        read_dicom(series, tmp_path / "l.nrrd")
    nrrd.write(str(tmp_path / "l.nrrd"), volume)
    with pytest.raises(InputError, match=r"l\.nrrd: has no position in space"):
        read_dicom(series, tmp_path / "l.nrrd")


def test_segments_of_3d_slicer_have_their_names(tmp_path, labels):
    names = {"Segment0_Name": "liver", "Segment0_LabelValue": "1", "Segment1_Name": "heart", "Segment1_LabelValue": "2"}
    file = write_nrrd(tmp_path / "l.seg.nrrd", labels, **names)
    data = read_dicom(write_series(tmp_path / "ct"), file)
    assert data.classes == ["liver", "heart"]
    assert [a.category for a in data.images[0].annotations] == [0, 1]


@pytest.mark.parametrize(("sources", "positions"), [(True, True), (True, False), (False, True)])
def test_overlapping_segments_stay_whole(tmp_path, sources, positions):
    frames = overlapping_frames()
    file = write_seg(tmp_path / "s.dcm", frames, ["liver", "heart"], sources=sources, positions=positions)
    data = read_dicom(write_series(tmp_path / "ct"), file)
    assert data.classes == ["liver", "heart"]
    assert [[a.category for a in record.annotations] for record in data.images] == [[1], [], [0, 1], []]
    for annotation, (_, _, mask) in zip(data.images[2].annotations, frames, strict=False):
        np.testing.assert_array_equal(mask_util.decode(annotation.segmentation), mask)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SegmentationType": "FRACTIONAL"}, r"a FRACTIONAL segmentation, expected a DICOM SEG of SegmentationType BINARY"),
        ({"uid": "7.7"}, r"frame 1: was drawn on image 7\.7\.2, which is not in"),
        ({"orientation": SAGITTAL}, "frame 1: its pixels do not match those of"),
        ({"sources": False, "positions": False}, "frame 1: has neither a source image nor a position"),
        ({"NumberOfFrames": 2}, "has 2 frames, but positions for 3"),
        ({"SegmentSequence": Sequence([])}, "has no SegmentSequence"),
    ],
)  # fmt: skip
def test_a_segmentation_of_something_else_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_dicom(
            write_series(tmp_path / "ct"), write_seg(tmp_path / "s.dcm", overlapping_frames(), ["a", "b"], **changes)
        )


def test_a_segmentation_of_another_size_is_refused(tmp_path):
    file = write_seg(tmp_path / "s.dcm", [(0, 1, np.ones((ROWS, COLUMNS + 3), bool))], ["a"])
    with pytest.raises(InputError, match="frame 1: its pixels do not match those of"):
        read_dicom(write_series(tmp_path / "ct"), file)


# Without its last bytes, a checksum, a compressed NRRD is still whole.
@pytest.mark.parametrize(
    ("part", "share"),
    [*itertools.product(["nrrd", "seg"], [0.0, 0.1, 0.3, 0.5, 0.7, 0.9]), ("seg", 0.999)],
)
def test_truncated_files_are_named(tmp_path, labels, part, share):
    folder = write_series(tmp_path / "ct")
    files = {"nrrd": tmp_path / "l.nrrd", "seg": tmp_path / "s.dcm"}
    write_nrrd(files["nrrd"], labels)
    write_seg(files["seg"], overlapping_frames(), ["a", "b"])
    content = files[part].read_bytes()
    files[part].write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf"{files[part].name}: "):
        read_dicom(folder, files[part])


@pytest.mark.realdata
def test_a_segmentation_equals_the_label_maps(real_data, tmp_path):
    folder = real_data / "medical_ct_dicom"
    for name in ("liver", "partial_overlaps"):
        maps = tmp_path / name
        maps.mkdir()
        for file in folder.glob(f"{name}[-_]*.nrrd"):
            shutil.copy(file, maps)
        by_map, by_seg = (read_dicom(folder / "ct-3slice", labels) for labels in (maps, folder / f"{name}.dcm"))
        assert len(by_seg.classes) == (1 if name == "liver" else 5)
        for one, other in zip(by_map.images, by_seg.images, strict=True):
            ours, others = ({a.id: a.segmentation for a in record.annotations} for record in (one, other))
            assert ours == others


def test_a_damaged_field_of_a_segmentation_is_named(tmp_path):
    folder = write_series(tmp_path / "ct")
    file = write_seg(tmp_path / "s.dcm", overlapping_frames(), ["a", "b"])
    content = file.read_bytes()
    file.write_bytes(content.replace(b"-100.0", b"-1x0.0", 1))
    with pytest.raises(InputError, match=r"s\.dcm: damaged"):
        read_dicom(folder, file)
