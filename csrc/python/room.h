// Memory for the length of one call of a GPU kernel, from torch's allocator through the exchange table.
#pragma once
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "python/dlpack_abi.h"

namespace warpdraw {

// Every call takes blocks of its own and gives them back when its kernels are launched, because torch's allocator already is
// what a workspace has to be: a cache for each device and stream, whose blocks go to later work of the same stream only.
//
// A block that calls share would need a lock as long as the call, or threads on one stream could put one call's kernels between
// another's. It would be overwritten under a CUDA graph that replays on another stream; a captured call takes from its graph's
// own pool instead. And torch.compile's graph trees refuse a live block in their pool that they do not know.
//
// Making a block needs no Python, so it is done without the interpreter lock.
class Room {
 public:
  Room(const dlpack::Exchange* api, dlpack::Device device) : api_(api), device_(device) {}
  ~Room() {
    for (dlpack::Managed* block : blocks_) block->free(block);
  }
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;

  static void* take(void* room, std::size_t bytes) { return static_cast<Room*>(room)->take(bytes); }

 private:
  static constexpr unsigned char kGarbage = 0xa5;

  void* take(std::size_t bytes) {
    std::int64_t size = std::int64_t(bytes);
    dlpack::Tensor prototype{nullptr, device_, 1, {dlpack::kUnsigned, 8, 1}, &size, nullptr, 0};
    std::string error = "allocation failed";
    const auto fail = [](void* context, const char*, const char* text) { *static_cast<std::string*>(context) = text; };
    blocks_.reserve(blocks_.size() + 1);
    dlpack::Managed* block = nullptr;
    if (api_->allocate(&prototype, &block, &error, fail))
      throw std::runtime_error("workspace of " + std::to_string(bytes) + " bytes: " + error);
    blocks_.push_back(block);
    char* data = static_cast<char*>(block->tensor.data) + block->tensor.byte_offset;
    if (device_.type == dlpack::kCpu)
      std::memset(data, kGarbage, bytes);  // a simulated GPU: reads of what was not written show
    return data;
  }

  const dlpack::Exchange* api_;
  dlpack::Device device_;
  std::vector<dlpack::Managed*> blocks_;
};

}  // namespace warpdraw
