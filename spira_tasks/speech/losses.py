"""Losses of a batch of windows.

Each takes three tensors of shape (window,): the logits, the labels in [0, 1], and the number of the
window's recording in the batch; and returns a scalar in nats.  A label between 0 and 1 is the
probability of label 1: that of an uncertain label, or the share of label 1 in a mixed window.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy


def bce(logits: Tensor, labels: Tensor, recordings: Tensor) -> Tensor:
    """Binary cross-entropy, mean over windows: SPIRA v1's loss."""
    return cross_entropy(logits, labels)


def clip_bce(logits: Tensor, labels: Tensor, recordings: Tensor) -> Tensor:
    """Binary cross-entropy of a recording's score, the mean over its windows.

    Where every recording has one window, as in v1b, which took it for its mixed batches, it is
    ``bce``.
    """
    scores = mean_by_recording(torch.sigmoid(logits), recordings)
    if scores.isnan().any():  # which torch's function takes for a bug; the loop says what to do
        return scores.mean()
    return functional.binary_cross_entropy(scores, mean_by_recording(labels, recordings))


def balanced_bce(logits: Tensor, labels: Tensor, recordings: Tensor) -> Tensor:
    """Mean of the two classes' mean cross-entropies, so that a rare class counts as much.

    v1b's ``class_balancer_batch``.  A window with a label between 0 and 1 belongs to both classes,
    by its label.  A class that the batch lacks is left out; v1b divided by zero then.
    """
    losses = []
    for target, weights in ((1.0, labels), (0.0, 1 - labels)):
        if float(weights.sum()) > 0:
            each = cross_entropy(logits, torch.full_like(logits, target), reduction="none")
            losses.append((weights * each).sum() / weights.sum())
    return torch.stack(losses).mean()


def mean_by_recording(values: Tensor, recordings: Tensor) -> Tensor:
    """Mean over the windows of each recording.

    Parameters
    ----------
    values, recordings : (window,) tensors
        The second holds 0 to the number of recordings less 1, each at least once.

    Returns
    -------
    (recording,) tensor
    """
    n_recordings = int(recordings.max()) + 1
    sums = values.new_zeros(n_recordings).index_add(0, recordings, values)
    counts = torch.bincount(recordings, minlength=n_recordings)
    return sums / counts
