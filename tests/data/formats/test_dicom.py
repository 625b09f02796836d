"""DICOM series with NRRD label maps and DICOM segmentations: the order of slices, grids, overlaps, and broken files."""

import itertools
import json
import shutil
import sys

import nrrd
import numpy as np
import pycocotools.mask as mask_util
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pack_bits
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage, generate_uid

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.dicom import read_dicom
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.dicts import to_dicts

ROWS, COLUMNS, SLICES = 9, 13, 4
SPACING = [0.5, 0.8]  # between rows, between columns
SAGITTAL = [0, 1, 0, 0, 0, -1]
AXIAL = [1, 0, 0, 0, 1, 0]


def dataset(storage, **fields):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = storage
    meta.MediaStorageSOPInstanceUID = fields.get("SOPInstanceUID") or generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID = storage
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    for name, value in fields.items():
        setattr(data, name, value)
    return data


def position(index, orientation=AXIAL):
    normal = np.cross(orientation[:3], orientation[3:])
    return [float(v) for v in np.array([-100.0, -90.0, 40.0]) + 2.5 * index * normal]


def write_series(folder, *, uid="1.2.3", orientation=AXIAL, slices=SLICES, **fields):
    """Slice k is in the file of the (slices - k)th name; its SOPInstanceUID ends with k."""
    folder.mkdir(exist_ok=True)
    for index in range(slices):
        image = dataset(
            CTImageStorage,
            SOPInstanceUID=f"{uid}.{index}",
            SeriesInstanceUID=uid,
            Modality="CT",
            ImagePositionPatient=position(index, orientation),
            ImageOrientationPatient=orientation,
            PixelSpacing=SPACING,
            Rows=ROWS,
            Columns=COLUMNS,
            BitsAllocated=16,
            BitsStored=16,
            HighBit=15,
            PixelRepresentation=1,
            SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2",
            WindowCenter=[40, 500],
            WindowWidth=[400, 2000],
        )
        for name, value in fields.items():
            setattr(image, name, value)
        image.PixelData = np.full((ROWS, COLUMNS), index, np.int16).tobytes()
        image.save_as(folder / f"{slices - index:02d}.dcm", enforce_file_format=True)
    return folder


def item(**fields):
    data = Dataset()
    for name, value in fields.items():
        setattr(data, name, value)
    return Sequence([data])


def write_seg(file, frames, names, *, uid="1.2.3", orientation=AXIAL, sources=True, positions=True, **fields):
    """``frames``: (slice, segment, mask) each."""
    groups = []
    for index, segment, _ in frames:
        group = item(SegmentIdentificationSequence=item(ReferencedSegmentNumber=segment))[0]
        if positions:
            group.PlanePositionSequence = item(ImagePositionPatient=position(index, orientation))
        if sources:
            source = item(ReferencedSOPInstanceUID=f"{uid}.{index}", ReferencedSOPClassUID=CTImageStorage)
            group.DerivationImageSequence = item(SourceImageSequence=source)
        groups.append(group)
    segments = [item(SegmentNumber=number, SegmentLabel=name)[0] for number, name in enumerate(names, start=1)]
    shared = item(
        PlaneOrientationSequence=item(ImageOrientationPatient=orientation),
        PixelMeasuresSequence=item(PixelSpacing=SPACING),
    )
    rows, columns = frames[0][2].shape
    data = dataset(
        SegmentationStorage,
        SeriesInstanceUID="9.9",
        Modality="SEG",
        SegmentationType="BINARY",
        SegmentSequence=Sequence(segments),
        SharedFunctionalGroupsSequence=shared,
        PerFrameFunctionalGroupsSequence=Sequence(groups),
        NumberOfFrames=len(frames),
        Rows=rows,
        Columns=columns,
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelRepresentation=0,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
    )
    for name, value in fields.items():
        setattr(data, name, value)
    data.PixelData = pack_bits(np.stack([mask for _, _, mask in frames]).astype(np.uint8).ravel())
    data.save_as(file, enforce_file_format=True)
    return file


def write_nrrd(
    file, volume, *, orientation=AXIAL, space="left-posterior-superior", directions=None, origin=None, **fields
):
    """``volume`` (slices, rows, columns) is stored as (columns, rows, slices) unless ``directions`` say otherwise."""
    normal = np.cross(orientation[:3], orientation[3:])
    if directions is None:
        directions = np.stack(
            [np.array(orientation[:3]) * SPACING[1], np.array(orientation[3:]) * SPACING[0], normal * 2.5]
        )
        volume = volume.transpose(2, 1, 0)
    header = {
        "space": space,
        "space directions": np.array(directions, float),
        "space origin": np.array(position(0, orientation) if origin is None else origin, float),
        **fields,
    }
    nrrd.write(str(file), volume, header)
    return file


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 3, (SLICES, ROWS, COLUMNS)).astype(np.int16)


def label_map(record):
    """The values of a record's annotations, as (rows, columns)."""
    found = np.zeros((record.height, record.width), int)
    for annotation in record.annotations:
        found += annotation.id * mask_util.decode(annotation.segmentation)
    return found


def assert_equal(data, labels):
    np.testing.assert_array_equal([label_map(record) for record in data.images], labels)


@pytest.mark.parametrize("orientation", [AXIAL, SAGITTAL, [0.8, 0.6, 0, 0, 0, 1]], ids=["axial", "sagittal", "oblique"])
def test_slices_are_sorted_by_position(tmp_path, labels, orientation):
    series = write_series(tmp_path / "ct", orientation=orientation)
    data = read_dicom(series, write_nrrd(tmp_path / "l.nrrd", labels, orientation=orientation), classes=["a", "b"])
    assert [record.image_id for record in data.images] == [f"1.2.3.{index}" for index in range(SLICES)]
    assert [record.file_name[-6:] for record in data.images] == ["04.dcm", "03.dcm", "02.dcm", "01.dcm"]
    assert data.images[0].extra == {"level": [40, 400]}
    assert [a.category for a in data.images[0].annotations] == [0, 1]
    assert_equal(data, labels)
    assert read_dicom(series, tmp_path / "l.nrrd", level=(50, 350)).images[0].extra == {"level": [50, 350]}


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
    assert_equal(read_dicom(write_series(tmp_path / "ct"), file), labels)


def test_the_spaces_of_nrrd_are_told_apart(tmp_path, labels):
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
    assert_equal(read_dicom(series, tmp_path / "l.nrrd"), labels)


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


def test_segments_of_3d_slicer_bring_their_names(tmp_path, labels):
    names = {"Segment0_Name": "liver", "Segment0_LabelValue": "1", "Segment1_Name": "heart", "Segment1_LabelValue": "2"}
    file = write_nrrd(tmp_path / "l.seg.nrrd", labels, **names)
    data = read_dicom(write_series(tmp_path / "ct"), file)
    assert data.classes == ["liver", "heart"]
    assert [a.category for a in data.images[0].annotations] == [0, 1]


def overlapping():
    first, second = np.zeros((2, ROWS, COLUMNS), bool)
    first[1:6, 1:6] = True
    second[4:8, 4:11] = True
    return [(2, 1, first), (2, 2, second), (0, 2, second)]


@pytest.mark.parametrize(("sources", "positions"), [(True, True), (True, False), (False, True)])
def test_overlapping_segments_stay_whole(tmp_path, sources, positions):
    frames = overlapping()
    file = write_seg(tmp_path / "s.dcm", frames, ["liver", "heart"], sources=sources, positions=positions)
    data = read_dicom(write_series(tmp_path / "ct"), file)
    assert data.classes == ["liver", "heart"]
    assert [[a.category for a in record.annotations] for record in data.images] == [[1], [], [0, 1], []]
    for annotation, (_, _, mask) in zip(data.images[2].annotations, frames, strict=False):
        np.testing.assert_array_equal(mask_util.decode(annotation.segmentation), mask)


def test_classes_of_segments(tmp_path):
    file = write_seg(tmp_path / "s.dcm", overlapping(), ["liver", "heart"])
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
        read_dicom(write_series(tmp_path / "ct"), write_seg(tmp_path / "s.dcm", overlapping(), ["a", "b"], **changes))


def test_a_segmentation_of_another_size_is_refused(tmp_path):
    file = write_seg(tmp_path / "s.dcm", [(0, 1, np.ones((ROWS, COLUMNS + 3), bool))], ["a"])
    with pytest.raises(InputError, match="frame 1: its pixels do not match those of"):
        read_dicom(write_series(tmp_path / "ct"), file)


def test_mixed_series_are_told_and_chosen(tmp_path, labels):
    file = write_nrrd(tmp_path / "l.nrrd", labels)
    folder = write_series(tmp_path / "ct")
    other = write_series(tmp_path / "other", uid="4.5", slices=2)
    for path in other.iterdir():
        shutil.copy(path, folder / f"scout_{path.name}")
    with pytest.raises(InputError, match=r"several series; choose one by `series_uid`: 1\.2\.3 \(4 images\), 4\.5 \(2"):
        read_dicom(folder, file)
    assert_equal(read_dicom(folder, file, series_uid="1.2.3"), labels)
    with pytest.raises(InputError, match=r"no series 6\.6; choose"):
        read_dicom(folder, file, series_uid="6.6")


def test_what_is_not_an_image_is_passed_over(tmp_path, labels):
    folder = write_series(tmp_path / "ct")
    (folder / "README").write_text("text")
    write_seg(folder / "seg.dcm", overlapping(), ["a", "b"])
    assert_equal(read_dicom(folder, write_nrrd(tmp_path / "l.nrrd", labels)), labels)


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


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (
            2,
            {"ImagePositionPatient": position(1)},
            r"02\.dcm: has the position of 03\.dcm|03\.dcm: has the position of",
        ),
        (1, {"PixelSpacing": [0.5, 0.5]}, r"PixelSpacing is \[0\.5, 0\.5\], but \[0\.5, 0\.8\] in 01\.dcm"),
        (1, {"ImageOrientationPatient": SAGITTAL}, "ImageOrientationPatient is"),
        (1, {"ImagePositionPatient": None}, r"03\.dcm: has no ImagePositionPatient"),
        (3, {"PixelSpacing": None}, r"01\.dcm: has no PixelSpacing"),
        (0, {"NumberOfFrames": 3}, r"04\.dcm: has 3 frames"),
    ],
)
def test_a_slice_that_does_not_fit_is_named(tmp_path, labels, index, changes, message):
    folder = write_series(tmp_path / "ct")
    file = folder / f"{SLICES - index:02d}.dcm"
    image = pydicom.dcmread(file)
    for name, value in changes.items():
        setattr(image, name, value)
    image.save_as(file)
    with pytest.raises(InputError, match=message):
        read_dicom(folder, write_nrrd(tmp_path / "l.nrrd", labels))


# Without its last bytes, a checksum, a compressed NRRD is still whole.
@pytest.mark.parametrize(
    ("part", "share"),
    [*itertools.product(["slice", "nrrd", "seg"], [0.0, 0.1, 0.3, 0.5, 0.7, 0.9]), ("slice", 0.999), ("seg", 0.999)],
)
def test_truncated_files_are_named(tmp_path, labels, part, share):
    folder = write_series(tmp_path / "ct")
    files = {"slice": folder / "02.dcm", "nrrd": tmp_path / "l.nrrd", "seg": tmp_path / "s.dcm"}
    write_nrrd(files["nrrd"], labels)
    write_seg(files["seg"], overlapping(), ["a", "b"])
    content = files[part].read_bytes()
    files[part].write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf"{files[part].name}: "):
        read_dicom(folder, files["seg" if part == "seg" else "nrrd"])


def test_windows_that_show_nothing_are_not_taken_over(tmp_path, labels):
    series = write_series(tmp_path / "ct", WindowCenter=0, WindowWidth=0)
    assert read_dicom(series, write_nrrd(tmp_path / "l.nrrd", labels)).images[0].extra == {}


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
def test_the_ct_is_what_its_coco_file_says(real_data, tmp_path, split):
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


@pytest.mark.realdata
def test_a_segmentation_is_what_the_label_maps_say(real_data, tmp_path):
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


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"-100.0", b"-1x0.0", "ImagePositionPatient is damaged"),
        (b"0.5\\0.8 ", b"0.5     ", r"PixelSpacing is .*but|PixelSpacing is .*expected 2 numbers"),
        (b"0.5\\0.8", b"nan\\0.8", "PixelSpacing is .*expected numbers"),
        (b"40.0\\500.0", b"4?.0\\500.0", "WindowCenter is damaged"),
        (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0", "truncated or damaged"),
    ],
)
def test_a_damaged_field_is_named(tmp_path, labels, old, new, message):
    folder = write_series(tmp_path / "ct")
    content = (folder / "02.dcm").read_bytes()
    assert old in content
    (folder / "02.dcm").write_bytes(content.replace(old, new, 1))
    with pytest.raises(InputError, match=rf"0[24]\.dcm: .*{message}|{message}") as caught:
        read_dicom(folder, write_nrrd(tmp_path / "l.nrrd", labels))
    assert "\n" not in str(caught.value)


def test_a_damaged_field_of_a_segmentation_is_named(tmp_path):
    folder = write_series(tmp_path / "ct")
    file = write_seg(tmp_path / "s.dcm", overlapping(), ["a", "b"])
    content = file.read_bytes()
    file.write_bytes(content.replace(b"-100.0", b"-1x0.0", 1))
    with pytest.raises(InputError, match=r"s\.dcm: damaged"):
        read_dicom(folder, file)


def test_a_file_of_many_frames_is_told_before_what_it_lacks(tmp_path, labels):
    """In an enhanced CT, position and orientation are in sequences."""
    folder = write_series(tmp_path / "ct", NumberOfFrames=7, ImageOrientationPatient=None, slices=1)
    with pytest.raises(InputError, match=r"01\.dcm: has 7 frames, expected one file a slice"):
        read_dicom(folder, write_nrrd(tmp_path / "l.nrrd", labels))
