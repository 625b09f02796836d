"""Mask R-CNN on a plain vision transformer (ViTDet, arXiv:2203.16527): ViT-B, simple feature pyramid.

Hyper-parameters of common/models/mask_rcnn_vitdet.py on Detectron2's main branch.
"""

from maskrcnn_ext.compat import require_vit

require_vit()

from detectron2.config import LazyCall as L  # noqa: E402
from detectron2.modeling import SimpleFeaturePyramid, ViT  # noqa: E402
from detectron2.modeling.backbone.fpn import LastLevelMaxPool  # noqa: E402

from maskrcnn_ext.modeling.vit import layer_norm  # noqa: E402

from .mask_rcnn_fpn import model  # noqa: E402

model.pixel_mean = [123.675, 116.28, 103.53]
model.pixel_std = [58.395, 57.12, 57.375]
model.input_format = "RGB"

model.backbone = L(SimpleFeaturePyramid)(
    net=L(ViT)(
        img_size=1024,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        drop_path_rate=0.1,
        window_size=14,
        mlp_ratio=4,
        qkv_bias=True,
        norm_layer=layer_norm,
        window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],  # blocks 2, 5, 8 and 11 attend globally
        residual_block_indexes=[],
        use_rel_pos=True,
        out_feature="last_feat",
    ),
    in_feature="${.net.out_feature}",
    out_channels=256,
    scale_factors=[4.0, 2.0, 1.0, 0.5],
    top_block=L(LastLevelMaxPool)(),
    norm="LN",
    square_pad=1024,
)
model.proposal_generator.head.conv_dims = [-1, -1]
model.roi_heads.box_head.update(conv_dims=[256, 256, 256, 256], fc_dims=[1024], conv_norm="LN")
model.roi_heads.mask_head.conv_norm = "LN"
