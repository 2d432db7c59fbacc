// Where the filters cut a row: the last kept token of the total order, found among candidates above a pivot instead of by a
// sort.
#pragma once
#include <vector>

#include "cpu/tiles.h"

namespace warpdraw::WARPDRAW_ISA {

// Room for the tokens whose logit reaches a threshold: by id, and as rank keys.
struct Candidates {
  std::vector<float> x;
  std::vector<std::uint32_t> id;
  std::vector<std::uint64_t> key;
  std::size_t count = 0;
};

// The boundary that all filters of a row leave together. The row holds a candidate and no +inf.
template <typename T> Boundary select(const Row<T>& row, const Filter& filter, Candidates& candidates);

// The first token of the total order.
template <typename T> Boundary first_token(const Row<T>& row);

}  // namespace warpdraw::WARPDRAW_ISA
