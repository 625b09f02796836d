"""Detectron2's mapper for data as it is: outlines of every kind in one image, objects without one, images without objects, broken files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.data.detection_utils import filter_empty_instances, transform_proposals
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils.logger import log_first_n

from maskrcnn_ext.data.images.pixels import read_pixels
from maskrcnn_ext.data.mapping.bad_images import BadImages
from maskrcnn_ext.data.mapping.ground_truth import (
    Outline,
    are_sound_rles,
    box_outline,
    make_keypoints,
    make_masks,
    read_outline,
    tight_boxes,
    transform_box,
    transform_outline,
)
from maskrcnn_ext.errors import InputError


class SafeMapper(DatasetMapper):
    """Takes the place of Detectron2's ``DatasetMapper``: ``dataloader.train.mapper._target_=maskrcnn_ext.SafeMapper``.

    On data that the stock mapper handles, it gives the same. Beyond that:

    * Polygons, both kinds of RLE and bit masks may be mixed in an image; with ``instance_mask_format="polygon"`` an image that has
      other outlines than polygons gets bit masks. Detectron2's losses take each image's masks as they are.
    * An image without objects, or with crowds alone, has empty ground truth, ``gt_masks`` included.
    * Pixels are read by :func:`maskrcnn_ext.data.images.pixels.read_pixels`: also 16 bits, any number of channels, TIFF, arrays, DICOM,
      NIfTI. Images other than uint8 of 1 or 3 channels become float32, with the same values, before they are augmented.
    * A record that cannot be used is skipped in training, and the loader draws another one
      (:mod:`maskrcnn_ext.data.mapping.bad_images`). For evaluation it is an error: a metric over the rest would be another metric.
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
        strict: bool = False,
        max_bad_share: float = 0.01,
    ) -> None:
        """As in Detectron2, and:

        Args:
            is_train: whether annotations are read and bad images skipped.
            augmentations: in order.
            image_format: "BGR", "RGB", "L" or "raw", see :func:`maskrcnn_ext.data.images.pixels.read_pixels`.
            use_instance_mask: give ``gt_masks``.
            use_keypoint: give ``gt_keypoints``.
            instance_mask_format: "polygon" or "bitmask".
            keypoint_hflip_indices: which keypoint each one becomes in a mirrored image.
            precomputed_proposal_topk: how many of the record's proposals to keep; None: there are none.
            recompute_boxes: replace the boxes by those of the augmented masks.
            missing_masks: what becomes of an object whose outline is missing or broken, with a warning: "box" takes its box for its
                mask, so that it counts for the detector at the price of a coarse mask; "drop" leaves it out, so that it counts as
                background.
            strict: raise at once at such an object, or a bad image, instead.
            max_bad_share: end the training where significantly more of the images are bad.

        Raises:
            InputError: arguments that are not among the values above.
        """
        if instance_mask_format not in ("polygon", "bitmask"):
            raise InputError(f"instance_mask_format={instance_mask_format}: expected polygon or bitmask")
        if missing_masks not in ("box", "drop"):
            raise InputError(f"missing_masks={missing_masks}: expected box or drop")
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
        self.strict = strict
        self.bad_images = BadImages(max_bad_share) if is_train and not strict else None

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any] | None:
        """Maps a record to what the model takes; the record is left as it is.

        Returns:
            ``image`` (C, H, W), ``instances`` in training, and the rest of the record; None for a bad record in training.

        Raises:
            InputError: a bad record in evaluation or with ``strict``; too many bad records in training.
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
        image = read_pixels(mapped, self.image_format)
        height, width = image.shape[:2]
        if (mapped.setdefault("height", height), mapped.setdefault("width", width)) != (height, width):
            raise InputError(
                f"{mapped['file_name']}: the image is {width} x {height}, its annotations are for {mapped['width']} x "
                f"{mapped['height']} (width x height); `maskrcnn-ext check-data` tells why, and mends it in a copy"
            )
        # What Pillow, which resizes bytes, would refuse or, for four channels, take the last of as transparency.
        if image.dtype != np.uint8 or image.shape[2] not in (1, 3):
            image = image.astype(np.float32, copy=False)
        semantic = mapped.pop("sem_seg_file_name", None)
        if semantic is not None:
            semantic = read_pixels({"file_name": semantic}, "L")[:, :, 0]

        augmented = T.AugInput(image, sem_seg=semantic)
        try:
            transforms = self.augmentations(augmented)
        except (AssertionError, TypeError, ValueError) as error:
            kind = f"{width} x {height}, {image.shape[2]} channels of {image.dtype}"
            raise InputError(
                f"{mapped['file_name']}: an augmentation cannot take the image ({kind}): {_first_line(error)}"
            ) from error
        image_size = augmented.image.shape[:2]
        # OpenCV, which rotates, returns one channel without its axis.
        pixels = augmented.image.reshape(*image_size, -1)
        mapped["image"] = torch.as_tensor(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        if semantic is not None:
            mapped["sem_seg"] = torch.as_tensor(augmented.sem_seg.astype("long"))
        if self.proposal_topk is not None:
            transform_proposals(mapped, image_size, transforms, proposal_topk=self.proposal_topk)
        if self.is_train and annotations is not None:
            mapped["instances"] = self._instances(dataset_dict, (height, width), transforms, image_size)
        return mapped

    def _instances(
        self,
        record: dict[str, Any],
        stored_size: tuple[int, int],
        transforms: T.TransformList,
        image_size: tuple[int, int],
    ) -> Instances:
        boxes, classes, outlines, keypoints = [], [], [], []
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
                outlines.append(transform_outline(outline, transforms))
            boxes.append(box)
            classes.append(category)
            points = annotation.get("keypoints")
            keypoints.append(points if points is not None and len(points) else None)
        instances = Instances(image_size)
        instances.gt_boxes = Boxes(np.array(boxes).reshape(-1, 4))
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        if self.use_instance_mask:
            instances.gt_masks = make_masks(outlines, image_size, self.instance_mask_format)
            if self.recompute_boxes:
                instances.gt_boxes = tight_boxes(instances.gt_masks, image_size)
        if self.use_keypoint:
            try:
                found = make_keypoints(keypoints, transforms, image_size, self.keypoint_hflip_indices)
            except ValueError as error:
                raise InputError(f"{record['file_name']}: image {record.get('image_id')!r}: {error}") from error
            if found is not None:
                instances.gt_keypoints = found
        return filter_empty_instances(instances)

    def _outline(
        self, annotation: dict[str, Any], where: str, height: int, width: int, *, is_sound_rle: bool
    ) -> Outline | None:
        """The outline in the stored image; None for an object that is left out."""
        try:
            return read_outline(annotation.get("segmentation"), height, width, is_sound_rle=is_sound_rle)
        except ValueError as error:
            if self.strict:
                raise InputError(f"{where}: {error}; mend it, or set missing_masks with strict=false") from error
            done = "its box is its mask" if self.missing_masks == "box" else "it is left out"
            message = f"{where}: {error}: {done} (missing_masks={self.missing_masks}); not told of others"
            log_first_n(logging.WARNING, message, name=__name__)
        if self.missing_masks == "drop":
            return None
        return box_outline(np.array(BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
