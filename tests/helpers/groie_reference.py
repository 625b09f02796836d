"""GRoIE (arXiv:2004.13665) in NumPy, bin by bin: a shared convolution, the sum of the levels, and attention by relative position.

The attention is the term "query content and relative position" of arXiv:1904.05873 with keys at every second bin, six heads, and
embeddings of the distances by sines and cosines, as GRoIE's authors configure it.
"""

import numpy as np
from scipy.signal import correlate


def groie(levels, weights, num_heads):
    """Returns (M, C, h, w) float64 for the pooled levels, each (M, C, h, w), and the arrays of a GenericROIPooler's state dict."""
    total = sum(_convolved(level, weights["pre.0.weight"], weights["pre.0.bias"]) for level in levels)
    attention = {key.removeprefix("post."): value for key, value in weights.items()}
    return np.stack([attended(bins, attention, num_heads) for bins in total])


def _convolved(boxes, weight, bias):
    padded = np.pad(boxes, ((0, 0), (0, 0), (2, 2), (2, 2)))
    found = [[correlate(box, kernel, mode="valid")[0] for kernel in weight] for box in padded]
    return np.maximum(np.array(found) + bias[:, None, None], 0)


def attended(bins, weights, num_heads):
    """Returns (C, h, w) for the bins of a box and the arrays of a RelativePositionAttention's state dict."""
    channels, height, width = bins.shape
    per_head = channels // num_heads
    keys = [(y, x) for y in range(0, height, 2) for x in range(0, width, 2)]
    found = bins.copy()
    for y, x in np.ndindex(height, width):
        query = weights["query.weight"][:, :, 0, 0] @ bins[:, y, x]
        answer = []
        for head in range(num_heads):
            rows = slice(head * per_head, (head + 1) * per_head)
            energies = []
            for key_y, key_x in keys:
                of_y = weights["position_y.weight"][rows] @ _embedding(y - key_y, channels)
                of_x = weights["position_x.weight"][rows] @ _embedding(x - key_x, channels)
                energies.append(query[rows] @ (of_x + of_y) / np.sqrt(2))
            shares = np.exp(energies) / np.exp(energies).sum()
            values = [weights["value.weight"][rows, :, 0, 0] @ bins[:, key_y, key_x] for key_y, key_x in keys]
            answer.append(shares @ np.array(values))
        out = weights["out.weight"][:, :, 0, 0] @ np.concatenate(answer) + weights["out.bias"]
        found[:, y, x] += weights["gamma"] * out
    return found


def _embedding(distance, channels):
    angles = [distance / 1000 ** (4 * frequency / channels) for frequency in range(channels // 4)]
    return np.array([*np.sin(angles), *np.cos(angles)])
