"""COCO 2017 instances, with the multi-scale training of the baselines (Detectron2's Base-RCNN-FPN.yaml).

One override for each split selects other data, a registered name or a file:
`dataloader.train.dataset.names=coco:/data/train.json@/data/images`.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from omegaconf import OmegaConf

from maskrcnn_ext.common.cores import usable_cores
from maskrcnn_ext.data.mapping.mapper import SafeMapper
from maskrcnn_ext.data.registry.catalog import get_dataset_dicts
from maskrcnn_ext.evaluation.coco import COCOEvaluator

dataloader = OmegaConf.create(flags={"allow_objects": True})

dataloader.train = L(build_detection_train_loader)(
    dataset=L(get_dataset_dicts)(names="coco_2017_train"),
    mapper=L(SafeMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(
                short_edge_length=[640, 672, 704, 736, 768, 800], sample_style="choice", max_size=1333
            ),
            L(T.RandomFlip)(horizontal=True),
        ],
        image_format="BGR",
        use_instance_mask=True,
    ),
    total_batch_size=16,
    num_workers=min(4, usable_cores()),
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_dataset_dicts)(names="coco_2017_val", filter_empty=False),
    mapper=L(SafeMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=min(4, usable_cores()),
)

dataloader.evaluator = L(COCOEvaluator)(
    dataset_name="${..test.dataset.names}",
    output_dir="${train.output_dir}/inference",
)
