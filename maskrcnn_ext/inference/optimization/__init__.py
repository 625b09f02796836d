"""``maskrcnn_ext.optimize``: the same model with the same weights, faster.

``optimize`` replaces the parts of a model in one pass:

* ``convolution``: norms folded into convolutions, and convolutions with bias, activation and residual sum fused into one kernel;
* ``backbone``: residual blocks, stem and FPN made of these convolutions;
* ``timm_nets``: networks of timm made of them, by the graph of their operators;
* ``heads``: RPN, RoI pooler, box head and mask head;
* ``fixed_size`` and ``cuda_graphs``: on a GPU, detection with outputs of fixed shape, recorded as one CUDA graph.
"""
