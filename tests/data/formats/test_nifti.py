"""NIfTI volumes and label maps: slices along each axis, classes of values, and errors for broken files."""

import gzip
import json
import sys

import nibabel
import numpy as np
import pycocotools.mask as mask_util
import pytest

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.nifti import read_nifti
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.registry.dicts import to_dicts

AFFINE = np.array([[0, 0, 1.5, -78], [-1.5, 0, 0, -135], [0, -1.5, 0, -34], [0, 0, 0, 1]])
SHAPE = (6, 5, 4)


def write(file, array, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(array, affine), file)
    return file


@pytest.fixture
def volume(tmp_path):
    return write(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16))


@pytest.fixture
def labels():
    array = np.zeros(SHAPE, np.uint8)
    array[1:3, 1:3, 1] = 1
    array[4:6, 3:5, 1] = 1
    array[0, 0, 1:3] = 2
    return array


def masks(record):
    return [(a.id, mask_util.decode(a.segmentation).astype(bool)) for a in record.annotations]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_slice_along_an_axis_is_a_record(volume, labels, tmp_path, axis):
    records = read_nifti(volume, write(tmp_path / "l.nii", labels), axis=axis).images
    assert [record.extra for record in records] == [{"axis": axis, "slice": index} for index in range(SHAPE[axis])]
    assert [record.image_id for record in records] == [f"a_{index}" for index in range(SHAPE[axis])]
    for index, record in enumerate(records):
        plane = labels.take(index, axis).T
        assert (record.height, record.width) == plane.shape
        found = masks(record)
        assert [value for value, _ in found] == sorted(set(np.unique(plane)) - {0})
        for value, mask in found:
            np.testing.assert_array_equal(mask, plane == value)
        for annotation in record.annotations:
            ys, xs = np.nonzero(plane == annotation.id)
            assert annotation.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_pieces_are_one_object_or_several(volume, labels, tmp_path):
    file = write(tmp_path / "l.nii", labels)
    together = read_nifti(volume, file, classes=["a", "b"]).images[1]
    assert [a.category for a in together.annotations] == [0, 1]
    apart = read_nifti(volume, file, classes=["a", "b"], instances="component").images[1]
    assert [(a.category, a.box) for a in apart.annotations] == [
        (0, (1, 1, 3, 3)),
        (0, (4, 3, 6, 5)),
        (1, (0, 0, 1, 1)),
    ]


def test_values_name_their_classes(volume, labels, tmp_path):
    file = write(tmp_path / "l.nii", labels)
    assert read_nifti(volume, file).classes == ["object"]
    data = read_nifti(volume, file, values={"1": "bone", 2: None})
    assert data.classes == ["bone"]
    assert [len(record.annotations) for record in data.images] == [0, 1, 0, 0]
    data = read_nifti(volume, file, classes=["disc", "bone"], values={1: "bone", 2: "bone"})
    assert [a.category for a in data.images[1].annotations] == [1, 1]
    with pytest.raises(InputError, match=r"l\.nii: slice 1: label value 2 has no class \(those with one: 1\)"):
        read_nifti(volume, file, values={1: "bone"})


def test_options_are_checked(volume, labels, tmp_path):
    file = write(tmp_path / "l.nii", labels)
    assert read_nifti(volume, file, level=(50, 400)).images[0].extra["level"] == [50, 400]
    for options, message in (
        ({"axis": 3}, "`axis` is 3"),
        ({"instances": "pixel"}, "`instances` is 'pixel'"),
        ({"level": (50, 0)}, "`level` has the width 0"),
    ):
        with pytest.raises(InputError, match=message):
            read_nifti(volume, file, **options)


def test_folders_are_paired_by_name(labels, tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for name, suffix in (("b", "nii"), ("a", "nii.gz")):
        write(tmp_path / "images" / f"{name}.{suffix}", np.zeros(SHAPE, np.float32))
        write(tmp_path / "labels" / f"{name}.nii.gz", labels)
    records = get_dataset_dicts(f"nifti:{tmp_path / 'images'}@{tmp_path / 'labels'}", filter_empty=False)
    assert [record["image_id"] for record in records] == [f"{name}_{index}" for name in "ab" for index in range(4)]
    assert records[5]["slice"] == 1
    assert len(records[5]["annotations"]) == 2
    write(tmp_path / "images" / "c.nii", np.zeros(SHAPE, np.float32))
    with pytest.raises(InputError, match=r"c\.nii: has no labels, expected .*labels/c\.nii\.gz or \.nii"):
        read_nifti(tmp_path / "images", tmp_path / "labels")
    write(tmp_path / "images" / "a.nii", np.zeros(SHAPE, np.float32))
    with pytest.raises(InputError, match=r"a\.nii and a\.nii\.gz have the same name"):
        read_nifti(tmp_path / "images", tmp_path / "labels")


def test_channels_share_a_label_map_and_labels_may_be_floats(labels, tmp_path):
    volume = write(tmp_path / "a.nii", np.zeros((*SHAPE, 3), np.float32))
    records = read_nifti(volume, write(tmp_path / "l.nii", labels[..., None].astype(np.float32))).images
    assert [len(record.annotations) for record in records] == [0, 2, 1, 0]


def test_a_label_map_on_another_grid_is_refused(volume, labels, tmp_path):
    with pytest.raises(InputError, match=r"the label map is 6 x 5 x 3, its volume .* is 6 x 5 x 4"):
        read_nifti(volume, write(tmp_path / "l.nii", labels[:, :, 1:]))
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.1  # mm: less than a tenth of a voxel, as rounding makes it
    assert read_nifti(volume, write(tmp_path / "l.nii", labels, shifted)).images
    flipped = AFFINE @ np.diag([-1, 1, 1, 1])
    for other in (AFFINE + np.array([[0, 0, 0, 1.5]] * 3 + [[0] * 4]), flipped, np.diag([1.5, 1.5, 1.5, 1])):
        with pytest.raises(
            InputError, match=r"l\.nii: the affine of the label map differs from that of its volume a\.nii\.gz"
        ):
            read_nifti(volume, write(tmp_path / "l.nii", labels, other))


def test_values_of_an_image_are_not_labels(volume, tmp_path):
    with pytest.raises(InputError, match=r"label value 0\.5 is not a whole number"):
        read_nifti(volume, write(tmp_path / "l.nii", np.full(SHAPE, 0.5, np.float32)))
    with pytest.raises(InputError, match="label value nan is not a whole number"):
        read_nifti(volume, write(tmp_path / "l.nii", np.full(SHAPE, np.nan, np.float32)))
    with pytest.raises(InputError, match="is negative; is this an image"):
        read_nifti(volume, volume)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("part", ["image", "labels"])
def test_truncated_files_are_named(tmp_path, name, share, part):
    noise = np.random.default_rng(0).integers(0, 3, (16, 16, 16)).astype(np.uint8)
    files = {"image": write(tmp_path / name, noise), "labels": write(tmp_path / f"l{name[1:]}", noise)}
    content = files[part].read_bytes()
    files[part].write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match=rf"{files[part].name}: "):
        read_nifti(files["image"], files["labels"])


def test_a_gzip_file_of_several_members_is_whole(labels, tmp_path):
    plain = write(tmp_path / "a.nii", np.zeros(SHAPE, np.int16)).read_bytes()
    file = tmp_path / "b.nii.gz"
    file.write_bytes(gzip.compress(plain[:500]) + gzip.compress(plain[500:]))
    assert len(read_nifti(file, write(tmp_path / "l.nii", labels)).images) == 4


def test_other_files_are_named(volume, tmp_path):
    (tmp_path / "l.nii").write_text("text" * 200)
    with pytest.raises(InputError, match=r"l\.nii: not a readable NIfTI file"):
        read_nifti(volume, tmp_path / "l.nii")
    with pytest.raises(InputError, match="expected two files or two folders"):
        read_nifti(volume, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no file ends with \.nii\.gz or \.nii"):
        read_nifti(tmp_path / "empty", tmp_path / "empty")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_mapper_reads_the_pixels_under_the_labels(tmp_path, labels, axis):
    volume = write(tmp_path / "a.nii.gz", labels.astype(np.int16) * 100)
    for record in to_dicts(read_nifti(volume, write(tmp_path / "l.nii", labels), axis=axis)):
        found = sum(100 * v * mask_util.decode(a["segmentation"]) for v, a in enumerate(record["annotations"], start=1))
        image = read_pixels(record, "L")[:, :, 0]
        assert image.shape == (record["height"], record["width"])
        np.testing.assert_array_equal(image > 0, np.zeros(image.shape) + found > 0)


def test_a_missing_library_is_named(volume, monkeypatch):
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r'pip install "maskrcnn_ext\[medical\]"'):
        read_nifti(volume, volume)


@pytest.mark.realdata
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_spine_equals_its_coco_file(real_data, split):
    folder = real_data / "medical_spine_nifti"
    values = {
        base + number: name
        for base, name in ((0, "vertebra"), (100, "disc"), (200, "endplate"))
        for number in range(1, 26)
    }
    ours = {}
    for short, image in (("ct", "sample_ct/sub-ct_label-22_ct"), ("mr", "sample_mri/sub-mri_label-6_T2w")):
        label_map = next((folder / image).parent.glob("*seg-vert*.nii.gz"))
        data = read_nifti(folder / f"{image}.nii.gz", label_map, values=values)
        assert data.classes == ["vertebra", "disc", "endplate"]
        ours |= {f"slices/{short}_sag{record.extra['slice']:03d}.png": record for record in data.images}
    theirs = json.loads((folder / f"instances_{split}.json").read_text())
    assert len(theirs["images"]) > 10
    for image in theirs["images"]:
        record = ours[image["file_name"]]
        expected = {a["label_value"]: a for a in theirs["annotations"] if a["image_id"] == image["id"]}
        assert {a.id for a in record.annotations} == set(expected)
        for annotation in record.annotations:
            other = expected[annotation.id]
            assert annotation.category + 1 == other["category_id"]
            # Theirs are enlarged four times.
            mask = mask_util.decode(annotation.segmentation).repeat(4, axis=0).repeat(4, axis=1)
            np.testing.assert_array_equal(mask, mask_util.decode(other["segmentation"]))
            x0, y0, x1, y1 = (4 * edge for edge in annotation.box)
            assert [x0, y0, x1 - x0, y1 - y0] == other["bbox"]


@pytest.mark.parametrize("name", ["l.nii", "l.nii.gz"])
def test_a_header_of_another_size_takes_no_memory(volume, labels, tmp_path, name):
    content = bytearray(write(tmp_path / "plain.nii", labels).read_bytes())
    content[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
    (tmp_path / name).write_bytes(gzip.compress(bytes(content)) if name.endswith("gz") else bytes(content))
    with pytest.raises(InputError, match=rf"{name}: truncated, it has \d+ of 27000000000352 bytes"):
        read_nifti(volume, tmp_path / name)


def test_a_small_file_that_unpacks_to_many_voxels_is_refused(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_shape((2048, 1024, 1024))
    header.set_data_dtype(np.uint8)
    header["vox_offset"] = 352
    for name in ("image.nii", "label.nii"):  # the rest of the file is a hole that takes no space
        with (tmp_path / name).open("wb") as file:
            file.write(header.binaryblock + bytes(4))
            file.truncate(352 + 2**31)
    with pytest.raises(InputError, match="a label map of 2048 x 1024 x 1024 has more than 1,073,741,824 voxels"):
        read_nifti(tmp_path / "image.nii", tmp_path / "label.nii")


def test_objects_in_parts_are_counted_and_faults_listed(volume, labels, tmp_path, caplog):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        write(tmp_path / f"images/{name}.nii", np.zeros(SHAPE, np.int16))
        write(tmp_path / f"labels/{name}.nii", labels)
    (tmp_path / "images/a.nii").write_bytes(b"")
    faults = []
    data = read_nifti(tmp_path / "images", tmp_path / "labels", faults=faults)
    assert len(data.images) == SHAPE[2]
    assert ["a.nii" in fault for fault in faults] == [True]
    assert "1 of 3 objects consists of several unconnected parts, such as value 1 of" in caplog.text
    caplog.clear()
    read_nifti(tmp_path / "images", tmp_path / "labels", instances="component", faults=faults)
    assert "unconnected" not in caplog.text
