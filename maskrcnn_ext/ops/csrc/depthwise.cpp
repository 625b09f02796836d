// The gradients of a depthwise convolution, whose every channel has its own kernel, on channels-last images, for CPUs.
//
// A plain C interface: the library needs neither Python nor torch, and works with every release of both. Channels are multiples of 16.
// bfloat16 is read and written, sums are in float32.

#include <algorithm>

#include "kernel.h"

// Arguments of the caller, declared again in depthwise.py: the input (N, height, width, C) of the convolution, and the gradient
// (N, out_height, out_width, C) of its output.
struct Sizes {
  int64_t number, channels, height, width, out_height, out_width, kernel, stride, padding_y, padding_x, is_bfloat16, threads;
};

namespace {

constexpr int64_t kPixels = 8;     // sums that do not wait for each other
constexpr int64_t kSegment = 32;  // pixels of the output whose channels stay in the cache

// ------------------------------------------------------------------------------------------------------------ of the input

// Sums of kPixels pixels of a row of the input at a distance of `stride`, from `column` on: pixel t takes the kernel's column kx from
// the output's column (column + padding - kx) / stride + t.
template <int64_t Kernel, bool Checked, typename T>
INLINE void input_pixels(const T* gradient, const float* weight, T* to, const Sizes& s, int64_t row, int64_t column, int64_t count) {
  Vector sum[kPixels] = {};
  for (int64_t ky = (row + s.padding_y) % s.stride; ky < Kernel; ky += s.stride) {
    const int64_t y = (row + s.padding_y - ky) / s.stride;
    if (row + s.padding_y < ky || y >= s.out_height) continue;
    for (int64_t kx = (column + s.padding_x) % s.stride; kx < Kernel; kx += s.stride) {
      const int64_t x = (column + s.padding_x - kx) / s.stride;  // exact, also if it is negative
      const Vector w = load(weight + (ky * Kernel + kx) * s.channels);
      const T* from = gradient + (y * s.out_width + x) * s.channels;
      for (int64_t t = 0; t < kPixels; ++t)
        if (!Checked || (x + t >= 0 && x + t < s.out_width)) sum[t] += load(from + t * s.channels) * w;
    }
  }
  for (int64_t t = 0; t < kPixels; ++t)
    if (!Checked || t < count) store(to + (column + t * s.stride) * s.channels, sum[t]);
}

template <int64_t Kernel, typename T>
INLINE void input_row(const void* gradients, const float* weight, void* inputs, const Sizes& s, int64_t index) {
  const int64_t image = index / s.height, row = index % s.height;
  const T* gradient = static_cast<const T*>(gradients) + image * s.out_height * s.out_width * s.channels;
  T* to = static_cast<T*>(inputs) + index * s.width * s.channels;
  for (int64_t start = 0; start < s.width; start += kPixels * s.stride)
    for (int64_t channel = 0; channel < s.channels; channel += kLanes)
      for (int64_t column = start; column < std::min(start + s.stride, s.width); ++column) {
        const int64_t count = std::min((s.width - column + s.stride - 1) / s.stride, kPixels);
        const int64_t last = (column + s.padding_x) / s.stride;  // the rightmost column of the output for the first pixel
        const bool inside = count == kPixels && column + s.padding_x >= Kernel - 1 && last + kPixels <= s.out_width;
        if (inside)
          input_pixels<Kernel, false>(gradient + channel, weight + channel, to + channel, s, row, column, count);
        else
          input_pixels<Kernel, true>(gradient + channel, weight + channel, to + channel, s, row, column, count);
      }
}

// ---------------------------------------------------------------------------------------------------------- of the weights

template <int64_t Kernel, bool Checked, typename T>
INLINE void add_products(Vector* sum, const T* input, const T* gradient, const Sizes& s, int64_t x) {
  const Vector g = load(gradient + x * s.channels);
  const int64_t left = x * s.stride - s.padding_x;
  for (int64_t kx = 0; kx < Kernel; ++kx)
    if (!Checked || (left + kx >= 0 && left + kx < s.width)) sum[kx] += g * load(input + (left + kx) * s.channels);
}

// Adds the products of a row of the output with the rows of the input.
template <int64_t Kernel, typename T>
INLINE void weight_row(const void* inputs, const void* gradients, float* sums, const Sizes& s, int64_t index) {
  const int64_t y = index % s.out_height;
  const T* image = static_cast<const T*>(inputs) + index / s.out_height * s.height * s.width * s.channels;
  const T* gradient = static_cast<const T*>(gradients) + index * s.out_width * s.channels;
  for (int64_t start = 0; start < s.out_width; start += kSegment) {
    const int64_t end = std::min(start + kSegment, s.out_width);
    // Between these, all columns of the kernel are inside the image.
    const int64_t first = std::min(std::max((s.padding_x + s.stride - 1) / s.stride, start), end);
    const int64_t room = s.width + s.padding_x - Kernel;
    const int64_t last = std::max(std::min(room < 0 ? 0 : room / s.stride + 1, end), first);
    for (int64_t channel = 0; channel < s.channels; channel += kLanes)
      for (int64_t ky = 0; ky < Kernel; ++ky) {
        const int64_t row = y * s.stride - s.padding_y + ky;
        if (row < 0 || row >= s.height) continue;
        const T* input = image + row * s.width * s.channels + channel;
        Vector even[Kernel] = {}, odd[Kernel] = {};
        int64_t x = start;
        for (; x < first; ++x) add_products<Kernel, true>(even, input, gradient + channel, s, x);
        for (; x + 1 < last; x += 2) {
          add_products<Kernel, false>(even, input, gradient + channel, s, x);
          add_products<Kernel, false>(odd, input, gradient + channel, s, x + 1);
        }
        for (; x < end; ++x) add_products<Kernel, true>(even, input, gradient + channel, s, x);
        for (int64_t kx = 0; kx < Kernel; ++kx) {
          float* to = sums + (ky * Kernel + kx) * s.channels + channel;
          store(to, load(to) + even[kx] + odd[kx]);
        }
      }
  }
}

// Returns the call of a template for the side of the kernel and the dtype.
#define CALL(function, ...)                                                                                \
  switch (s.kernel) {                                                                                      \
    case 3: return s.is_bfloat16 ? function<3, BFloat16>(__VA_ARGS__) : function<3, float>(__VA_ARGS__);   \
    case 5: return s.is_bfloat16 ? function<5, BFloat16>(__VA_ARGS__) : function<5, float>(__VA_ARGS__);   \
    default: return s.is_bfloat16 ? function<7, BFloat16>(__VA_ARGS__) : function<7, float>(__VA_ARGS__); \
  }

MULTIVERSION void input_row_of(const void* gradient, const float* weight, void* to, const Sizes& s, int64_t index) {
  CALL(input_row, gradient, weight, to, s, index)
}

MULTIVERSION void weight_row_of(const void* input, const void* gradient, float* sums, const Sizes& s, int64_t index) {
  CALL(weight_row, input, gradient, sums, s, index)
}

}  // namespace

// weight: (kernel, kernel, C). to: (N, height, width, C), the gradient of the input.
EXPORT void depthwise_input_gradient_1(
    const void* gradient, const float* weight, void* to, const Sizes* sizes) {
#pragma omp parallel for schedule(static) num_threads(sizes->threads)
  for (int64_t index = 0; index < sizes->number * sizes->height; ++index)
    input_row_of(gradient, weight, to, *sizes, index);
}

// sums: zeros (threads, kernel, kernel, C), whose sum over the threads becomes the gradient of the weights.
EXPORT void depthwise_weight_gradient_1(
    const void* input, const void* gradient, float* sums, const Sizes* sizes) {
  const int64_t rows = sizes->number * sizes->out_height;
#pragma omp parallel for schedule(static) num_threads(sizes->threads)
  for (int64_t part = 0; part < sizes->threads; ++part)
    for (int64_t index = part * rows / sizes->threads; index < (part + 1) * rows / sizes->threads; ++index)
      weight_row_of(input, gradient, sums + part * sizes->kernel * sizes->kernel * sizes->channels, *sizes, index);
}
