"""RoI poolers, one a file, with the arguments of Detectron2's ROIPooler."""
