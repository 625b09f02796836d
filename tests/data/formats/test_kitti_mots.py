"""KITTI MOTS: PNGs and texts have the same contents; tracks, ignored regions, and errors for broken files."""

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext import InputError, get_dataset_dicts
from maskrcnn_ext.data.formats.kitti_mots import read_kitti_mots
from maskrcnn_ext.evaluation.tracks import read_tracks
from maskrcnn_ext.ops.rle import encode_mask


@pytest.fixture
def write(tmp_path):
    """Writes the frames of a sequence as KITTI MOTS does, both ways."""

    def write(frames, sequence="0002"):
        rows = []
        for folder in (f"instances/{sequence}", "instances_txt", f"image_02/{sequence}"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for number, labels in enumerate(frames):
            Image.new("RGB", labels.shape[::-1]).save(tmp_path / f"image_02/{sequence}/{number:06d}.png")
            Image.fromarray(labels.astype(np.uint16)).save(tmp_path / f"instances/{sequence}/{number:06d}.png")
            for value in np.unique(labels[labels > 0]):
                size, counts = encode_mask(labels == value).values()
                rows.append(f"{number} {value} {value // 1000} {size[0]} {size[1]} {counts}\n")
        (tmp_path / f"instances_txt/{sequence}.txt").write_text("".join(rows))
        return tmp_path / "instances", tmp_path / "instances_txt", tmp_path / "image_02"

    return write


def drive():
    frames = [np.zeros((20, 50), int) for _ in range(3)]
    for number, labels in enumerate(frames[:2]):
        labels[5:12, 5 + number : 20 + number] = 1005
        labels[2:18, 30:34] = 2000
        labels[:, 45:] = 10000
    return frames


@pytest.mark.parametrize("kind", [0, 1], ids=["png", "txt"])
def test_objects_keep_their_tracks(write, kind):
    folders = write(drive())
    data = read_kitti_mots(folders[kind], folders[2])
    assert data.classes == ["car", "pedestrian"]
    assert [record.image_id for record in data.images] == ["0002/000000", "0002/000001", "0002/000002"]
    assert data.images[2].annotations == []
    for labels, record in zip(drive(), data.images, strict=True):
        assert (record.height, record.width) == (20, 50)
        found = sorted((each.category, each.id, each.crowd, each.box) for each in record.annotations)
        if found:
            shift = int(record.image_id[-1])
            assert found == [
                (0, 1005, False, (5 + shift, 5, 20 + shift, 12)),
                (0, 10000, True, (45, 0, 50, 20)),
                (1, 2000, False, (30, 2, 34, 18)),
                (1, 10000, True, (45, 0, 50, 20)),
            ]
        for annotation in record.annotations:
            assert annotation.segmentation == encode_mask(labels == annotation.id)


def test_both_kinds_of_files_are_equal(write):
    pngs, texts, images = write(drive())
    assert read_kitti_mots(pngs, images) == read_kitti_mots(texts, images)


@pytest.mark.parametrize("kind", [0, 1], ids=["png", "txt"])
def test_classes_and_sequences_are_chosen(write, kind):
    write(drive(), "0000")
    folders = write(drive())
    data = read_kitti_mots(folders[kind], folders[2], classes=["pedestrian"], sequences=["0000"])
    assert {record.image_id[:4] for record in data.images} == {"0000"}
    assert sorted((each.id, each.category) for each in data.images[0].annotations) == [(2000, 0), (10000, 0)]
    assert len(read_kitti_mots(folders[kind], folders[2]).images) == 6
    with pytest.raises(InputError, match="no sequence 0009"):
        read_kitti_mots(folders[kind], folders[2], sequences=["0000", "0009"])
    with pytest.raises(InputError, match="class 'dog', expected some of car, pedestrian"):
        read_kitti_mots(folders[kind], folders[2], classes=["dog"])


def test_a_string_names_it(write):
    pngs, texts, images = write(drive())
    for instances in (pngs, texts):
        records = get_dataset_dicts(f"kitti_mots:{instances}@{images}")
        assert [record["image_id"] for record in records] == ["0002/000000", "0002/000001"]


@pytest.mark.parametrize(
    ("mode", "stored"), [("L", "1 channel of 8 bits"), ("P", "1 channel of 8 bits"), ("RGB", "3 channels of 8")]
)
def test_pngs_have_16_bits(write, mode, stored):
    pngs, _, images = write(drive())
    file = pngs / "0002/000001.png"
    Image.new(mode, (50, 20)).save(file)
    for read in (lambda: read_kitti_mots(pngs, images), lambda: read_tracks(pngs)):
        with pytest.raises(InputError, match=f"000001.png: has {stored}.*expected one of 16 bits: 1000 . class"):
            read()
    Image.fromarray(np.zeros((10, 50), np.uint16)).save(file)
    with pytest.raises(InputError, match=r"label image is 50 x 10, its image 50 x 20"):
        read_kitti_mots(pngs, images)


COUNTS = encode_mask(drive()[0] == 1005)["counts"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"0 1005 1 20 50 {COUNTS[:-1]}", "an RLE whose"),
        (f"0 1005 1 20 50 {COUNTS}~", "counts` are broken: no RLE has"),
        (f"0 1005 1 20 51 {COUNTS}", "51 x 20, but .* is 50 x 20"),
        (f"7 1005 1 20 50 {COUNTS}", "no frame 7 in"),
        (f"0 3005 3 20 50 {COUNTS}", "object 3005 is of class 3, expected 1"),
        (f"0 1005 1 20 {COUNTS}", "expected `frame id class height width rle`"),
        (f"0 x 1 20 50 {COUNTS}", "expected `frame id class height width rle`"),
        (f"0 \u00b2 1 20 50 {COUNTS}", "expected `frame id class height width rle`"),
        (f"0 {'9' * 5000} 1 20 50 {COUNTS}", "expected `frame id class height width rle`"),
        (f"0 1005 1 20 50 {encode_mask(np.zeros((20, 50)))['counts']}", "the mask has no pixel"),
    ],
)
def test_a_broken_row_is_named(write, row, message):
    _, texts, images = write(drive())
    (texts / "0002.txt").write_text(f"0 1005 1 20 50 {COUNTS}\n\n{row}\n")
    with pytest.raises(InputError, match=message) as caught:
        read_kitti_mots(texts, images)
    assert "0002.txt, line 3: " in str(caught.value)


def test_broken_folders_are_named(write):
    labels = drive()
    labels[1][0, 0] = 5001
    pngs, _, images = write(labels)
    with pytest.raises(InputError, match=r"000001\.png: object 5001 is of class 5"):
        read_kitti_mots(pngs, images)
    write(drive())
    (images / "0002/000002.png").unlink()
    with pytest.raises(InputError, match=r"000002\.png: no frame 000002 in .*image_02/0002"):
        read_kitti_mots(pngs, images)
    (pngs / "0004").mkdir()
    (images / "0004").mkdir()
    with pytest.raises(InputError, match=r"instances/0004: no <frame>\.png here"):
        read_kitti_mots(pngs, images, sequences=["0004"])
    (pngs / "0004").rmdir()
    (images / "0002").rename(images / "0003")
    with pytest.raises(InputError, match="image_02/0002: no such folder"):
        read_kitti_mots(pngs, images)
    with pytest.raises(InputError, match=r"no <sequence>/\*\.png or <sequence>\.txt here"):
        read_kitti_mots(pngs / "0002", images)


def test_all_faults_are_listed_and_the_rest_is_read(write):
    pngs, texts, frames = write(drive())
    (texts / "0002.txt").open("a").write("0 1 1 20 50\n9 1 1 20 50 abc\n")
    faults = []
    data = read_kitti_mots(texts, frames, faults=faults)
    assert sum(len(record.annotations) for record in data.images) == 8
    assert [fault.partition("0002.txt, ")[2].partition(":")[0] for fault in faults] == ["line 7", "line 8"]
    Image.fromarray(np.full((20, 50), 5001, np.uint16)).save(pngs / "0002/000001.png")
    faults = []
    assert len(read_kitti_mots(pngs, frames, faults=faults).images) == 2
    assert len(faults) == 1
