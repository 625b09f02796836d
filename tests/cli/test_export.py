"""``maskrcnn-ext export`` reports wrong arguments in one line. test_verify.py runs it and verifies the result."""

import pytest

from maskrcnn_ext.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--to", "onnx", "-o", "b", "--int8"], "--int8 and --calibrate belong together"),
        (
            ["a", "--to", "opencv", "-o", "b", "--int8", "--calibrate", "c"],
            "--int8 is for --to onnx and openvino",
        ),
        (
            ["a", "--to", "onnx", "-o", "b", "--int8", "--calibrate", "c", "--calibration-images", "0"],
            "at least 1",
        ),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, capsys):
    assert main(["export", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
