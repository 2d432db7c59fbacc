"""Planted bugs: what test_mutants.py puts into a copy of the C++ sources, one at a time, and the checks have to reject.

A bug in core/ or scalar/ is judged by what the oracle then does, one in cpu/ by what a vector backend then does; so is
one in core/ that only these can have. `files` is a glob, so that a text may move from file to file of a folder; it must
occur just once.
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
    in_vector_kernels: bool = False
    only_avx512: bool = False  # another instruction set has no such code
    op: str = "sample"  # that shows it


MUTANTS = [
    # Noise.
    Mutant("philox has 7 rounds", "core/philox.h", "kPhiloxRounds = 10", "kPhiloxRounds = 7"),
    Mutant("tiles and tokens share a stream", "core/philox.h", "tile = 0, token = 1", "tile = 0, token = 0"),
    Mutant("the coin shares the stream of the tiles", "core/philox.h", "xtc = 2", "xtc = 0"),
    Mutant("high word of seed is ignored", "core/philox.h", "std::uint32_t(seed >> 32)", "0"),
    Mutant(
        "uniform number of 24 bits",
        "core/numerics.h",
        "  float f, e;\n",
        "  float f, e;\n  r = (r & 0xffffff00u) | 0x80u;\n",
    ),
    # Weights, masses and moments.
    Mutant("temperature multiplies", "core/numerics.h", "c = kLog2E / temperature", "c = kLog2E * temperature"),
    Mutant("weight off by a hundred-thousandth", "core/numerics.h", "0x1.ebd8ap-3f", "0x1.ebdaap-3f"),
    Mutant("weights below 2^-24 vanish", "core/numerics.h", "if (!(t >= -126.0f))", "if (!(t >= -24.0f))"),
    Mutant(
        "mass is rounded, not floored",
        "core/numerics.h",
        "std::uint64_t(w * kMassScale)",
        "std::uint64_t(double(w) * kMassScale + 0.5)",
        only_known_answers="it moves a mass by 2^-40 of the largest: far inside the band of every certificate",
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
    Mutant("-0 ranks below +0", "core/order.h", "bits_of(x + 0.0f)", "bits_of(x)"),
    Mutant(
        "bf16 loses its last bit",
        "core/element.h",
        "std::uint32_t(x.bits) << 16",
        "std::uint32_t(x.bits & 0xfffe) << 16",
    ),
    Mutant(
        "subnormal halves are zero", "core/element.h", "(magnitude << 13)", "(magnitude < 0x400 ? 0 : magnitude << 13)"
    ),
    Mutant("row stride is taken for V", "tensor.h", "index * stride[axis++]", "index * (axis++ ? 1 : shape[N - 1])"),
    Mutant(
        "row stride of a list is its size",
        "core/edits.h",
        "list.row(row), list",
        "list.data + row * list.shape[1], list",
    ),
    # Restrictions.
    Mutant("vocab_size includes one id more", "scalar/edits.h", "id >= edits.vocab", "id > edits.vocab"),
    Mutant("bitmask from the most significant bit", "scalar/edits.h", ">> id % 32 & 1", ">> (31 - id % 32) & 1"),
    Mutant("first word of the bitmask for all", "scalar/edits.h", "edits.bitmask[id / 32]", "edits.bitmask[0]"),
    Mutant("bitmask shorter than the vocabulary", "core/edits.h", "e.vocab <= 32 * e.bitmask.size", "e.vocab >= 0"),
    Mutant("stop ids are banned a token too long", "core/edits.h", "prompt < least_output", "prompt <= least_output"),
    # Bias and penalties.
    Mutant("bias counts twice", "scalar/edits.h", "+= edits.bias[i]", "+= 2 * edits.bias[i]"),
    Mutant("a bias of NaN is accepted", "core/edits.h", "e.bias[i] == e.bias[i]", "true"),
    Mutant("repetition divides what is negative", "core/edits.h", "x / r : x * r", "x / r : x / r"),
    Mutant("the prompt is penalised like output", "scalar/edits.h", "+= i >= edits.prompt", "+= 1"),
    Mutant("frequency without the count", "scalar/edits.h", "edits.frequency * float(count)", "edits.frequency"),
    Mutant(
        "presence for each time", "scalar/edits.h", "x[id] -= edits.presence", "x[id] -= edits.presence * float(count)"
    ),
    Mutant(
        "repetition after frequency and presence",
        "scalar/edits.h",
        "x[id] = penalize_repetition(x[id], edits.repetition);",
        "const float less = count ? edits.frequency * float(count) + edits.presence : 0.0f;\n"
        "      x[id] = penalize_repetition(x[id] - less, edits.repetition) + less;",
    ),
    Mutant("history_length is ignored", "core/edits.h", "e.history.size = length;", ""),
    Mutant("prompt_length is ignored", "core/edits.h", "e.prompt = in.prompt_length[row]", "e.prompt = 0"),
    Mutant("an unread history must be right", "core/edits.h", "valid && e.reads_history()", "valid"),
    # DRY and n-grams.
    Mutant(
        "DRY takes the last copy", "scalar/edits.h", "std::max(longest[h[j + 1]], copied(edits, j))", "copied(edits, j)"
    ),
    Mutant("breakers are penalised", "scalar/edits.h", "if (!contains(edits.breakers, h[j + 1]))", "if (true)"),
    Mutant("DRY allows one token more", "scalar/edits.h", "if (n >= edits.dry_allowed)", "if (n > edits.dry_allowed)"),
    Mutant("DRY has one power more", "scalar/edits.h", "n - edits.dry_allowed)", "n - edits.dry_allowed + 1)"),
    Mutant(
        "a huge DRY penalty is infinite",
        "core/edits.h",
        "return penalty < kLargest ? penalty : kLargest",
        "return power < kLargest ? penalty : HUGE_VALF",
    ),
    Mutant(
        "n-grams are one longer",
        "core/edits.h",
        "e.ngram = in.no_repeat_ngram[row]",
        "e.ngram = in.no_repeat_ngram[row] + (in.no_repeat_ngram[row] > 0)",
    ),
    # Temperature.
    Mutant(
        "negative temperature is accepted",
        "core/filter.h",
        "in_range(temperature, 0.0f, kLargest)",
        "(temperature <= kLargest)",
    ),
    Mutant(
        "dynamic temperature by an entropy in bits",
        "core/filter.h",
        "share = seen.entropy() / natural",
        "share = kLog2E * seen.entropy() / natural",
    ),
    Mutant(
        "exponent of the dynamic temperature is ignored", "core/filter.h", "f.dynatemp_exponent != 1.0f &&", "false &&"
    ),
    Mutant(
        "dynamic temperature falls below zero",
        "core/filter.h",
        "middle > range ? middle - range : 0.0",
        "middle - range",
    ),
    Mutant("llama.cpp's dynamic temperature sees all", "scalar/row.h", "sums(seen, kLog2E)", "sums(all(), kLog2E)"),
    Mutant("a dynamic temperature of 0 is 1", "scalar/row.h", "if (filter.temperature == 0.0f) return {0, 1};", ""),
    Mutant(
        "llama.cpp filters at the temperature of the draw", "core/filter.h", "draws_last() ? kLog2E : scale", "scale"
    ),
    # Filters.
    Mutant(
        "top-k keeps ties",
        "scalar/row.h",
        "filter.k == 0 ? seen.end : std::min(seen.end, seen.begin + std::size_t(filter.k))",
        "[&] {\n"
        "      std::size_t n = filter.k == 0 ? seen.end : std::min(seen.end, seen.begin + std::size_t(filter.k));\n"
        "      while (n < seen.end && logit(n) == logit(n - 1)) ++n;\n"
        "      return n;\n    }()",
    ),
    Mutant(
        "top-p goes past a mass exactly reached",
        "scalar/row.h",
        ">= target) return {seen.begin",
        "> target) return {seen.begin",
    ),
    Mutant(
        "top-p counts the mass of all",
        "scalar/row.h",
        "nucleus_mass(filter.p, sums(seen,",
        "nucleus_mass(filter.p, sums(all(),",
    ),
    Mutant("min-p is a little loose", "scalar/row.h", ">= filter.min_p", ">= 0.99f * filter.min_p"),
    Mutant("top-n-sigma forgets the mean", "core/filter.h", "square - mean * mean", "square"),
    Mutant(
        "top-n-sigma of a sample",
        "core/filter.h",
        "square - mean * mean",
        "(square - mean * mean) * double(count) / double(count > 1 ? count - 1 : 1)",
    ),
    Mutant("top-n-sigma without n", "core/filter.h", "highest - double(n) * (", "highest - ("),
    Mutant("deviations of 4 bits", "core/filter.h", "ldexp(1.0, 20 - e)", "ldexp(1.0, 4 - e)"),
    Mutant(
        "typical has signed distances",
        "scalar/row.h",
        "return fabsf(exponent_of(seen, i, scale) - mean)",
        "return mean - exponent_of(seen, i, scale)",
    ),
    Mutant(
        "typical drops the crossing token",
        "scalar/row.h",
        "if (sum >= target) break;",
        "if (sum >= target && end - begin > 1) {\n        upward ? ++begin : --end;\n        break;\n      }",
    ),
    Mutant(
        "typical counts the entropy itself as above",
        "scalar/row.h",
        "exponent_of(seen, begin, scale) > mean",
        "exponent_of(seen, begin, scale) >= mean",
    ),
    Mutant(
        "epsilon of all",
        "scalar/row.h",
        "epsilon_mass(filter.epsilon, sums(seen,",
        "epsilon_mass(filter.epsilon, sums(all(),",
    ),
    Mutant("floors are strict", "core/filter.h", "double(mass(w)) >= least_mass", "double(mass(w)) > least_mass"),
    Mutant("floors may drop all", "scalar/row.h", "std::size_t end = seen.begin + 1;", "std::size_t end = seen.begin;"),
    Mutant("XTC ignores the coin", "core/filter.h", "* 0x1p-32 < double(xtc)", "* 0x1p-32 < 2.0"),
    Mutant(
        "XTC keeps all likely tokens",
        "scalar/row.h",
        "return {likely.end - 1, seen.end}",
        "return {likely.begin, seen.end}",
    ),
    Mutant(
        "XTC drops the last likely token",
        "scalar/row.h",
        "return {likely.end - 1, seen.end}",
        "return {std::min(likely.end, seen.end - 1), seen.end}",
    ),
    # The orders.
    Mutant(
        "vllm order has min-p last",
        "scalar/row.h",
        "top_p(filter, top_k(filter, min_p(filter, seen)))",
        "min_p(filter, top_p(filter, top_k(filter, seen)))",
    ),
    Mutant(
        "hf order has min-p first",
        "scalar/row.h",
        "min_p(filter, top_p(filter, top_k(filter, seen)))",
        "top_p(filter, top_k(filter, min_p(filter, seen)))",
    ),
    Mutant(
        "joint order sees what top-k keeps",
        "scalar/row.h",
        "top_p(filter, seen).end",
        "top_p(filter, top_k(filter, seen)).end",
    ),
    Mutant(
        "llama.cpp has typical after top-p",
        "scalar/row.h",
        "top_p(filter, typical_p(filter, top_k(filter, seen)))",
        "typical_p(filter, top_p(filter, top_k(filter, seen)))",
    ),
    Mutant(
        "XTC comes before epsilon and eta",
        "scalar/row.h",
        "xtc(filter, eta(filter, epsilon(filter, seen)))",
        "eta(filter, epsilon(filter, xtc(filter, seen)))",
    ),
    Mutant(
        "eta comes before epsilon",
        "scalar/row.h",
        "eta(filter, epsilon(filter, seen))",
        "epsilon(filter, eta(filter, seen))",
    ),
    # The draw.
    Mutant("equal keys go to the higher id", "scalar/draw.h", "if (key > best)", "if (key >= best)"),
    Mutant("tiles of 32", "core/numerics.h", "kTile = 64", "kTile = 32"),
    # Reports.
    Mutant(
        "log-probability among all tokens",
        "scalar/sample.cpp",
        "log_probability_in(row, kept,",
        "log_probability_in(row, row.all(),",
    ),
    Mutant(
        "raw log-probability after the edits",
        "scalar/sample.cpp",
        "log_probability_in(raw, raw.all()",
        "log_probability_in(row, row.all()",
    ),
    Mutant("rank from 0", "scalar/sample.cpp", "before + 1", "before"),
    Mutant("rank is shared by ties", "scalar/sample.cpp", "raw_logits[i] == x && i < token", "false"),
    Mutant(
        "rank after the edits",
        "scalar/sample.cpp",
        "const float x = raw_logits[token];",
        "const std::vector<float> raw_logits = edited;\n        const float x = raw_logits[token];",
    ),
    Mutant("kept_count counts from the first of all", "scalar/sample.cpp", "kept.end - kept.begin)", "kept.end)"),
    Mutant("top ids are padded with 0", "core/outputs.h", "std::uint32_t(-1), -HUGE_VALF", "0, -HUGE_VALF"),
    Mutant(
        "top tokens raw for filtered", "scalar/sample.cpp", "out.top_of == TopOf::filtered", "out.top_of == TopOf::raw"
    ),
    Mutant("int32 tokens of invalid rows", "core/outputs.h", "write(row, -1, false)", "write(row, 0, false)"),
    # What the vector kernels change of a row.
    Mutant(
        "a row that has a bias alone is left as it is",
        "core/edits.h",
        "banned.size || bias.size ||",
        "banned.size ||",
        in_vector_kernels=True,
    ),
    Mutant(
        "a raw total only with a raw log-probability",
        "core/outputs.h",
        "raw_logprob || (top_of == TopOf::raw && top_logprobs)",
        "bool(raw_logprob)",
        in_vector_kernels=True,
    ),
    Mutant("ids from vocab_size on can be edited", "cpu/*", "return id < vocab_ &&", "return id <= vocab_ &&"),
    Mutant(
        "allowed ids ignore the bitmask",
        "cpu/*",
        "id >= 0 && may_be(id)) own_words_",
        "id >= 0 && id < vocab_) own_words_",
    ),
    Mutant("a tile reads the words of another", "cpu/*", "words_ + 2 * tile, sizeof", "words_ + tile, sizeof"),
    Mutant(
        "maxima do not fall after an edit",
        "cpu/*",
        "was_[std::size_t(at)] < maxima[tile] && !(x_",
        "!(x_",
    ),
    Mutant(
        "maxima do not rise after an edit",
        "cpu/*",
        " && !(x_[std::size_t(at)] > maxima[tile])) continue;",
        ") continue;",
    ),
    Mutant("an id has an entry for each mention", "cpu/*", "if (known_[tile] & bit)", "if (false)"),
    Mutant(
        "one edit a tile",
        "cpu/*",
        "left = known_[index]; left; left &= left - 1",
        "left = known_[index]; left; left = 0",
    ),
    Mutant(
        "counts of the row before",
        "cpu/*",
        "in_history_[std::size_t(at)] = in_output_[std::size_t(at)] = 0",
        "in_history_[std::size_t(at)] = 0",
    ),
    Mutant("vectors penalise what has a bias", "cpu/*", "choose(bits(in_history > 0), repeated, x)", "repeated"),
    Mutant(
        "vectors copy over breakers", "cpu/*", "std::min(matches_[std::size_t(j)], limit)", "matches_[std::size_t(j)]"
    ),
    Mutant("copies of the row before", "cpu/*", "std::fill(copied_.begin(), copied_.end(), 0);", ""),
    Mutant("matches run past what is known", "cpu/*", "std::min(end - i, z(i - begin))", "z(i - begin)"),
    Mutant("vectors match n tokens of an n-gram", "cpu/*", ">= edits.ngram - 1)", ">= edits.ngram)"),
    Mutant("vectors ban stop ids whenever they edit", "cpu/*", "if (edits.stops_banned) ban", "ban"),
    Mutant("marked row keeps the old maxima", "cpu/*", "find_maxima(marked, space.maxima.data());", ""),
    Mutant(
        "+inf of banned tokens is marked",
        "cpu/*",
        "const Tile x = row.read(tile);\n    memcpy(&space.marked",
        "const Tile x = read_tile(row.logits, row.vocab, tile);\n    memcpy(&space.marked",
    ),
    # Reading a row.
    Mutant(
        "last partial tile is dropped", "cpu/*", "= (vocab + kTile - 1) / kTile", "= vocab > kTile ? vocab / kTile : 1"
    ),
    Mutant("rest of the last tile is read", "cpu/*", "begin + i < vocab ? to_float", "begin + i <= vocab ? to_float"),
    Mutant(
        "boundary ignores the id",
        "cpu/*",
        "lane_index() + first_id, words(boundary.id)",
        "lane_index(), words(boundary.id)",
    ),
    Mutant("four masses overflow 32 bits", "cpu/*", "kLight = -10.0f", "kLight = -8.0f", only_avx512=True),
    Mutant("fractions near 0 as if they were exact", "cpu/*", "t < -1.0f)", "t < 0.0f)", only_avx512=True),
    Mutant("the mass of a part replaces the others", "cpu/*", "total.fetch_add(sum.total()", "total.store(sum.total()"),
    Mutant("threads lose the last tiles", "cpu/*", "groups = (tiles + kGroup - 1) / kGroup", "groups = tiles / kGroup"),
    Mutant("every thread does all the work", "cpu/threads.h", "#pragma omp for schedule(dynamic, 1)\n", ""),
    # Shortcuts of the vector kernels.
    Mutant("bound of the race is too tight", "cpu/*", ", key, most) * float(kTile)", ", key, most) * 8.0f"),
    Mutant(
        "bound of a tile above the interval is too tight",
        "cpu/*",
        "keys_of(masses(floats(1.0f)), e)",
        "keys_of(masses(floats(0.01f)), e)",
    ),
    Mutant(
        "tiles cut by the boundary count as sure",
        "cpu/*",
        "keep(above(maximum, floats(keeps.last.x))",
        "keep(at_least(maximum, floats(keeps.last.x))",
    ),
    Mutant("tiles above the interval count as sure", "cpu/*", " & below & real, key)", " & real, key)"),
    Mutant("equal keys of tiles go to the higher one", "cpu/*", "if (key > best)", "if (key >= best)"),
    Mutant(
        "equal keys of tokens go to the higher one",
        "cpu/*",
        "__builtin_ctz(equal(keys, floats(best)))",
        "31 - __builtin_clz(equal(keys, floats(best)))",
    ),
    Mutant(
        "noise of the tiles starts over", "cpu/*", "Stream::tile, std::uint32_t(tile)", "Stream::tile, std::uint32_t(0)"
    ),
    Mutant(
        "token noise by the place in the tile",
        "cpu/*",
        "for_noise(noise, stream, std::uint32_t(tile * kTile + begin)",
        "for_noise(noise, stream, std::uint32_t(begin)",
    ),
    Mutant(
        "seed of the neighbouring row",
        "cpu/sample.cpp",
        "std::uint64_t(in.seed[b])",
        "std::uint64_t(in.seed[b ? b - 1 : 0])",
    ),
    Mutant(
        "vector noise drops the high word of position",
        "cpu/*",
        "words(std::uint32_t(noise.position >> 32))",
        "words(0)",
    ),
    Mutant("pivot is too high", "cpu/*", "if (count >= wanted) {", "if (count >= wanted - 1) {"),
    Mutant("nucleus forgets the mass above", "cpu/*", "target -= upper;", ""),
    Mutant("nucleus takes the wrong half", "cpu/*", "if (upper >= target) {", "if (upper > target) {"),
    Mutant("min-p bisection is strict", "cpu/*", ">= min_p; }", "> min_p; }"),
    Mutant("gathered tokens of the boundary's logit are not cut", "cpu/*", "seen.last.x >= low", "seen.last.x > low"),
    Mutant("bounds of the light tokens are halved", "cpu/*", "return 2 * total.load(", "return total.load("),
    Mutant("bounds see one token of a tile", "cpu/*", "kTile * sum_of(most)", "sum_of(most)"),
    Mutant(
        "the rest is taken to be light", "cpu/*", "most = target_with(rest.most) + 1", "most = target_with(rest.least)"
    ),
    Mutant(
        "first token is looked for from behind",
        "cpu/*",
        "first * kTile + i * kLanes + __builtin_ctz(mask)",
        "first * kTile + i * kLanes + 31 - __builtin_clz(mask)",
    ),
    # The chain of the vector kernels.
    Mutant(
        "vectors: llama.cpp takes top-p of what typical dropped",
        "cpu/*",
        "scale, seen, candidates);\n        listed = false;",
        "scale, seen, candidates);",
    ),
    Mutant(
        "vectors: min-p compares with the largest of all",
        "cpu/*",
        "min_p_logit(filter.min_p, highest_kept(row, seen), scale)",
        "min_p_logit(filter.min_p, row.x_max, scale)",
    ),
    Mutant("vectors: no candidate counts in sigma", "cpu/*", "choose(mask, x, floats(row.x_max))", "x"),
    Mutant(
        "vectors: typical takes a tie from the other side",
        "cpu/*",
        "if (above != other.above) return above;",
        "if (above != other.above) return !above;",
    ),
    Mutant(
        "vectors: typical keeps ties of the other side",
        "cpu/*",
        "distance(x) < crossed.distance",
        "distance(x) <= crossed.distance",
    ),
    Mutant(
        "vectors: the cut is after a token, not before",
        "core/order.h",
        "Boundary{x, id - 1}",
        "Boundary{x, id}",
        in_vector_kernels=True,
    ),
    Mutant(
        "vectors: the cut before token 0 drops its ties",
        "core/order.h",
        "Boundary{nextafterf(x, HUGE_VALF), kLastId}",
        "Boundary{x, kLastId}",
        in_vector_kernels=True,
    ),
    Mutant(
        "vectors: XTC keeps the ties of the last likely token",
        "cpu/*",
        "ids_of(row, x, likely).second",
        "ids_of(row, x, likely).first",
    ),
    Mutant("vectors: eta and XTC see what epsilon saw", "cpu/*", "mass_only = [&] {", "mass_only = [&, seen] {"),
    # Reports of the vector kernels.
    Mutant(
        "vectors: draws relative to what XTC dropped",
        "cpu/sample.cpp",
        "highest = highest_kept(row, keeps)",
        "highest = row.x_max",
    ),
    Mutant("vectors: kept ids run over their end", "cpu/*", "mask && place < room", "mask && place <= room"),
    Mutant(
        "vectors: probabilities end at vocab_size",
        "cpu/*",
        "std::fill_n(out.row(b) + row.vocab, vocab - row.vocab, 0.0f);",
        "",
    ),
    # Verification: noise.
    Mutant(
        "acceptance shares the noise of the draft's tokens", "core/philox.h", "accept = 3", "accept = 1", op="verify"
    ),
    Mutant(
        "the residual shares the noise of the draft's tokens",
        "core/philox.h",
        "residual_token = 5",
        "residual_token = 1",
        op="verify",
    ),
    Mutant(
        "the residual shares the noise of the draft's tiles",
        "core/philox.h",
        "residual_tile = 4",
        "residual_tile = 0",
        op="verify",
    ),
    Mutant(
        "acceptance does not count the steps", "core/verify.h", "drawn.step = std::uint32_t(step[b]);", "", op="verify"
    ),
    Mutant("all rows have the first one's position", "core/verify.h", "+ std::uint64_t(depth)}", "}", op="verify"),
    Mutant(
        "a uniform number of fp32, which may be 1",
        "core/verify.h",
        "(double(r) + 0.5) * 0x1p-32",
        "float(r) * 0x1p-32f",
        op="verify",
    ),
    Mutant(
        "all siblings share a uniform number",
        "core/verify.h",
        "drawn.bits(Stream::accept, sibling)",
        "drawn.bits(Stream::accept, 0)",
        op="verify",
    ),
    # Verification: rules.
    Mutant(
        "accepts at equality",
        "core/verify.h",
        "uniform(r) * double(q) < double(p)",
        "uniform(r) * double(q) <= double(p)",
        op="verify",
    ),
    Mutant(
        "accepts what the draft never draws",
        "core/verify.h",
        "return q > 0.0f && uniform(r)",
        "return uniform(r)",
        op="verify",
    ),
    Mutant(
        "accepts everything",
        "core/verify.h",
        "q > 0.0f && uniform(r) * double(q)",
        "p > 0.0f && 0.0 * double(q)",
        op="verify",
    ),
    Mutant(
        "the residual may be negative",
        "core/verify.h",
        "return left > 0.0f ? left : 0.0f;",
        "return fabsf(left);",
        op="verify",
    ),
    Mutant(
        "a residual is not made a distribution again",
        "core/verify.h",
        "total ? probability_unit(total) : 0.0f",
        "total ? 1.0f : 0.0f",
        op="verify",
    ),
    Mutant(
        "block: a prefix may stand more than surely",
        "core/verify.h",
        "return longer < 1.0 ? longer : 1.0;",
        "return longer;",
        op="verify",
    ),
    Mutant(
        "block: a prefix ends as if the residual were whole",
        "core/verify.h",
        "(z + 1.0 - prefix) < z",
        "(z + 1.0 - prefix) < 1.0",
        op="verify",
    ),
    Mutant(
        "block: all drafts always stand",
        "core/verify.h",
        "return uniform(r) < prefix;",
        "return prefix > 0.0;",
        op="verify",
    ),
    Mutant(
        "block: what the draft never draws stands", "core/verify.h", "if (!(q > 0.0f)) return 0.0;", "", op="verify"
    ),
    Mutant("greedy draws", "core/verify.h", "if (method_of(b) == Method::greedy) filter.k = 1;", "", op="verify"),
    # Verification: requests.
    Mutant(
        "-1 is read as a token",
        "core/verify.h",
        "return node < drafts && token(b, node + 1) >= 0 ?",
        "return node < drafts ?",
        op="verify",
    ),
    Mutant("ids outside the vocabulary are read", "core/verify.h", "id < -1 || id >= vocab || ", "", op="verify"),
    Mutant(
        "a node may lead to itself",
        "core/verify.h",
        "(to > node && to <= drafts)",
        "(to >= node && to <= drafts)",
        op="verify",
    ),
    Mutant("two nodes may lead to one", "core/verify.h", "return links <= 1;", "return links <= 2;", op="verify"),
    Mutant("the root may have siblings", "core/verify.h", " || (node == 0 && sibling[0] != kNone)", "", op="verify"),
    Mutant("block takes trees", "core/verify.h", "valid = valid && tree.is_chain();", "", op="verify"),
    Mutant(
        "any draft temperature is valid",
        "core/verify.h",
        "valid = has_draft_logits && draft_filter(b).valid;",
        "valid = has_draft_logits;",
        op="verify",
    ),
    # Verification: the oracle.
    Mutant(
        "the bonus token and all others ignore the filters",
        "scalar/verify.cpp",
        "return draw(target.row, target.kept, target",
        "return draw(target.row, target.row.all(), target",
        op="verify",
    ),
    Mutant(
        "q is not what was sampled",
        "scalar/verify.cpp",
        "call_.vocab), call_.draft_filter(b_));",
        "call_.vocab), make_filter(1.0f, 0, 1.0f, 0.0f, call_.order));",
        op="verify",
    ),
    Mutant(
        "penalties do not see the drafts",
        "scalar/verify.cpp",
        "history_.push_back(std::int32_t(outcome.token));",
        "",
        op="verify",
    ),
    Mutant(
        "all rows have the first one's bitmask",
        "scalar/verify.cpp",
        "bitmask.of(b_, call_.first_row(b_), node)",
        "bitmask.of(b_, call_.first_row(b_), 0)",
        op="verify",
    ),
    Mutant(
        "different drafts are drawn again",
        "scalar/verify.cpp",
        "total -= mass(weights_q[token]), weights_q[token] = 0.0f;",
        "total -= 0;",
        op="verify",
    ),
    Mutant(
        "a rejection draws from the target",
        "scalar/verify.cpp",
        "Masses masses = masses_of(residual.left);",
        "Masses masses;",
        op="verify",
    ),
    Mutant(
        "block keeps the first prefix that may stand",
        "scalar/verify.cpp",
        "sum_of(masses_of(residual.left)))) end = count;",
        "sum_of(masses_of(residual.left)))) { end = count; drafted.back(); break; }",
        op="verify",
    ),
    Mutant(
        "block draws its residual as if the prefix were sure",
        "scalar/verify.cpp",
        "Residual residual(target, prefix[std::size_t(end)]);",
        "Residual residual(target, 1.0);",
        op="verify",
    ),
    # Verification: the vector kernels.
    Mutant(
        "vectors: the residual takes nothing off",
        "cpu/residual.h",
        "- q.x[i] * refused.taken.unit_q",
        "- 0.0f * q.x[i]",
        op="verify",
    ),
    Mutant(
        "vectors: bounds of tiles are too low",
        "cpu/residual.h",
        "load(&space.maximum[i]))), e) * float(kTile)",
        "load(&space.maximum[i]))), e)",
        op="verify",
    ),
    Mutant(
        "vectors: later siblings are not scaled",
        "cpu/verify.cpp",
        "scale = residual_scale(residual.mass());",
        "scale = 1.0f;",
        op="verify",
    ),
    Mutant(
        "vectors: different drafts are drawn again",
        "cpu/residual.h",
        "if (refused_[j].token == token) return 0.0f;",
        "",
        op="verify",
    ),
    Mutant(
        "vectors: an early decision takes too little",
        "cpu/verify.cpp",
        "accepts(call_.accept_bits(b_, depth, 0), most, residual",
        "accepts(call_.accept_bits(b_, depth, 0), most * 0.5f, residual",
        op="verify",
    ),
    Mutant(
        "vectors: penalties do not see the drafts",
        "cpu/verify.cpp",
        "edits_.history.size + depth});",
        "edits_.history.size});",
        op="verify",
    ),
]
