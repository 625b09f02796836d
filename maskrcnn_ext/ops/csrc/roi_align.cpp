// RoIAlign over a feature pyramid, forward and backward, for CPUs.
//
// A plain C interface: the library needs neither Python nor torch, and works with every release of both.
//
// The mean of bilinear weights over the samples of a bin is a product of two one-dimensional means. Therefore each RoI has a list of
// taps (pixel, weight) for each bin and axis. Samples in the same pixels share taps. Pooling runs along y, then along x.
//
// channels_last: a task is a few RoIs, a vector holds 16 channels. NCHW: a task is a few channels of all RoIs, whose planes stay
// in the cache, and a vector holds 16 pixels of a row. In the backward pass, a task has some channels in both layouts, so that no
// value is written by two threads and the order of the sum is fixed.

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "kernel.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

constexpr int kRows = 7;    // bins along y that the kernel for planes keeps in registers
constexpr int kPlanes = 4;  // channels pooled along y at a time
// Beyond it, float32 does not represent every pixel, and an int32 may overflow.
constexpr float kLargest = 16777216.0f;

struct Float16 { uint16_t bits; };

// Arguments of the caller, declared again in roi_align_cpu.py. Strides count elements.
struct Level {
  void* data;  // features; in the backward pass, their float32 gradient, to which is added
  int64_t height, width, stride_image, stride_channel, stride_row, stride_column;
  double scale;
};

struct Arguments {
  const Level* levels;
  const float* rois;        // (M, 5): image, x0, y0, x1, y1
  const int64_t* level_of;  // (M,)
  void* pooled;             // (M, C, bins_y, bins_x) in the layout of the features; in the backward pass, its gradient
  int64_t num_levels, num_rois, num_images, channels, bins_y, bins_x, sampling_ratio, aligned;
  int64_t backward, channels_last, dtype, threads;  // dtype: 0 float32, 1 bfloat16, 2 float16
};

INLINE int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
INLINE int64_t padded(int64_t n) { return round_up(n, kLanes); }

struct Tap { int32_t pixel; float weight; };

struct Axis {
  std::vector<Tap> taps;
  std::vector<int32_t> start;  // first tap of each bin, and the end
  int32_t low = 0, size = 0;   // pixels with taps are in [low, low + size)
};

struct Plan {
  Axis y, x;
  std::vector<float> dense;  // weights along x in the order of the kernel for planes
  const Level* level = nullptr;
  int64_t image = 0, roi = 0;

  bool empty() const { return y.taps.empty() || x.taps.empty(); }
};

// ---------------------------------------------------------------------------------------------------------------- taps

// A separate function, so that the compiler does not fuse it with an addition, which would round differently.
__attribute__((noinline)) float product(float a, float b) { return a * b; }

// The arithmetic, in float32 and in this order, is that of torchvision: a sample on the map's border must fall on the same side.
void add_taps(Axis& axis, float start, float bin_size, int64_t bin, int64_t samples, int64_t length) {
  const size_t first_tap = axis.taps.size();
  const auto add = [&](int32_t pixel, float weight) {
    // Samples are in order, so that a pixel is one of the last two.
    for (size_t i = axis.taps.size(); i-- > first_tap && i + 2 >= axis.taps.size();)
      if (axis.taps[i].pixel == pixel) {
        axis.taps[i].weight += weight;
        return;
      }
    axis.taps.push_back({pixel, weight});
  };
  // Samples far from the map are skipped; otherwise a huge box would take very long.
  int64_t from = 0, to = samples;
  if (bin_size > 0) {
    const double base = double(start) + double(bin) * bin_size, step = double(bin_size) / samples;
    from = int64_t(std::clamp(std::floor((-1 - base) / step) - 2, 0.0, double(samples)));
    to = int64_t(std::clamp(std::ceil((length - base) / step) + 2, 0.0, double(samples)));
  }
  for (int64_t i = from; i < to; ++i) {
    float at = start + product(float(bin), bin_size) + product(i + 0.5f, bin_size) / samples;
    if (!(at >= -1.0f && at <= float(length))) continue;
    at = std::max(at, 0.0f);
    const int32_t pixel = std::min(int32_t(at), int32_t(length - 1));
    const float upper = pixel == length - 1 ? 0.0f : at - pixel;
    add(pixel, (1.0f - upper) / samples);
    if (upper > 0) add(pixel + 1, upper / samples);
  }
}

void plan_axis(Axis& axis, float low, float high, const Arguments& a, int64_t bins, int64_t length) {
  float extent = high - low;
  if (!a.aligned) extent = std::max(extent, 1.0f);
  const float bin_size = extent / bins;
  const int64_t samples = a.sampling_ratio > 0 ? a.sampling_ratio : int64_t(std::ceil(bin_size));
  axis.start.push_back(0);
  for (int64_t bin = 0; bin < bins; ++bin) {
    add_taps(axis, low, bin_size, bin, samples, length);
    axis.start.push_back(int32_t(axis.taps.size()));
  }
  if (axis.taps.empty()) return;
  const auto [least, most] = std::minmax_element(
      axis.taps.begin(), axis.taps.end(), [](const Tap& a, const Tap& b) { return a.pixel < b.pixel; });
  axis.low = least->pixel;
  axis.size = most->pixel - least->pixel + 1;
}

// For planes. Forward: the weights of 16 bins, column by column; backward: the weights of all columns, bin by bin.
void make_dense(Plan& plan, const Arguments& a) {
  const int64_t columns = padded(plan.x.size);
  plan.dense.assign(a.backward ? a.bins_x * columns : padded(a.bins_x) * plan.x.size, 0.0f);
  for (int64_t j = 0; j < a.bins_x; ++j)
    for (int32_t k = plan.x.start[j]; k < plan.x.start[j + 1]; ++k) {
      const int64_t column = plan.x.taps[k].pixel - plan.x.low;
      const int64_t forward = (j / kLanes * plan.x.size + column) * kLanes + j % kLanes;
      plan.dense[a.backward ? j * columns + column : forward] += plan.x.taps[k].weight;
    }
}

// A RoI without taps pools to zeros.
void plan_roi(Plan& plan, const Arguments& a, int64_t roi) {
  const float* box = a.rois + 5 * roi;
  const int64_t level = a.level_of[roi];
  plan.roi = roi;
  if (level < 0 || level >= a.num_levels || !(box[0] >= 0 && box[0] < float(a.num_images))) return;
  const float scale = float(a.levels[level].scale), offset = a.aligned ? 0.5f : 0.0f;
  float corner[4];
  for (int i = 0; i < 4; ++i) {
    if (!(std::fabs(box[1 + i]) < kLargest)) return;
    corner[i] = product(box[1 + i], scale) - offset;
  }
  plan.level = a.levels + level;
  if (plan.level->height < 1 || plan.level->width < 1) return;
  plan.image = int64_t(box[0]);
  plan_axis(plan.y, corner[1], corner[3], a, a.bins_y, plan.level->height);
  plan_axis(plan.x, corner[0], corner[2], a, a.bins_x, plan.level->width);
  if (!a.channels_last && !plan.empty()) make_dense(plan, a);
}

std::vector<Plan> make_plans(const Arguments& a) {
  std::vector<Plan> plans(a.num_rois);
#pragma omp parallel for schedule(static) num_threads(a.threads)
  for (int64_t roi = 0; roi < a.num_rois; ++roi) plan_roi(plans[roi], a, roi);
  // Neighbouring RoIs share cached pixels.
  std::sort(plans.begin(), plans.end(), [](const Plan& a, const Plan& b) {
    const auto key = [](const Plan& p) { return std::make_tuple(p.level, p.image, p.y.low, p.roi); };
    return key(a) < key(b);
  });
  return plans;
}

// ------------------------------------------------------------------------------------------------------------- vectors

// The exponent of float16 is rebiased by a multiplication, which is exact, also for subnormal numbers.
INLINE Vector load(const Float16* p) {
  HalfBits half;
  std::memcpy(&half, p, sizeof half);
  const Bits bits = __builtin_convertvector(half, Bits);
  const Vector magnitude = (Vector)((bits & 0x7fff) << 13) * 0x1p112f;
  const Bits infinite = (Bits)((bits & 0x7c00) == 0x7c00);
  return (Vector)((Bits)magnitude | (infinite & 0x7f800000) | ((bits & 0x8000) << 16));
}

INLINE void store(Float16* p, Vector v) {
  const Bits bits = (Bits)v, sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  // Normal: rebias, round to the nearest even. Below: adding 0.5 aligns the mantissa, and the addition itself rounds.
  const Bits normal = (magnitude - 0x38000000 + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  const Bits subnormal = (Bits)((Vector)magnitude + 0.5f) - 0x3f000000;
  const Bits is_small = (Bits)(magnitude < 0x38800000), is_large = (Bits)(magnitude >= 0x477ff000), nan = (Bits)(v != v);
  const Bits finite = (is_small & subnormal) | (~is_small & normal);
  const Bits result = (is_large & (0x7c00 | (nan & 0x200))) | (~is_large & finite) | sign;
  const HalfBits half = __builtin_convertvector(result, HalfBits);
  std::memcpy(p, &half, sizeof half);
}

// Loads the first `count` lanes; the others are zero and are not read.
template <typename T>
INLINE Vector load_part(const T* p, int64_t count) {
  if (__builtin_expect(count >= kLanes, 1)) return load(p);
  T part[kLanes] = {};
  std::memcpy(part, p, count * sizeof(T));
  return load(part);
}

template <typename T>
INLINE void store_part(T* p, Vector v, int64_t count) {
  if (__builtin_expect(count >= kLanes, 1)) return store(p, v);
  T part[kLanes];
  store(part, v);
  std::memcpy(p, part, count * sizeof(T));
}

// Sums taps for Unroll vectors at once, so that the sums do not wait for each other. Vector u of a tap is at
// `source + pixel * tap_step + u * step` and is written to `out + u * out_step`. Nothing is read from `end` on.
template <int Unroll, typename T>
INLINE void sum_taps(float* out, int64_t out_step, const T* source, int64_t step, int64_t tap_step, const Tap* tap,
                     const Tap* last, const T* end) {
  Vector sum[Unroll] = {};
  for (; tap < last; ++tap)
    for (int u = 0; u < Unroll; ++u) {
      const T* p = source + tap->pixel * tap_step + u * step;
      sum[u] += load_part(p, end - p) * tap->weight;
    }
  for (int u = 0; u < Unroll; ++u) store(out + u * out_step, sum[u]);
}

// ------------------------------------------------------------------------------------------------------- channels last

// Pools all channels of one RoI. Scratch: window width times padded channels.
template <typename T>
INLINE void pool_pixels(const Plan& plan, const Arguments& a, int64_t, int64_t, float* scratch) {
  const int64_t channels = a.channels, row_size = padded(channels);
  T* out = static_cast<T*>(a.pooled) + plan.roi * a.bins_y * a.bins_x * channels;
  if (plan.empty()) {
    std::memset(static_cast<void*>(out), 0, a.bins_y * a.bins_x * channels * sizeof(T));
    return;
  }
  const Level& level = *plan.level;
  const T* image = static_cast<const T*>(level.data) + plan.image * level.stride_image;
  const T* image_end = image + (level.height - 1) * level.stride_row + (level.width - 1) * level.stride_column + channels;
  const Tap *along_y = plan.y.taps.data(), *along_x = plan.x.taps.data();
  constexpr int kUnroll = 4, kBlock = kUnroll * kLanes;
  for (int64_t i = 0; i < a.bins_y; ++i) {
    const Tap *first = along_y + plan.y.start[i], *last = along_y + plan.y.start[i + 1];
    for (int64_t column = 0; column < plan.x.size; ++column) {
      const T* source = image + (plan.x.low + column) * level.stride_column;
      float* row = scratch + column * row_size;
      int64_t c = 0;
      for (; c + kBlock <= channels; c += kBlock)
        sum_taps<kUnroll>(row + c, kLanes, source + c, kLanes, level.stride_row, first, last, image_end);
      for (; c < channels; c += kLanes)
        sum_taps<1>(row + c, 0, source + c, 0, level.stride_row, first, last, image_end);
    }
    for (int64_t j = 0; j < a.bins_x; ++j, out += channels) {
      const Tap *first = along_x + plan.x.start[j], *last = along_x + plan.x.start[j + 1];
      for (int64_t c = 0; c < channels; c += kLanes) {
        Vector sum = {};
        for (const Tap* tap = first; tap < last; ++tap)
          sum += load(scratch + (tap->pixel - plan.x.low) * row_size + c) * tap->weight;
        store_part(out + c, sum, channels - c);
      }
    }
  }
}

// Adds the contribution of one RoI to the gradients of channels [first, end). Scratch: window width times padded channels.
template <typename T>
INLINE void spread_pixels(const Plan& plan, const Arguments& a, int64_t first, int64_t end, float* scratch) {
  if (plan.empty()) return;
  const int64_t row_size = padded(end - first);
  const T* gradient = static_cast<const T*>(a.pooled) + plan.roi * a.bins_y * a.bins_x * a.channels;
  const Level& level = *plan.level;
  float* image = static_cast<float*>(level.data) + plan.image * level.stride_image;
  for (int64_t i = 0; i < a.bins_y; ++i, gradient += a.bins_x * a.channels) {
    if (plan.y.start[i] == plan.y.start[i + 1]) continue;
    std::fill(scratch, scratch + plan.x.size * row_size, 0.0f);
    for (int64_t c = first; c < end; c += kLanes) {
      const int64_t count = end - c;
      for (int64_t j = 0; j < a.bins_x; ++j) {
        const Vector g = load_part(gradient + j * a.channels + c, count);
        for (int32_t k = plan.x.start[j]; k < plan.x.start[j + 1]; ++k) {
          float* p = scratch + (plan.x.taps[k].pixel - plan.x.low) * row_size + c - first;
          store(p, load(p) + g * plan.x.taps[k].weight);
        }
      }
    }
    for (int32_t k = plan.y.start[i]; k < plan.y.start[i + 1]; ++k) {
      float* row = image + plan.y.taps[k].pixel * level.stride_row + plan.x.low * level.stride_column;
      for (int64_t column = 0; column < plan.x.size; ++column, row += level.stride_column)
        for (int64_t c = first; c < end; c += kLanes) {
          const Vector s = load(scratch + column * row_size + c - first);
          store_part(row + c, load_part(row + c, end - c) + s * plan.y.taps[k].weight, end - c);
        }
    }
  }
}

// ---------------------------------------------------------------------------------------------------------------- NCHW

// Pools Planes channels of one RoI; the output has the caller's channels up to `end`.
// Scratch: Planes times bins_y, rounded up to kRows, times padded window widths.
template <int Planes, typename T>
INLINE void pool_some_planes(const Plan& plan, const Arguments& a, int64_t channel, const T* end, float* scratch) {
  const Level& level = *plan.level;
  const T* data = static_cast<const T*>(level.data) + plan.image * level.stride_image + channel * level.stride_channel;
  // Pixels after the window are read, but not used.
  const T* data_end = data + (Planes - 1) * level.stride_channel + (level.height - 1) * level.stride_row + level.width;
  const int64_t columns = padded(plan.x.size), plane = round_up(a.bins_y, kRows) * columns;
  for (int64_t i = 0; i < a.bins_y; ++i)
    for (int64_t column = 0; column < columns; column += kLanes)
      sum_taps<Planes>(scratch + i * columns + column, plane, data + plan.x.low + column, level.stride_channel,
                       level.stride_row, plan.y.taps.data() + plan.y.start[i], plan.y.taps.data() + plan.y.start[i + 1],
                       data_end);

  T* out = static_cast<T*>(a.pooled) + (plan.roi * a.channels + channel) * a.bins_y * a.bins_x;
  for (int p = 0; p < Planes; ++p, out += a.bins_y * a.bins_x)
    for (int64_t i = 0; i < a.bins_y; i += kRows)
      // Values after the end of a row are overwritten by the next row; therefore the last bins are written first.
      for (int64_t j = padded(a.bins_x) - kLanes; j >= 0; j -= kLanes) {
        const float* pooled_y = scratch + p * plane + i * columns;
        const float* weights = plan.dense.data() + j * plan.x.size;
        Vector sum[kRows] = {};
        for (int64_t column = 0; column < plan.x.size; ++column) {
          const Vector w = load(weights + column * kLanes);
          for (int r = 0; r < kRows; ++r) sum[r] += pooled_y[r * columns + column] * w;
        }
        T* row = out + i * a.bins_x + j;
        for (int r = 0; r < kRows; ++r, row += a.bins_x)
          if (i + r < a.bins_y) store_part(row, sum[r], end - row);
      }
}

template <typename T>
INLINE void pool_planes(const Plan& plan, const Arguments& a, int64_t channel, int64_t end, float* scratch) {
  const int64_t bins = a.bins_y * a.bins_x;
  T* const out = static_cast<T*>(a.pooled) + plan.roi * a.channels * bins;
  if (plan.empty()) {
    std::memset(static_cast<void*>(out + channel * bins), 0, (end - channel) * bins * sizeof(T));
    return;
  }
  for (; channel + kPlanes <= end; channel += kPlanes) pool_some_planes<kPlanes>(plan, a, channel, out + end * bins, scratch);
  for (; channel < end; ++channel) pool_some_planes<1>(plan, a, channel, out + end * bins, scratch);
}

// Adds the contribution of one RoI to the gradients of channels [channel, end). Scratch: a padded window width, and padded bins.
template <typename T>
INLINE void spread_planes(const Plan& plan, const Arguments& a, int64_t channel, int64_t end, float* scratch) {
  if (plan.empty()) return;
  const Level& level = *plan.level;
  const int64_t bins = a.bins_y * a.bins_x, columns = padded(plan.x.size);
  const int64_t plane_size = (level.height - 1) * level.stride_row + level.width;
  float* gradient = scratch + columns;
  for (; channel < end; ++channel) {
    const T* source = static_cast<const T*>(a.pooled) + (plan.roi * a.channels + channel) * bins;
    for (int64_t b = 0; b < bins; b += kLanes) store(gradient + b, load_part(source + b, bins - b));
    float* plane = static_cast<float*>(level.data) + plan.image * level.stride_image + channel * level.stride_channel;
    for (int64_t i = 0; i < a.bins_y; ++i) {
      if (plan.y.start[i] == plan.y.start[i + 1]) continue;
      for (int64_t column = 0; column < columns; column += kLanes) {
        Vector sum = {};
        for (int64_t j = 0; j < a.bins_x; ++j)
          sum += load(plan.dense.data() + j * columns + column) * gradient[i * a.bins_x + j];
        store(scratch + column, sum);
      }
      for (int32_t k = plan.y.start[i]; k < plan.y.start[i + 1]; ++k)
        for (int64_t column = 0; column < columns; column += kLanes) {
          // After the window, zeros are added.
          const int64_t at = plan.y.taps[k].pixel * level.stride_row + plan.x.low + column;
          const Vector s = load(scratch + column);
          store_part(plane + at, load_part(plane + at, plane_size - at) + s * plan.y.taps[k].weight, plane_size - at);
        }
    }
  }
}

// ------------------------------------------------------------------------------------------------------------- drivers

using Kernel = void (*)(const Plan&, const Arguments&, int64_t, int64_t, float*);

#define KERNEL(name, T)                                                                                     \
  MULTIVERSION void name##_##T(const Plan& plan, const Arguments& a, int64_t channel, int64_t end, float* scratch) { \
    name<T>(plan, a, channel, end, scratch);                                                                \
  }
#define KERNELS(name) KERNEL(name, float) KERNEL(name, BFloat16) KERNEL(name, Float16)
KERNELS(pool_pixels)
KERNELS(pool_planes)
KERNELS(spread_pixels)
KERNELS(spread_planes)

const Kernel kKernels[2][2][3] = {  // [backward][channels_last][dtype]
    {{pool_planes_float, pool_planes_BFloat16, pool_planes_Float16},
     {pool_pixels_float, pool_pixels_BFloat16, pool_pixels_Float16}},
    {{spread_planes_float, spread_planes_BFloat16, spread_planes_Float16},
     {spread_pixels_float, spread_pixels_BFloat16, spread_pixels_Float16}}};

// With small pages, clearing a large new result costs as much as computing it.
void use_large_pages(void* data, size_t size) {
#if defined(__linux__)
  constexpr size_t kPage = 4096, kLarge = 1 << 21;
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  if (size >= 2 * kLarge) madvise(reinterpret_cast<void*>(first), size - kPage, MADV_HUGEPAGE);
#else
  (void)data, (void)size;
#endif
}

void run(const Arguments& a) {
  if (a.num_rois == 0 || a.channels == 0) return;
  const int64_t bins = a.bins_y * a.bins_x;
  if (!a.backward) use_large_pages(a.pooled, a.num_rois * a.channels * bins * (a.dtype == 0 ? 4 : 2));
  std::vector<Plan> plans = make_plans(a);

  // A task is a range of RoIs and of channels.
  int64_t columns = 0;
  for (const Plan& plan : plans) columns = std::max(columns, padded(plan.x.size));
  int64_t roi_step = a.num_rois, channel_step = kPlanes;
  int64_t scratch_size = kPlanes * round_up(a.bins_y, kRows) * columns + padded(bins);
  if (a.channels_last) {
    if (!a.backward) roi_step = 4;
    channel_step = a.backward ? padded((a.channels + a.threads - 1) / a.threads) : padded(a.channels);
    scratch_size = columns * channel_step;
  }
  const int64_t roi_tasks = (a.num_rois + roi_step - 1) / roi_step;
  const int64_t channel_tasks = (a.channels + channel_step - 1) / channel_step;
  const Kernel kernel = kKernels[a.backward][a.channels_last][a.dtype];
#pragma omp parallel num_threads(a.threads)
  {
    std::vector<float> scratch(scratch_size);
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < roi_tasks * channel_tasks; ++task) {
      const int64_t roi = task / channel_tasks * roi_step, channel = task % channel_tasks * channel_step;
      for (int64_t i = roi; i < std::min(roi + roi_step, a.num_rois); ++i)
        kernel(plans[i], a, channel, std::min(channel + channel_step, a.channels), scratch.data());
    }
  }
}

}  // namespace

// The number increases with each change of the arguments, so that a library of another release is not found under this name.
EXPORT void roi_align_1(const Arguments* arguments) { run(*arguments); }
