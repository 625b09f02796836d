"""The identity of a job: equal for the same model and settings, and different if anything that changes results does."""

from types import SimpleNamespace

import pytest

from maskrcnn_ext.inference.jobs.identity import job_identity

CONFIG = "mask_rcnn_r18_fpn_scratch.py"
SETTINGS = {
    "overrides": ["a=1"],
    "dtype": "fp32",
    "optimize": False,
    "tile": None,
    "overlap": 0.2,
    "category_ids": [1, 2],
    "calibrate": None,
}


@pytest.fixture
def model(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"weights")
    return SimpleNamespace(weights=str(tmp_path / "a.pth"))


@pytest.mark.parametrize(
    "change",
    [
        {"overrides": []},
        {"dtype": "bf16"},
        {"optimize": True},
        {"tile": 512},
        {"category_ids": [2, 1]},
        {"calibrate": "images"},
    ],
)
def test_each_setting_counts(model, change):
    same = job_identity([CONFIG], model, **SETTINGS)
    assert same == job_identity([CONFIG], model, **SETTINGS)
    assert same != job_identity([CONFIG], model, **{**SETTINGS, **change})


def test_the_overlap_counts_with_tiles_only(model):
    wide = {**SETTINGS, "overlap": 0.5}
    assert job_identity([CONFIG], model, **wide) == job_identity([CONFIG], model, **SETTINGS)
    assert job_identity([CONFIG], model, **{**wide, "tile": 9}) != job_identity(
        [CONFIG], model, **{**SETTINGS, "tile": 9}
    )


def test_weights_config_and_members_count(model, tmp_path):
    one = job_identity([CONFIG], model, **SETTINGS)
    assert one["config"].startswith(f"{CONFIG} ")
    assert job_identity(["faster_rcnn_r18_fpn_scratch.py"], model, **SETTINGS)["config"] != one["config"]
    (tmp_path / "a.pth").write_bytes(b"other weights")
    assert job_identity([CONFIG], model, **SETTINGS)["weights"] != one["weights"]
    both = job_identity([CONFIG] * 2, SimpleNamespace(members=[model, model]), **SETTINGS)
    assert [len(both["config"]), len(both["weights"])] == [2, 2]
