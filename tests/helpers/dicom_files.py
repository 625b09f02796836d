"""Writes small DICOM series, DICOM segmentations and NRRD label maps."""

import nrrd
import numpy as np
import pycocotools.mask as mask_util
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pack_bits
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, SegmentationStorage, generate_uid

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


def label_map(record):
    """The values of a record's annotations, as (rows, columns)."""
    found = np.zeros((record.height, record.width), int)
    for annotation in record.annotations:
        found += annotation.id * mask_util.decode(annotation.segmentation)
    return found


def assert_has_labels(data, labels):
    np.testing.assert_array_equal([label_map(record) for record in data.images], labels)


def overlapping_frames():
    first, second = np.zeros((2, ROWS, COLUMNS), bool)
    first[1:6, 1:6] = True
    second[4:8, 4:11] = True
    return [(2, 1, first), (2, 2, second), (0, 2, second)]


def random_labels():
    """Returns label values (slices, rows, columns) from 0 to 2."""
    return np.random.default_rng(0).integers(0, 3, (SLICES, ROWS, COLUMNS)).astype(np.int16)
