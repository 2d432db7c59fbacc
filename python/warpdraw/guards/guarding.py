"""Generation with guards: prompts and texts are checked, and what is found stops, is replaced, or is drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from ..generation.loop import Prompts, generate
from ..generation.params import SamplingParams, fresh_seed, sample_seed
from ..generation.results import Completion, Completions, GuardAction, Throughput
from ..model.weights import Checkpoint
from .checks import Check, Finding

PLACES = ("output", "prompt", "both")
ACTIONS = ("stop", "replace", "retry")


@dataclass(frozen=True)
class Guard:
    """A check, what it is asked about, and what happens where it finds something.

    check        a `Check`: `length`, `scripts`, `forbid`, `require`, `personal_data`, or one of your own.
    on           "output", "prompt" or "both".
    action       "stop": there is no text, and finish_reason is "guard"; a prompt is not read. "replace": the findings
                 are replaced, for which they need a place in the text. "retry": the text is drawn again with another
                 seed; where that is of no use, "stop".
    replacement  what stands for a finding; None is its kind in brackets, such as "[email]".
    tries        how often a text is drawn again at most.

    Raises TypeError or ValueError; the message names the field, what is allowed and what it was.
    """

    check: Check
    on: str = "output"
    action: str = "stop"
    replacement: str | None = None
    tries: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.check, Check):
            raise TypeError(f"check: expected a Check of warpdraw.guards, got {self.check!r}")
        if self.on not in PLACES:
            raise ValueError(f"on: expected one of {', '.join(PLACES)}, got {self.on!r}")
        if self.action not in ACTIONS:
            raise ValueError(f"action: expected one of {', '.join(ACTIONS)}, got {self.action!r}")
        if self.action == "retry" and self.on != "output":
            raise ValueError(f"action: expected stop or replace for a prompt, which is not drawn, got {self.action!r}")
        if self.replacement is not None and not isinstance(self.replacement, str):
            raise TypeError(f"replacement: expected text or None, got {self.replacement!r}")
        if type(self.tries) is not int or self.tries < 1:
            raise ValueError(f"tries: expected an integer of at least 1, got {self.tries!r}")

    def covers(self, place: str) -> bool:
        """Whether it is asked about prompts, or outputs."""
        return self.on in (place, "both")


def guarded(
    model: Checkpoint,
    prompts: Prompts,
    params: SamplingParams | Sequence[SamplingParams] | None = None,
    *,
    guards: Sequence[Guard],
    **options: Any,
) -> Completions:
    """Draw completions as `generate` does, with its arguments, and have guards check prompts and texts, in their order.

    Every completion says in `guarded` what was done: the guard, the action, and what was found. A text that was
    stopped is empty; one that was stopped or replaced has no token ids, log-probabilities or steps, because they would
    say what the text does not. A text that was drawn again has the seed `sample_seed` gives for its own seed and the
    number of the try, so it repeats.

    Raises what `generate` raises, and TypeError for what is no guard.

    >>> from warpdraw import SamplingParams, load
    >>> from warpdraw.guards import Guard, forbid, guarded
    >>> guards = [Guard(forbid("blue"), action="replace", replacement="green")]
    >>> guarded(load("tiny-target"), "The sky is", SamplingParams(seed=7), guards=guards)[0].text
    ' green and the air is warm.'
    """
    for guard in guards:
        if not isinstance(guard, Guard):
            raise TypeError(f"guards: expected guards of warpdraw.guards, got {guard!r} among them")
    several: list[Any] = [prompts] if isinstance(prompts, str) else list(prompts)
    if params is None or isinstance(params, SamplingParams):
        params = [params or SamplingParams()] * len(several)
    if len(params) != len(several):
        raise ValueError(f"params: expected one for each of {len(several)} prompts, got {len(params)}")
    run = _Run(model, guards, options)
    done: list[Completion] = []
    read: list[tuple[int, Any, SamplingParams, list[GuardAction]]] = []
    for index, (prompt, each) in enumerate(zip(several, params, strict=True)):
        actions: list[GuardAction] = []
        text = prompt if isinstance(prompt, str) else model.tokenizer.decode(prompt)
        kept, stopped = run.checked(text, "prompt", actions)
        if stopped:
            done += [_refused(index, prompt, each, sample, actions) for sample in range(each.n)]
        else:
            read.append((index, prompt if kept == text else kept, each, actions))
    drawn = run.draw([prompt for _, prompt, _, _ in read], [each for _, _, each, _ in read])
    for completion in drawn:
        index, _, each, actions = read[completion.index]
        done.append(replace(run.settled(completion, each, actions), index=index))
    done.sort(key=lambda completion: (completion.index, completion.sample))
    return Completions(done, run.throughput)


class _Run:
    """One call of `guarded`."""

    def __init__(self, model: Checkpoint, guards: Sequence[Guard], options: dict[str, Any]) -> None:
        self._model, self._guards, self._options = model, guards, options
        self.throughput = Throughput()

    def draw(self, prompts: list[Any], params: list[SamplingParams]) -> Completions:
        completions = generate(self._model, prompts, params, **self._options)
        for field in fields(Throughput):
            value, more = getattr(self.throughput, field.name), getattr(completions.throughput, field.name)
            if isinstance(more, int | float):
                setattr(self.throughput, field.name, value + more)
        self.throughput.speculation = self.throughput.speculation or completions.throughput.speculation
        return completions

    def checked(self, text: str, place: str, actions: list[GuardAction]) -> tuple[str, Guard | None]:
        """The text as guards let it pass, and the guard that does not; what they did is added to `actions`."""
        for guard in self._guards:
            if not guard.covers(place):
                continue
            findings = guard.check.find(text)
            if not findings:
                continue
            if guard.action == "replace" and all(each.begin is not None for each in findings):
                text = _replaced(text, findings, guard.replacement)
                actions += [_action(guard, "replace", place, each) for each in findings]
            else:
                action = "retry" if guard.action == "retry" else "stop"
                actions.append(_action(guard, action, place, findings[0]))
                return text, guard
        return text, None

    def settled(self, completion: Completion, params: SamplingParams, before: list[GuardAction]) -> Completion:
        """The completion, or another one in its place, as guards let it pass."""
        tried, seed = 0, completion.seed
        actions = [*before, *completion.guarded]
        while True:
            text, stopped = self.checked(completion.text, "output", actions)
            if stopped is None and text == completion.text:
                return replace(completion, guarded=tuple(actions))
            if stopped is None:
                return _without_tokens(completion, text=text, guarded=tuple(actions))
            if stopped.action != "retry" or tried >= stopped.tries:
                actions[-1] = replace(actions[-1], action="stop")
                return _without_tokens(completion, text="", guarded=tuple(actions), finish_reason="guard", stop=None)
            tried += 1
            again = replace(params, seed=sample_seed(seed, tried), n=1)
            [drawn] = self.draw([completion.prompt], [again])
            completion = replace(drawn, index=completion.index, sample=completion.sample)
            actions += drawn.guarded


def _replaced(text: str, findings: list[Finding], replacement: str | None) -> str:
    made, at = "", 0
    for each in findings:
        assert each.begin is not None
        assert each.end is not None
        if each.begin >= at:
            made += text[at : each.begin] + (f"[{each.what}]" if replacement is None else replacement)
            at = each.end
    return made + text[at:]


def _action(guard: Guard, action: str, place: str, finding: Finding) -> GuardAction:
    where = "" if finding.begin is None else f" at {finding.begin}"
    return GuardAction(guard.check.name, action, detail=f"{place}: {finding.what}{where}")


def _without_tokens(completion: Completion, **changes: Any) -> Completion:
    gone: dict[str, Any] = {
        "token_ids": [],
        "logprobs": None if completion.logprobs is None else [],
        "kept": None if completion.kept is None else [],
        "steps": None,
    }
    return replace(completion, **(gone | changes))


def _refused(index: int, prompt: Any, params: SamplingParams, sample: int, actions: list[GuardAction]) -> Completion:
    seed = fresh_seed() if params.seed is None else params.seed
    return Completion(
        prompt=prompt,
        text="",
        token_ids=[],
        finish_reason="guard",
        stop=None,
        seed=sample_seed(seed, sample),
        prompt_tokens=0,
        completion_tokens=0,
        logprobs=None if params.logprobs is None else [],
        index=index,
        sample=sample,
        guarded=tuple(actions),
    )
