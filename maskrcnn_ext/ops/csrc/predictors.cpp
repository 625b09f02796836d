// The last layers of the RPN and of the mask head: products with few outputs, which read each value of a large channels-last map once, for
// CPUs. Inputs are float32 or bf16; all sums are float32.
//
// A plain C interface: the library needs neither Python nor torch, and works with every release of both.

#include "kernel.h"

// Arguments of the caller, declared again in predictors.py. A row of the matrix is a pixel, numbered along image rows, then images.
struct PixelRange {
  int64_t first, count, channels, height, width, relu, threads;
};

namespace {

// Pixels whose sums of kLanes outputs of a predictor stay in registers.
constexpr int64_t kPixels = 8;

// sums[p][l] = bias[l] + sum over c of x[p][c] * weight[c][l] of kPixels consecutive pixels.
template <typename T>
INLINE void predict_pixels(const T* x, const float* weight, const float* bias, float (*sums)[kLanes], int64_t channels) {
  Vector own[kPixels];
#pragma GCC unroll 8
  for (int64_t p = 0; p < kPixels; ++p) own[p] = load(bias);
  for (int64_t c = 0; c < channels; ++c) {
    const Vector from = load(weight + c * kLanes);
#pragma GCC unroll 8
    for (int64_t p = 0; p < kPixels; ++p) own[p] += to_float(x[p * channels + c]) * from;
  }
  std::memcpy(sums, own, sizeof own);
}

MULTIVERSION void predict_float(const float* x, const float* weight, const float* bias, float (*sums)[kLanes], int64_t channels) {
  predict_pixels(x, weight, bias, sums, channels);
}

MULTIVERSION void predict_bf16(const BFloat16* x, const float* weight, const float* bias, float (*sums)[kLanes], int64_t channels) {
  predict_pixels(x, weight, bias, sums, channels);
}

// Sum over c of max(row[c] + bias[c], 0) * weight[c].
template <typename T>
INLINE float select(const T* row, const float* bias, const float* weight, const PixelRange& rows) {
  const float floor = rows.relu ? 0.0f : -__builtin_inff();
  float sums[kLanes] = {};
  int64_t c = 0;
  for (; c + kLanes <= rows.channels; c += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) {
      const float value = to_float(row[c + l]) + bias[c + l];
      sums[l] += (value < floor ? floor : value) * weight[c + l];
    }
  float sum = 0;
  for (; c < rows.channels; ++c) {
    const float value = to_float(row[c]) + bias[c];
    sum += (value < floor ? floor : value) * weight[c];
  }
  for (int64_t l = 0; l < kLanes; ++l) sum += sums[l];
  return sum;
}

MULTIVERSION float select_float(const float* row, const float* bias, const float* weight, const PixelRange& rows) {
  return select(row, bias, weight, rows);
}

MULTIVERSION float select_bf16(const BFloat16* row, const float* bias, const float* weight, const PixelRange& rows) {
  return select(row, bias, weight, rows);
}

}  // namespace

// products: (count, 2, 2, C) float32 or bf16, of the pixels from `first` on of maps (N, H, W). logits: (N, 2 H, 2 W), which receive
// last[n] + sum over c of max(product + bias, 0) * weights[n, c].
EXPORT void select_1(
    const void* products, int64_t is_bf16, const float* bias, const float* weights, const float* last, float* logits, const PixelRange* rows) {
#pragma omp parallel for schedule(static) num_threads(rows->threads)
  for (int64_t index = 0; index < rows->count; ++index) {
    const int64_t pixel = rows->first + index, line = pixel / rows->width, column = pixel % rows->width;
    const int64_t image = line / rows->height;
    const float* weight = weights + image * rows->channels;
    for (int64_t part = 0; part < 4; ++part) {
      const int64_t at = (index * 4 + part) * rows->channels;
      const float sum = is_bf16 ? select_bf16(static_cast<const BFloat16*>(products) + at, bias, weight, *rows)
                                : select_float(static_cast<const float*>(products) + at, bias, weight, *rows);
      logits[(2 * line + part / 2) * 2 * rows->width + 2 * column + part % 2] = last[image] + sum;
    }
  }
}

// x: (count, channels) float32 or bf16. weight: (blocks, channels, kLanes), bias: (blocks, kLanes). out: (count, outputs), float32, with
// outputs <= blocks * kLanes.
EXPORT void predict_1(
    const void* x, int64_t is_bf16, const float* weight, const float* bias, float* out, int64_t outputs, const PixelRange* rows) {
  const int64_t channels = rows->channels, groups = (rows->count + kPixels - 1) / kPixels;
#pragma omp parallel for schedule(static) num_threads(rows->threads)
  for (int64_t group = 0; group < groups; ++group) {
    // The last pixels again if the number is no multiple of kPixels; of fewer than kPixels pixels, a copy is padded by the caller.
    int64_t first = group * kPixels;
    if (first + kPixels > rows->count) first = rows->count - kPixels;
    for (int64_t block = 0; block * kLanes < outputs; ++block) {
      float sums[kPixels][kLanes];
      const float* own = weight + block * channels * kLanes;
      if (is_bf16)
        predict_bf16(static_cast<const BFloat16*>(x) + first * channels, own, bias + block * kLanes, sums, channels);
      else
        predict_float(static_cast<const float*>(x) + first * channels, own, bias + block * kLanes, sums, channels);
      const int64_t width = outputs - block * kLanes < kLanes ? outputs - block * kLanes : kLanes;
      for (int64_t p = 0; p < kPixels; ++p)
        std::memcpy(out + (first + p) * outputs + block * kLanes, sums[p], width * sizeof(float));
    }
  }
}
