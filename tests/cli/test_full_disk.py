"""Every command that writes files says in one line that it cannot, and leaves nothing half written under a final name.

A limit on the size of files acts as a full disk: the write fails in the middle, and no root is needed.
"""

import errno
import json
import os
import resource
from contextlib import contextmanager

import pytest
import torch

from maskrcnn_ext.cli import main
from maskrcnn_ext.common.files import WriteError
from maskrcnn_ext.config.config_yaml import save_config
from maskrcnn_ext.config.zoo import get_config
from maskrcnn_ext.interop.export import export
from maskrcnn_ext.interop.export.recipe import build_recipe
from tests.helpers.exported_models import detector  # noqa: F401 (fixtures)
from tests.helpers.exporting import CLASSES
from tests.helpers.run_folders import shapes_run

LIMIT = 200  # bytes; shorter than any of the files
RESULTS = "inference/coco_instances_results.json"


@contextmanager
def small_files():
    """Limits the size of all files that this process writes. Python ignores the signal, so that writes fail with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def run_folder(shapes, tmp_path):
    return shapes_run(tmp_path / "run", shapes)


# Command -> its arguments and what it writes, of a run's folder RUN, a data set SRC, its file JSON and a new path OUT.
COMMANDS = {
    "report": (["report", "RUN", "-o", "OUT.html"], "OUT.html"),
    "reports": (["report", "RUN", "RUN", "-o", "OUT.html"], "OUT.html"),
    "evaluate": (["evaluate", f"RUN/{RESULTS}", "JSON", "-o", "OUT"], "OUT/evaluation.json"),
    "yaml-to-lazy": (
        ["yaml-to-lazy", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", "-o", "OUT.py"],
        "OUT.py",
    ),
    "check-data": (["check-data", "SRC", "--fix", "OUT.json"], "OUT.json"),
    "check-data-report": (["check-data", "SRC", "--report", "OUT.html"], "OUT.html"),
    "convert-coco": (["convert", "SRC", "OUT", "--to", "coco"], "OUT"),
    "convert-json": (["convert", "SRC", "OUT.json", "--to", "coco"], "OUT.json"),
    "convert-yolo": (["convert", "SRC", "OUT", "--to", "yolo", "--link"], "OUT"),
    "convert-labelme": (["convert", "SRC", "OUT", "--to", "labelme", "--link"], "OUT"),
    "convert-label-image": (["convert", "SRC", "OUT", "--to", "label-image", "--link"], "OUT"),
    "split": (["split", "SRC", "OUT", "--val", "0.5"], "OUT"),
    "browse-data": (["browse-data", "SRC", "--num", "1", "-o", "OUT"], "OUT/index.html"),
}


@pytest.mark.parametrize(("arguments", "written"), COMMANDS.values(), ids=COMMANDS)
def test_a_command(arguments, written, run_folder, shapes, tmp_path, capsys):
    folder = tmp_path / "new"
    names = {"RUN": run_folder, "SRC": f"coco:{shapes}@{shapes.parent / 'images'}", "JSON": shapes, "OUT": folder / "a"}
    for name, value in names.items():
        arguments = [argument.replace(name, str(value)) for argument in arguments]
    folder.mkdir()
    with small_files():
        status = main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert status == 2
    assert len(lines) == 1
    assert "cannot write" in lines[0] or "cannot be written" in lines[0]
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert left == []
    # The same command writes the file when there is space again.
    assert main(arguments) in (0, 1)
    assert (tmp_path / "new" / written.replace("OUT", "a")).exists()


@pytest.mark.parametrize(
    "target",
    [
        "torchscript",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("torch-export", "onnx", "openvino", "opencv")),
    ],
)
def test_an_export(target, detector, tmp_path):
    pytest.importorskip({"openvino": "openvino", "torch-export": "torch"}.get(target, "onnx"))
    file = tmp_path / {"openvino": "a.xml", "torch-export": "a.pt2", "opencv": "a"}.get(target, "a.onnx")
    if file.suffix:
        file.write_text("old")
    model, mapper = detector
    with small_files(), pytest.raises(WriteError, match=r"cannot write .*a(\.\w+)? \("):
        export(model, build_recipe(model, mapper, CLASSES), target, file)
    assert [path.read_text() for path in tmp_path.rglob("*")] == (["old"] if file.suffix else [])


def test_imported_weights_and_configs(tmp_path):
    from maskrcnn_ext.engine.checkpoint import files

    with small_files(), pytest.raises(WriteError, match="cannot write"):
        save_config(get_config("domains/shapes"), tmp_path / "config.yaml")
    with small_files(), pytest.raises(WriteError, match="cannot write"):
        files.write({"model": {"a": torch.zeros(1000)}}, tmp_path / "model.pth")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "text"), [(errno.EACCES, "Permission denied"), (errno.ENOSPC, "No space left")])
def test_an_error_of_the_system_is_one_line_in_every_command(code, text, monkeypatch, capsys, tmp_path):
    """A folder that root may write, too, is hard to forbid: the command itself raises."""
    from maskrcnn_ext.cli import parts

    def fail(_):
        raise OSError(code, os.strerror(code), str(tmp_path / "a\nb"))

    monkeypatch.setattr(parts, "run", fail)
    assert main(["parts"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"maskrcnn-ext parts: error: {tmp_path}/a\\nb: {text}")
    assert error.count("\n") == 1


def test_a_file_in_place_of_a_folder(run_folder, tmp_path, capsys, shapes):
    (tmp_path / "file").write_text("old")
    target = str(tmp_path / "file/out")
    source = f"coco:{shapes}@{shapes.parent / 'images'}"
    for command in (
        ["report", str(run_folder), "-o", target],
        ["split", source, target, "--val", "0.5"],
        ["convert", source, target, "--to", "yolo"],
        ["evaluate", str(run_folder / RESULTS), str(shapes), "-o", target],
    ):
        assert main(command) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(errors) == 1
        assert "Not a directory" in errors[0] or "File exists" in errors[0]
    assert json.loads(shapes.read_text())["images"]
