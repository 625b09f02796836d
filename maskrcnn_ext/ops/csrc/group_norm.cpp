// Group normalisation of channels-last maps in place, with a ReLU, for CPUs. Values are float32 or bf16; sums are float32 within a block of
// pixels, which stays in the cache, and float64 over blocks.
//
// A plain C interface: the library needs neither Python nor torch, and works with every release of both.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel.h"

// Arguments of the caller, declared again in group_norm.py.
struct Maps {
  int64_t number, pixels, channels, groups, relu, threads;
};

namespace {

constexpr int64_t kBlock = 8192;  // values of a block of pixels

struct Moments {
  double mean, squares;  // mean, and sum of the squared distances from it
};

// Moments of each group in `count` pixels. `sums` and `means` have room for a value of each channel.
template <typename T>
INLINE void measure(const T* x, int64_t count, const Maps& maps, float* sums, float* means, Moments* moments) {
  const int64_t channels = maps.channels, size = channels / maps.groups;
  std::fill(sums, sums + channels, 0.0f);
  for (int64_t p = 0; p < count; ++p)
    for (int64_t c = 0; c < channels; ++c) sums[c] += to_float(x[p * channels + c]);
  for (int64_t g = 0; g < maps.groups; ++g) {
    double sum = 0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) sum += sums[c];
    moments[g].mean = sum / static_cast<double>(count * size);
    std::fill(means + g * size, means + (g + 1) * size, static_cast<float>(moments[g].mean));
  }
  std::fill(sums, sums + channels, 0.0f);
  for (int64_t p = 0; p < count; ++p)
    for (int64_t c = 0; c < channels; ++c) {
      const float distance = to_float(x[p * channels + c]) - means[c];
      sums[c] += distance * distance;
    }
  for (int64_t g = 0; g < maps.groups; ++g) {
    moments[g].squares = 0;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) moments[g].squares += sums[c];
  }
}

template <typename T>
INLINE void apply(T* x, int64_t count, const Maps& maps, const float* means, const float* scale, const float* bias) {
  const float floor = maps.relu ? 0.0f : -__builtin_inff();
  for (int64_t p = 0; p < count; ++p)
    for (int64_t c = 0; c < maps.channels; ++c) {
      const float value = (to_float(x[p * maps.channels + c]) - means[c]) * scale[c] + bias[c];
      store(x + p * maps.channels + c, value < floor ? floor : value);
    }
}

MULTIVERSION void measure_block(const float* x, int64_t count, const Maps& maps, float* sums, float* means, Moments* moments) {
  measure(x, count, maps, sums, means, moments);
}

MULTIVERSION void measure_block(const BFloat16* x, int64_t count, const Maps& maps, float* sums, float* means, Moments* moments) {
  measure(x, count, maps, sums, means, moments);
}

MULTIVERSION void apply_block(float* x, int64_t count, const Maps& maps, const float* means, const float* scale, const float* bias) {
  apply(x, count, maps, means, scale, bias);
}

MULTIVERSION void apply_block(BFloat16* x, int64_t count, const Maps& maps, const float* means, const float* scale, const float* bias) {
  apply(x, count, maps, means, scale, bias);
}

template <typename T>
void normalise(T* image, const Maps& maps, const float* weight, const float* bias, double epsilon, bool parallel) {
  const int64_t step = std::max<int64_t>(1, kBlock / maps.channels), blocks = (maps.pixels + step - 1) / step;
  const int64_t size = maps.channels / maps.groups;
  std::vector<Moments> moments(blocks * maps.groups);
#pragma omp parallel num_threads(maps.threads) if (parallel)
  {
    std::vector<float> memory(2 * maps.channels);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; ++b)
      measure_block(image + b * step * maps.channels, std::min(step, maps.pixels - b * step), maps, memory.data(),
                    memory.data() + maps.channels, moments.data() + b * maps.groups);
  }
  std::vector<float> means(maps.channels), scale(maps.channels);
  for (int64_t g = 0; g < maps.groups; ++g) {
    double mean = 0, squares = 0, seen = 0;
    for (int64_t b = 0; b < blocks; ++b) {  // sums of squares of two parts are those of the whole: Chan, Golub, LeVeque 1983
      const double count = static_cast<double>(std::min(step, maps.pixels - b * step) * size);
      const Moments& own = moments[b * maps.groups + g];
      const double difference = own.mean - mean;
      squares += own.squares + difference * difference * seen * count / (seen + count);
      seen += count;
      mean += difference * count / seen;
    }
    const double inverse = 1 / std::sqrt(squares / seen + epsilon);
    for (int64_t c = g * size; c < (g + 1) * size; ++c) {
      means[c] = static_cast<float>(mean);
      scale[c] = static_cast<float>(inverse * weight[c]);
    }
  }
#pragma omp parallel for schedule(static) num_threads(maps.threads) if (parallel)
  for (int64_t b = 0; b < blocks; ++b)
    apply_block(image + b * step * maps.channels, std::min(step, maps.pixels - b * step), maps, means.data(), scale.data(),
                bias);
}

template <typename T>
void normalise_all(T* x, const Maps& maps, const float* weight, const float* bias, double epsilon) {
  const bool by_image = maps.number >= maps.threads;
#pragma omp parallel for schedule(static) num_threads(maps.threads) if (by_image)
  for (int64_t n = 0; n < maps.number; ++n)
    normalise(x + n * maps.pixels * maps.channels, maps, weight, bias, epsilon, !by_image);
}

}  // namespace

// x: (number, pixels, channels), float32, or bf16 if `is_bf16`, at least one pixel. weight, bias: (channels,).
EXPORT void group_norm_1(
    void* x, int64_t is_bf16, const float* weight, const float* bias, double epsilon, const Maps* maps) {
  if (is_bf16)
    normalise_all(static_cast<BFloat16*>(x), *maps, weight, bias, epsilon);
  else
    normalise_all(static_cast<float*>(x), *maps, weight, bias, epsilon);
}
