"""Volumes become slices in order, and their label maps have the grid of the volume."""

import nibabel
import numpy as np
import pytest
import tifffile

from maskrcnn_ext import InputError
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.inference.sources import InputImage, find_inputs
from maskrcnn_ext.inference.volumes import find_volumes, renumbered, write_label_volume
from tests.helpers.dicom_files import SLICES, write_series


def test_slices_of_nifti_files_and_stacks_are_items(tmp_path):
    voxels = np.arange(4 * 5 * 3, dtype=np.int16).reshape(4, 5, 3)
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([0.5, 2, 3, 1])), tmp_path / "a.nii.gz")
    tifffile.imwrite(tmp_path / "b.tif", voxels.transpose(2, 1, 0), photometric="minisblack")
    items = find_inputs([str(tmp_path / "a.nii.gz"), str(tmp_path / "b.tif")]).items
    volumes = renumbered(find_volumes(items))
    assert [(volume.name, len(volume.items)) for volume in volumes] == [("a", 3), ("b", 3)]
    assert [item.image_id for volume in volumes for item in volume.items] == [1, 2, 3, 4, 5, 6]
    assert len({item.key for volume in volumes for item in volume.items}) == 6
    for volume in volumes:
        for index, item in enumerate(volume.items):
            np.testing.assert_array_equal(read_pixels(item.image, "raw")[:, :, 0], voxels[:, :, index].T)


def test_dicom_series_are_sorted_by_position(tmp_path):
    write_series(tmp_path / "ct")
    (volume,) = find_volumes(find_inputs([str(tmp_path / "ct")]).items)
    names = [item.file_name for item in volume.items]
    assert len(names) == SLICES
    assert names == sorted(names, reverse=True)  # the files are named in the opposite order


def test_slices_of_a_data_set_are_grouped_by_file(tmp_path):
    def item(number, file, index):
        return InputImage(str(number), f"{file}/{index}", number, {"file_name": file, "slice": index, "axis": 1}, file)

    volumes = find_volumes([item(4, "a.nii", 0), item(9, "b.nii", 0), item(5, "a.nii", 1)])
    assert [[one.image_id for one in volume.items] for volume in volumes] == [[4, 5], [9]]
    names = ["s/x", "s/x_2", "s/y"]
    items = [InputImage(name, name, 1, {"file_name": f"/d/{name[:3]}.nii", "slice": 0}, name) for name in names]
    assert [volume.name for volume in find_volumes(items)] == ["s/x", "s/y"]


def test_photographs_and_broken_files_are_named(tmp_path):
    for name, message in [("a.png", "is no volume"), ("a.nii", "not a readable volume"), ("a.tif", "not a readable")]:
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(InputError, match=f"{name}: {message}"):
            find_volumes(find_inputs([str(tmp_path / name)]).items)
    tifffile.imwrite(tmp_path / "flat.tif", np.zeros((4, 5), np.uint8))
    with pytest.raises(InputError, match=r"flat.tif: is no volume"):
        find_volumes(find_inputs([str(tmp_path / "flat.tif")]).items)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_label_maps_have_the_grid_of_their_volume(tmp_path, axis):
    affine = np.array([[0.5, 0, 0, 1], [0, -2, 0.1, 2], [0, 0, 3, 3], [0, 0, 0, 1]])
    file = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).normal(size=(4, 5, 6)), affine), file)
    truth = np.zeros((4, 5, 6), np.int32)
    truth[1:3, 2:4, 3:6] = 7
    planes = np.stack([np.take(truth, index, axis).T for index in range(truth.shape[axis])])
    (volume,) = find_volumes([InputImage("k", "a", 1, {"file_name": str(file), "slice": 0, "axis": axis}, "a")])
    written = nibabel.load(write_label_volume(planes, volume, tmp_path / "out"))
    np.testing.assert_array_equal(np.asarray(written.dataobj), truth)
    np.testing.assert_allclose(written.affine, affine)
    assert written.get_data_dtype() == np.uint16


def test_other_label_maps_are_tiff_stacks(tmp_path):
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((3, 4, 5), np.uint8), photometric="minisblack")
    (volume,) = find_volumes(find_inputs([str(tmp_path / "b.tif")]).items)
    labels = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
    file = write_label_volume(labels, volume, tmp_path / "out")
    np.testing.assert_array_equal(tifffile.imread(file), labels)
    assert tifffile.imread(write_label_volume(labels + 2**16, volume, tmp_path / "out")).dtype == np.int32
