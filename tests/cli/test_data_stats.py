"""``maskrcnn-ext data-stats`` prints statistics and overrides."""

import json

import numpy as np

from maskrcnn_ext.cli import main
from tests.helpers.image_files import save_images


def test_the_command_prints_table_and_overrides(tmp_path, capsys):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) for _ in range(4)]
    save_images(tmp_path, images, "png")
    described = [{"id": i, "file_name": f"{i}.png", "height": 20, "width": 30} for i in range(4)]
    data = {"images": described, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    (tmp_path / "2.png").write_bytes(b"")
    assert main(["data-stats", f"coco:{tmp_path}/a.json@{tmp_path}", "--limit", "0"]) == 0
    printed = capsys.readouterr()
    assert "bad image: " in printed.err
    mean = np.stack([images[i] for i in (0, 1, 3)])[..., ::-1].mean((0, 1, 2))
    assert f"model.pixel_mean=[{','.join(f'{value:.6g}' for value in mean)}]" in printed.out
    assert "images    3 read, 1 bad, 4 in" in printed.out
    assert "SafeMapper" not in printed.out, "the stock mapper reads 8-bit colours"
    assert main(["data-stats", f"coco:{tmp_path}/b.json@{tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith("maskrcnn-ext data-stats: error: ")
