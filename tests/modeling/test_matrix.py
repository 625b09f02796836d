"""The matrix: every mask head in every kind of Mask R-CNN, and with every pooler, by the override that users write."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.export import TracingAdapter
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.modeling.fit_check import check_fit
from maskrcnn_ext.modeling.parts import MASK_HEADS, POOLERS
from tests.helpers.pairs import pairs

CONFIGS = [
    "mask_rcnn_r50_c4_1x",
    "mask_rcnn_r50_dc5_1x",
    "mask_rcnn_r50_fpn_1x",
    "mask_rcnn_x101_fpn_1x",
    "cascade_mask_rcnn_r50_fpn_1x",
    "mask_rcnn_r50_fpn_lsj_100ep",
    "mask_rcnn_r18_fpn_scratch",
    "cascade_mask_rcnn_r18_fpn_scratch",
]
# With a ResNet-18: with these, all parts run by default.
SMALL = CONFIGS[-2:]
HEADS = [part.name for part in MASK_HEADS]
ROI_POOLERS = [part.name for part in POOLERS]
PYRAMID = {part.name for part in MASK_HEADS if part.pyramid}
# Their fully connected layers, small enough for a test.
FC = {"MLPMaskHead": "fc_dims", "DCTMaskHead": "fc_dims", "PatchDCTMaskHead": "fc_dims", "MaskScoringHead": "fc_dims"}
SIZE = (64, 96)
MASK_HEAD = "model.roi_heads.mask_head"


def small(name):
    """A config with few RoIs and narrow boxes; the parts that are swapped keep their place and inputs."""
    cfg = get_config(name)
    heads = cfg.model.roi_heads
    heads.num_classes = 3
    heads.batch_size_per_image = 4 if "c4" in name else 8  # res5 runs on every RoI
    cfg.model.proposal_generator.update(pre_nms_topk=[50, 20], post_nms_topk=[20, 10])
    if "out_channels" in cfg.model.backbone:
        cfg.model.backbone.out_channels = 32
    for box_head in heads.get("box_heads", [heads.box_head] if "box_head" in heads else []):
        box_head.fc_dims = [32]
        box_head.conv_dims = []
    if "box_head" in heads or "box_heads" in heads:
        for predictor in heads.get("box_predictors", [heads.get("box_predictor")]):
            predictor.input_shape.channels = 32
    for predictor in heads.get("box_predictors", [heads.get("box_predictor")]):
        predictor.test_topk_per_image = 4
    heads.mask_head.conv_dims = [32] * len(heads.mask_head.conv_dims)
    return cfg


def head_overrides(head, config):
    """The overrides that swap the head, and those that make it small."""
    lines = [f"{MASK_HEAD}._target_=maskrcnn_ext.{head}"]
    if head in PYRAMID:
        lines.append("model.roi_heads.mask_pooler=null")
        if "dc5" in config:
            lines.append(f"{MASK_HEAD}.strides=[16]")
    if head in FC:
        lines.append(f"{MASK_HEAD}.{FC[head]}=[32]")
    if head == "PatchDCTMaskHead":
        lines.append(f"{MASK_HEAD}.patch_dim=32")
    if "PointRend" in head:
        # The implicit head's parameters are those of a network: 32 hidden units keep them few.
        lines += [f"{MASK_HEAD}.fc_dim=32", f"{MASK_HEAD}.point_fc_dim=16"]
    return lines


def pooler_overrides(pooler, node):
    lines = [f"model.roi_heads.{node}._target_=maskrcnn_ext.{pooler}"]
    if pooler == "DeformableROIPooler":
        lines += [f"model.roi_heads.{node}.channels=32", f"model.roi_heads.{node}.fc_dim=16"]
    if pooler == "GenericROIPooler":
        lines += [f"model.roi_heads.{node}.{option}" for option in ("channels=32", "pre=conv", "post=attention")]
    return lines


@pytest.fixture(scope="module")
def trunks():
    """Backbone and proposal generator of a config, made once: the matrix tests the parts after it."""
    made = {}

    def trunk(name, cfg):
        if name not in made:
            torch.manual_seed(0)
            backbone = instantiate(cfg.model.backbone)
            getattr(backbone, "bottom_up", backbone).freeze(4)  # only the last stage is trained here
            made[name] = backbone, instantiate(cfg.model.proposal_generator)
        return made[name]

    return trunk


def build(name, overrides, trunks):
    cfg = LazyConfig.apply_overrides(small(name), overrides)
    backbone, proposal_generator = trunks(name, cfg)
    torch.manual_seed(1)
    model = GeneralizedRCNN(
        backbone=backbone,
        proposal_generator=proposal_generator,
        roi_heads=instantiate(cfg.model.roi_heads),
        pixel_mean=[0.0, 0.0, 0.0],
        # Random weights under a frozen BatchNorm amplify what they see: small pixels keep the numbers finite.
        pixel_std=[10000.0, 10000.0, 10000.0],
    )
    return cfg, model


def batch(*, empty=False, polygons=True):
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for _ in range(2):
        image = torch.randint(0, 255, (3, *SIZE), generator=generator, dtype=torch.uint8)
        instances = Instances(SIZE)
        corners = [] if empty else [(4, 6, 40, 40), (30, 10, 90, 60), (50, 5, 80, 30)]
        instances.gt_boxes = Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))
        instances.gt_classes = torch.tensor([0, 2, 1][: len(corners)], dtype=torch.int64)
        outlines = [[[x0, y0, x1, y0, x1, y1, x0 + 5, y1]] for x0, y0, x1, y1 in corners]
        if polygons:
            instances.gt_masks = PolygonMasks([[[float(v) for v in p] for p in o] for o in outlines])
        else:
            instances.gt_masks = BitMasks.from_polygon_masks(outlines, *SIZE)
        inputs.append({"image": image, "height": SIZE[0], "width": SIZE[1], "instances": instances})
    return inputs


def step(model, inputs):
    model.train()
    model.zero_grad(set_to_none=True)
    with EventStorage() as storage:
        losses = model(inputs)
        sum(losses.values()).backward()
    for name, loss in losses.items():
        assert torch.isfinite(loss), name
    return losses, storage.latest()


def check_gradients(model, *, of):
    """Every parameter has a finite gradient; in what was swapped, none is zero throughout."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert torch.isfinite(parameter.grad).all(), name
    for name, parameter in model.roi_heads.named_parameters():
        if name.startswith(of):
            assert parameter.grad.abs().sum() > 0, f"{name} does not learn"


def check_inference(model):
    model.eval()
    with torch.no_grad():
        outputs = model(batch())
        for output in outputs:
            instances = output["instances"]
            assert instances.pred_masks.shape == (len(instances), *SIZE)
            assert instances.pred_masks.dtype == torch.bool
        boxes = [
            Instances(
                SIZE, pred_boxes=Boxes(torch.zeros(0, 4)), pred_classes=torch.zeros(0).long(), scores=torch.zeros(0)
            )
        ]
        images = model.preprocess_image(batch()[:1])
        none = model.roi_heads.forward_with_given_boxes(model.backbone(images.tensor), boxes)[0]
    assert len(none.pred_masks) == 0
    return outputs


def exercise(model, head, *, of, polygons=True):
    check_fit(model)
    with torch.no_grad():
        for name, parameter in model.roi_heads.named_parameters():
            if name.startswith(of) and not parameter.any():
                # A layer that starts at zero keeps those before it from learning in the very first step.
                # Positive, so that masks are not empty: mask scoring learns from masks that overlap an object.
                parameter.normal_(std=0.01).abs_()
    losses, scalars = step(model, batch(polygons=polygons))
    assert any(name.startswith("loss_mask") for name in losses)
    assert {f"mask_rcnn/{name}" for name in ("accuracy", "false_positive", "false_negative")} <= set(scalars)
    check_gradients(model, of=of)
    step(model, batch(empty=True))  # no foreground RoI
    for name, parameter in model.roi_heads.named_parameters():
        if parameter.requires_grad and name.startswith("mask_head"):
            assert parameter.grad is not None, f"{name} has no gradient without foreground"
    outputs = check_inference(model)
    assert any(len(output["instances"]) for output in outputs)
    assert all(o["instances"].has("pred_mask_scores") == (head == "MaskScoringHead") for o in outputs)


@pytest.mark.parametrize(("config", "head"), pairs(CONFIGS, HEADS, every=3, always=SMALL))
def test_every_head_in_every_model(config, head, trunks):
    if "c4" in config and head in PYRAMID:
        with pytest.raises(InputError, match=r"takes the feature maps .* choose another head there"):
            check_fit(build(config, [f"{MASK_HEAD}._target_=maskrcnn_ext.{head}"], trunks)[1])
        return
    _, model = build(config, head_overrides(head, config), trunks)
    exercise(model, head, of="mask_head", polygons="lsj" not in config)


@pytest.mark.parametrize(("pooler", "head"), pairs(ROI_POOLERS, HEADS, every=3))
def test_every_head_with_every_pooler(pooler, head, trunks):
    """Heads that pool by themselves are combined with the pooler in the box branch."""
    node = "box_pooler" if head in PYRAMID else "mask_pooler"
    config = "mask_rcnn_r18_fpn_scratch"
    _, model = build(config, [*head_overrides(head, config), *pooler_overrides(pooler, node)], trunks)
    exercise(model, head, of=node)


@pytest.mark.parametrize(("config", "pooler"), pairs(CONFIGS, ROI_POOLERS, every=3, always=SMALL))
def test_every_pooler_in_every_model_with_its_defaults(config, pooler, trunks):
    nodes = ["pooler"] if "c4" in config else ["box_pooler", "mask_pooler"]
    channels = 1024 if "c4" in config else 2048 if "dc5" in config else 32
    overrides = [f"model.roi_heads.{node}._target_=maskrcnn_ext.{pooler}" for node in nodes]
    if pooler == "DeformableROIPooler":
        overrides += [f"model.roi_heads.{node}.{o}" for node in nodes for o in (f"channels={channels}", "fc_dim=8")]
    _, model = build(config, overrides, trunks)
    exercise(model, "stock", of=tuple(nodes))


@pytest.mark.parametrize("head", HEADS)
def test_saved_and_reloaded(head, trunks, tmp_path):
    """The YAML that Detectron2's trainer writes builds the same head, and takes the weights."""
    name = "mask_rcnn_r18_fpn_scratch"
    cfg, model = build(name, head_overrides(head, name), trunks)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    torch.manual_seed(2)
    _, twin = build(name, head_overrides(head, name), trunks)
    twin.roi_heads = instantiate(again.model.roi_heads)
    twin.roi_heads.load_state_dict(model.roi_heads.state_dict())
    model.eval(), twin.eval()
    with torch.no_grad():
        for one, other in zip(model(batch()), twin(batch()), strict=True):
            assert torch.equal(one["instances"].pred_masks, other["instances"].pred_masks)


@pytest.mark.parametrize("head", HEADS)
def test_traced_as_the_stock_head_can_be(head, trunks):
    """torch.jit.trace by Detectron2's adapter: the trace answers an image that it has not seen as the model does."""
    name = "mask_rcnn_r18_fpn_scratch"
    _, model = build(name, head_overrides(head, name), trunks)
    model.eval()
    seen, unseen = ([{"image": item["image"]}] for item in batch())

    def infer(model, inputs):
        return [{"instances": image} for image in model.inference(inputs, do_postprocess=False)]

    with torch.no_grad():
        adapter = TracingAdapter(model, seen, infer)
        traced = torch.jit.trace(adapter, adapter.flattened_inputs, check_trace=False)
        expected = infer(model, unseen)[0]["instances"]
        found = adapter.outputs_schema(traced(unseen[0]["image"]))[0]["instances"]
    assert len(expected) > 0
    torch.testing.assert_close(found.pred_masks, expected.pred_masks, atol=1e-4, rtol=0)
