"""``maskrcnn-ext browse-data`` draws a grid and a page, as stored or after augmentations."""

import json

import cv2
import numpy as np
import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.data.tools.browse import browse_stored


@pytest.fixture
def spec(shapes):
    return f"coco:{shapes}@{shapes.parent / 'images'}"


def test_stored_images_become_a_grid_and_a_page(spec, tmp_path, capsys):
    assert main(["browse-data", spec, "--num", "5", "-o", str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "a" / name) for name in ("grid.png", "index.html")]
    assert cv2.imread(str(tmp_path / "a/grid.png")).shape == (2 * 422, 3 * 400, 3)
    page = (tmp_path / "a/index.html").read_text()
    seen = browse_stored(spec, num=5, seed=0)
    assert page.count("<figure>") == len({sample.file_name for sample in seen}) == 5
    for sample in seen:
        assert sample.file_name in page
    assert f"96 x 96 pixels, {len(seen[0].classes)}&nbsp;object" in page


def test_the_command_takes_a_config_with_overrides_and_repeats_itself(people, tmp_path):
    overrides = [
        "dataloader.train._target_=maskrcnn_ext.data.mapping.augmentation.build_train_loader",
        "dataloader.train.copy_paste.probability=1",
        "dataloader.train.mapper.instance_mask_format=bitmask",
        "dataloader.train.mapper.augmentations=[]",
    ]
    for folder in ("a", "b"):
        arguments = [
            "-o",
            str(tmp_path / folder),
            "--num",
            "2",
            "--config",
            "mask_keypoint_rcnn_r18_fpn_scratch",
            *overrides,
        ]
        assert main(["browse-data", people, *arguments]) == 0
    assert (tmp_path / "a/grid.png").read_bytes() == (tmp_path / "b/grid.png").read_bytes()
    page = (tmp_path / "a/index.html").read_text()
    assert "copy_paste.probability=1" in page
    assert "96 x 64 pixels, 2&nbsp;object" not in page, "each image has two people, and pasted ones"


def test_stored_images_of_many_channels_become_a_page(tmp_path):
    """Names come from elsewhere, and the page is read on a phone."""
    values = np.random.default_rng(0).integers(0, 60000, (20, 30, 5), np.uint16)
    np.save(tmp_path / "<b>.npy", values)
    image = {"id": 1, "file_name": "<b>.npy", "height": 20, "width": 30}
    data = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "<i>"}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    (seen,) = browse_stored(f"coco:{tmp_path}/a.json@{tmp_path}", num=1, seed=0)
    assert np.corrcoef(seen.image[..., 2].ravel(), values[..., 0].ravel())[0, 1] > 0.99
    assert main(["browse-data", f"coco:{tmp_path}/a.json@{tmp_path}", "-o", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/index.html").read_text()
    assert "&lt;b&gt;.npy" in page
    assert "<b>" not in page
    assert 'name="viewport"' in page


def test_mistakes_are_one_line(spec, tmp_path, capsys):
    assert main(["browse-data", spec, "--num", "0"]) == 2
    assert main(["browse-data", "no_such_data"]) == 2
    assert main(["browse-data", spec, "--config", "no_such_config"]) == 2
    config = tmp_path / "empty.py"
    config.write_text("train = dict(seed=1)\n")
    assert main(["browse-data", spec, "--config", str(config)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line for line in errors if line.startswith("maskrcnn-ext browse-data: error: ")] == errors
    assert len(errors) == 4
    assert "dataloader.train" in errors[3]
