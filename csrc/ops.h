// Every native op, declared once: inputs, then outputs, as in the Python contract of the same name.
#pragma once
#include "tensor.h"

namespace warpdraw {

// Which filter sees which distribution: the presets of the contract's `order`, by index.
enum class Order { vllm, hf, flashinfer_joint, llama_cpp };

// The parameters of the filters, for every row.
struct Filters {
  PerRow<float> temperature;
  PerRow<std::int32_t> top_k;
  PerRow<float> top_p, min_p;
  Order order;
};

using Softmax = void(Queue, Tensor logits, PerRow<float> temperature, Tensor out);
using FilterLogits = void(Queue, Tensor logits, PerRow<float> temperature, PerRow<std::int32_t> top_k, PerRow<float> top_p,
                          PerRow<float> min_p, Order order, Tensor out);
using Sample = void(Queue, Tensor logits, PerRow<float> temperature, PerRow<std::int32_t> top_k, PerRow<float> top_p,
                    PerRow<float> min_p, PerRow<std::int64_t> seed, PerRow<std::int64_t> position, Order order, Tensor tokens,
                    Tensor valid, Tensor logprob, Tensor raw_logprob);

// Not a public op: the arithmetic of core/numerics.h as each backend compiles it, for known-answer tests.
using Numerics = void(Queue, Tensor exponents, Tensor bits, Tensor weights, Tensor exponentials);

#define WARPDRAW_OPS          \
  Softmax softmax;            \
  Softmax log_softmax;        \
  FilterLogits filter_logits; \
  FilterLogits filter_probs;  \
  Sample sample;              \
  Numerics numerics;

// scalar is the oracle; the others are one source, compiled once per instruction set.
namespace scalar {
WARPDRAW_OPS
}
namespace portable {
WARPDRAW_OPS
}
namespace avx2 {
WARPDRAW_OPS
}
namespace avx512 {
WARPDRAW_OPS
}

}  // namespace warpdraw
