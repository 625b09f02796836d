// Samples masks in the pixels of their boxes, as PyTorch's grid_sample does (bilinear, zeros outside), and finds the runs above a threshold,
// for CPUs. All operations are those of Detectron2 and PyTorch in float32, in the same order and without fused multiply-adds
// (-ffp-contract=off), so that every pixel is equal.
//
// A plain C interface: the library needs neither Python nor torch, and works with every release of both.

#include <cmath>
#include <vector>

#include "kernel.h"

// Arguments of the caller, declared again in mask_paste.py.
struct Paste {
  int64_t masks, side, height, width, capacity, threads;
};

namespace {

// The first of the two neighbours of each pixel along an axis of a mask, plus 1, and the weights of both.
struct Axis {
  std::vector<int64_t> first;
  std::vector<float> near, far;

  Axis(float low, float high, int64_t begin, int64_t end, int64_t side) {
    const float half = static_cast<float>(side) / 2;
    for (int64_t pixel = begin; pixel < end; ++pixel) {
      const float centre = static_cast<float>(pixel) + 0.5f;
      const float position = ((centre - low) / (high - low) * 2 - 1 + 1) * half - 0.5f;
      const float floor = std::floor(position);
      // Index 0 and 1 of a padded mask are two zeros, as are its last two.
      const bool inside = floor > -2 && floor < static_cast<float>(side + 1);
      first.push_back(inside ? static_cast<int64_t>(floor) + 2 : 0);
      far.push_back(position - floor);
      near.push_back(1 - far.back());
    }
  }
};

MULTIVERSION void sample_rows(const float* values, const float* near, const float* far, float left, float right, float threshold,
                              int64_t count, uint8_t* pixels) {
  for (int64_t row = 0; row < count; ++row) {
    float value = values[0] * (near[row] * left) + values[1] * (near[row] * right);
    value = value + values[2] * (far[row] * left);
    value = value + values[3] * (far[row] * right);
    pixels[row] = value >= threshold;
  }
}

// Writes the edges of the runs of one mask, and returns their number, which may exceed the capacity.
int64_t paste(const float* mask, const float* box, float threshold, const Paste& sizes, int64_t* edges) {
  const float left = std::floor(box[0]) - 1 < 0 ? 0 : std::floor(box[0]) - 1, top = std::floor(box[1]) - 1 < 0 ? 0 : std::floor(box[1]) - 1;
  const float width = static_cast<float>(sizes.width), height = static_cast<float>(sizes.height);
  const float right = std::ceil(box[2]) + 1 > width ? width : std::ceil(box[2]) + 1;
  const float bottom = std::ceil(box[3]) + 1 > height ? height : std::ceil(box[3]) + 1;
  if (!(left < right && top < bottom)) return 0;  // NaN is no window
  const int64_t x0 = static_cast<int64_t>(left), y0 = static_cast<int64_t>(top), side = sizes.side, padded = side + 4;
  const Axis x(box[0], box[2], x0, static_cast<int64_t>(right), side), y(box[1], box[3], y0, static_cast<int64_t>(bottom), side);
  std::vector<float> grid(padded * padded);
  for (int64_t row = 0; row < side; ++row)
    for (int64_t column = 0; column < side; ++column) grid[(row + 2) * padded + column + 2] = mask[row * side + column];
  const int64_t rows = static_cast<int64_t>(y.first.size());
  std::vector<uint8_t> pixels(rows + 1);  // a background pixel after the column closes the runs
  int64_t found = 0;
  for (int64_t column = 0; column < static_cast<int64_t>(x.first.size()); ++column) {
    for (int64_t row = 0, end; row < rows; row = end) {
      for (end = row + 1; end < rows && y.first[end] == y.first[row];) ++end;
      const float* corner = grid.data() + y.first[row] * padded + x.first[column];
      const float values[4] = {corner[0], corner[1], corner[padded], corner[padded + 1]};
      sample_rows(values, y.near.data() + row, y.far.data() + row, x.near[column], x.far[column], threshold, end - row,
                  pixels.data() + row);
    }
    uint8_t last = 0;
    for (int64_t row = 0; row <= rows; ++row)
      if (pixels[row] != last) {
        if (found < sizes.capacity) edges[found] = (x0 + column) * sizes.height + y0 + row;
        ++found;
        last = pixels[row];
      }
  }
  return found;
}

}  // namespace

// masks: (masks, side, side). boxes: (masks, 4). edges: (masks, capacity), which receives where runs start and end. counts: (masks,), the
// numbers of edges; only those of masks with no more than the capacity are complete.
EXPORT void mask_paste_1(const float* masks, const float* boxes, float threshold, int64_t* edges,
                                                                    int64_t* counts, const Paste* sizes) {
#pragma omp parallel for schedule(dynamic) num_threads(sizes->threads)
  for (int64_t m = 0; m < sizes->masks; ++m)
    counts[m] = paste(masks + m * sizes->side * sizes->side, boxes + 4 * m, threshold, *sizes, edges + m * sizes->capacity);
}
