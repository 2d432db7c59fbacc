// Every member of the vectors in use, so that the portable build, which the linker meets first, defines whatever another
// instruction set does not inline (.ci/check_symbols).
#include <cstdint>
#include <vector>

template class std::vector<float>;
template class std::vector<std::int32_t>;
template class std::vector<std::uint32_t>;
template class std::vector<std::int64_t>;
template class std::vector<std::uint64_t>;
