"""The tiny language: a probabilistic grammar of everyday English with exactly known next-word probabilities.

The sentences are data (grammar.txt); this file expands them. A text is an endless chain of documents: a document has
one topic, walks through its stages sentence by sentence, and ends after each sentence with probability 0.2. The choices
within a sentence do not depend on the sentences before it. What may still follow some words is a set of stacks (the
symbols yet to be said) with their probabilities; adding up what stands on top of them gives the exact distribution of
the next word, however many sentences of the grammar begin with these words.

>>> next_words("The sky is")
{'blue': 0.35, 'clear': 0.25, 'cloudy': 0.17, 'grey': 0.1, 'dark': 0.08, 'bright': 0.05}

    python examples/tiny/language.py 60000 > text.txt    # a text of so many words
"""

from __future__ import annotations

import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate, islice
from math import log
from pathlib import Path

END = "<|endoftext|>"  # the word between two documents
START = "<document>"
GO_ON, STOP = 80, 20  # percent, after each sentence
STAGE = 3  # sentences

Stack = tuple[str, ...]
State = frozenset[tuple[Stack, float]]  # what may still be said, with its probability
Rules = dict[str, list[tuple[int, Stack]]]  # symbol: its alternatives, each with an integer weight


def split(text: str) -> list[str]:
    """The words of a text; a full stop, a comma and <|endoftext|> are words too."""
    return re.findall(r"<[^<>]+>|\w+|[^\w\s<>]", text)


def join(words: Iterable[str]) -> str:
    """The text of some words: a space before each word, but not at the start of a document nor before . and , ."""
    text = "".join(word if word in (".", ",", END) else f" {word}" for word in words)
    return text.removeprefix(" ").replace(f"{END} ", END)


def parse(text: str) -> Rules:
    """The rules of a grammar in the notation that grammar.txt explains. ValueError names the line that is wrong."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line and line[0] != "#"]
    slots = dict(line.split(" = ", 1) for _, line in lines if " = " in line)
    rules: Rules = {START: []}

    def choice(group: re.Match[str]) -> str:
        alternatives = [re.fullmatch(r"\s*(\d+)\s+(\S.*)", part) for part in group[1].split("|")]
        rule = [(int(found[1]), tuple(split(found[2]))) for found in alternatives if found]
        if sum(percent for percent, _ in rule) != 100 or not all(alternatives):
            raise ValueError(f"{group[0]} must give each of its words a percentage, together 100")
        name = f"<choice {len(rules)}>"
        rules[name] = rule
        return name

    def slot(name: re.Match[str]) -> str:
        if name[1] not in slots:
            raise ValueError(f"no line gives the slot {name[0]}")
        return f"({slots[name[1]]})"

    def expand(sentence: str) -> str:
        while "<" in sentence:
            sentence = re.sub("<(.*?)>", slot, sentence)
        while "(" in sentence:
            sentence = re.sub(r"\(([^()]*)\)", choice, sentence)
        return sentence

    sentences: dict[str, list[Stack]] = {}
    for number, line in lines:
        try:
            if line[0] == "[":
                sentences[line.strip("[]")] = []
            elif not sentences and " = " not in line:
                raise ValueError("a sentence needs a [topic] above it")
            elif " = " not in line:
                list(sentences.values())[-1].append((*split(expand(line)), "."))
        except ValueError as error:
            raise ValueError(f"line {number} ({line}): {error}") from error

    for topic, said in sentences.items():
        stages = -(-len(said) // STAGE)
        for i in range(stages):
            stage, after, later = f"<{topic} {i}>", f"<after {topic} {i}>", f"<{topic} {(i + 1) % stages}>"
            rules[START].append((1, (stage,)))
            rules[stage] = [(1, (*symbols, after)) for symbols in said[i * STAGE : (i + 1) * STAGE]]
            rules[after] = [(GO_ON, (later,)), (STOP, (END, START))]
    return rules


RULES = parse(Path(__file__).with_name("grammar.txt").read_text(encoding="utf-8"))
BEGINNING: State = frozenset({((START,), 1.0)})


@cache
def _openings(stack: Stack) -> tuple[tuple[str, Stack, float], ...]:
    """The words that a stack can begin with, each with the stack that is left and the probability."""
    rule = RULES.get(stack[0])
    if rule is None:
        return ((stack[0], stack[1:], 1.0),)
    total = sum(weight for weight, _ in rule)
    return tuple(
        (word, rest, weight / total * chance)
        for weight, symbols in rule
        for word, rest, chance in _openings(symbols + stack[1:])
    )


@cache
def _branches(state: State) -> dict[str, tuple[float, State]]:
    """Each word that can come next, the likeliest first: its probability, and the state after it."""
    said: dict[str, dict[Stack, float]] = defaultdict(lambda: defaultdict(float))
    for stack, chance in state:
        for word, rest, share in _openings(stack):
            said[word][rest] += chance * share
    branches = {}
    for word, stacks in sorted(said.items(), key=lambda item: (-round(sum(item[1].values()), 9), item[0])):
        total = sum(stacks.values())
        branches[word] = total, frozenset((stack, round(chance / total, 12)) for stack, chance in stacks.items())
    return branches


@cache
def _chances(state: State) -> dict[str, float]:
    return {word: round(chance, 9) for word, (chance, _) in _branches(state).items()}


def _follow(context: str) -> State:
    state = BEGINNING
    for word in split(context.removeprefix(END)):
        branches = _branches(state)
        if word not in branches:
            raise ValueError(f"context is {context!r}; where it says {word!r} it may say {', '.join(branches)}")
        state = branches[word][1]
    return state


def next_words(context: str) -> dict[str, float]:
    """The exact distribution of the word after `context`, the beginning of a text; the likeliest word comes first.

    ValueError if the language never says `context`.
    """
    return dict(_chances(_follow(context)))


def along(words: Iterable[str]) -> Iterator[dict[str, float]]:
    """For each word of a text that begins a document: the exact distribution of what could stand there."""
    state = BEGINNING
    for word in words:
        yield _chances(state)
        state = _branches(state)[word][1]


def surprise(words: list[str]) -> float:
    """-log probability (nats) of a text that begins a document."""
    return -sum(log(chances[word]) for word, chances in zip(words, along(words), strict=True))


def places(context: str) -> set[str]:
    """The places (topic and stage) that the sentence at the end of `context` can have."""
    return {stack[-1] for stack, _ in _follow(context)}


def contexts() -> list[str]:
    """The choice points: beginnings of a sentence after which more than one word can come.

    Listed are those that only one place (topic and stage) has: there, the distribution of the next word is the same at
    the start of a document and after any sentences.
    """
    found: list[str] = []

    def walk(words: list[str], state: State) -> None:
        branches = _branches(state)
        if len(branches) > 1 and len({stack[-1] for stack, _ in state}) == 1:
            found.append(join(words))
        for word, (_, branch) in branches.items():
            if word != ".":
                walk([*words, word], branch)

    for word, (_, state) in _branches(BEGINNING).items():
        walk([word], state)
    return found


def entropy() -> tuple[float, float]:
    """The expected information (nats) and the expected number of words of one document, its <|endoftext|> included."""

    @cache
    def sentence(state: State) -> tuple[float, float]:
        nats, words = 0.0, 0.0
        for word, (chance, branch) in _branches(state).items():
            more, longer = (0.0, 0.0) if word == "." else sentence(branch)
            nats += chance * (more - log(chance))
            words += chance * (longer + 1)
        return nats, words

    nats, words = sentence(BEGINNING)
    go_on, stop = GO_ON / 100, STOP / 100
    for _, stage in RULES[START]:
        # What follows a sentence: X = H(stop) + (1 - stop) (sentence + X), solved for X, in nats and in words.
        again = sentence(frozenset({(stage, 1.0)}))
        nats += (-go_on * log(go_on) - stop * log(stop) + go_on * again[0]) / stop / len(RULES[START])
        words += (stop + go_on * again[1]) / stop / len(RULES[START])
    return nats, words


def speak(seed: int) -> Iterator[str]:
    """Words without end, documents that are separated by <|endoftext|>; the seed decides all of them.

    The words come from expanding the rules at random, not from the probabilities that the functions above work out.
    """
    generator = random.Random(seed)
    bounds = {name: list(accumulate(weight for weight, _ in rule)) for name, rule in RULES.items()}
    stack = [START]
    while True:
        symbol = stack.pop()
        if symbol in RULES:
            stack.extend(reversed(generator.choices(RULES[symbol], cum_weights=bounds[symbol])[0][1]))
        else:
            yield symbol


if __name__ == "__main__":
    print(join(islice(speak(seed=2), int(sys.argv[1]))))
