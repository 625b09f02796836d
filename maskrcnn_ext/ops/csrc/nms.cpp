// Non-maximum suppression of lists of boxes that are sorted by score. The overlaps of a box with all worse ones are computed in vectors.
//
// A plain C interface: the library needs neither Python nor torch, and works with every release of both.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernel.h"

namespace {

// Boxes of one list that are valid, by coordinate.
struct Boxes {
  explicit Boxes(int64_t size) : values(5 * size), x0(values.data()), y0(x0 + size), x1(y0 + size), y1(x1 + size), area(y1 + size) {}
  std::vector<float> values;
  float *x0, *y0, *x1, *y1, *area;
};

// Clears `stays` of each box after `first` whose intersection over union with it is above `most`.
MULTIVERSION void suppress(const Boxes& boxes, int64_t first, int64_t count, float most, int32_t* stays) {
  const float x0 = boxes.x0[first], y0 = boxes.y0[first], x1 = boxes.x1[first], y1 = boxes.y1[first], area = boxes.area[first];
  const float *lefts = boxes.x0, *tops = boxes.y0, *rights = boxes.x1, *bottoms = boxes.y1, *areas = boxes.area;
#pragma omp simd
  for (int64_t i = first + 1; i < count; ++i) {
    const float left = lefts[i] > x0 ? lefts[i] : x0, top = tops[i] > y0 ? tops[i] : y0;
    const float right = rights[i] < x1 ? rights[i] : x1, bottom = bottoms[i] < y1 ? bottoms[i] : y1;
    const float width = right - left > 0 ? right - left : 0, height = bottom - top > 0 ? bottom - top : 0;
    const float shared = width * height;
    stays[i] = shared / (area + areas[i] - shared) > most ? 0 : stays[i];
  }
}

void suppress_list(const float* boxes, const bool* valid, bool* stays, int64_t size, float most) {
  Boxes own(size);
  std::vector<int64_t> places;
  places.reserve(size);
  for (int64_t i = 0; i < size; ++i) {
    stays[i] = false;
    if (!valid[i]) continue;
    const float* box = boxes + 4 * i;
    const int64_t place = static_cast<int64_t>(places.size());
    own.x0[place] = box[0], own.y0[place] = box[1], own.x1[place] = box[2], own.y1[place] = box[3];
    own.area[place] = (box[2] - box[0]) * (box[3] - box[1]);
    places.push_back(i);
  }
  const int64_t count = static_cast<int64_t>(places.size());
  std::vector<int32_t> kept(count, 1);
  for (int64_t i = 0; i < count; ++i)
    if (kept[i]) {
      stays[places[i]] = true;
      suppress(own, i, count, most, kept.data());
    }
}

}  // namespace

// boxes: (lists, size, 4), x0, y0, x1, y1, by descending score. valid, stays: (lists, size). Boxes that overlap a better one by more than
// `threshold` do not stay.
EXPORT void sorted_nms_1(const float* boxes, const bool* valid, bool* stays, int64_t lists, int64_t size, double threshold, int64_t threads) {
  // An overlap is above the threshold, which is no float32, if it is above the largest float32 that is not.
  float most = static_cast<float>(threshold);
  if (most > threshold) most = std::nextafter(most, -__builtin_inff());
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t list = 0; list < lists; ++list)
    suppress_list(boxes + 4 * list * size, valid + list * size, stays + list * size, size, most);
}
