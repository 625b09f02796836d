"""A mapper for real data: mixed kinds of masks, objects without a mask, images without objects, broken files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import transform_proposals
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.logger import log_first_n

from maskrcnn_ext.common.ranges import is_share
from maskrcnn_ext.common.text import first_line, or_list
from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.mapping.bad_images import BadImages
from maskrcnn_ext.data.mapping.ground_truth import (
    Outline,
    are_sound_rles,
    box_outline,
    drop_empty,
    make_keypoints,
    make_masks,
    make_points,
    make_unlabelled,
    read_ignore_region,
    read_outline,
    tight_boxes,
    transform_box,
    transform_outline,
)
from maskrcnn_ext.data.mapping.image_cache import ImageCache
from maskrcnn_ext.data.mapping.image_reader import ImageReader, augmentable
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.ops.image_colors import ImageColors

# What becomes of an object without mask.
MISSING_MASKS = {
    "box": "its box is used as its mask",
    "box-only": "only its box is trained",
    "drop": "it is left out",
}


class SafeMapper(DatasetMapper):
    """Replaces Detectron2's ``DatasetMapper`` and returns the same on data that the stock mapper handles.

    Beyond that:

    * Polygons, both kinds of RLE and bit masks may be mixed in one image. With ``instance_mask_format="polygon"``, an image with other
      kinds than polygons gets bit masks; Detectron2's losses handle each image's masks separately.
    * An image without objects other than crowds has empty ground truth, ``gt_masks`` included.
    * Labelled points of objects (``point_coords``, ``point_labels``) become ``gt_point_coords`` and ``gt_point_labels``, see
      :func:`.ground_truth.make_points`.
    * Crowds and a record's ``labelled_classes`` become the field ``gt_unlabelled`` (:class:`maskrcnn_ext.ops.unlabelled.Unlabelled`),
      which :class:`maskrcnn_ext.FastRPN`, :class:`maskrcnn_ext.PartialROIHeads` and the mask heads of this package honour. Detectron2's
      heads ignore it.
    * :func:`maskrcnn_ext.data.images.pixels.read_pixels` reads the pixels: also 16 bits, any number of channels, TIFF, arrays, DICOM and
      NIfTI. Images other than uint8 with 1 or 3 channels become float32, with the same values, before they are augmented.
    * Training skips a record that cannot be used, and the loader draws another one (:mod:`maskrcnn_ext.data.mapping.bad_images`).
      Evaluation raises instead, because a metric over the other images would be a different metric.

    Example:
        As an override of any LazyConfig::

            dataloader.train.mapper._target_=maskrcnn_ext.SafeMapper
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: Sequence[int] | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
        missing_masks: str = "box",
        keep_image: bool = False,
        point_share: float = 0.5,
        strict: bool = False,
        max_bad_share: float = 0.01,
        cache: str | None = None,
        cache_gb: float | None = None,
        reduced_decoding: bool = False,
    ) -> None:
        """Builds the mapper; the first nine arguments are those of Detectron2's.

        Args:
            is_train: whether to read annotations and to skip bad images.
            augmentations: applied in this order.
            image_format: "BGR", "RGB", "L" or "raw", see :func:`maskrcnn_ext.data.images.pixels.read_pixels`.
            use_instance_mask: return ``gt_masks``.
            use_keypoint: return ``gt_keypoints``.
            instance_mask_format: "polygon" or "bitmask".
            keypoint_hflip_indices: for each keypoint, the index of its counterpart in a horizontally flipped image.
            precomputed_proposal_topk: how many of the record's proposals to keep; None if it has none.
            recompute_boxes: replace the boxes by those of the augmented masks.
            missing_masks: how to handle an object whose mask is missing or broken, with a warning. "box" uses its box as its mask: the
                box head still learns from it, the mask head learns a coarse mask. "box-only" trains the box and no mask: the field
                ``gt_has_mask`` (N,) bool says which objects have one, and the mask heads of this package skip the others. "drop" leaves
                it out, so that it counts as background.
            keep_image: add the image to the objects as ``gt_image``, whose colours the mask loss "box" compares.
            point_share: share of an object's labelled points that is trained each time its image is read, drawn again, as in PointSup
                (arXiv:2104.06404, "point-based data augmentation"); 1 for all of them.
            strict: raise at such an object or at a bad image instead.
            max_bad_share: end the training if significantly more of the images than this share are bad.
            cache: "ram" or "disk" keeps images for the next epochs, decoded or, if all its sizes together are smaller, resized by
                a ``ResizeShortestEdge`` that is the first augmentation. The results do not change.
            cache_gb: see ``limit_gb`` of :class:`.image_cache.ImageCache`.
            reduced_decoding: decode JPEGs at the smallest of 1/2, 1/4 and 1/8 of their size that such a ``ResizeShortestEdge`` does not
                exceed, and resize that, which is faster and changes pixels slightly.

        Raises:
            InputError: an argument has none of these values.
        """
        if instance_mask_format not in ("polygon", "bitmask"):
            raise InputError(f"instance_mask_format={instance_mask_format}: expected polygon or bitmask")
        if missing_masks not in MISSING_MASKS:
            raise InputError(f"missing_masks={missing_masks}: expected {or_list(list(MISSING_MASKS))}")
        if not is_share(point_share, above_zero=True):
            raise InputError(f"point_share={point_share}: expected a share above 0, up to 1")
        if recompute_boxes and not use_instance_mask:
            raise InputError("recompute_boxes=true needs use_instance_mask=true: the boxes are those of the masks")
        super().__init__(
            is_train,
            augmentations=list(augmentations),
            image_format=image_format,
            use_instance_mask=use_instance_mask,
            use_keypoint=use_keypoint,
            instance_mask_format=instance_mask_format,
            keypoint_hflip_indices=keypoint_hflip_indices,
            precomputed_proposal_topk=precomputed_proposal_topk,
            recompute_boxes=recompute_boxes,
        )
        self.missing_masks = missing_masks
        self.keep_image = keep_image
        self.point_share = point_share
        self.strict = strict
        self.reader = ImageReader(
            image_format, ImageCache(cache, cache_gb) if cache else None, reduced=reduced_decoding
        )
        self.bad_images = BadImages(max_bad_share) if is_train and not strict else None

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """Maps a record to an input of the model; the record is not changed.

        Returns:
            ``image`` (C, H, W), ``instances`` in training, and the rest of the record; None for a bad record in training.

        Raises:
            InputError: the record is bad and this is evaluation or ``strict``; or too many records are bad in training.
        """
        if self.bad_images is None:
            return self._map(dataset_dict)
        try:
            mapped = self._map(dataset_dict)
        except InputError as error:
            reason = str(error)
        else:
            self.bad_images.count_good()
            return mapped
        # The slices of a volume and the tiles of a scene share a file.
        self.bad_images.add(f"{dataset_dict['file_name']}, image {dataset_dict.get('image_id')!r}", reason)
        return None

    def _map(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        mapped = dict(dataset_dict)
        annotations = mapped.pop("annotations", None)
        first, *others = self.augmentations.augs or [None]
        resize = self.reader.draw_resize(mapped, first)
        if resize is None:
            image = self.reader.read(mapped)
            augmentations = self.augmentations
        else:
            image = self.reader.read_resized(mapped, resize)
            augmentations = T.AugmentationList(others)
        mapped.setdefault("height", image.shape[0])
        mapped.setdefault("width", image.shape[1])
        height, width = mapped["height"], mapped["width"]
        semantic = mapped.pop("sem_seg_file_name", None)
        if semantic is not None:
            semantic = read_pixels({"file_name": semantic}, "L")[:, :, 0]
        try:
            mapped["image"], transforms, semantic = augment_image(image, augmentations, semantic)
        except (AssertionError, TypeError, ValueError) as error:
            kind = f"{width} x {height}, {image.shape[2]} channels of {image.dtype}"
            raise InputError(
                f"{mapped['file_name']}: an augmentation cannot take the image ({kind}): {first_line(error)}"
            ) from error
        if resize is not None:
            transforms = T.TransformList([resize, *transforms.transforms])
        image_size = (mapped["image"].shape[1], mapped["image"].shape[2])
        if semantic is not None:
            mapped["sem_seg"] = torch.as_tensor(semantic.astype("long"))
        if self.proposal_topk is not None:
            transform_proposals(mapped, image_size, transforms, proposal_topk=self.proposal_topk)
        if self.is_train and annotations is not None:
            mapped["instances"] = self._instances(dataset_dict, (height, width), transforms, image_size)
            if self.keep_image:
                is_bgr = self.image_format == "BGR"
                mapped["instances"].gt_image = ImageColors(len(mapped["instances"]), mapped["image"], is_bgr=is_bgr)
        return mapped

    def _instances(
        self,
        record: dict[str, Any],
        stored_size: tuple[int, int],
        transforms: T.TransformList,
        image_size: tuple[int, int],
    ) -> Instances:
        boxes, classes, keypoints, kept = [], [], [], []
        outlines: list[Outline] = []
        has_mask: list[bool] = []
        sound = self.use_instance_mask and are_sound_rles(record["annotations"])
        for index, annotation in enumerate(record["annotations"]):
            if annotation.get("iscrowd", 0):
                continue
            where = f"{record['file_name']}: image {record.get('image_id')!r}, annotation {index}"
            try:
                category = int(annotation["category_id"])
                box = transform_box(annotation["bbox"], annotation["bbox_mode"], transforms, image_size)
            except (KeyError, TypeError, ValueError, AssertionError) as error:
                raise InputError(
                    f"{where}: `bbox`, `bbox_mode` or `category_id` is missing or broken ({error})"
                ) from error
            if self.use_instance_mask:
                outline = self._outline(annotation, where, *stored_size, is_sound_rle=sound)
                if outline is None:
                    continue
                outlines.append(transform_outline(outline, transforms) if len(outline) else outline)
                has_mask.append(len(outline) > 0)
            boxes.append(box)
            classes.append(category)
            kept.append(annotation)
            points = annotation.get("keypoints")
            keypoints.append(points if points is not None and len(points) else None)
        instances = Instances(image_size)
        instances.gt_boxes = Boxes(np.array(boxes).reshape(-1, 4))
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        if self.use_instance_mask:
            instances.gt_masks = make_masks(outlines, image_size, self.instance_mask_format)
            found = torch.tensor(has_mask, dtype=torch.bool)
            if self.recompute_boxes:
                tight = tight_boxes(instances.gt_masks, image_size).tensor
                instances.gt_boxes = Boxes(torch.where(found[:, None], tight, instances.gt_boxes.tensor))
            if not found.all():
                instances.gt_has_mask = found
        if self.use_keypoint:
            try:
                points = make_keypoints(keypoints, transforms, image_size, self.keypoint_hflip_indices)
            except ValueError as error:
                raise InputError(f"{record['file_name']}: image {record.get('image_id')!r}: {error}") from error
            if points is not None:
                instances.gt_keypoints = points
        try:
            labelled_points = make_points(kept, transforms, image_size, self.point_share)
        except (TypeError, ValueError) as error:
            raise InputError(f"{record['file_name']}: image {record.get('image_id')!r}: {error}") from error
        if labelled_points is not None:
            instances.gt_point_coords, instances.gt_point_labels = labelled_points
        instances = drop_empty(instances)
        region = self._ignore_region(record, stored_size, transforms)
        labelled = record.get("labelled_classes")
        unlabelled = make_unlabelled(region, labelled, outlines, image_size, len(instances))
        if unlabelled is not None:
            instances.gt_unlabelled = unlabelled
        return instances

    @staticmethod
    def _ignore_region(
        record: dict[str, Any], stored_size: tuple[int, int], transforms: T.TransformList
    ) -> np.ndarray | None:
        """Returns the ignore regions in the augmented image."""
        try:
            region = read_ignore_region(record["annotations"], *stored_size)
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            where = f"{record['file_name']}: image {record.get('image_id')!r}"
            raise InputError(f"{where}: `bbox` or `bbox_mode` of a crowd is missing or broken ({error})") from error
        if region is None:
            return None
        moved = transform_outline(region, transforms)
        assert isinstance(moved, np.ndarray)
        return moved

    def _outline(
        self, annotation: dict[str, Any], where: str, height: int, width: int, *, is_sound_rle: bool
    ) -> Outline | None:
        """Returns an object's outline in the stored image, empty if only its box is trained; None if the object is left out."""
        try:
            return read_outline(annotation.get("segmentation"), height, width, is_sound_rle=is_sound_rle)
        except ValueError as error:
            segmentation = annotation.get("segmentation")
            is_missing = segmentation is None or (isinstance(segmentation, list) and not segmentation)
            if self.strict and not (is_missing and self.missing_masks == "box-only"):
                raise InputError(f"{where}: {error}; fix it, or set missing_masks with strict=false") from error
            action = MISSING_MASKS[self.missing_masks]
            message = f"{where}: {error}: {action} (missing_masks={self.missing_masks}); others are not reported"
            log_first_n(logging.WARNING, message, name=__name__)
        if self.missing_masks == "drop":
            return None
        if self.missing_masks == "box-only":
            return []
        return box_outline(np.array(BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)))


def augment_image(
    pixels: np.ndarray, augmentations: Callable[[T.AugInput], T.TransformList], semantic: np.ndarray | None = None
) -> tuple[torch.Tensor, T.TransformList, np.ndarray | None]:
    """Augments an image and converts it to a tensor. Mapper, Predictor and the verification of exports share this step.

    Args:
        pixels: (H, W, C), which become :func:`.image_reader.augmentable` first.
        augmentations: a mapper's ``augmentations``.
        semantic: (H, W), a semantic segmentation to augment along with the image.

    Returns:
        The image (C, h, w), the transforms that were drawn, and the semantic segmentation (h, w).
    """
    augmented = T.AugInput(augmentable(pixels), sem_seg=semantic)
    transforms = augmentations(augmented)
    # Some transforms, such as OpenCV's rotation, drop the axis of a single channel.
    image = augmented.image.reshape(*augmented.image.shape[:2], -1)
    return torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1))), transforms, augmented.sem_seg
