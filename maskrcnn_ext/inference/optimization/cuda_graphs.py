"""Mask R-CNN on a GPU as one CUDA graph for each shape of input, and the cache that records and replays the graphs."""

from __future__ import annotations

import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes, Instances
from torch import Tensor

from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.inference.optimization.fixed_size import FixedSizeDetection
from maskrcnn_ext.modeling.compact_rcnn import CompactRCNN
from maskrcnn_ext.ops.self_check import find_difference

logger = logging.getLogger(__name__)

_MAX_GRAPHS = 32
# Share of values of a replay that may differ by more than rounding: the order of two detections with nearly the same score may change.
_OTHERS = 0.01


class _Recording(NamedTuple):
    """A CUDA graph with the tensors that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def replay(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Returns the results for other inputs of the same shapes."""
        for target, source in zip(self.inputs, inputs, strict=True):
            target.copy_(source)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)


class CUDAGraphs:
    """Records a function once for each combination of input shapes and settings, and replays the recording from then on.

    The most recently used combinations are kept. All share one memory pool, as large as the largest of them needs; each keeps its inputs
    and outputs besides. Each recording is compared once with the function, on its first inputs. If recording fails, or the results differ,
    one warning is logged, and the function runs without graphs from then on.
    """

    def __init__(
        self,
        function: Callable[..., tuple[Tensor, ...]],
        settings: Callable[[], Hashable] = tuple,
        max_graphs: int = _MAX_GRAPHS,
    ) -> None:
        """Wraps a function.

        Args:
            function: maps tensors on one device to tensors, whose shapes depend on the shapes of the inputs only.
            settings: returns the numbers besides the inputs that the function reads and that may change.
            max_graphs: how many combinations to keep.
        """
        self.function, self.settings, self.max_graphs = function, settings, max_graphs
        self._recordings: OrderedDict[Hashable, _Recording] = OrderedDict()
        self._pool: tuple[int, int] | None = None
        self._is_disabled = False
        self._lock = threading.Lock()  # all threads share the input tensors of a graph

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles without the recordings."""
        return CUDAGraphs, (self.function, self.settings, self.max_graphs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Returns the function's results, without gradients."""
        if self._is_disabled or not inputs[0].is_cuda:
            return self.function(*inputs)
        # Tensors made in inference mode could not be written to by a later call outside of it.
        with self._lock, torch.inference_mode(False), torch.no_grad(), torch.cuda.device_of(inputs[0]):
            recording = self._find_or_record(inputs)
            if recording is not None:
                return recording.replay(inputs)
        return self.function(*inputs)

    def _find_or_record(self, inputs: tuple[Tensor, ...]) -> _Recording | None:
        key = tuple(tensor.shape for tensor in inputs), self.settings()
        if key in self._recordings:
            self._recordings.move_to_end(key)
            return self._recordings[key]
        try:
            recording = self._recordings[key] = self._record(inputs)
            difference = find_difference(recording.replay(inputs), self.function(*inputs), _OTHERS)
            if difference is not None:
                raise RuntimeError(f"a replay has other results: {difference}")
        except RuntimeError as error:
            logger.warning("optimize: no CUDA graphs: %s", first_line(error))
            self._is_disabled = True
            self._recordings.clear()
            return None
        if len(self._recordings) > self.max_graphs:
            self._recordings.popitem(last=False)
        return recording

    def _record(self, inputs: tuple[Tensor, ...]) -> _Recording:
        static_inputs = tuple(tensor.clone() for tensor in inputs)
        # Warm-up runs on a side stream load, select and compile the kernels, as PyTorch's notes on CUDA graphs require.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.function(*static_inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # "thread_local": calls of other threads, such as one that pins memory, are neither recorded nor an error.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = self.function(*static_inputs)
        self._pool = graph.pool()
        return _Recording(graph, static_inputs, outputs)


class GraphedRCNN(CompactRCNN):
    """A CompactRCNN that runs as one CUDA graph. The host waits for the GPU once, for the number of detections."""

    def __init__(self, **parts: Any) -> None:
        """Builds the model; `parts` are :func:`parts_of` a model that :class:`FixedSizeDetection` supports."""
        super().__init__(**parts)
        detection = FixedSizeDetection(self)
        self.detect = CUDAGraphs(detection, detection.settings)

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """Returns what :meth:`CompactRCNN.inference` returns."""
        if detected_instances is not None:
            return super().inference(batched_inputs, detected_instances, do_postprocess)
        images = self.preprocess_image(batched_inputs)
        sizes = torch.tensor(images.image_sizes, dtype=torch.float32).to(self.device, non_blocking=True)
        boxes, scores, classes, *masks = self.detect(images.tensor, sizes)
        counts = (scores > -math.inf).sum(dim=1).tolist()
        results = []
        for image, (count, size) in enumerate(zip(counts, images.image_sizes, strict=True)):
            found = Instances(size)
            found.pred_boxes = Boxes(boxes[image, :count])
            found.scores = scores[image, :count]
            found.pred_classes = classes[image, :count]
            if masks:
                found.pred_masks = masks[0][image, :count, None]
            results.append(found)
        return self.compact(batched_inputs, results) if do_postprocess else results


def parts_of(model: GeneralizedRCNN) -> dict[str, Any]:
    """Returns the constructor arguments that make another GeneralizedRCNN of a model's parts."""
    return {
        "backbone": model.backbone,
        "proposal_generator": model.proposal_generator,
        "roi_heads": model.roi_heads,
        "pixel_mean": model.pixel_mean.flatten().tolist(),
        "pixel_std": model.pixel_std.flatten().tolist(),
        "input_format": model.input_format,
    }
