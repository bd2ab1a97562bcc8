"""When a canary is stopped: a sequential test on requests that chance gave to one of two models.

Each request goes to the canary with probability ``share``, by a hash that knows nothing of the
request.  If both models are alike, what came of a request says nothing of which model had it.  The
test bets against that.  A bet supposes that the champion's share of an outcome is p and that of
the canary q.  A request with outcome y multiplies the wealth by

    P(y | its model) / (share P_q(y) + (1 - share) P_p(y)),

whose expectation, over which model it was, is 1 whatever y is.  So the wealth is a martingale if
the models are alike, and by Ville's inequality the chance that it ever reaches 1 / alpha is at most
alpha, however often one looks.  p is estimated from what the champion did before the request; q is
p with its log odds moved by one of ``STEPS``, and the wealth is the mean over these bets.  This is
the E-variable of Turner, Ly and Grünwald, *Generic E-variables for exact sequential k-sample tests
that allow for optional stopping*, J. Stat. Plan. Inference 230 (2024), for models drawn by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Side = Literal["more", "either"]
MEASURES: dict[str, Side] = {
    "errors": "more",
    "slow": "more",
    "positives": "either",
    "scores": "either",
    "record_again": "either",
}
STEPS = (1.0, 2.0, 4.0)  # of the log odds


def log_evidence(
    canary: NDArray[Any],
    outcome: Floats,
    share: float,
    side: Side,
    before: tuple[Floats | int, Floats | int] = (0, 0),
) -> Floats:
    """Logarithm of the wealth after each request.

    Parameters
    ----------
    canary : array of bool (..., request)
        Whether the canary had the request; each at most once for a person.
    outcome : array (..., request)
        1 or 0; NaN where it says nothing.
    share : float
        Probability with which a request goes to the canary, in (0, 1).
    side : {"more", "either"}
        Whether only more of the outcome speaks against the canary.
    before : (n, n_with), optional
        How many requests the champion had earlier, and how many of them with the outcome.

    Returns
    -------
    array (..., request)
    """
    known = ~np.isnan(outcome)
    y = np.where(known, outcome, 0.0)
    of_champion = known & ~canary
    n = np.cumsum(of_champion, axis=-1) - of_champion + np.asarray(before[0])[..., None]
    n_with = np.cumsum(y * of_champion, axis=-1) - y * of_champion
    n_with = n_with + np.asarray(before[1])[..., None]
    p = (n_with + 0.5) / (n + 1)  # Jeffreys' prior
    odds = p / (1 - p)
    wealth = []
    for step in STEPS if side == "more" else (*STEPS, *(-step for step in STEPS)):
        q = odds * np.exp(step) / (1 + odds * np.exp(step))
        of_p, of_q = np.where(y > 0, p, 1 - p), np.where(y > 0, q, 1 - q)
        ratio = np.where(canary, of_q, of_p) / (share * of_q + (1 - share) * of_p)
        wealth.append(np.cumsum(np.where(known, np.log(ratio), 0.0), axis=-1))
    return np.asarray(np.logaddexp.reduce(wealth, axis=0) - np.log(len(wealth)))


def differs(
    canary: NDArray[Any], outcome: Floats, side: Side, tolerated: float
) -> NDArray[np.bool_]:
    """Whether both shares of an outcome differ, after each request, by more than is tolerated."""
    known = ~np.isnan(outcome)
    y = np.where(known, outcome, 0.0)

    def share_of(mine: NDArray[Any]) -> Floats:
        n = np.cumsum(mine, axis=-1)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.cumsum(y * mine, axis=-1) / n)

    gap = share_of(known & canary) - share_of(known & ~canary)
    return np.asarray((gap if side == "more" else np.abs(gap)) > tolerated)  # NaN is not
