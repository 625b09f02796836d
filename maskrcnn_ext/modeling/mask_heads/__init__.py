"""Mask heads, one a file, with the arguments (input_shape, *, num_classes, conv_dims, conv_norm="") and their own after these."""
