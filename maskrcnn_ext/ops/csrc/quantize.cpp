// Values to unsigned 8-bit integers, for CPUs.
//
// A plain C interface: the library needs neither Python nor torch, and works with every release of both.

#include "kernel.h"

namespace {

constexpr int64_t CHUNK = 1 << 14;

// The nearest integer of value / scale + zero_point from 0 to 255; ties to even, NaN to 0.
inline uint8_t nearest(float value, float inverse, float zero_point) {
  float q = value * inverse + zero_point;
  q = q > 0.0f ? q : 0.0f;
  q = q < 255.0f ? q : 255.0f;
  q += 12582912.0f;  // 1.5 * 2^23: the sum is rounded to an integer, in the low bits of the mantissa
  uint32_t bits;
  std::memcpy(&bits, &q, sizeof bits);
  return static_cast<uint8_t>(bits);
}

MULTIVERSION void quantize_float(const float* x, uint8_t* out, int64_t count, float inverse, float zero_point) {
  for (int64_t i = 0; i < count; ++i) out[i] = nearest(x[i], inverse, zero_point);
}

MULTIVERSION void quantize_bf16(const BFloat16* x, uint8_t* out, int64_t count, float inverse, float zero_point) {
  for (int64_t i = 0; i < count; ++i) out[i] = nearest(to_float(x[i]), inverse, zero_point);
}

}  // namespace

// x: `count` values in float32, or bf16 if `is_bf16`. out: `count` bytes.
EXPORT void quantize_1(
    const void* x, int64_t is_bf16, uint8_t* out, int64_t count, float inverse, float zero_point, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t first = 0; first < count; first += CHUNK) {
    const int64_t own = count - first < CHUNK ? count - first : CHUNK;
    if (is_bf16)
      quantize_bf16(static_cast<const BFloat16*>(x) + first, out + first, own, inverse, zero_point);
    else
      quantize_float(static_cast<const float*>(x) + first, out + first, own, inverse, zero_point);
  }
}
