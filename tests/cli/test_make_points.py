"""``maskrcnn-ext make-points`` writes a file that trains."""

import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.data.formats.coco import read_coco


def test_the_file_has_points_and_no_masks(shapes, tmp_path, capsys):
    images, target = shapes.parent / "images", tmp_path / "points.json"
    command = ["make-points", f"coco:{shapes}@{images}", str(target), "--count", "7"]
    assert main(command) == 0
    printed = capsys.readouterr().err
    assert (
        f"maskrcnn-ext train-net --config-file mask_rcnn_r50_fpn_1x.py dataloader.train.dataset.names=coco:{target}@{images}"
        in printed
    )
    before, after = (
        [annotation for record in read_coco(file, images).images for annotation in record.annotations]
        for file in (shapes, target)
    )
    assert [(a.category, a.box) for a in after] == [(a.category, a.box) for a in before]
    assert all(a.segmentation is None and len(a.points) == 21 for a in after)
    assert main(command) == 2
    assert "exists: choose another DST, or add --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("target", "message"), [("folder", "expected the name of a COCO file"), ("a.json", "--count 0")]
)
def test_mistakes_are_one_line(shapes, tmp_path, capsys, target, message):
    command = ["make-points", f"coco:{shapes}@{shapes.parent / 'images'}", str(tmp_path / target), "--count", "0"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
