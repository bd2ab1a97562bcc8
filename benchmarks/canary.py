"""How soon a bad canary is stopped, and how often a good one: simulated people and models.

python benchmarks/canary.py [--routes 2000] [--seed 1]

Scores are logistic of a normal variable, in a population with 10, 30 or 50 % positives; a canary
crashes, is slow, answers the same always, or moves the scores.  Every route is a sequence of
people, each of whom falls to the canary with the share of the route.  The limits are those of
expectations/canary.toml.  Prints, for bad canaries, how many of its own requests a canary had when
it was stopped, and which part of the routes ended within 50; for good ones, which part of the
routes ended within 1,000 requests, and within 1,000 of the canary's own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from spira_services.serving import router, sequential  # noqa: E402

N_BEFORE = 200  # answers of the champion before the route
CHUNK = 100  # routes at a time
BAD = {
    "crash": {"errors": 1.0},
    "crashes one in four": {"errors": 0.25},
    "slow, 4 times": {"times": 4.0},
    "constant, 0.5": {"constant": 0.5},
    "constant, positive": {"constant": 0.99},
    "constant, negative": {"constant": 0.01},
    "shifted up, odds × e²": {"shift": 2.0},
    "shifted down, odds / e²": {"shift": -2.0},
}
WITHIN = 50


def outcomes(
    rng: np.random.Generator,
    canary: Any,
    positives: float,
    bad: dict[str, float],
    slow_ratio: float,
) -> dict[str, Any]:
    """Outcome of each request by measure, NaN where it says nothing; (route, request)."""
    n_routes, n = canary.shape
    logits = rng.normal(0.0, 1.5, (n_routes, N_BEFORE + n))
    is_bad = np.hstack([np.zeros((n_routes, N_BEFORE), bool), canary])
    cut = 1.5 * _normal_quantile(1 - positives)
    middle = np.median(logits[:, :N_BEFORE], axis=1, keepdims=True)
    logits = logits + bad.get("shift", 0.0) * is_bad
    if "constant" in bad:  # its own operating point is the champion's
        fixed = np.log(bad["constant"] / (1 - bad["constant"]))
        logits = np.where(is_bad, fixed, logits)
    seconds = rng.lognormal(-3, 0.35, logits.shape) * np.where(is_bad, bad.get("times", 1.0), 1.0)
    slow = slow_ratio * np.median(seconds[:, :N_BEFORE], axis=1, keepdims=True)
    failed = rng.random(logits.shape) < np.where(is_bad, bad.get("errors", 0.002), 0.002)
    again = ~failed & (rng.random(logits.shape) < 0.05)
    answered, scored = ~failed, ~failed & ~again
    return {
        "errors": failed.astype(float),
        "slow": np.where(answered, seconds > slow, np.nan),
        "positives": np.where(scored, logits > cut, np.nan),
        "scores": np.where(scored, logits > middle, np.nan),
        "record_again": np.where(answered, again, np.nan),
    }


def ended(
    rng: np.random.Generator, n_routes: int, n: int, share: float, positives: float, **bad: float
) -> tuple[Any, Any]:
    """When each route ended, by all requests and by the canary's own; infinite if never."""
    rules = router.limits()
    needed = np.log(len(sequential.MEASURES) / rules.alpha)
    of_all, of_canary = [], []
    for begin in range(0, n_routes, CHUNK):
        canary = rng.random((min(CHUNK, n_routes - begin), n)) < share
        first = np.full(len(canary), np.inf)
        found = outcomes(rng, canary, positives, bad, rules.slow_ratio)
        for name, side in sequential.MEASURES.items():
            before, during = found[name][:, :N_BEFORE], found[name][:, N_BEFORE:]
            known = ((~np.isnan(before)).sum(axis=1), np.nansum(before, axis=1))
            evidence = sequential.log_evidence(canary, during, share, side, known)
            gap = sequential.differs(canary, during, side, rules.tolerated[name])
            stops = (evidence >= needed) & gap
            first = np.minimum(first, np.where(stops.any(1), stops.argmax(1), np.inf))
        own = np.cumsum(canary, axis=1)
        at = np.where(np.isinf(first), 0, first).astype(int)
        of_canary.append(np.where(np.isinf(first), np.inf, own[np.arange(len(own)), at]))
        of_all.append(first + 1)
    return np.concatenate(of_all), np.concatenate(of_canary)


def _normal_quantile(p: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--routes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng, n_routes = np.random.default_rng(arguments.seed), arguments.routes
    print(f"{'bad canary':26} {'positives':>9} {'share':>6} {'median':>7} {'95 %':>6} {'in 50':>7}")
    for name, bad in BAD.items():
        for positives in (0.1, 0.3, 0.5):
            for share in (0.1, 0.2, 0.5):
                n = int(1.6 * WITHIN / share)
                _, own = ended(rng, n_routes, n, share, positives, **bad)
                middle, late = np.quantile(own, [0.5, 0.95], method="higher")
                within = (own <= WITHIN).mean()
                print(
                    f"{name:26} {positives:9.0%} {share:6.0%} {middle:7.0f} {late:6.0f} "
                    f"{within:7.1%}"
                )
    print(
        f"\n{'good canary':26} {'positives':>9} {'share':>6} {'in 1,000':>9} {'in 1,000 own':>13}"
    )
    for share in (0.1, 0.2, 0.5):
        for positives in (0.1, 0.3, 0.5):
            n = int(1000 / share)
            of_all, own = ended(rng, n_routes, n, share, positives)
            early, late = (of_all <= 1000).mean(), (own <= 1000).mean()
            print(f"{'the same model':26} {positives:9.0%} {share:6.0%} {early:9.2%} {late:13.2%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
