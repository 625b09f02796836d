"""``maskrcnn-ext yaml-to-lazy`` writes or prints a config that passes check-config."""

from maskrcnn_ext.cli import main

SEGMENTATION = "COCO-InstanceSegmentation"


def test_the_command_writes_a_file_that_is_checked_and_printed(tmp_path, capsys):
    name = f"{SEGMENTATION}/mask_rcnn_R_50_FPN_1x.yaml"
    file = tmp_path / "new/config.py"
    assert main(["yaml-to-lazy", "-o", str(file), name, "MODEL.ROI_HEADS.NUM_CLASSES", "80"]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert main(["yaml-to-lazy", name]) == 0
    assert capsys.readouterr().out == file.read_text()
    assert main(["check-config", "--no-data", str(file), "train.max_iter=3"]) == 0
    assert main(["yaml-to-lazy", name, "MODEL.RESNETS.DEPTH", "18"]) == 2
