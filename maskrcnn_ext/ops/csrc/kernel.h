// What the kernels share: versions for several processors, vectors, and bfloat16, which is the upper half of a float32.

#pragma once

#include <cstdint>
#include <cstring>

// One library for all x86-64 processors: the loader selects the version that the processor supports.
#if !defined(__x86_64__) || !defined(__GLIBC__) || defined(__clang__) || defined(__SANITIZE_ADDRESS__)
#define MULTIVERSION
#elif __GNUC__ >= 12
#define MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MULTIVERSION __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#define INLINE static inline __attribute__((always_inline))
#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

constexpr int64_t kLanes = 16;

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Bits __attribute__((vector_size(4 * kLanes)));
typedef uint16_t HalfBits __attribute__((vector_size(2 * kLanes)));

struct BFloat16 {
  uint16_t bits;
};

INLINE float to_float(float value) { return value; }

INLINE float to_float(BFloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof result);
  return result;
}

INLINE void store(float* to, float value) { *to = value; }

// Rounds to the nearest, ties to even; NaN stays.
INLINE void store(BFloat16* to, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  to->bits = static_cast<uint16_t>(value == value ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fc0);
}

INLINE Vector load(const float* from) {
  Vector value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

INLINE Vector load(const BFloat16* from) {
  HalfBits half;
  std::memcpy(&half, from, sizeof half);
  return (Vector)(__builtin_convertvector(half, Bits) << 16);
}

INLINE void store(float* to, Vector value) { std::memcpy(to, &value, sizeof value); }

INLINE void store(BFloat16* to, Vector value) {
  const Bits bits = (Bits)value, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const HalfBits half = __builtin_convertvector(value == value ? rounded : Bits{} + 0x7fc0, HalfBits);
  std::memcpy(to, &half, sizeof half);
}

}  // namespace
