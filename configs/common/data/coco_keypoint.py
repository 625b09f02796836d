"""COCO 2017 people with their 17 keypoints; images without a visible keypoint are left out of training."""

from detectron2.config import LazyCall as L

from maskrcnn_ext.data.registry.keypoints import hflip_indices

from .coco import dataloader

dataloader.train.dataset.update(names="keypoints_coco_2017_train", min_keypoints=1)
dataloader.test.dataset.names = "keypoints_coco_2017_val"
dataloader.train.mapper.update(
    use_instance_mask=False,
    use_keypoint=True,
    # from the data set's own flip map, once it is loaded
    keypoint_hflip_indices=L(hflip_indices)(names="${...dataset.names}"),
)
