"""Pace: how many tokens a request drafts, from how many of its drafts were accepted so far."""

from __future__ import annotations

# The acceptance of a request before its first draft, and what the last draft counts in its average.
FIRST_RATE = 0.75
WEIGHT = 0.1
# What a further token costs the model, as a part of a step: of one row, and on the CPU for each row beside it, where a
# batch has little to share.
TOKEN_COST = 0.04
SHARED_COST = 0.09
# Drafts have to make a step faster by this factor: they also take time of the host.
WORTH = 1.1
# A request that is better off without drafts tries one after so many steps, and then each time after twice as many.
STEPS_WITHOUT = 16


class Pace:
    """Chooses the k in 0 .. most with the most tokens in a unit of time: (1 + a + .. + a^k) / (1 + k c) is the largest.

    a is an exponential average over the drafts that the model decided about: accepted ones up to the first rejection.
    c is `cost` and `token_cost` together. k is 0 where the best is less than WORTH. With `adaptive` off, k is `most`.

    >>> pace = Pace(most=8, cost=0.1, adaptive=True)
    >>> first = pace.drafts()
    >>> for _ in range(40):
    ...     pace.learn(drafted=4, accepted=4)
    >>> first, pace.drafts(), pace.drafts(token_cost=2.0)
    (4, 8, 0)
    """

    def __init__(self, most: int, cost: float, adaptive: bool) -> None:
        self._most, self._cost, self._adaptive = most, cost, adaptive
        self._rate = FIRST_RATE
        self._without, self._patience = 0, STEPS_WITHOUT

    def drafts(self, token_cost: float = TOKEN_COST) -> int:
        """How many tokens to draft in the next step."""
        if not self._adaptive:
            return self._most
        tokens = power = 1.0
        best, most_tokens = 0, WORTH
        for k in range(1, self._most + 1):
            power *= self._rate
            tokens += power
            in_time = tokens / (1 + k * (self._cost + token_cost))
            if in_time > most_tokens:
                best, most_tokens = k, in_time
        if best:
            self._without, self._patience = 0, STEPS_WITHOUT
            return best
        self._without += 1
        if self._without <= self._patience:
            return 0
        self._without, self._patience = 0, 2 * self._patience
        return 1

    def learn(self, drafted: int, accepted: int) -> None:
        """Take what became of the drafts of a step."""
        for place in range(min(accepted + 1, drafted)):
            self._rate += WEIGHT * ((place < accepted) - self._rate)
