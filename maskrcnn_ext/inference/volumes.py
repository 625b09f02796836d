"""Volumes as inputs: each slice of a NIfTI file, a TIFF stack or a DICOM series becomes an image to predict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.files import atomic_path
from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.sources import InputImage

_NIFTI = (".nii", ".nii.gz")
_TIFF = (".tif", ".tiff")
_DICOM = (".dcm", ".dicom")


@dataclass(frozen=True)
class Volume:
    """The slices of one volume.

    Attributes:
        name: name of its outputs.
        file: the file; of a DICOM series, its first file.
        items: its slices, in order.
    """

    name: str
    file: str
    items: list[InputImage]


def find_volumes(items: Sequence[InputImage]) -> list[Volume]:
    """Returns the volumes among images, with one item a slice. Items that are slices already, as those of a data set, are grouped.

    Args:
        items: the inputs: volumes, DICOM files of series (grouped by folder and sorted by position), and slices.

    Raises:
        InputError: an image is no volume, or its header cannot be read.
    """
    volumes: dict[str, Volume] = {}
    series: dict[str, list[InputImage]] = {}
    for item in items:
        record = item.image if isinstance(item.image, dict) else {}
        file = str(record.get("file_name", item.file_name))
        suffix = file.lower()
        if "slice" in record:
            name = "/".join(filter(None, [item.name.rpartition("/")[0], Path(file).name.partition(".")[0]]))
            volumes.setdefault(file, Volume(name, file, [])).items.append(item)
        elif suffix.endswith(_DICOM):
            series.setdefault(str(Path(file).parent), []).append(item)
        else:
            volumes[file] = Volume(item.name.removesuffix(".nii"), file, _slices(item, file))
    found = list(volumes.values())
    for folder, files in series.items():
        name = files[0].name.rpartition("/")[0] or Path(folder).name
        found.append(Volume(name, files[0].file_name, _in_order(folder, files)))
    return found


def renumbered(volumes: Iterable[Volume]) -> list[Volume]:
    """Returns the volumes with image ids that count from 1 through all slices."""
    number = 0
    result = []
    for volume in volumes:
        numbered = [replace(item, image_id=number + index) for index, item in enumerate(volume.items, start=1)]
        number += len(numbered)
        result.append(replace(volume, items=numbered))
    return result


def _slices(item: InputImage, file: str) -> list[InputImage]:
    try:
        if file.lower().endswith(_NIFTI):
            nibabel = require("nibabel", extra="medical", purpose=f"{file}: reading it")
            shape = nibabel.load(file).shape
            count, part = shape[2] if len(shape) > 2 else 0, {"axis": 2}
        elif file.lower().endswith(_TIFF):
            tifffile = require("tifffile", extra="tiff", purpose=f"{file}: reading it")
            with tifffile.TiffFile(file) as tiff:
                shape = tiff.series[0].shape
            count, part = shape[0] if len(shape) > 2 else 0, {}
        else:
            count, part = 0, {}
    except InputError:
        raise
    except Exception as error:  # parsers raise errors of many types for broken files
        raise InputError(f"{file}: not a readable volume ({one_line(error):.200})") from error
    if not count:
        raise InputError(f"{file}: is no volume: --stitch takes NIfTI files, TIFF stacks and DICOM series")
    return [
        InputImage(
            f"{item.key}|{index}",
            f"{item.name.removesuffix('.nii')}/{index:04d}",
            index + 1,
            {"file_name": file, "slice": index, **part},
            f"{item.file_name}@{index}",
        )
        for index in range(count)
    ]


def _in_order(folder: str, files: Sequence[InputImage]) -> list[InputImage]:
    """Returns the slices of a DICOM series in the order of their positions."""
    from maskrcnn_ext.data.formats.dicom_series import read_series

    position = {str(one.file.absolute()): index for index, one in enumerate(read_series(Path(folder)).slices)}
    known = [item for item in files if str(Path(item.file_name).absolute()) in position]
    return sorted(known, key=lambda item: position[str(Path(item.file_name).absolute())])


def write_label_volume(labels: np.ndarray, volume: Volume, target: Path) -> Path:
    """Writes a label map of a volume: NIfTI with the same grid for a NIfTI file, else a TIFF with one page a slice.

    Args:
        labels: (Z, H, W), the number of the object of each voxel, or 0.
        volume: the volume.
        target: the file to write, without its suffix.

    Returns:
        The file.
    """
    labels = labels.astype(np.uint16 if labels.max(initial=0) < 2**16 else np.int32)
    if not volume.file.lower().endswith(_NIFTI):
        tifffile = require("tifffile", extra="tiff", purpose="writing label volumes")
        file = target.parent / f"{target.name}.tif"
        with atomic_path(file) as partial:
            tifffile.imwrite(partial, labels, compression="zlib", photometric="minisblack")
        return file
    nibabel = require("nibabel", extra="medical", purpose="writing label volumes")
    axis = volume.items[0].image.get("axis", 2)
    # A slice is (y, x), the first of the other two axes of the file is x.
    array = np.moveaxis(labels.swapaxes(1, 2), 0, axis)
    source = nibabel.load(volume.file)
    header = source.header.copy()
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    file = target.parent / f"{target.name}.nii.gz"
    with atomic_path(file) as partial:
        # nibabel chooses the format by the whole suffix.
        named = partial.with_name(f"{partial.name}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(array, source.affine, header), named)
        named.replace(partial)
    return file
