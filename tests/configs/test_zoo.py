"""Every shipped config loads by name, saves, reloads and is the same again; a wrong name says what is near."""

import subprocess
import sys
import zipfile

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from maskrcnn_ext import InputError, compat, get_config
from maskrcnn_ext.config.zoo import config_path, config_root, list_configs
from tests.configs.test_layout import build, layout
from tests.conftest import ROOT

NAMES = [name for name in list_configs() if compat.has_vit() or "vitdet" not in name]


def test_the_families_are_there():
    expected = {
        f"mask_rcnn_r{depth}_{neck}_{x}.py"
        for depth in (50, 101)
        for neck in ("c4", "dc5", "fpn")
        for x in ("1x", "3x")
    }
    families = (
        "mask_rcnn_x101_fpn",
        "cascade_mask_rcnn_r50_fpn",
        "faster_rcnn_r50_fpn",
        "keypoint_rcnn_r50_fpn",
        "mask_keypoint_rcnn_r50_fpn",
    )
    expected |= {f"{family}_{x}.py" for family in families for x in ("1x", "3x")}
    expected |= {"mask_rcnn_r50_fpn_lsj_100ep.py", "mask_rcnn_vitdet_b_100ep.py", "mask_rcnn_r18_fpn_scratch.py"}
    domains = "balloon bdd100k cityscapes crowdpose isaid kangaroo kitti_mots left_atrium nuclei ocid penn_fudan shapes spacenet spleen"
    expected |= {f"domains/{name}.py" for name in [*domains.split(), "tree_crowns"]}
    assert expected <= set(list_configs())


@pytest.mark.parametrize("name", NAMES)
def test_a_config_has_what_the_stock_script_reads_and_nothing_else(name):
    assert set(get_config(name)) == {"model", "dataloader", "optimizer", "lr_multiplier", "train"}


@pytest.mark.parametrize("name", NAMES)
def test_a_config_survives_saving(name, tmp_path):
    cfg = get_config(name)
    file = tmp_path / "config.yaml"
    LazyConfig.save(cfg, str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"], (
        "a .pkl beside it means that the YAML does not load"
    )
    again = LazyConfig.load(str(file))
    LazyConfig.save(again, str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == file.read_text()
    assert layout(build(again.model)) == layout(build(cfg.model))
    OmegaConf.resolve(again)  # no interpolation points nowhere


def test_names_may_leave_out_the_suffix():
    assert (
        config_path("mask_rcnn_r50_fpn_1x")
        == config_path("mask_rcnn_r50_fpn_1x.py")
        == config_root() / "mask_rcnn_r50_fpn_1x.py"
    )


def test_a_wrong_name_says_what_is_near():
    with pytest.raises(
        InputError, match=r"no config 'mask_rcnn_r50_fpn_2x.py'.*did you mean .*mask_rcnn_r50_fpn_[13]x\.py"
    ):
        get_config("mask_rcnn_r50_fpn_2x.py")
    with pytest.raises(InputError, match="maskrcnn-ext configs"):
        get_config("zzz")


@pytest.mark.skipif(compat.has_vit(), reason="this Detectron2 has ViT")
def test_vitdet_says_what_it_needs():
    with pytest.raises(InputError, match="install Detectron2's main branch"):
        get_config("mask_rcnn_vitdet_b_100ep.py")


@pytest.mark.slow
def test_a_wheel_carries_the_configs(tmp_path, run_python):
    """Built, unpacked and imported away from the checkout."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "site")
    code = "import maskrcnn_ext.config.zoo as z; print(z.config_root()); z.get_config('domains/nuclei.py')"
    code += "; print(*z.list_configs(), sep='\\n')"
    done = run_python("-c", f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); {code}")
    folder, *names = done.stdout.splitlines()
    assert folder == str(tmp_path / "site/maskrcnn_ext/configs"), done.stderr
    assert names == list_configs()
