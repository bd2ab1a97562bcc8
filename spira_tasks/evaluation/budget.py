"""What looking at the same test people again and again costs.

Of many models that are no better than chance some look good on one test set.  So each look spends a
part of a fixed probability of error (Bonferroni), and a claim that holds at that part gives it back
(alpha recycling: Feng et al., Sequential algorithmic modification with test data reuse, UAI 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def p_value(auc: float, n_patients: int, n_controls: int, at_most: float) -> float:
    """One-sided p-value of the hypothesis that the AUC is at most a limit.

    The standard error is that of the limit itself (Hanley and McNeil, Radiology 1982), so that an
    AUC of 1 on few people has one too.

    Examples
    --------
    >>> round(p_value(0.75, 54, 54, at_most=0.6), 4)
    0.0029
    """
    one, two = at_most / (2 - at_most), 2 * at_most**2 / (1 + at_most)
    variance = at_most * (1 - at_most)
    variance += (n_patients - 1) * (one - at_most**2) + (n_controls - 1) * (two - at_most**2)
    z = (auc - at_most) / math.sqrt(variance / (n_patients * n_controls))
    return math.erfc(z / math.sqrt(2)) / 2


def spent(reads: Iterable[tuple[bool, float]], alpha: float) -> float:
    """What earlier looks have spent, of which each may spend ``alpha``.

    Parameters
    ----------
    reads : iterable of (bool, float)
        Whether the claim of a look held, and the share of the people of today that it saw: people
        who are new since then refresh the test.
    """
    return sum(alpha * seen for held, seen in reads if not held)
