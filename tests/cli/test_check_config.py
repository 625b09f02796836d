"""``maskrcnn-ext check-config`` reports the faults of a config, and no others, before training."""

import pytest

from maskrcnn_ext import compat, get_dataset_dicts
from maskrcnn_ext.cli import main
from maskrcnn_ext.config.zoo import list_configs
from tests.conftest import ROOT

NAMES = [name for name in list_configs() if compat.has_vit() or "vitdet" not in name]
HEAD = "model.roi_heads.mask_head"
QUICK = (
    "mask_rcnn_r50_c4_1x.py",
    "mask_rcnn_r50_fpn_lsj_100ep.py",
    "cascade_mask_rcnn_r18_fpn_scratch.py",
    "domains/shapes.py",
)


@pytest.fixture
def check(capsys):

    def run(*arguments: str, read_data: bool = False) -> tuple[int, list[str], str]:
        status = main(["check-config", *([] if read_data else ["--no-data"]), *arguments])
        captured = capsys.readouterr()
        # Trainings of other tests may have left log handlers, which write to stderr.
        lines = [
            line for line in captured.err.splitlines() if line.startswith("maskrcnn-ext ") or "no fault found" in line
        ]
        return status, lines, captured.out

    return run


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_the_shipped_configs_have_no_fault(name, check):
    status, errors, out = check(name)
    assert (status, errors) == (0, [])
    assert out.startswith(f"{name}: ")
    assert out.endswith(": no fault found\n")


@pytest.mark.parametrize("file", sorted((ROOT / "projects/paper_ablations").glob("*.py")), ids=lambda path: path.stem)
@pytest.mark.slow
def test_the_projects_have_no_fault(file, check):
    assert check(str(file))[0] == 0


def test_the_summary_names_data_sets_and_parameters(check):
    _, _, out = check("domains/balloon.py", f"{HEAD}._target_=maskrcnn_ext.BoundaryMaskHead")
    assert "data balloon_train, balloon_val" in out
    assert " M parameters" in out


@pytest.mark.parametrize(
    ("overrides", "faults"),
    [
        (["train.max_itr=3"], ["did you mean train.max_iter?"]),
        (["train.best.mode=largest"], ["train.best.mode=largest: expected one of max, min"]),
        ([f"{HEAD}._target_=maskrcnn_ext.PointRendMaskHead"], ["set model.roi_heads.mask_pooler=null"]),
        ([f"{HEAD}.no_such_argument=3"], ["model cannot be built: ", "no_such_argument"]),
        (
            ["~model.roi_heads.mask_head.conv_dims"],
            ["model.roi_heads.mask_head: MaskRCNNConvUpsampleHead needs conv_dims"],
        ),
        (["~optimizer.lr", "+optimizer.rate=1"], ["optimizer: SGD takes no rate"]),
        (["optimizer.lr=-1"], ["optimizer cannot be built: Invalid learning rate"]),
        (["lr_multiplier.scheduler.milestones=[1]"], ["lr_multiplier cannot be built: "]),
        (
            ["dataloader.train.dataset.names=balloon_trian"],
            ["dataloader.train.dataset.names: no data set 'balloon_trian'", "balloon_train"],
        ),
        (
            ["dataloader.train.dataset.names=balloon_train", "model.roi_heads.num_classes=1"],
            ["class 0 is 'balloon' in balloon_train (training) and 'person' in coco_2017_val (test)"],
        ),
        (["~train"], ["the config has no `train`"]),
    ],
)
def test_a_fault_is_a_line_and_status_2(overrides, faults, check):
    status, errors, out = check("mask_rcnn_r50_fpn_1x", *overrides)
    assert (status, out) == (2, "")
    assert all(line.startswith("maskrcnn-ext check-config: error: ") for line in errors)
    assert all(any(fault in line for line in errors) for fault in faults)


def test_several_faults_are_several_lines(check):
    _, errors, _ = check(
        "mask_rcnn_r50_fpn_1x", "train.ema.decay=2", "model.roi_heads.num_classes=3", "optimizer.lr=-1"
    )
    assert len(errors) == 3


def test_a_data_set_string_needs_get_dataset_dicts_of_this_package(check, people):
    target = "dataloader.train.dataset._target_=detectron2.data.get_detection_dataset_dicts"
    get_dataset_dicts(people)  # other tests may have: the classes are known then
    names = [f"dataloader.{split}.dataset.names={people}" for split in ("train", "test")]
    overrides = [*names, "model.roi_heads.num_classes=1"]
    assert check("mask_rcnn_r50_fpn_1x", *overrides)[0] == 0
    status, errors, _ = check("mask_rcnn_r50_fpn_1x", *overrides, target)
    assert status == 2
    assert "set dataloader.train.dataset._target_=maskrcnn_ext.get_dataset_dicts" in errors[0]


def test_a_wrong_number_of_keypoints_is_a_fault(check):
    _, errors, _ = check("keypoint_rcnn_r18_fpn_scratch", "model.roi_heads.keypoint_head.num_keypoints=14")
    assert all(
        "has 17 keypoints (nose, left_eye, right_eye, ...): set model.roi_heads.keypoint_head.num_keypoints=17" in e
        for e in errors
    )
    assert len(errors) == 1


def test_print_writes_only_the_config_to_stdout(check):
    status, errors, out = check("--print", "domains/shapes.py", "train.max_iter=7")
    assert status == 0
    assert "train.max_iter: 7  # override 'train.max_iter=7'" in out.splitlines()
    assert all("  # " in line for line in out.splitlines())
    assert errors[0].endswith("no fault found")


def test_no_such_config_is_one_line(check):
    status, errors, _ = check("no_such_config")
    assert (status, len(errors)) == (2, 1)


def test_the_data_is_read_and_its_images_are_looked_for(check, people, tmp_path):
    file = people.removeprefix("coco:").partition("@")[0]
    names = [f"dataloader.train.dataset.names={people}", f"dataloader.test.dataset.names={people}"]
    status, lines, out = check("mask_rcnn_r50_fpn_1x", *names, read_data=True)
    assert status == 0
    assert any(
        "note: train-net sets model.roi_heads.num_classes=1, from the training set (person)" in line for line in lines
    )
    assert out.endswith("no fault found\n")
    wrong = [*names, "model.roi_heads.num_classes=3"]
    _, errors, _ = check("mask_rcnn_r50_fpn_1x", *wrong, read_data=True)
    assert len(errors) == 1
    assert "num_classes=3, but" in errors[0]
    gone = [f"dataloader.{split}.dataset.names=coco:{file}@{tmp_path}" for split in ("train", "test")]
    _, errors, _ = check("mask_rcnn_r50_fpn_1x", *gone, read_data=True)
    assert sum("6 of 6 image files" in error for error in errors) == 2
    _, errors, _ = check(
        "mask_rcnn_r50_fpn_1x", f"dataloader.test.dataset.names=coco:{tmp_path}/no.json@x", read_data=True
    )
    assert any("no such file or folder" in error for error in errors)
