// Runs the fibers of one cluster after another, and tells what went wrong when none of them can go on.
#include "cuda_host/scheduler.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "cuda_host/fiber.h"

namespace warpdraw::fibers {
namespace {

constexpr const char* kNames[] = {"sync",    "sync_count",  "sync_and",   "sync_or", "cluster_sync",
                                  "shuffle", "shuffle_xor", "shuffle_up", "ballot",  "warp_sync"};
constexpr std::uint64_t kWarpBits = 0xffffffff;
static_assert(kBlockThreads == 64, "a bit of a word for each thread");

std::string text(const Call& call) {
  const char* slash = std::strrchr(call.file, '/');
  const char* file = slash ? slash + 1 : call.file;
  return std::string(kNames[int(call.primitive)]) + " at " + file + ":" + std::to_string(call.line);
}

bool operator==(const Call& a, const Call& b) {
  return a.line == b.line && a.primitive == b.primitive && (a.file == b.file || !std::strcmp(a.file, b.file));
}

std::string text(const Thread& thread) {
  const Block& block = *thread.block;
  return "thread " + std::to_string(thread.index) + " of block (" + std::to_string(block.x) + ", " + std::to_string(block.y) +
         ")";
}

// Which of the threads that can run is next: always the first, always the last, or the next after a place that often changes,
// so that now a single warp runs ahead and now they mix.
struct Order {
  enum { forward, reverse, random } kind = forward;
  std::minstd_rand generator;

  static Order wanted() {
    const char* variable = std::getenv("WARPDRAW_FIBERS");
    const std::string_view name = variable ? variable : "forward";
    if (name == "forward") return {};
    if (name == "reverse") return {reverse, {}};
    constexpr std::string_view kRandom = "random:";
    unsigned seed = 0;
    const char* end = name.data() + name.size();
    if (!name.starts_with(kRandom) || std::from_chars(name.data() + kRandom.size(), end, seed).ptr != end ||
        name.ends_with(':'))
      throw std::runtime_error("WARPDRAW_FIBERS is '" + std::string(name) + "'; expected forward, reverse or random:SEED");
    return {random, std::minstd_rand(seed + 1)};
  }
};

// The threads of this and later launches of one caller.
class Scheduler {
 public:
  std::vector<Block> blocks;
  Meeting all;  // the blocks of a cluster
  std::size_t shared = 0;

  void run_grid(long long blocks_x, long long blocks_y, int cluster, std::size_t bytes, const std::function<void()>& kernel) {
    if (current) throw std::runtime_error("launch: called in a kernel");
    order_ = Order::wanted();
    body_ = &kernel;
    shared = bytes;
    reserve(cluster);
    std::vector<std::unique_ptr<char, decltype(&std::free)>> memory;
    for (int i = 0; i < cluster; ++i) memory.emplace_back(static_cast<char*>(std::malloc(bytes)), &std::free);
    const long long clusters_x = blocks_x / cluster, clusters = clusters_x * blocks_y;
    std::vector<long long> shuffled(order_.kind == Order::random ? clusters : 0);
    std::iota(shuffled.begin(), shuffled.end(), 0);
    std::shuffle(shuffled.begin(), shuffled.end(), order_.generator);
    for (long long i = 0; i < clusters; ++i) {
      const long long which = shuffled.size() ? shuffled[i] : order_.kind == Order::reverse ? clusters - 1 - i : i;
      for (int rank = 0; rank < cluster; ++rank)
        begin(blocks[rank], rank, which % clusters_x * cluster + rank, which / clusters_x, memory[rank].get());
      run_cluster();
    }
  }

  std::uint64_t meet(Meeting& meeting, const Call& call, std::uint64_t brought) {
    const unsigned half = meeting.count % 2;
    if (!meeting.waiting)
      meeting.call = call, meeting.sum[half] = 0;
    else if (!(meeting.call == call))
      throw std::runtime_error("divergent barrier: " + text(*current) + " is in " + text(call) + ", but others wait in " +
                               text(meeting.call));
    meeting.sum[half] += brought;
    if (++meeting.waiting < meeting.size) {
      current->waiting = &meeting;
      current->block->ready &= ~(std::uint64_t{1} << current->index);
    } else {
      meeting.waiting = 0;
      ++meeting.count;
      for (int i = 0; i < meeting.blocks; ++i) blocks[meeting.first_block + i].ready |= meeting.threads;
    }
    give_way();
    return meeting.sum[half];
  }

 private:
  // What a fiber does: a thread's life, again and again.
  static void live();

  void reserve(int cluster) {
    const int threads = cluster * kBlockThreads;
    if (int(threads_.size()) < threads) {
      stacks_.reset();
      stacks_ = std::make_unique<Stacks>(threads);
      threads_.resize(threads);
      contexts_.assign(threads, {});
      renew();
    }
    blocks.resize(cluster);
    all = {0, cluster, ~std::uint64_t{0}, threads};
  }

  void renew() {
    for (int i = 0; i < int(contexts_.size()); ++i) stacks_->give(i, contexts_[i], live);
  }

  void begin(Block& block, int rank, long long x, long long y, char* memory) {
    block = {rank, x, y, memory, {rank, 1, ~std::uint64_t{0}, kBlockThreads}, {}, ~std::uint64_t{0}, 0, 0};
    for (int i = 0; i < kBlockThreads; ++i) {
      Warp& warp = block.warps[i / kLanes];
      threads_[rank * kBlockThreads + i] = {&block, &warp, i, nullptr, false};
      warp.meeting = {rank, 1, kWarpBits << (i / kLanes * kLanes), kLanes};
    }
  }

  void run_cluster() {
    error_ = nullptr;
    current = next();
    switch_context(caller_, contexts_[current - threads_.data()]);
    current = nullptr;
    for (const Block& block : blocks) {
      reveal(block);
      if (block.ended < kBlockThreads && !error_) error_ = std::make_exception_ptr(std::runtime_error(stuck()));
    }
    if (error_) {
      renew();  // some still stand in the middle of a kernel
      std::rethrow_exception(error_);
    }
  }

  // The next thread of those that can run, or none.
  Thread* next() {
    const int count = int(blocks.size());
    if (order_.kind == Order::forward) {
      for (int i = 0; i < count; ++i)
        if (blocks[i].ready) return thread_at(i, std::countr_zero(blocks[i].ready));
    } else if (order_.kind == Order::reverse) {
      for (int i = count; i-- > 0;)
        if (blocks[i].ready) return thread_at(i, 63 - std::countl_zero(blocks[i].ready));
    } else {
      if (order_.generator() % 4 == 0) place_ = int(order_.generator() % unsigned(count * kBlockThreads));
      const int first = place_ / kBlockThreads % count, bit = place_ % kBlockThreads;
      for (int i = 0; i < count; ++i) {
        const int block = (first + i) % count;
        if (const std::uint64_t ready = blocks[block].ready)
          return thread_at(block, (std::countr_zero(std::rotr(ready, bit)) + bit) % kBlockThreads);
      }
    }
    return nullptr;
  }

  Thread* thread_at(int block, int index) { return &threads_[block * kBlockThreads + index]; }

  // Goes on with the next thread; returns when it is the turn of the current one again.
  void give_way() {
    Thread* const now = current;
    Thread* const then = error_ ? nullptr : next();
    if (then == now) return;
    current = then;
    switch_context(contexts_[now - threads_.data()], then ? contexts_[then - threads_.data()] : caller_);
  }

  // A block has its memory only while it runs: what peers write earlier is lost, and what they read later is wrong.
  void spoil(const Block& block) const { std::memset(block.shared, 0xa5, shared); }
  void hide([[maybe_unused]] const Block& block) const {
#ifdef WARPDRAW_ASAN
    __asan_poison_memory_region(block.shared, shared);
#endif
  }
  void reveal([[maybe_unused]] const Block& block) const {
#ifdef WARPDRAW_ASAN
    __asan_unpoison_memory_region(block.shared, shared);
#endif
  }

  void one_life() {
    Thread& me = *current;
    Block& block = *me.block;
    if (!block.begun++) spoil(block);
    try {
      (*body_)();
    } catch (...) {
      error_ = std::current_exception();
    }
    me.ended = true;
    block.ready &= ~(std::uint64_t{1} << me.index);
    if (++block.ended == kBlockThreads && blocks.size() > 1) spoil(block), hide(block);
  }

  std::string stuck() const {
    struct Group {
      const Thread* first;
      int threads;
    };
    std::vector<Group> groups;
    int ended = 0;
    for (int i = 0; i < int(blocks.size()) * kBlockThreads; ++i) {
      const Thread& thread = threads_[i];
      if (thread.ended) {
        ++ended;
        continue;
      }
      const auto same = [&](const Group& group) { return group.first->waiting->call == thread.waiting->call; };
      const auto found = std::find_if(groups.begin(), groups.end(), same);
      if (found == groups.end())
        groups.push_back({&thread, 1});
      else
        ++found->threads;
    }
    std::string message = "deadlock, for a barrier is divergent: ";
    for (const Group& group : groups)
      message += std::to_string(group.threads) + " wait in " + text(group.first->waiting->call) + " (the first is " +
                 text(*group.first) + "), ";
    return message + std::to_string(ended) + " have ended";
  }

  Order order_;
  int place_ = 0;
  const std::function<void()>* body_ = nullptr;
  std::exception_ptr error_;
  std::unique_ptr<Stacks> stacks_;
  std::vector<Thread> threads_;
  std::vector<Context> contexts_;
  Context caller_;
};

thread_local Scheduler scheduler;

struct Copies {
  unsigned ended = 0;
  void* to = nullptr;  // of the one that is on its way
  const void* from = nullptr;
  std::size_t bytes = 0;
};
thread_local std::map<const void*, Copies> copies;  // by the place where they end

Copies& copies_of(const void* place) {
  const auto found = copies.find(place);
  if (found == copies.end()) throw std::runtime_error("bulk copy: it ends at a place that was not begun");
  return found->second;
}

#if defined(WARPDRAW_ASAN)
__attribute__((no_sanitize_address))
#endif
void Scheduler::live() {
  arrived();
  for (;;) {
    scheduler.one_life();
    scheduler.give_way();
  }
}

}  // namespace

std::uint64_t meet(Meeting& meeting, Call call, std::uint64_t brought) { return scheduler.meet(meeting, call, brought); }
Meeting& cluster_meeting() { return scheduler.blocks.size() == 1 ? current->block->meeting : scheduler.all; }
Block& cluster_block(int rank) { return scheduler.blocks[rank]; }
int cluster_blocks() { return int(scheduler.blocks.size()); }
std::size_t shared_bytes() { return scheduler.shared; }

void begin_copies(void* place) { copies[place] = {}; }

void copy(void* place, void* to, const void* from, std::size_t bytes) {
  Copies& of = copies_of(place);
  if (of.to) throw std::runtime_error("bulk copy: another one to the same end is on its way");
  of.to = to, of.from = from, of.bytes = bytes;
  std::memset(to, 0xa5, bytes);
}

void wait_for_copy(void* place, unsigned turn) {
  Copies& of = copies_of(place);
  if (of.ended == turn) {
    if (!of.to) throw std::runtime_error("bulk copy: waits for one that nobody has asked for");
    std::memcpy(of.to, of.from, of.bytes);
    of.to = nullptr;
    ++of.ended;
  }
  if (of.ended != turn + 1) throw std::runtime_error("bulk copy: waits for one long past or yet to come");
}

void run_grid(long long blocks_x, long long blocks_y, int cluster, std::size_t shared, const std::function<void()>& body) {
  copies.clear();
  scheduler.run_grid(blocks_x, blocks_y, cluster, shared, body);
}

}  // namespace warpdraw::fibers
