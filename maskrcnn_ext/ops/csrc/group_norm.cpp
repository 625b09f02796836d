// Group normalisation of channels-last maps, with a ReLU, and its gradients, for CPUs. Values are float32 or bf16; sums are float32 within a
// block of pixels, which stays in the cache, and float64 over blocks.
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
INLINE void apply(const T* x, T* y, int64_t count, const Maps& maps, const float* means, const float* scale, const float* bias) {
  const float floor = maps.relu ? 0.0f : -__builtin_inff();
  for (int64_t p = 0; p < count; ++p)
    for (int64_t c = 0; c < maps.channels; ++c) {
      const float value = (to_float(x[p * maps.channels + c]) - means[c]) * scale[c] + bias[c];
      store(y + p * maps.channels + c, value < floor ? floor : value);
    }
}

// Sums over `count` pixels of each channel: the gradient, and the gradient times the distance from the mean.
template <typename T>
INLINE void sum_gradient(const T* x, const T* gradient, int64_t count, const Maps& maps, const float* means, float* sums, float* products) {
  std::fill(sums, sums + maps.channels, 0.0f);
  std::fill(products, products + maps.channels, 0.0f);
  for (int64_t p = 0; p < count; ++p)
    for (int64_t c = 0; c < maps.channels; ++c) {
      const float own = to_float(gradient[p * maps.channels + c]);
      sums[c] += own;
      products[c] += own * (to_float(x[p * maps.channels + c]) - means[c]);
    }
}

// Gradient of the input: factors[0] of the gradient, factors[1] of the input, and factors[2], each of a channel.
template <typename T>
INLINE void combine(const T* x, const T* gradient, T* y, int64_t count, const Maps& maps, const float* factors) {
  const int64_t channels = maps.channels;
  for (int64_t p = 0; p < count; ++p)
    for (int64_t c = 0; c < channels; ++c)
      store(y + p * channels + c, factors[c] * to_float(gradient[p * channels + c]) +
                                      factors[channels + c] * to_float(x[p * channels + c]) + factors[2 * channels + c]);
}

MULTIVERSION void measure_block(const float* x, int64_t count, const Maps& maps, float* sums, float* means, Moments* moments) {
  measure(x, count, maps, sums, means, moments);
}

MULTIVERSION void measure_block(const BFloat16* x, int64_t count, const Maps& maps, float* sums, float* means, Moments* moments) {
  measure(x, count, maps, sums, means, moments);
}

MULTIVERSION void apply_block(const float* x, float* y, int64_t count, const Maps& maps, const float* means, const float* scale,
                              const float* bias) {
  apply(x, y, count, maps, means, scale, bias);
}

MULTIVERSION void apply_block(const BFloat16* x, BFloat16* y, int64_t count, const Maps& maps, const float* means, const float* scale,
                              const float* bias) {
  apply(x, y, count, maps, means, scale, bias);
}

MULTIVERSION void sum_block(const float* x, const float* gradient, int64_t count, const Maps& maps, const float* means, float* sums,
                            float* products) {
  sum_gradient(x, gradient, count, maps, means, sums, products);
}

MULTIVERSION void sum_block(const BFloat16* x, const BFloat16* gradient, int64_t count, const Maps& maps, const float* means, float* sums,
                            float* products) {
  sum_gradient(x, gradient, count, maps, means, sums, products);
}

MULTIVERSION void combine_block(const float* x, const float* gradient, float* y, int64_t count, const Maps& maps, const float* factors) {
  combine(x, gradient, y, count, maps, factors);
}

MULTIVERSION void combine_block(const BFloat16* x, const BFloat16* gradient, BFloat16* y, int64_t count, const Maps& maps,
                                const float* factors) {
  combine(x, gradient, y, count, maps, factors);
}

// Blocks of pixels of an image.
struct Blocks {
  explicit Blocks(const Maps& maps)
      : step(std::max<int64_t>(1, kBlock / maps.channels)), number((maps.pixels + step - 1) / step), pixels(maps.pixels) {}
  int64_t start(int64_t block) const { return block * step; }
  int64_t count(int64_t block) const { return std::min(step, pixels - block * step); }
  const int64_t step, number, pixels;
};

// `statistics` gets the mean and the inverse deviation of each group, unless it is null.
template <typename T>
void normalise(const T* image, T* output, const Maps& maps, const float* weight, const float* bias, double epsilon, double* statistics,
               bool parallel) {
  const Blocks blocks(maps);
  const int64_t size = maps.channels / maps.groups;
  std::vector<Moments> moments(blocks.number * maps.groups);
#pragma omp parallel num_threads(maps.threads) if (parallel)
  {
    std::vector<float> memory(2 * maps.channels);
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks.number; ++b)
      measure_block(image + blocks.start(b) * maps.channels, blocks.count(b), maps, memory.data(), memory.data() + maps.channels,
                    moments.data() + b * maps.groups);
  }
  std::vector<float> means(maps.channels), scale(maps.channels);
  for (int64_t g = 0; g < maps.groups; ++g) {
    double mean = 0, squares = 0, seen = 0;
    for (int64_t b = 0; b < blocks.number; ++b) {  // sums of squares of two parts are those of the whole: Chan, Golub, LeVeque 1983
      const double count = static_cast<double>(blocks.count(b) * size);
      const Moments& own = moments[b * maps.groups + g];
      const double difference = own.mean - mean;
      squares += own.squares + difference * difference * seen * count / (seen + count);
      seen += count;
      mean += difference * count / seen;
    }
    const double inverse = 1 / std::sqrt(squares / seen + epsilon);
    if (statistics) {
      statistics[2 * g] = mean;
      statistics[2 * g + 1] = inverse;
    }
    for (int64_t c = g * size; c < (g + 1) * size; ++c) {
      means[c] = static_cast<float>(mean);
      scale[c] = static_cast<float>(inverse * weight[c]);
    }
  }
#pragma omp parallel for schedule(static) num_threads(maps.threads) if (parallel)
  for (int64_t b = 0; b < blocks.number; ++b) {
    const int64_t start = blocks.start(b) * maps.channels;
    apply_block(image + start, output + start, blocks.count(b), maps, means.data(), scale.data(), bias);
  }
}

// `parameters` gets the gradients of weight and bias from this image, each (channels,).
template <typename T>
void differentiate(const T* image, const T* gradient, T* output, const Maps& maps, const float* weight, const double* statistics,
                   double* parameters, bool parallel) {
  const Blocks blocks(maps);
  const int64_t channels = maps.channels, size = channels / maps.groups;
  std::vector<float> means(channels), sums(2 * channels * blocks.number), factors(3 * channels);
  for (int64_t c = 0; c < channels; ++c) means[c] = static_cast<float>(statistics[c / size * 2]);
#pragma omp parallel for schedule(static) num_threads(maps.threads) if (parallel)
  for (int64_t b = 0; b < blocks.number; ++b) {
    const int64_t start = blocks.start(b) * channels;
    float* own = sums.data() + 2 * channels * b;
    sum_block(image + start, gradient + start, blocks.count(b), maps, means.data(), own, own + channels);
  }
  double *of_weight = parameters, *of_bias = parameters + channels;
  for (int64_t g = 0; g < maps.groups; ++g) {
    const double mean = statistics[2 * g], inverse = statistics[2 * g + 1];
    double sum = 0, product = 0;  // over the group, of the gradient of the normalised values, and of it times these values
    for (int64_t c = g * size; c < (g + 1) * size; ++c) {
      of_weight[c] = of_bias[c] = 0;
      for (int64_t b = 0; b < blocks.number; ++b) {
        of_bias[c] += sums[2 * channels * b + c];
        of_weight[c] += sums[2 * channels * b + channels + c];
      }
      of_weight[c] *= inverse;
      sum += weight[c] * of_bias[c];
      product += weight[c] * of_weight[c];
    }
    const double count = static_cast<double>(maps.pixels * size), slope = -inverse * inverse * product / count;
    for (int64_t c = g * size; c < (g + 1) * size; ++c) {
      factors[c] = static_cast<float>(inverse * weight[c]);
      factors[channels + c] = static_cast<float>(slope);
      factors[2 * channels + c] = static_cast<float>(-inverse * sum / count - slope * mean);
    }
  }
#pragma omp parallel for schedule(static) num_threads(maps.threads) if (parallel)
  for (int64_t b = 0; b < blocks.number; ++b) {
    const int64_t start = blocks.start(b) * channels;
    combine_block(image + start, gradient + start, output + start, blocks.count(b), maps, factors.data());
  }
}

template <typename T>
void normalise_all(const T* x, T* y, const Maps& maps, const float* weight, const float* bias, double epsilon, double* statistics) {
  const bool by_image = maps.number >= maps.threads;
#pragma omp parallel for schedule(static) num_threads(maps.threads) if (by_image)
  for (int64_t n = 0; n < maps.number; ++n) {
    const int64_t start = n * maps.pixels * maps.channels;
    normalise(x + start, y + start, maps, weight, bias, epsilon, statistics ? statistics + 2 * n * maps.groups : nullptr, !by_image);
  }
}

template <typename T>
void differentiate_all(const T* x, const T* gradient, T* y, const Maps& maps, const float* weight, const double* statistics,
                       double* parameters) {
  const bool by_image = maps.number >= maps.threads;
#pragma omp parallel for schedule(static) num_threads(maps.threads) if (by_image)
  for (int64_t n = 0; n < maps.number; ++n) {
    const int64_t start = n * maps.pixels * maps.channels;
    differentiate(x + start, gradient + start, y + start, maps, weight, statistics + 2 * n * maps.groups,
                  parameters + 2 * n * maps.channels, !by_image);
  }
}

}  // namespace

// x, y: (number, pixels, channels), float32, or bf16 if `is_bf16`, at least one pixel; y may be x. weight, bias: (channels,).
// statistics: (number, groups, 2), or null; it gets the mean and the inverse deviation.
EXPORT void group_norm_2(const void* x, void* y, int64_t is_bf16, const float* weight, const float* bias, double epsilon,
                         double* statistics, const Maps* maps) {
  if (is_bf16)
    normalise_all(static_cast<const BFloat16*>(x), static_cast<BFloat16*>(y), *maps, weight, bias, epsilon, statistics);
  else
    normalise_all(static_cast<const float*>(x), static_cast<float*>(y), *maps, weight, bias, epsilon, statistics);
}

// Gradients, without a ReLU. x, gradient, of_x: as above. statistics: of group_norm_2. of_parameters: (number, 2, channels), it gets those of
// weight and bias.
EXPORT void group_norm_backward_2(const void* x, const void* gradient, void* of_x, int64_t is_bf16, const float* weight,
                                  const double* statistics, double* of_parameters, const Maps* maps) {
  if (is_bf16)
    differentiate_all(static_cast<const BFloat16*>(x), static_cast<const BFloat16*>(gradient), static_cast<BFloat16*>(of_x), *maps, weight,
                      statistics, of_parameters);
  else
    differentiate_all(static_cast<const float*>(x), static_cast<const float*>(gradient), static_cast<float*>(of_x), *maps, weight,
                      statistics, of_parameters);
}
