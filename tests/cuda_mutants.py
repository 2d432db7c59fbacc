"""Planted bugs of the CUDA kernels, one at a time: test_cuda_mutants.py has the checks of cuda_checks.py reject them.

Simulated threads change places only where they wait, so a barrier that is left out shows by who runs ahead.
"""

from __future__ import annotations

from mutants import Mutant


def without(name: str, place: str, barrier: str = "sync();") -> Mutant:
    """A barrier is missing at a place, which is the text around it with `|` where it stands."""
    return Mutant(name, "cuda/*", place.replace("|", barrier), place.replace("|", ""))


CLAIM, WAIT = "row.team.claim();", "row.team.wait();"

BARRIERS = [
    # The team.
    without("no barrier in a sum of a block", "place[warp()][n] = value[n];\n    |"),
    without("no barrier in a sum of a team", "place[n] = value[n];\n    |", "wait();"),
    without("no barrier in a sum over threads", "place[warp()][0] = upto;\n    |"),
    without("no barrier in a sum over blocks", "*place = value;\n    |", "wait();"),
    Mutant(
        "sums of a block use one half",
        "cuda/*",
        "auto& place = room_.of_warp[block_turn_ ^= 1];\n    for",
        "auto& place = room_.of_warp[0];\n    for",
    ),
    Mutant(
        "sums of a team use one half",
        "cuda/*",
        "std::uint64_t* place = room_.of_block[team_turn_ ^= 1];\n    for",
        "std::uint64_t* place = room_.of_block[0];\n    for",
    ),
    # Reading the row.
    without("maxima are sought before the row is there", "row.logits = resident;\n  }\n  |"),
    without("maxima are shared before they are found", "|\n  float highest", "team.wait();"),
    without("maxima are marked while others read them", "kLargest)) return;\n  |", CLAIM),
    without("marked maxima are read too early", "row.x_max = 0.0f;\n  |"),
    without("a block leaves while others read it", "visit.work(row, draft);\n  |", "visit.team.wait();"),
    # Lists and histograms.
    without("marks do not wait for readers of the maxima", "  |\n  row.x_max = unordered", "team.lend();"),
    without("lists do not wait for readers of lists", "|\n  sync();\n  return total;", "row.team.lend();"),
    without("histograms do not wait for readers", "scratch.all[i] = sum;\n  }\n  |", "row.team.lend();"),
    without("a list starts while the one before is read", "|\n  if (thread() == 0) scratch.count = 0;", CLAIM),
    without("a list is filled before it is empty", "scratch.count = 0;\n  |"),
    without("a list is read before it is full", "|\n  // The lists of the blocks", WAIT),
    without("a list is used before it is copied", "|\n  return total;"),
    without("a list is sorted while it is read", "+= scratch.all[j] > key[e];\n  }\n  |"),
    without("a sorted list is read too early", "scratch.all[place[e]] = key[e];\n  |"),
    without("a crossing is read too early", "|\n  before = scratch.before;"),
    without(
        "a histogram starts while the one before is read",
        "|\n  for (int i = thread(); i < kList; i += kThreads) scratch.own[i] = 0;",
        CLAIM,
    ),
    without("a histogram is filled before it is empty", "scratch.own[i] = 0;\n  |"),
    without("listed tokens race before their masses are there", "scratch.all[i]), highest, scale)));\n  |"),
    without("the logit of the drawn token is read too early", "scratch.before = scratch.all[i];\n  |"),
    without("a histogram is read before it is full", "atomic_add(&scratch.own[at], m);\n  });\n  |", WAIT),
    # What changes a row.
    without("allowed tokens are marked before the map is empty", "allowed[first_word_ + i] = 0; });\n    |"),
    without("edited tokens are marked before the map is empty", "edited_[first_word_ + i] = 0; });\n    |"),
    without("entries are used before they start", "0xffffffff, 0, 0, 0, 0, 0};\n    });\n    |"),
    without("biases are added before they are counted", "atomic_add(&e.biases, 1u);\n    });\n    |"),
    without("penalties come before counts", "ban(edits_.stop);\n    |"),
]

OTHERS = [
    # Tiles, edges and lanes.
    Mutant("blocks without tiles race", "cuda/*", "row_.has(tile) && row_.maxima", "tile < row_.last && row_.maxima"),
    Mutant("a token beyond the vocabulary", "cuda/*", "if (id >= vocab) return", "if (id > vocab) return"),
    Mutant(
        "a part of a tile is taken for a whole one",
        "cuda/*",
        "int(vocab / kTile)",
        "int((vocab + kTile - 1) / kTile)",
    ),
    Mutant(
        "rows of any address are read by 16 bytes", "cuda/*", "if (starts_at_16_bytes(memory) && (", "if (true && ("
    ),
    Mutant(
        "places in a list count the own lane",
        "cuda/*",
        "+ popcount(taken & ((1u << lane()) - 1));",
        "+ popcount(taken & ((2u << lane()) - 1));",
    ),
    Mutant(
        "ids of kept tokens count the own lane",
        "cuda/*",
        "popcount(kept[h] & ((1u << lane()) - 1))",
        "popcount(kept[h] & ((2u << lane()) - 1))",
    ),
    Mutant(
        "ids of kept tokens run over their end",
        "cuda/*",
        "(kept[h] >> lane() & 1) && to < room",
        "(kept[h] >> lane() & 1) && to <= room",
    ),
    Mutant("every block writes kept tokens from the first place on", "cuda/*", "row.team.sum_before(in_block);", "0;"),
    Mutant(
        "half a warp is reduced",
        "cuda/*",
        "for (int mask = kWarp / 2; mask; mask /= 2) value = op",
        "for (int mask = kWarp / 4; mask; mask /= 2) value = op",
    ),
    # Lists.
    Mutant("a list that overflowed counts as complete", "cuda/*", "if (count <= kList) {", "if (count) {"),
    Mutant(
        "lists are sorted the wrong way", "cuda/*", "scratch.all[j] > key[e]", "i < count && scratch.all[j] < key[e]"
    ),
    Mutant(
        "a block lists its own tokens for those of others",
        "cuda/*",
        "*peer(&scratch.own[i - begin], block)",
        "scratch.own[i - begin]",
    ),
    Mutant(
        "a block sums its own bins for those of others", "cuda/*", "*peer(&scratch.own[i], r) : 0", "scratch.own[i] : 0"
    ),
    Mutant("digits forget what is above", "cuda/*", "before += inside;", ""),
    Mutant("a target of zero is reached at once", "cuda/*", "if (target == 0) target = 1;", ""),
    Mutant("top tokens are listed again", "cuda/*", "keeps.first = boundary_of(row.scratch.all[kList - 1]);", ""),
    # Race.
    Mutant("bound of the race is too tight", "cuda/*", ", e) * float(kTile)", ", e) * 4.0f"),
    Mutant(
        "tiles cut by the boundary count as sure",
        "cuda/*",
        "x > keeps_.last.x && x < keeps_.first.x",
        "x >= keeps_.last.x && x < keeps_.first.x",
    ),
    Mutant(
        "tiles above the interval count as sure",
        "cuda/*",
        "x > keeps_.last.x && x < keeps_.first.x",
        "x > keeps_.last.x",
    ),
    Mutant(
        "noise of the tiles repeats",
        "cuda/*",
        "noise_.block(Stream::tile, quad)",
        "noise_.block(Stream::tile, quad % 4)",
    ),
    Mutant(
        "every block draws from its own memory",
        "cuda/*",
        "Drawn drawn{0, 0.0f, row_.has(tile)};",
        "Drawn drawn{0, 0.0f, true};",
    ),
    Mutant(
        "blocks do not hear what was drawn",
        "cuda/*",
        "known = row.team.largest(known);",
        "known = row.team.block_largest(known);",
    ),
    # What is listed.
    Mutant("listed tokens race alone", "cuda/*", "tile_of(j) == tile ? masses[j] : 0", "j == i ? masses[j] : 0"),
    Mutant(
        "a token of another tile wins",
        "cuda/*",
        "if (tile_of(i) == tile)\n      best",
        "if (tile_of(i) >= tile)\n      best",
    ),
    Mutant(
        "a boundary forgets what it cuts off the list",
        "cuda/*",
        "count += last.keeps(key_logit(key), key_id(key));",
        "++count;",
    ),
    # What changes a row.
    Mutant("entries of blocks collide", "cuda/*", "lower += id >= 0 && id < begin_;", ""),
    Mutant(
        "a token of the next block gets an entry", "cuda/*", "id >= begin_ && id < end_;", "id >= begin_ && id <= end_;"
    ),
    Mutant(
        "restrictions are forgotten",
        "cuda/*",
        "return allowed && !(allowed[word] & bit) ? -HUGE_VALF : x;",
        "return x;",
    ),
    Mutant(
        "what has an entry may be drawn",
        "cuda/*",
        "may_be ? to_float(logits_[id]) : -HUGE_VALF",
        "to_float(logits_[id])",
    ),
    Mutant(
        "the list of what is allowed opens the bitmask",
        "cuda/*",
        "is_mine(id) && (!bitmask() || (bitmask()[id / 32] >> id % 32 & 1))",
        "is_mine(id)",
    ),
]

MUTANTS = BARRIERS + OTHERS
