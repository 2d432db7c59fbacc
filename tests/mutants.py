"""Planted bugs: what test_mutants.py puts into a copy of the C++ sources, one at a time, and the checks have to reject.

A bug in core/ or scalar/ is judged by what the oracle then does, one in cpu/ by what a vector backend then does.
`files` is a glob, so that a text may move from file to file of a folder; it must occur just once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """Replace `old` by `new` in the one file under csrc/ that matches `files` and holds it."""

    name: str
    files: str
    old: str
    new: str
    only_known_answers: str = ""  # why no check of meaning can see it, if none can


MUTANTS = [
    # Noise.
    Mutant("philox has 7 rounds", "core/philox.h", "kPhiloxRounds = 10", "kPhiloxRounds = 7"),
    Mutant("tiles and tokens share a stream", "core/philox.h", "tile = 0, token = 1", "tile = 0, token = 0"),
    Mutant("position is ignored", "core/philox.h", "std::uint32_t(position), std::uint32_t(position >> 32)", "0, 0"),
    Mutant("high word of position is ignored", "core/philox.h", "std::uint32_t(position >> 32)", "0"),
    Mutant("high word of seed is ignored", "core/philox.h", "std::uint32_t(seed >> 32)", "0"),
    Mutant("four neighbours share a word", "core/philox.h", ".word[index % 4]", ".word[0]"),
    Mutant(
        "uniform number of 24 bits",
        "core/numerics.h",
        "  float f, e;\n",
        "  float f, e;\n  r = (r & 0xffffff00u) | 0x80u;\n",
    ),
    Mutant("no formula of its own near zero", "core/numerics.h", "if (r < 0x40000000u)", "if (r < 0x100u)"),
    Mutant("exponential off by a ten-thousandth", "core/numerics.h", "0.33333548556f", "0.33433548556f"),
    # Weights and masses.
    Mutant("temperature is ignored", "core/numerics.h", "c = kLog2E / temperature", "c = kLog2E"),
    Mutant("temperature multiplies", "core/numerics.h", "c = kLog2E / temperature", "c = kLog2E * temperature"),
    Mutant("weight off by a hundred-thousandth", "core/numerics.h", "0x1.ebd8ap-3f", "0x1.ebdaap-3f"),
    Mutant("masses have 20 bits", "core/numerics.h", "kMassScale = 1099511627776", "kMassScale = 1048576"),
    Mutant("weights below 2^-24 vanish", "core/numerics.h", "if (!(t >= -126.0f))", "if (!(t >= -24.0f))"),
    Mutant(
        "mass is rounded, not floored",
        "core/numerics.h",
        "std::uint64_t(w * kMassScale)",
        "std::uint64_t(double(w) * kMassScale + 0.5)",
        only_known_answers="it moves a mass by 2^-40 of the largest: far inside the band of every certificate",
    ),
    Mutant(
        "exponent has one rounding",
        "core/numerics.h",
        "return (x - x_max) * scale;",
        "return fmaf(x, scale, -(x_max * scale));",
    ),
    # Candidates and their order.
    Mutant(
        "ties go to the higher id",
        "scalar/row.h",
        "std::sort(ranked.rbegin(), ranked.rend());",
        "std::reverse(ranked.begin(), ranked.end());\n"
        "    std::stable_sort(ranked.begin(), ranked.end(), [](auto a, auto b) { return a >> 32 > b >> 32; });",
    ),
    Mutant("NaN is a candidate", "scalar/row.h", "if (x[i] >= -kLargest)", "if (!(x[i] < -kLargest))"),
    Mutant("-inf is a candidate", "scalar/row.h", "if (x[i] >= -kLargest)", "if (x[i] == x[i])"),
    Mutant(
        "+inf is like any logit", "scalar/row.h", "return value > kLargest; }", "return value != value && value > 0; }"
    ),
    Mutant("-0 ranks below +0", "core/order.h", "bits_of(x + 0.0f)", "bits_of(x)"),
    Mutant(
        "bf16 loses its last bit",
        "core/filter.h",
        "std::uint32_t(x.bits) << 16",
        "std::uint32_t(x.bits & 0xfffe) << 16",
    ),
    Mutant(
        "subnormal halves are zero", "core/filter.h", "(magnitude << 13)", "(magnitude < 0x400 ? 0 : magnitude << 13)"
    ),
    Mutant("row stride is taken for V", "tensor.h", "index * stride[axis++]", "index * (axis++ ? 1 : shape[N - 1])"),
    # Filters.
    Mutant(
        "top-k keeps one more",
        "scalar/row.h",
        "std::min(seen, std::size_t(filter.k))",
        "std::min(seen, std::size_t(filter.k) + 1)",
    ),
    Mutant(
        "top-k keeps ties",
        "scalar/row.h",
        "return filter.k == 0 ? seen : std::min(seen, std::size_t(filter.k));",
        "std::size_t n = filter.k == 0 ? seen : std::min(seen, std::size_t(filter.k));\n"
        "    while (n && n < seen && key_logit(ranked[n]) == key_logit(ranked[n - 1])) ++n;\n    return n;",
    ),
    Mutant(
        "top-p drops the crossing token", "scalar/row.h", ">= target) return i + 1;", ">= target) return i ? i : 1;"
    ),
    Mutant(
        "top-p goes past a mass exactly reached", "scalar/row.h", ">= target) return i + 1;", "> target) return i + 1;"
    ),
    Mutant(
        "top-p counts the mass of all",
        "scalar/row.h",
        "mass_of(seen, filter.filter_scale)",
        "mass_of(ranked.size(), filter.filter_scale)",
    ),
    Mutant("top-p of 1/1000 less", "core/numerics.h", "double(p) * double(total)", "double(p) * 0.999 * double(total)"),
    Mutant("min-p is strict", "scalar/row.h", ">= filter.min_p) ++count", "> filter.min_p) ++count"),
    Mutant("min-p is a little loose", "scalar/row.h", ">= filter.min_p) ++count", ">= 0.99f * filter.min_p) ++count"),
    Mutant(
        "vllm order has min-p last",
        "scalar/row.h",
        "top_p(filter, top_k(filter, min_p(filter, all)))",
        "min_p(filter, top_p(filter, top_k(filter, all)))",
    ),
    Mutant(
        "hf order has min-p first",
        "scalar/row.h",
        "return min_p(filter, top_p(filter, top_k(filter, all)));",
        "return top_p(filter, top_k(filter, min_p(filter, all)));",
    ),
    Mutant(
        "joint order is hf order",
        "scalar/row.h",
        "std::min({top_p(filter, all), top_k(filter, all), min_p(filter, all)})",
        "min_p(filter, top_p(filter, top_k(filter, all)))",
    ),
    Mutant(
        "llama.cpp filters at the temperature of the draw",
        "core/filter.h",
        "order == Order::llama_cpp ? kLog2E : scale",
        "scale",
    ),
    Mutant(
        "llama.cpp draws at temperature 1",
        "core/filter.h",
        "min_p, scale, order",
        "min_p, order == Order::llama_cpp ? kLog2E : scale, order",
    ),
    Mutant("temperature 0 is not greedy", "core/filter.h", "k = 1, temperature = 1.0f", "temperature = 1.0f"),
    Mutant("negative temperature is accepted", "core/filter.h", "temperature >= 0.0f && temperature", "temperature"),
    Mutant("infinite temperature is accepted", "core/filter.h", " && temperature <= kLargest", ""),
    Mutant("negative k is accepted", "core/filter.h", "k >= 0 && ", ""),
    # The draw.
    Mutant("masses race without noise", "core/numerics.h", "return float(m) / e;", "return float(m);"),
    Mutant("Gumbel by the wrong sign", "core/numerics.h", "return float(m) / e;", "return float(m) * e;"),
    Mutant("equal keys go to the higher id", "scalar/sample.cpp", "if (key > best)", "if (key >= best)"),
    Mutant(
        "tile masses are off by one id",
        "scalar/sample.cpp",
        "tiles[key_id(row.ranked[i]) / kTile]",
        "tiles[(key_id(row.ranked[i]) + 1) / kTile]",
    ),
    Mutant("tiles of 32", "core/numerics.h", "kTile = 64", "kTile = 32"),
    Mutant(
        "tokens race at the temperature of 1",
        "scalar/sample.cpp",
        "members[key_id(row.ranked[i])] = mass(row.weight_of(row.ranked[i], filter.scale))",
        "members[key_id(row.ranked[i])] = mass(row.weight_of(row.ranked[i], kLog2E))",
    ),
    Mutant("seed of the first row for all", "scalar/sample.cpp", "std::uint64_t(seed[b])", "std::uint64_t(seed[0])"),
    Mutant(
        "log-probability among all tokens",
        "scalar/sample.cpp",
        "row.mass_of(kept, filter.scale)",
        "row.mass_of(row.ranked.size(), filter.scale)",
    ),
    Mutant(
        "raw log-probability at the temperature", "scalar/sample.cpp", "row.x_max, kLog2E)", "row.x_max, filter.scale)"
    ),
    Mutant("int32 tokens of invalid rows", "core/outputs.h", "write(row, -1, false)", "write(row, 0, false)"),
    # Shortcuts of the vector kernels.
    Mutant("bound of the race is too tight", "cpu/*", "least * float(kTile)", "least * 8.0f"),
    Mutant(
        "tiles cut by the boundary count as sure",
        "cpu/*",
        "above(maximum, floats(boundary.x))",
        "at_least(maximum, floats(boundary.x))",
    ),
    Mutant("equal keys of tiles go to the higher one", "cpu/*", "if (key > best)", "if (key >= best)"),
    Mutant(
        "last partial tile is dropped",
        "cpu/*",
        "tiles((vocab + kTile - 1) / kTile)",
        "tiles(vocab > kTile ? vocab / kTile : 1)",
    ),
    Mutant(
        "rest of the last tile is read",
        "cpu/*",
        "begin + i < vocab ? to_float(logits[begin + i])",
        "begin + i <= vocab ? to_float(logits[begin + i])",
    ),
    Mutant(
        "pivot is too high",
        "cpu/*",
        "if (count >= wanted) {\n      low = middle;",
        "if (count >= wanted - 1) {\n      low = middle;",
    ),
    Mutant(
        "boundary ignores the id",
        "cpu/*",
        "lane_index() + first_id, words(boundary.id)",
        "lane_index(), words(boundary.id)",
    ),
    Mutant("nucleus forgets the mass above", "cpu/*", "target -= upper;", ""),
    Mutant("nucleus takes the wrong half", "cpu/*", "if (upper >= target) {", "if (upper > target) {"),
    Mutant("min-p bisection is strict", "cpu/*", ">= min_p; }", "> min_p; }"),
    Mutant(
        "first token is looked for from behind",
        "cpu/*",
        "tile * kTile + i * kLanes + __builtin_ctz(mask))};",
        "tile * kTile + i * kLanes + 31 - __builtin_clz(mask))};",
    ),
    Mutant("token noise by the place in the tile", "cpu/*", "lane_index() + first)", "lane_index() + (first & 63))"),
    Mutant("seed of the neighbouring row", "cpu/*", "std::uint64_t(seed[b])", "std::uint64_t(seed[b ? b - 1 : 0])"),
    Mutant(
        "vector noise drops the high word of position",
        "cpu/*",
        "words(std::uint32_t(noise.position >> 32))",
        "words(0)",
    ),
    Mutant(
        "marked row keeps the old maxima",
        "cpu/*",
        "use(Row<float>(marked.data(), vocab, maxima));",
        "use(Row<T>(logits, vocab, maxima));",
    ),
]
