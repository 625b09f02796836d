"""PatchDCT's refinement, losses and masks in float64, RoI by RoI and patch by patch, from the weights of a head.

It follows arXiv:2302.02693 and the facts of its authors' code: class-specific outputs in class-major order, nearest sampling of the mask,
layers that all stages share, means over coefficients and patches.
"""

import numpy as np
import torch
from scipy.fft import dctn, idctn
from torch.nn import functional as F

BACKGROUND, FOREGROUND, MIXED = range(3)


def low_frequencies(count):
    """Cells of a spectrum by anti-diagonal, in alternating direction; the second cell is (0, 1)."""
    cells = [(row, column) for row in range(count) for column in range(count)]
    return sorted(cells, key=lambda cell: (sum(cell), cell[1] if sum(cell) % 2 == 0 else cell[0]))[:count]


def encode(image, count):
    spectrum = dctn(np.asarray(image, np.float64), norm="ortho")
    return np.array([spectrum[cell] for cell in low_frequencies(count)])


def decode(vector, size):
    spectrum = np.zeros((size, size))
    for cell, value in zip(low_frequencies(len(vector)), vector, strict=True):
        spectrum[cell] = value
    return idctn(spectrum, norm="ortho")


class Reference:
    """Computes what a PatchDCTMaskHead should, from its state dict. All arrays are float64."""

    def __init__(self, head, *, size=112, patch=8, classes=3):
        self.weights = {key: value.detach().double() for key, value in head.state_dict().items()}
        self.size, self.patch, self.classes = size, patch, classes
        self.side = size // patch

    def conv(self, name, x, **options):
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **options)

    def stage(self, masks, fine, classes):
        """(R, P, P, 3) scores and (R, P, P, n) vectors of each RoI's class, for masks (R, S, S) and features (R, C, F, F)."""
        rows = np.arange(fine.shape[-1]) * self.size // fine.shape[-1]
        sampled = np.asarray(masks)[:, rows][:, :, rows]
        x = self.conv("embed_mask", torch.as_tensor(sampled)[:, None], padding=1).relu() + fine.double()
        for name in ("fuse.0", "fuse.1"):
            x = self.conv(name, x, padding=1).relu()
        x = self.conv("gather.0", x, stride=3).relu()
        x = self.conv("gather.1", x, padding=1).relu()
        found = []
        for name in ("kind_predictor", "patch_predictor"):
            of_all = self.conv(name, x).numpy()
            per_class = of_all.shape[1] // self.classes
            of_class = [rows[c * per_class : (c + 1) * per_class] for rows, c in zip(of_all, classes, strict=True)]
            found.append(np.stack(of_class).transpose(0, 2, 3, 1))
        return found

    def assemble(self, kinds, vectors, limit=False):
        masks = np.zeros((len(kinds), self.size, self.size))
        for roi, row, column in np.ndindex(kinds.shape):
            block = {BACKGROUND: 0.0, FOREGROUND: 1.0}.get(kinds[roi, row, column])
            if block is None:
                block = decode(vectors[roi, row, column], self.patch)
                block = block.clip(0, 1) if limit else block
            top, left = row * self.patch, column * self.patch
            masks[roi, top : top + self.patch, left : left + self.patch] = block
        return masks

    def stages(self, vectors, fine, classes, count):
        """The outputs of each stage, for DCT vectors (R, k) of the whole masks."""
        masks = np.stack([decode(vector, self.size) for vector in np.asarray(vectors, np.float64)])
        found = []
        for _ in range(count):
            found.append(self.stage(masks, fine, classes))
            scores, patch_vectors = found[-1]
            masks = self.assemble(scores.argmax(-1), patch_vectors)
        return found

    def final(self, scores, vectors, threshold):
        exponents = np.exp(scores - scores.max(-1, keepdims=True))
        probs = exponents / exponents.sum(-1, keepdims=True)
        kinds = probs.argmax(-1)
        for place in np.ndindex(kinds.shape):
            background, foreground = probs[place][:MIXED]
            if max(background, foreground) > threshold:
                kinds[place] = BACKGROUND if background >= foreground else FOREGROUND
        return self.assemble(kinds, vectors, limit=True)

    def losses(self, vectors, stages, targets, weights):
        """The loss of the whole masks' vectors, and the weighted sum over the stages; targets: (R, S, S) of 0 and 1."""
        vectors, targets = np.asarray(vectors, np.float64), np.asarray(targets, np.float64)
        coarse = [abs(vector - encode(mask, len(vector))).mean() for vector, mask in zip(vectors, targets, strict=True)]
        total = 0.0
        for weight, (scores, patch_vectors) in zip(weights[1:], stages, strict=True):
            entropies, distances = [], []
            for roi, row, column in np.ndindex(scores.shape[:3]):
                top, left = row * self.patch, column * self.patch
                block = targets[roi, top : top + self.patch, left : left + self.patch]
                kind = {0.0: BACKGROUND, 1.0: FOREGROUND}.get(block.mean(), MIXED)
                score = scores[roi, row, column]
                entropies.append(np.log(np.exp(score).sum()) - score[kind])
                if kind == MIXED:
                    vector = patch_vectors[roi, row, column]
                    distances.append(abs(vector - encode(block, len(vector))).mean())
            total += weight * (np.mean(entropies) + np.mean(distances))
        return weights[0] * np.mean(coarse), total
