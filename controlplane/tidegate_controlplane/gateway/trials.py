"""Deployments whose new revision is on trial: what both revisions answer is watched.

The reconciler begins a trial with each stage of a rollout and reads its figures; the forwarder
tells of every exchange with a replica. Without a trial that costs one look into a dictionary.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from tidegate.protocol.resources import ComparisonView
from tidegate_controlplane.clock import Clock
from tidegate_controlplane.domain.likeness import LikenessSum
from tidegate_controlplane.errors import DeadlinePassed, UpstreamFailed
from tidegate_controlplane.gateway.answers import TAIL_BYTES, is_finished, is_greedy, replies_of
from tidegate_controlplane.gateway.catalog import Served
from tidegate_controlplane.gateway.hop import OK, Question
from tidegate_controlplane.gateway.outcomes import Outcomes
from tidegate_controlplane.gateway.replica import Endpoint
from tidegate_controlplane.gateway.shadow import Copier, Original
from tidegate_controlplane.gateway.sse import usage_of

SERVER_FAULT = 500
KEPT_BYTES = 256 * 1024
"""An answer that is longer is not compared."""


@dataclass
class Trial:
    """One stage of a rollout of one deployment."""

    key: str
    """Changes with each stage; the figures begin anew with it."""
    stable_id: str
    new_id: str
    copied: float = 0.0
    """Of the former revision's answers, how many are compared with the new one's."""
    targets: Sequence[Endpoint] = ()
    """Ready replicas of the new revision, for copies."""
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    likeness: LikenessSum = field(default_factory=LikenessSum)
    due: float = 0.0
    """Copies owed; one is made at each whole number."""

    def of(self, revision_id: str) -> Outcomes:
        return self.outcomes.setdefault(revision_id, Outcomes())

    def takes_copy(self) -> bool:
        """Whether the next answer is compared: evenly spread, so that no random is needed."""
        self.due += self.copied
        if self.due < 1.0:
            return False
        self.due -= 1.0
        return True

    @property
    def view(self) -> ComparisonView:
        return ComparisonView(
            stable=self.of(self.stable_id).view,
            new=self.of(self.new_id).view,
            likeness=self.likeness.view if self.copied else None,
        )


class Trials:
    """The trials that run, by deployment id."""

    def __init__(self, clock: Clock, copier: Copier) -> None:
        self._clock = clock
        self._copier = copier
        self._trials: dict[str, Trial] = {}

    # --- the reconciler's side ---

    def begin(self, deployment_id: str, trial: Trial) -> None:
        """Begin `trial`, or go on with the one of the same key with its new targets."""
        present = self._trials.get(deployment_id)
        if present is None or present.key != trial.key:
            self._trials[deployment_id] = trial
        else:
            present.copied, present.targets = trial.copied, trial.targets

    def end(self, deployment_id: str) -> None:
        """Watch no more; copies under way are dropped."""
        if self._trials.pop(deployment_id, None):
            self._copier.drop(deployment_id)

    def view(self, deployment_id: str, key: str) -> ComparisonView | None:
        """The figures of the trial `key`; None when it has not begun."""
        trial = self._trials.get(deployment_id)
        return trial.view if trial and trial.key == key else None

    # --- the forwarder's side ---

    def exchange(self, served: Served, endpoint: Endpoint, question: Question) -> Exchange:
        """A request that is now sent to a replica."""
        trial = self._trials.get(served.deployment_id)
        if trial is None or endpoint.revision_id not in (trial.stable_id, trial.new_id):
            return UNWATCHED
        is_stable = endpoint.revision_id == trial.stable_id
        original = Original(served, question.path, question.body) if is_stable else None
        return WatchedExchange(self, trial, endpoint.revision_id, original, whole=question.whole)

    def now_s(self) -> float:
        return self._clock.monotonic()

    def copy(self, trial: Trial, original: Original, answer: bytes) -> None:
        """Ask the new revision the same and compare, when a copy is due and one can answer it."""
        if not replies_of(answer) or not trial.takes_copy() or not trial.targets:
            return
        is_exact = is_greedy(original.body)

        def compare(copied: bytes | None) -> None:
            outcomes = trial.of(trial.new_id)
            if copied is None:
                outcomes.failed += 1
                return
            outcomes.answered += 1
            trial.likeness.add(replies_of(answer), replies_of(copied), is_greedy=is_exact)

        self._copier.send(original, trial.targets, compare)


class Exchange:
    """One request and one replica, of a deployment that nobody watches."""

    def failed(self) -> None:
        """The replica gave no usable answer."""

    def began(self, status: int, first: bytes) -> None:
        """The answer's status and its first bytes are here (all of it, when it is read whole)."""

    def watch(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The pieces of the answer, the first of which `began` was told of."""
        return pieces


UNWATCHED = Exchange()


class WatchedExchange(Exchange):
    """One request and one replica of a trial. A caller who leaves before the end counts nowhere."""

    def __init__(
        self,
        trials: Trials,
        trial: Trial,
        revision_id: str,
        original: Original | None,
        *,
        whole: bool,
    ) -> None:
        self._trials = trials
        self._trial = trial
        self._outcomes = trial.of(revision_id)
        self._original = original if trial.copied else None
        """None where nobody compares: copying that begins in mid-answer has missed its start."""
        self._whole = whole
        self._sent_s = trials.now_s()
        self._first_s: float | None = None
        self._status = 0
        self._tokens = 0
        self._kept = bytearray()
        self._last = b""

    def failed(self) -> None:
        self._outcomes.failed += 1

    def began(self, status: int, first: bytes) -> None:
        self._status, self._first_s = status, self._trials.now_s()
        self._take(first)

    async def watch(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield await anext(pieces)
        try:
            async for piece in pieces:
                self._take(piece)
                yield piece
        except (UpstreamFailed, DeadlinePassed):
            self.failed()
            raise
        self._ended()

    def _take(self, chunk: bytes) -> None:
        self._tokens += chunk.count(b"\n\n")
        self._last = chunk if self._whole else (self._last + chunk)[-TAIL_BYTES:]
        if self._original and len(self._kept) <= KEPT_BYTES:
            self._kept += chunk

    def _ended(self) -> None:
        if self._status >= SERVER_FAULT or (self._is_stream and not is_finished(self._last)):
            self.failed()
        elif self._status == OK:
            self._outcomes.answered += 1
            self._time()
            if self._original and self._trial.copied and len(self._kept) <= KEPT_BYTES:
                self._trials.copy(self._trial, self._original, bytes(self._kept))

    @property
    def _is_stream(self) -> bool:
        return self._status == OK and not self._whole

    def _time(self) -> None:
        """A stream's events stand for its tokens; a whole answer says how many it has."""
        if self._first_s is None:
            return
        if self._is_stream:
            self._outcomes.first_token.add(self._first_s - self._sent_s)
            tokens, took_s = self._tokens - 1, self._trials.now_s() - self._first_s
        else:
            (_, tokens), took_s = usage_of(self._last), self._first_s - self._sent_s
        if tokens > 0:
            self._outcomes.per_token.add(took_s / tokens)
