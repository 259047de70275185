"""`python -m tidegate_controlplane.simulate`: compare autoscalers, and write the result as JSON.

Exit status: 0 done, 1 refused with `{"error": {"reason", "message"}}`, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys

from tidegate_controlplane.errors import BadTrace
from tidegate_controlplane.simulate.cluster import ClusterSpec
from tidegate_controlplane.simulate.compare import POLICIES, Experiment, compare
from tidegate_controlplane.simulate.replica import Speed
from tidegate_controlplane.simulate.synthetic import SHAPES


def main() -> int:
    arguments = _parser().parse_args()
    try:
        comparison = compare(_experiment(arguments), _note)
    except BadTrace as error:
        _answer({"error": {"reason": "BadTrace", "message": str(error)}})
        return 1
    _answer(comparison.as_json())
    return 0


def _answer(value: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _experiment(arguments: argparse.Namespace) -> Experiment:
    speed = Speed(slots=arguments.slots, cold_start_s=arguments.cold_start_s)
    timeout = arguments.idle_timeout_s
    return Experiment(
        traces=tuple(arguments.trace or SHAPES),
        policies=tuple(arguments.policy or POLICIES),
        seeds=tuple(range(1, arguments.seeds + 1)),
        slo_s=arguments.slo_s,
        cluster=ClusterSpec(speed, arguments.max_replicas, arguments.hold_s),
        idle_timeout_s=None if timeout == "auto" else _seconds(timeout),
        cold_start_price_s=arguments.cold_start_price_s,
    )


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadTrace(f"--idle-timeout-s: {text!r} is neither seconds nor 'auto'") from None


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be 1 or more")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tidegate_controlplane.simulate")
    parser.add_argument("--trace", action="append", help="a JSONL file or shape:name=value,…")
    parser.add_argument("--policy", action="append", help=f"of {', '.join(POLICIES)}")
    parser.add_argument("--seeds", type=_positive, default=5, help="medians over so many traces")
    parser.add_argument("--slo-s", type=float, default=2.0, help="to the first token")
    parser.add_argument("--slots", type=_positive, default=16, help="requests in one batch")
    parser.add_argument("--cold-start-s", type=float, default=20.0)
    parser.add_argument("--hold-s", type=float, default=300.0, help="then a held request fails")
    parser.add_argument("--max-replicas", type=_positive, default=50)
    parser.add_argument("--idle-timeout-s", default="auto", help="tidegate's; seconds or auto")
    parser.add_argument("--cold-start-price-s", type=float, help="tidegate's, in replica-seconds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
