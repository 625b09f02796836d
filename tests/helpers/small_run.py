"""Overrides that make domains/shapes.py a run of seconds."""


def small_run(spec, output_dir, **more):
    keys = {
        "dataloader.train.dataset.names": spec,
        "dataloader.test.dataset.names": spec,
        "dataloader.train.total_batch_size": 2,
        "dataloader.train.num_workers": 0,
        "dataloader.test.num_workers": 0,
        "model.backbone.out_channels": 32,
        "model.roi_heads.batch_size_per_image": 8,
        "model.roi_heads.box_head.fc_dims": "[32]",
        "model.roi_heads.box_predictor.input_shape.channels": 32,
        "model.roi_heads.mask_head.conv_dims": "[16,16]",
        "train.output_dir": output_dir,
        "train.max_iter": 4,
        "train.eval_period": 0,
        "train.log_period": 1,
        "train.seed": 3,
        **more,
    }
    return [f"{key}={value}" for key, value in keys.items()]


def spec_of(shapes):
    return f"coco:{shapes}@{shapes.parent / 'images'}"
