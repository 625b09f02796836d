// The epilogue of the matrix product (GEMM) of a 1 x 1 convolution, or of a transposed 2 x 2 convolution with stride 2: bias, residual,
// ReLU and the layout of the pixels, on channels-last images, for CPUs.
//
// A plain C interface: the library needs neither Python nor torch, and works with every release of both.

#include "kernel.h"

// Arguments of the caller, declared again in predictors.py. A row of the matrix is a pixel, numbered along image rows, then images.
struct Rows {
  int64_t first, count, channels, height, width, relu, threads;
};

namespace {

MULTIVERSION void finish_row(float* row, const float* bias, const float* residual, const Rows& rows) {
  const float floor = rows.relu ? 0.0f : -__builtin_inff();
  if (residual == nullptr)
    for (int64_t c = 0; c < rows.channels; ++c) {
      const float value = row[c] + bias[c];
      row[c] = value < floor ? floor : value;
    }
  else
    for (int64_t c = 0; c < rows.channels; ++c) {
      const float value = row[c] + bias[c] + residual[c];
      row[c] = value < floor ? floor : value;
    }
}

MULTIVERSION void spread_row(const float* row, const float* bias, float* to, const Rows& rows) {
  const float floor = rows.relu ? 0.0f : -__builtin_inff();
  for (int64_t c = 0; c < rows.channels; ++c) {
    const float value = row[c] + bias[c];
    to[c] = value < floor ? floor : value;
  }
}

}  // namespace

// image: (N, H, W, C), whose `count` pixels from `first` on become max(pixel + bias + residual, 0).
// residual: null, (N, H, W, C), or with `half` (N, H / 2, W / 2, C), upsampled by nearest neighbour.
EXPORT void pointwise_finish_1(
    float* image, const float* bias, const float* residual, const Rows* rows, int64_t half) {
#pragma omp parallel for schedule(static) num_threads(rows->threads)
  for (int64_t index = 0; index < rows->count; ++index) {
    const int64_t pixel = rows->first + index;
    int64_t other = pixel;
    if (half) {
      const int64_t line = pixel / rows->width;  // over all images; each has an even number of rows
      other = line / 2 * (rows->width / 2) + pixel % rows->width / 2;
    }
    finish_row(image + pixel * rows->channels, bias, residual ? residual + other * rows->channels : nullptr, *rows);
  }
}

// products: (count, 2, 2, C) of the pixels from `first` on of an image (N, H, W). image: (N, 2 H, 2 W, C), which receives them with the bias.
EXPORT void pointwise_spread_1(
    const float* products, const float* bias, float* image, const Rows* rows) {
#pragma omp parallel for schedule(static) num_threads(rows->threads)
  for (int64_t index = 0; index < rows->count; ++index) {
    const int64_t pixel = rows->first + index, line = pixel / rows->width, column = pixel % rows->width;
    for (int64_t dy = 0; dy < 2; ++dy)
      for (int64_t dx = 0; dx < 2; ++dx)
        spread_row(products + (index * 4 + dy * 2 + dx) * rows->channels, bias,
                   image + ((2 * line + dy) * 2 * rows->width + 2 * column + dx) * rows->channels, *rows);
  }
}
