"""Every shipped config loads, survives saving, and has the sections that the stock script reads."""

from functools import cache
from importlib.util import find_spec

import pytest
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from maskrcnn_ext import compat, get_config
from maskrcnn_ext.config.zoo import list_configs
from tests.configs.test_layout import build, layout

TIMM = ("convnext", "swin", "regnety", "efficientnet", "mobilenet", "dinov2")


def is_supported(name):
    """Whether this Detectron2 and the installed packages have what a config needs."""
    return (compat.has_vit() or "vitdet" not in name) and (
        find_spec("timm") is not None or not any(family in name for family in TIMM)
    )


NAMES = [name for name in list_configs() if is_supported(name)]
LONGER = [name for name in NAMES if name.endswith("_3x.py") and name.replace("_3x", "_1x") in NAMES]


@cache
def loaded(name):
    """A config that no test changes."""
    return get_config(name)


def test_all_families_ship():
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
    expected |= {f"mask_rcnn_r{depth}_fpn_lsj_{epochs}ep.py" for depth in (50, 101) for epochs in (100, 200, 400)}
    cascades = ("", "cascade_")
    expected |= {f"{c}mask_rcnn_vitdet_{size}ep.py" for c in cascades for size in ("b_100", "l_100", "h_75")}
    expected |= {
        f"{c}mask_rcnn_{name}_fpn_3x.py" for c in cascades for name in ("convnext_tiny", "convnext_small", "swin_t")
    }
    light = ("efficientnet_lite0", "efficientnet_lite2", "mobilenetv4_m")
    expected |= {f"mask_rcnn_{name}_fpn_1x.py" for name in light}
    expected |= {
        "mask_rcnn_r18_fpn_scratch.py",
        "mask_rcnn_dinov2_s_fpn_3x.py",
        "mask_rcnn_regnety_4gf_fpn_lsj_100ep.py",
    }
    domains = "balloon bdd100k cityscapes crowdpose isaid kangaroo kitti_mots left_atrium nuclei ocid penn_fudan shapes spacenet spleen"
    expected |= {f"domains/{name}.py" for name in [*domains.split(), "tree_crowns"]}
    assert expected <= set(list_configs())


@pytest.mark.parametrize("name", NAMES)
def test_a_config_has_exactly_the_sections_of_the_stock_script(name):
    assert set(loaded(name)) == {"model", "dataloader", "optimizer", "lr_multiplier", "train"}


@pytest.mark.parametrize("name", NAMES)
def test_a_config_survives_saving(name, tmp_path):
    cfg = loaded(name)
    file = tmp_path / "config.yaml"
    LazyConfig.save(cfg, str(file))
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"], (
        "a .pkl beside it means that the YAML does not load"
    )
    again = LazyConfig.load(str(file))
    LazyConfig.save(again, str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_text() == file.read_text()
    # Equal texts are equal models: one is built. Those of a longer schedule are the shorter one's.
    if name not in LONGER:
        assert layout(build(again.model))
    OmegaConf.resolve(again)  # no interpolation points nowhere


@pytest.mark.parametrize("name", LONGER)
def test_a_3x_config_is_its_1x_config_with_another_schedule(name):
    short, long = (OmegaConf.to_container(loaded(file)) for file in (name.replace("_3x", "_1x"), name))
    assert (short["train"].pop("max_iter"), long["train"].pop("max_iter")) == (90000, 270000)
    assert short.pop("lr_multiplier") != long.pop("lr_multiplier")
    assert short == long
