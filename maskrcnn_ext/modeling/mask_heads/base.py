"""Base classes of the mask heads: the interface to Detectron2's RoI heads, input checks, and heads that predict a grid of logits."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.structures import Boxes, Instances
from torch import Tensor

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.modeling.mask_heads.ground_truth import (
    boxes_of,
    classes_of,
    known_pixels,
    log_accuracy,
    log_images,
    select_class,
    target_masks,
)
from maskrcnn_ext.modeling.mask_heads.losses import check_mask_loss, mask_loss_value
from maskrcnn_ext.modeling.mask_heads.weak_losses import box_supervision_loss, point_supervision_loss

Features: TypeAlias = Tensor | dict[str, Tensor]


class MaskHead(BaseMaskRCNNHead):
    """A mask head in three steps: :meth:`predict`, then :meth:`losses` in training or :meth:`probs` in inference.

    The input is what Detectron2's RoI heads pass on: RoI features (R, C, H, W) from a pooler or, with ``mask_pooler=null``, the feature
    pyramid as a dict of maps (N, C, H_l, W_l). R: RoIs of all images in the batch, N: images. In inference each image's instances get
    ``pred_masks`` (R_i, 1, S, S): probabilities on a grid over the box, which Detectron2 then pastes into the image.

    Every head takes the four arguments that a stock LazyConfig passes, and its own with defaults:

    * ``input_shape``: channels, height and width of the features of a RoI.
    * ``num_classes``: foreground classes; 1 makes the masks class-agnostic.
    * ``conv_dims``: channels of the 3 x 3 convolutions and, last, of the layers after them.
    * ``conv_norm``: norm of the convolutions, a name that :func:`detectron2.layers.get_norm` knows; "" for none.
    """

    takes_roi_features = True
    takes_pyramid = False
    # Whether the layers need RoI features of one size, as fully connected layers do.
    needs_exact_size = False
    # Losses from points or boxes that the head has, names of `mask_loss`.
    weak_losses: Sequence[str] = ()
    # Whether the loss needs the masks of the objects.
    needs_masks = True
    # Strides of the feature maps in pixels of the input image, finest first; set by heads that take the pyramid.
    strides: Sequence[int] = ()

    @configurable
    def __init__(
        self, input_shape: ShapeSpec, *, num_classes: int, loss_weight: float = 1.0, vis_period: int = 0
    ) -> None:
        """Stores the arguments of every head.

        Args:
            input_shape: channels, height and width of the features of a RoI.
            num_classes: foreground classes; 1 makes the masks class-agnostic.
            loss_weight: factor of all losses of this head.
            vis_period: iterations between pictures of the training masks in the event storage; 0 writes none.
        """
        super().__init__(loss_weight=loss_weight, vis_period=vis_period)
        self.input_shape = input_shape
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Any) -> dict[str, Any]:
        """Returns the arguments from a yacs config: Detectron2's ``MODEL.ROI_MASK_HEAD`` and the head's ``MODEL.MASKRCNN_EXT.<name>``.

        Args:
            cfg: a yacs config. :func:`maskrcnn_ext.modeling.yacs.add_maskrcnn_ext_config` declares the head's keys; without it the
                defaults apply.
            input_shape: a ShapeSpec, or a dict of them if ``POOLER_TYPE`` is empty.
        """
        mask = cfg.MODEL.ROI_MASK_HEAD
        own = cfg.MODEL.get("MASKRCNN_EXT", CfgNode()).get(cls.__name__, CfgNode())
        arguments = {name.lower(): value for name, value in own.items()}
        if isinstance(input_shape, dict):
            if not cls.takes_pyramid:
                raise InputError(
                    f"{cls.__name__} takes pooled features: set MODEL.ROI_MASK_HEAD.POOLER_TYPE, for example to ROIAlignV2"
                )
            levels = list(input_shape.values())
            arguments["strides"] = [level.stride for level in levels]
            size = mask.POOLER_RESOLUTION
            input_shape = ShapeSpec(channels=levels[0].channels, height=size, width=size)
        elif cfg.MODEL.ROI_HEADS.NAME in ("Res5ROIHeads", "PartialRes5ROIHeads"):
            # Detectron2 passes the size before res5, which halves it.
            size = input_shape.height // 2
            input_shape = ShapeSpec(channels=input_shape.channels, height=size, width=size)
        return {
            "input_shape": input_shape,
            "num_classes": 1 if mask.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "conv_dims": [mask.CONV_DIM] * (mask.NUM_CONV + 1),
            "conv_norm": mask.NORM,
            "vis_period": cfg.VIS_PERIOD,
            **arguments,
        }

    @classmethod
    def own_defaults(cls) -> dict[str, Any]:
        """Returns the keywords and defaults that a head has beside the four of every Detectron2 mask head."""
        common = {"num_classes", "conv_dims", "conv_norm", "vis_period"}
        parameters = inspect.signature(cls.__init__).parameters.values()
        return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY and p.name not in common}

    def forward(self, x: Features, instances: list[Instances]) -> dict[str, Tensor] | list[Instances]:
        """Returns the losses in training, and the instances with ``pred_masks`` in inference.

        Args:
            x: RoI features or the pyramid; see the class.
            instances: one an image: foreground proposals with ground truth in training, detections in inference.

        Raises:
            InputError: the features are not those that this head was built for; the message names the override that fixes it.
        """
        self.check_input(x)
        if self.training:
            x, instances = self.select_trained(x, instances)
        boxes = boxes_of(instances)
        prediction = self.predict(x, boxes)
        if self.training:
            losses = self.losses(prediction, instances)
            return {name: loss * self.loss_weight for name, loss in losses.items()}
        self.attach(prediction, instances)
        return instances

    def select_trained(self, x: Features, instances: list[Instances]) -> tuple[Features, list[Instances]]:
        """Leaves out the RoIs of objects without mask, see ``missing_masks="box-only"`` of :class:`maskrcnn_ext.SafeMapper`."""
        if not self.needs_masks or not any(image.has("gt_has_mask") for image in instances):
            return x, instances
        kept = [
            image.gt_has_mask
            if image.has("gt_has_mask")
            else torch.ones(len(image), dtype=torch.bool, device=image.proposal_boxes.device)
            for image in instances
        ]
        selected = [image[rows] for image, rows in zip(instances, kept, strict=True)]
        return x[torch.cat(kept)] if isinstance(x, Tensor) else x, selected

    def predict(self, x: Features, boxes: list[Boxes]) -> Any:
        """Runs the layers and returns what :meth:`losses` and :meth:`probs` need."""
        raise NotImplementedError

    def losses(self, prediction: Any, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns named scalars and writes the ``mask_rcnn/*`` scalars. With 0 RoIs, the losses are zeros that depend on all parameters."""
        raise NotImplementedError

    def probs(self, prediction: Any, classes: Tensor) -> Tensor:
        """Returns (R, 1, S, S) in [0, 1]: the final mask of each RoI, for its class in ``classes`` (R,) int64."""
        raise NotImplementedError

    def attach(self, prediction: Any, instances: list[Instances]) -> None:
        """Adds ``pred_masks`` to the detections."""
        probs = self.probs(prediction, classes_of(instances))
        for image, masks in zip(instances, probs.split([len(image) for image in instances]), strict=True):
            image.pred_masks = masks

    def check_input(self, x: Features, source: str = "the pooler") -> None:
        """Raises InputError unless ``x`` is the input that the head was built for.

        Args:
            x: RoI features or the pyramid.
            source: name of the pooler, for the message.
        """
        name = type(self).__name__
        if isinstance(x, dict):
            if not self.takes_pyramid:
                raise InputError(
                    f"{name} takes pooled features and was passed the feature maps: set model.roi_heads.mask_pooler"
                )
            self.check_pyramid(x)
            return
        if not self.takes_roi_features:
            raise InputError(
                f"{name} takes the feature maps and was passed the output of {source}: set model.roi_heads.mask_pooler=null "
                "(C4's Res5ROIHeads passes on no feature maps: choose another head there)"
            )
        # int(): under a tracer, sizes are tensors.
        got = tuple(int(size) for size in x.shape[1:])
        built = (self.input_shape.channels, self.input_shape.height, self.input_shape.width)
        if got[0] != built[0]:
            raise InputError(
                f"{name} was built for {built[0]} channels and {source} returns {got[0]}: "
                f"set model.roi_heads.mask_head.input_shape.channels={got[0]}"
            )
        if self.needs_exact_size and got != built:
            raise InputError(
                f"{name} was built for RoI features of {built[1]} x {built[2]} and {source} returns {got[1]} x {got[2]}: "
                f"set model.roi_heads.mask_pooler.output_size={built[1]}, or "
                f"model.roi_heads.mask_head.input_shape.height={got[1]} model.roi_heads.mask_head.input_shape.width={got[2]}"
            )

    def check_pyramid(self, features: dict[str, Tensor]) -> None:
        """Raises InputError unless the maps have the strides ``self.strides``; for heads that take the pyramid."""
        name, strides = type(self).__name__, list(self.strides)
        # p2 has stride 4, p3 8 and so on; other names do not show the stride.
        named = [2 ** int(key[1:]) if key[:1] == "p" and key[1:].isdigit() else None for key in features]
        if len(named) != len(strides) or any(n not in (None, s) for n, s in zip(named, strides, strict=True)):
            strides_of_maps = ",".join(str(stride or "?") for stride in named)
            raise InputError(
                f"{name} was built for feature maps of strides {strides} and was passed {', '.join(features)}: "
                f"set model.roi_heads.mask_head.strides=[{strides_of_maps}]"
                + ("" if None not in named else ", with the strides in pixels, such as [16] for DC5's res5")
            )
        channels = {int(feature.shape[1]) for feature in features.values()}
        if channels != {self.input_shape.channels}:
            raise InputError(
                f"{name} was built for {self.input_shape.channels} channels and the feature maps have {sorted(channels)}: "
                f"set model.roi_heads.mask_head.input_shape.channels={max(channels)}"
            )


class GridMaskHead(MaskHead):
    """A head whose ``layers`` return one grid of logits, (R, num_classes, S, S), trained by a loss of :mod:`.losses`."""

    # Iterations in which the weight of BoxInst's pairwise term rises to 1, as in its authors' code.
    pairwise_warmup = 10000

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        mask_loss: str = "bce",
        loss_weight: float = 1.0,
        vis_period: int = 0,
    ) -> None:
        """Stores the arguments of every head that predicts a grid of logits, beside those of :class:`MaskHead`.

        Args:
            input_shape: see :class:`MaskHead`.
            num_classes: see :class:`MaskHead`.
            mask_loss: "bce", "boundary", "dice", "focal" or "lovasz", or a sum such as "bce+dice". In heads with ``weak_losses`` also
                "points" (PointSup, arXiv:2104.06404), which trains from labelled points, and "box" (BoxInst, arXiv:2012.02310), which
                trains from boxes and colours; or "points+box".
            loss_weight: see :class:`MaskHead`.
            vis_period: see :class:`MaskHead`.

        Raises:
            InputError: an unknown mask loss.
        """
        super().__init__(input_shape, num_classes=num_classes, loss_weight=loss_weight, vis_period=vis_period)
        self.mask_loss = check_mask_loss(mask_loss, self.weak_losses)
        self.needs_masks = mask_loss.split("+")[0] not in self.weak_losses

    def predict(self, x: Tensor, boxes: list[Boxes]) -> Tensor:  # noqa: ARG002
        """Returns (R, num_classes, S, S) logits."""
        logits: Tensor = self.layers(x)
        return logits

    def losses(self, prediction: Tensor, instances: list[Instances]) -> dict[str, Tensor]:
        """Returns ``loss_mask``."""
        return {"loss_mask": self.grid_loss(prediction, instances)}

    def probs(self, prediction: Tensor, classes: Tensor) -> Tensor:
        """Returns (R, 1, S, S)."""
        return select_class(prediction, classes)[:, None].sigmoid()

    def grid_loss(self, logits: Tensor, instances: list[Instances]) -> Tensor:
        """Returns the mask loss of each RoI's class against the ground truth on the same grid. Writes scalars and pictures."""
        if len(logits) == 0:
            return empty_loss(logits)
        logits = select_class(logits, classes_of(instances))
        if not self.needs_masks:
            return self.weak_loss(logits, instances)
        targets = target_masks(instances, logits.shape[-1])
        log_accuracy(logits > 0, targets)
        log_images(logits.sigmoid(), targets, self.vis_period)
        return mask_loss_value(self.mask_loss, logits, targets, known_pixels(instances, logits.shape[-1]))

    def weak_loss(self, logits: Tensor, instances: list[Instances]) -> Tensor:
        """Returns the sum of the losses from points or boxes that ``mask_loss`` names, for logits (R, S, S) of each RoI's class."""
        losses = [logits.sum() * 0]
        for name in self.mask_loss.split("+"):
            if name == "points":
                losses.append(point_supervision_loss(logits, instances))
            else:
                losses.append(box_supervision_loss(logits, instances, self.pairwise_warmup))
        return torch.stack(losses).sum()


def empty_loss(prediction: Tensor) -> Tensor:
    """Returns a zero that depends on the prediction, so that every parameter gets a gradient if no image has a foreground RoI."""
    return prediction.sum() * 0
