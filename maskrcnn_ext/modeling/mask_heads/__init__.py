"""Mask heads, one a file: arguments (input_shape, *, num_classes, conv_dims, conv_norm="") first, a head's own after them."""
