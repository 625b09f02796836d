"""Where Keras's Mask R-CNN (Matterport) computes otherwise than Detectron2: the parts that imported weights need."""
