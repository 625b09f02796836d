"""Penn-Fudan pedestrians at about the original scale: images are 250 to 500 pixels high."""

from .coco import dataloader

dataloader.train.dataset.names = "penn_fudan_train"
dataloader.test.dataset.names = "penn_fudan_val"
# Enlarging to COCO's 800 pixels would cost four times as much without adding detail.
dataloader.train.mapper.augmentations[0].update(short_edge_length=[320, 352, 384, 416, 448, 480], max_size=800)
dataloader.test.mapper.augmentations[0].update(short_edge_length=400, max_size=800)
dataloader.train.mapper.instance_mask_format = "bitmask"  # the masks are RLEs
dataloader.train.update(total_batch_size=2, num_workers=min(2, dataloader.train.num_workers))
dataloader.test.num_workers = min(2, dataloader.test.num_workers)
