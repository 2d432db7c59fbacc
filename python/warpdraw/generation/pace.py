"""Pace: how many tokens a request drafts, from how many of its drafts were accepted so far."""

from __future__ import annotations

# The acceptance of a request before its first draft, and what the last draft counts in its average.
FIRST_RATE = 0.75
WEIGHT = 0.1
# What each further token of a step costs the model, as a part of a step.
TOKEN_COST = 0.04
# A request that is better off without drafts tries again after so many steps.
STEPS_WITHOUT = 16


class Pace:
    """Chooses the k in 0 .. most with the most tokens per unit of time, (1 + a + ... + a^k) / (1 + k (cost + 0.04)).

    a is an exponential average over the drafts that the model decided about: accepted ones up to the first rejection.
    With `adaptive` off, k is `most`.

    >>> pace = Pace(most=8, cost=0.1, adaptive=True)
    >>> first = pace.drafts()
    >>> for _ in range(40):
    ...     pace.learn(drafted=4, accepted=4)
    >>> first, pace.drafts()
    (4, 8)
    """

    def __init__(self, most: int, cost: float, adaptive: bool) -> None:
        self._most, self._cost, self._adaptive = most, cost + TOKEN_COST, adaptive
        self._rate = FIRST_RATE
        self._without = 0
        self._chosen = self._best()

    def drafts(self) -> int:
        """How many tokens to draft in the next step."""
        if not self._adaptive:
            return self._most
        if self._chosen == 0:
            self._without += 1
            return 1 if self._without % STEPS_WITHOUT == 0 else 0
        return self._chosen

    def learn(self, drafted: int, accepted: int) -> None:
        """Take what became of the drafts of a step."""
        if not drafted or not self._adaptive:
            return
        for place in range(min(accepted + 1, drafted)):
            self._rate += WEIGHT * ((place < accepted) - self._rate)
        self._chosen = self._best()

    def _best(self) -> int:
        tokens = power = 1.0
        best, best_rate = 0, 1.0
        for k in range(1, self._most + 1):
            power *= self._rate
            tokens += power
            rate = tokens / (1 + k * self._cost)
            if rate > best_rate:
                best, best_rate = k, rate
        return best
