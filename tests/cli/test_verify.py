"""``maskrcnn-ext verify`` compares what ``maskrcnn-ext export`` wrote with the original."""

from __future__ import annotations

import pytest

from maskrcnn_ext.cli import main
from tests.helpers.calibration import images
from tests.helpers.exported_models import detector, exported, pictures, weights  # noqa: F401 (fixtures)
from tests.helpers.exporting import SETTINGS

CONFIG = "mask_rcnn_r18_fpn_scratch"


def test_the_commands_agree(weights, pictures, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    file = tmp_path / "out" / "model.onnx"
    assert main(["export", CONFIG, str(weights), "--to", "onnx", "-o", str(file), "--set", *SETTINGS]) == 0
    assert str(file) in capsys.readouterr().out
    arguments = ["verify", str(file), "--against", CONFIG, str(weights), "--images", str(pictures), "--set", *SETTINGS]
    assert main(arguments) == 0
    printed, following = capsys.readouterr()
    assert following.endswith(f"maskrcnn-ext benchmark export {CONFIG} {weights} --data {pictures}\n")
    assert f"{len(images())} images" in printed
    assert "all within the limits" in printed
    assert main([*arguments, "--limit", "1", "--box", "0"]) == 1
    assert "1 image outside the limits" in capsys.readouterr().out
    assert main([*arguments, "--agreement", "0.99"]) == 0
    assert (
        "the models agree on 100.0% of their detections, weighted by score; at least 99.0%" in capsys.readouterr().out
    )
    assert main([*arguments, "--agreement", "0.9", "--box", "1"]) == 2
    assert "without other limits" in capsys.readouterr().err
    # Another model's weights: nothing agrees.
    assert main(["verify", str(file), "--against", CONFIG, "", "--images", str(pictures), "--set", *SETTINGS]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "a.onnx", "--against", "a", "b", "c", "--images", "d"], "at most one file of weights"),
        (["verify", "missing.onnx", "--against", "a", "--images", "d"], "missing.onnx: no such model"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
