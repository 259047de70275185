"""The one judge of every fault run: a history in, what was broken out. Pure.

What must hold, whatever was killed, full or slow:

- an id that was accepted ends, in one state, and stays in it: nothing is *lost*;
- it ends as `succeeded`, unless the run says that others are right too;
- its result is the one that its request must get, and never another;
- one idempotency key is one id, one id is one request: nothing is *doubled*;
- what nobody was told of was asked for by a request whose answer was lost, and is there once;
- a batch that was accepted has each of its lines, once, in one of its files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from tests.faults.history import Event

FINAL = frozenset({"succeeded", "failed", "canceled", "expired", "dead"})
FINAL_BATCH = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass
class Verdict:
    """Of one run, or of several added up."""

    accepted: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    def __str__(self) -> str:
        if self.is_good:
            return f"{self.accepted} accepted, none lost, none doubled"
        return "\n".join(
            f"{kind}: {each}"
            for kind in ("lost", "doubled", "wrong")
            for each in getattr(self, kind)
        )


def check(
    history: Iterable[Event],
    answer_to: Callable[[str], str],
    may_end: Collection[str] = ("succeeded",),
) -> Verdict:
    """Judge a history that ends after the platform was whole again and had time to finish.

    `answer_to` gives the text that a prompt must get; `may_end` the states that are right.
    """
    events = list(history)
    verdict = Verdict()
    _invocations(verdict, events, answer_to, may_end)
    _submissions(verdict, events)
    _unannounced(verdict, events)
    _batches(verdict, events)
    return verdict


def _invocations(
    verdict: Verdict,
    events: list[Event],
    answer_to: Callable[[str], str],
    may_end: Collection[str],
) -> None:
    prompts = {event.id: event.prompt for event in events if event.what == "accepted"}
    verdict.accepted += len(prompts)
    states: defaultdict[str, list[str]] = defaultdict(list)
    results: defaultdict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.what == "state":
            states[event.id].append(event.status)
        elif event.what == "result":
            results[event.id].add(event.text)
    for key, prompt in prompts.items():
        ended = [status for status in states[key] if status in FINAL]
        if not ended:
            verdict.lost.append(f"{key} ({prompt[:20]!r}) was accepted and never ended")
            continue
        if len(set(ended)) > 1 or states[key][-1] not in FINAL:
            verdict.doubled.append(f"{key} ended, and then did not stay so: {states[key]}")
        if ended[-1] not in may_end:
            verdict.lost.append(f"{key} ({prompt[:20]!r}) ended as {ended[-1]}")
        if ended[-1] == "succeeded" and not results[key]:
            verdict.lost.append(f"{key} ({prompt[:20]!r}) succeeded and has no result")
        if len(results[key]) > 1:
            verdict.doubled.append(f"{key} gave {len(results[key])} different results")
        for text in results[key] - {answer_to(prompt)}:
            verdict.wrong.append(f"{key} ({prompt[:20]!r}) got {text[:60]!r}")


def _submissions(verdict: Verdict, events: list[Event]) -> None:
    """One key, one id; one id, one request."""
    ids: defaultdict[str, set[str]] = defaultdict(set)
    requests: defaultdict[str, set[str]] = defaultdict(set)
    for event in events:
        if event.what == "accepted":
            requests[event.id].add(event.prompt)
            if event.keyed:
                ids[event.key].add(event.id)
    for key, made in ids.items():
        if len(made) > 1:
            verdict.doubled.append(f"the idempotency key {key!r} made {sorted(made)}")
    for key, asked in requests.items():
        if len(asked) > 1:
            verdict.doubled.append(f"{key} was given to {len(asked)} requests: {sorted(asked)}")


def _unannounced(verdict: Verdict, events: list[Event]) -> None:
    """What is there in the end and was never announced answers a lost request, once each."""
    announced = {event.id for event in events if event.what == "accepted"}
    settled = {event.key for event in events if event.what == "accepted" and event.keyed}
    excuses: defaultdict[str, int] = defaultdict(int)
    for event in events:
        if event.what == "lost" and not (event.keyed and event.key in settled):
            excuses[event.text] = 1 if event.keyed else excuses[event.text] + 1
    seen: set[str] = set()
    for event in events:
        if event.what != "listed" or event.id in seen or event.id in announced:
            continue
        seen.add(event.id)
        excuses[event.text] -= 1
        if excuses[event.text] < 0:
            verdict.doubled.append(f"{event.id} ({event.text[:40]!r}) was never asked for")


def _batches(verdict: Verdict, events: list[Event]) -> None:
    expected = {event.id: event.expected for event in events if event.what == "batch"}
    verdict.accepted += len(expected)
    for batch_id, texts in expected.items():
        ended = {
            event.status
            for event in events
            if event.what == "batch_state" and event.id == batch_id and event.status in FINAL_BATCH
        }
        if ended != {"completed"}:
            verdict.lost.append(f"{batch_id} ended as {sorted(ended) or 'nothing'}")
        found: defaultdict[str, list[str]] = defaultdict(list)
        for event in events:
            if event.what == "line" and event.id == batch_id:
                found[event.custom_id].append(event.text)
        for custom_id, text in texts.items():
            if not found[custom_id]:
                verdict.lost.append(f"{batch_id} has no line {custom_id}")
            elif len(found[custom_id]) > 1:
                verdict.doubled.append(f"{batch_id} has {custom_id} {len(found[custom_id])} times")
            elif found[custom_id] != [text]:
                verdict.wrong.append(f"{batch_id}: {custom_id} got {found[custom_id][0][:60]!r}")
        for custom_id in found.keys() - texts.keys():
            verdict.wrong.append(f"{batch_id} has a line {custom_id!r} that nobody sent")
