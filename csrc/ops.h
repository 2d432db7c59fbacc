// Every native op, declared once: inputs, then outputs, as in the Python contract of the same name.
#pragma once
#include "cuda/shapes.h"
#include "tensor.h"

namespace warpdraw {

// Which filter sees which distribution: the presets of the contract's `order`, by index.
enum class Order { vllm, hf, flashinfer_joint, llama_cpp };

// Which distribution the top tokens are taken from: the contract's `top_of`, by index.
enum class TopOf { raw, filtered };

// The rules by which drafts are accepted: the contract's `method`, by index.
enum class Method { coupled, rejection, point_mass, block, greedy };

// Whether several drafts of one node were drawn each from the whole draft distribution, or all different.
enum class Siblings { independent, distinct };

// What makes the distribution of a row: the parameters that sample, verify and the filter ops share.
struct Parameters {
  PerRow<float> temperature;
  PerRow<std::int32_t> top_k;
  PerRow<float> top_p, min_p;
  PerRow<std::int64_t> seed, position;
  PerRow<float> dynatemp_range, dynatemp_exponent, top_n_sigma, typical_p, epsilon, eta, xtc_probability, xtc_threshold;
  PerRow<std::int32_t> vocab_size;
  Rows<const std::int32_t> bitmask;
  View<const std::int32_t, 2> allowed_ids, banned_ids, stop_ids;
  PerRow<std::int32_t> min_tokens;
  View<const std::int32_t, 2> bias_ids;
  View<const float, 2> bias;
  View<const std::int32_t, 2> history;
  View<const std::int32_t, 1> history_length;
  PerRow<std::int32_t> prompt_length;
  PerRow<float> repetition_penalty, frequency_penalty, presence_penalty, dry_multiplier, dry_base;
  PerRow<std::int32_t> dry_allowed_length;
  View<const std::int32_t, 2> dry_breakers;
  PerRow<std::int32_t> no_repeat_ngram;
};

struct Logits {
  Tensor logits;
};
struct Inputs : Logits, Parameters {};

// Drafts of each request, the logits of the target after each of them, and how the drafts were drawn.
struct Drafts {
  Tensor tokens, target_logits, draft_logits;
  PerRow<std::int32_t> method;
};
struct DraftedFrom {
  PerRow<std::int64_t> step;
  View<const std::int32_t, 1> offsets;
  PerRow<float> temperature;
  PerRow<std::int32_t> top_k;
  PerRow<float> top_p, min_p;
  View<const std::int32_t, 2> first_child, next_sibling;
  Siblings siblings;
};
struct Verdicts {
  Order order;
  Tensor tokens, accepted, valid, bonus, logprob, raw_logprob, nodes;
};

// What sample is to report.
struct Reports {
  std::int64_t top_n, max_kept;
  Order order;
  TopOf top_of;
  Tensor tokens, valid, logprob, raw_logprob, rank, kept_count, kept_ids, top_ids, top_logprobs;
};

using Softmax = void(Queue, const Tensor& logits, const PerRow<float>& temperature, const Tensor& out);
using Filtered = void(Queue, const Inputs&, const Order&, const Tensor& out);
using Sample = void(Queue, const Inputs&, const Reports&);
using Verify = void(Queue, const Drafts&, const Parameters&, const DraftedFrom&, const Verdicts&);

// Not public ops. The arithmetic of core/numerics.h as each backend compiles it, for known-answer tests; one read of the logits
// and one read with an exponential of each, for benchmarks.
using Numerics = void(Queue, const Tensor& exponents, const Tensor& bits, const Tensor& weights, const Tensor& exponentials);
using Floor = void(Queue, const Tensor& logits, const Tensor& out);

#define WARPDRAW_OPS      \
  Softmax softmax;        \
  Softmax log_softmax;    \
  Filtered filter_logits; \
  Filtered filter_probs;  \
  Sample sample;          \
  Verify verify;          \
  Numerics numerics;

#define WARPDRAW_FLOORS \
  Floor read_floor;     \
  Floor exp_floor;

// The shapes of the CUDA kernels beside the usual one, in builds for tuning.
#define WARPDRAW_SHAPED_OPS \
  Softmax softmax;          \
  Softmax log_softmax;      \
  Sample sample;

// scalar is the oracle; portable, avx2 and avx512 are one source, compiled once per instruction set; so are cuda, and cuda_host
// which simulates a GPU on the host.
namespace scalar {
WARPDRAW_OPS
}
namespace portable {
WARPDRAW_OPS WARPDRAW_FLOORS
}
namespace avx2 {
WARPDRAW_OPS WARPDRAW_FLOORS
}
namespace avx512 {
WARPDRAW_OPS WARPDRAW_FLOORS
}

namespace cuda {
WARPDRAW_OPS
}
namespace cuda_host {
WARPDRAW_OPS
}
namespace cuda_host_ring {
WARPDRAW_SHAPED_OPS
}
#ifdef WARPDRAW_HAS_cuda_shapes
#define WARPDRAW_DECLARE_SHAPE(name, ...) \
  namespace cuda_##name {                 \
    WARPDRAW_SHAPED_OPS                   \
  }
WARPDRAW_SHAPES(WARPDRAW_DECLARE_SHAPE)
#endif

}  // namespace warpdraw
