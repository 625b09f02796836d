// The transforms of Winograd's minimal filtering F(4 x 4, 3 x 3) (Lavin and Gray, arXiv:1509.09308) between channels-last images and
// the 36 matrices (tiles, channels) whose products make up a 3 x 3 convolution, for CPUs.
//
// A plain C interface: the library needs neither Python nor torch, and works with every release of both. Channels are multiples of 16.

#include <algorithm>

#include "kernel.h"

namespace {

constexpr int64_t kTile = 4;          // pixels of the output along a side
constexpr int64_t kPatch = kTile + 2;  // pixels of the input along a side

// B^T of the paper, applied to six values at a distance of `step`.
INLINE void transform_input(const Vector* from, int64_t step, Vector* to, int64_t to_step) {
  const Vector a = from[0], b = from[step], c = from[2 * step], d = from[3 * step], e = from[4 * step], f = from[5 * step];
  const Vector even = e - 4 * c, odd = d - 4 * b, even2 = e - c, odd2 = 2 * (d - b);
  to[0] = 4 * a - 5 * c + e;
  to[to_step] = even + odd;
  to[2 * to_step] = even - odd;
  to[3 * to_step] = even2 + odd2;
  to[4 * to_step] = even2 - odd2;
  to[5 * to_step] = 4 * b - 5 * d + f;
}

// A^T of the paper, from six values to four.
INLINE void transform_output(const Vector* from, int64_t step, Vector* to, int64_t to_step) {
  const Vector b = from[step], c = from[2 * step], d = from[3 * step], e = from[4 * step];
  const Vector sum = b + c, difference = b - c, sum2 = d + e, difference2 = d - e;
  to[0] = from[0] + sum + sum2;
  to[to_step] = difference + 2 * difference2;
  to[2 * to_step] = sum + 4 * sum2;
  to[3 * to_step] = difference + 8 * difference2 + from[5 * step];
}

// A of the paper, the transpose of the output transform, from four values to six.
INLINE void transform_gradient(const Vector* from, int64_t step, Vector* to, int64_t to_step) {
  const Vector a = from[0], b = from[step], c = from[2 * step], d = from[3 * step];
  const Vector even = a + c, odd = b + d, even2 = a + 4 * c, odd2 = 2 * b + 8 * d;
  to[0] = a;
  to[to_step] = even + odd;
  to[2 * to_step] = even - odd;
  to[3 * to_step] = even2 + odd2;
  to[4 * to_step] = even2 - odd2;
  to[5 * to_step] = d;
}

}  // namespace

// Arguments of the caller, declared again in winograd.py. Tiles are numbered along rows, then images.
struct Grid {
  int64_t height, width, channels, tiles_y, tiles_x, first_tile, num_tiles, threads;
};

namespace {

template <typename T>
INLINE void input_tile(const T* image, float* transformed, const Grid& g, int64_t tile) {
  const int64_t place = g.first_tile + tile, per_image = g.tiles_y * g.tiles_x;
  const T* own = image + place / per_image * g.height * g.width * g.channels;
  const int64_t top = place % per_image / g.tiles_x * kTile - 1, left = place % g.tiles_x * kTile - 1;
  for (int64_t channel = 0; channel < g.channels; channel += kLanes) {
    Vector patch[kPatch * kPatch], rows[kPatch * kPatch];
    for (int64_t y = 0; y < kPatch; ++y)
      for (int64_t x = 0; x < kPatch; ++x) {
        const int64_t row = top + y, column = left + x;
        const bool inside = row >= 0 && row < g.height && column >= 0 && column < g.width;
        patch[y * kPatch + x] = inside ? load(own + (row * g.width + column) * g.channels + channel) : Vector{};
      }
    for (int64_t x = 0; x < kPatch; ++x) transform_input(patch + x, kPatch, rows + x, kPatch);
    for (int64_t y = 0; y < kPatch; ++y) transform_input(rows + y * kPatch, 1, patch + y * kPatch, 1);
    for (int64_t k = 0; k < kPatch * kPatch; ++k)
      store(transformed + (k * g.num_tiles + tile) * g.channels + channel, patch[k]);
  }
}

MULTIVERSION void gradient_tile(const float* image, float* transformed, const Grid& g, int64_t tile) {
  const int64_t place = g.first_tile + tile, per_image = g.tiles_y * g.tiles_x;
  const float* own = image + place / per_image * g.height * g.width * g.channels;
  const int64_t top = place % per_image / g.tiles_x * kTile, left = place % g.tiles_x * kTile;
  for (int64_t channel = 0; channel < g.channels; channel += kLanes) {
    Vector pixels[kTile * kTile], rows[kPatch * kTile], patch[kPatch * kPatch];
    for (int64_t y = 0; y < kTile; ++y)
      for (int64_t x = 0; x < kTile; ++x) {
        const bool inside = top + y < g.height && left + x < g.width;
        pixels[y * kTile + x] = inside ? load(own + ((top + y) * g.width + left + x) * g.channels + channel) : Vector{};
      }
    for (int64_t x = 0; x < kTile; ++x) transform_gradient(pixels + x, kTile, rows + x, kTile);
    for (int64_t y = 0; y < kPatch; ++y) transform_gradient(rows + y * kTile, 1, patch + y * kPatch, 1);
    for (int64_t k = 0; k < kPatch * kPatch; ++k)
      store(transformed + (k * g.num_tiles + tile) * g.channels + channel, patch[k]);
  }
}

template <typename T>
INLINE void output_tile(const float* products, const float* bias, const T* residual, T* image, const Grid& g, int64_t tile, bool relu) {
  const int64_t place = g.first_tile + tile, per_image = g.tiles_y * g.tiles_x;
  const int64_t first = place / per_image * g.height * g.width * g.channels;
  const int64_t top = place % per_image / g.tiles_x * kTile, left = place % g.tiles_x * kTile;
  for (int64_t channel = 0; channel < g.channels; channel += kLanes) {
    Vector patch[kPatch * kPatch], rows[kTile * kPatch], pixels[kTile * kTile];
    for (int64_t k = 0; k < kPatch * kPatch; ++k)
      patch[k] = load(products + (k * g.num_tiles + tile) * g.channels + channel);
    for (int64_t x = 0; x < kPatch; ++x) transform_output(patch + x, kPatch, rows + x, kPatch);
    for (int64_t y = 0; y < kTile; ++y) transform_output(rows + y * kPatch, 1, pixels + y * kTile, 1);
    const Vector add = load(bias + channel);
    for (int64_t y = 0; y < std::min(kTile, g.height - top); ++y)
      for (int64_t x = 0; x < std::min(kTile, g.width - left); ++x) {
        const int64_t pixel = first + ((top + y) * g.width + left + x) * g.channels + channel;
        Vector value = pixels[y * kTile + x] + add;
        if (residual != nullptr) value += load(residual + pixel);
        if (relu) value = value < 0 ? Vector{} : value;  // NaN stays
        store(image + pixel, value);
      }
  }
}

MULTIVERSION void input_of_float(const float* image, float* transformed, const Grid& g, int64_t tile) {
  input_tile(image, transformed, g, tile);
}

MULTIVERSION void input_of_bf16(const BFloat16* image, float* transformed, const Grid& g, int64_t tile) {
  input_tile(image, transformed, g, tile);
}

MULTIVERSION void output_in_float(const float* products, const float* bias, const float* residual, float* image, const Grid& g,
                                  int64_t tile, bool relu) {
  output_tile(products, bias, residual, image, g, tile, relu);
}

MULTIVERSION void output_in_bf16(const float* products, const float* bias, const BFloat16* residual, BFloat16* image, const Grid& g,
                                 int64_t tile, bool relu) {
  output_tile(products, bias, residual, image, g, tile, relu);
}

}  // namespace

// image: (N, H, W, C). transformed: (36, num_tiles, C).
EXPORT void winograd_input_1(const float* image, float* transformed, const Grid* grid) {
#pragma omp parallel for schedule(static) num_threads(grid->threads)
  for (int64_t tile = 0; tile < grid->num_tiles; ++tile) input_of_float(image, transformed, *grid, tile);
}

// The same for an image in bf16.
EXPORT void winograd_input_bf16_1(const BFloat16* image, float* transformed, const Grid* grid) {
#pragma omp parallel for schedule(static) num_threads(grid->threads)
  for (int64_t tile = 0; tile < grid->num_tiles; ++tile) input_of_bf16(image, transformed, *grid, tile);
}

// image: (N, H, W, C), gradient of a convolution's output. transformed: (36, num_tiles, C).
EXPORT void winograd_gradient_1(const float* image, float* transformed, const Grid* grid) {
#pragma omp parallel for schedule(static) num_threads(grid->threads)
  for (int64_t tile = 0; tile < grid->num_tiles; ++tile) gradient_tile(image, transformed, *grid, tile);
}

// products: (36, num_tiles, C). bias: (C,). residual: null, or (N, H, W, C), which is added. image: (N, H, W, C), whose pixels in the
// tiles are written.
EXPORT void winograd_output_2(
    const float* products, const float* bias, const float* residual, float* image, const Grid* grid, int64_t relu) {
#pragma omp parallel for schedule(static) num_threads(grid->threads)
  for (int64_t tile = 0; tile < grid->num_tiles; ++tile) output_in_float(products, bias, residual, image, *grid, tile, relu != 0);
}

// The same for residual and image in bf16.
EXPORT void winograd_output_bf16_1(
    const float* products, const float* bias, const BFloat16* residual, BFloat16* image, const Grid* grid, int64_t relu) {
#pragma omp parallel for schedule(static) num_threads(grid->threads)
  for (int64_t tile = 0; tile < grid->num_tiles; ++tile) output_in_bf16(products, bias, residual, image, *grid, tile, relu != 0);
}
