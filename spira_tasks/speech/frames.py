"""Features of many windows at once; a frame that several windows have is transformed once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spira_tasks.speech.spectral import Spectral

CHUNK = 128  # frames whose spectra stay in a core's cache


def features_of(
    spectral: Spectral, signals: Tensor, rows: np.ndarray, starts: np.ndarray
) -> Tensor:
    """As ``spectral`` of the windows, to the last digits, in a fraction of the time.

    A frame of the short-time Fourier transform sees ``win_length`` samples, whatever ``n_fft`` is.
    Only frames that reach over an end of their window see it mirrored, so windows that overlap by
    whole frames share all others.  The power spectrum does not change when a frame is moved in
    time: a frame is padded with zeros behind it.

    Parameters
    ----------
    spectral : Spectral
    signals : (row, time) float Tensor
        In [-1, 1]; at least as long as a window.
    rows, starts : (window,) int array
        Row and first sample of each window.

    Returns
    -------
    (window, frame, bin) float Tensor
    """
    spec, n_samples = spectral.spec, spectral.spec.n_window_samples
    n_frames = 1 + n_samples // spec.hop_length
    origin = spec.n_fft // 2 - (spec.n_fft - spec.win_length) // 2
    firsts = np.arange(n_frames) * spec.hop_length - origin  # first sample of each frame
    inside = (firsts >= 0) & (firsts + spec.win_length <= n_samples)
    places = (rows * signals.shape[1] + starts)[:, None]

    distinct, which = np.unique(places + firsts[inside], return_inverse=True)
    over = np.abs(firsts[~inside][:, None] + np.arange(spec.win_length))  # mirrored at the start,
    over = np.where(over < n_samples, over, 2 * (n_samples - 1) - over)  # and at the end
    flat, device = signals.flatten(), signals.device
    taper = torch.hann_window(spec.win_length, device=device, dtype=signals.dtype)
    # six times as fast as an index in brackets
    shared = flat.unfold(0, spec.win_length, 1).index_select(
        0, torch.from_numpy(distinct).to(device)
    )
    mirrored = flat[torch.from_numpy(places[:, :, None] + over).to(device)]

    bands = _bands(spectral, torch.cat([shared, mirrored.flatten(end_dim=1)]) * taper)
    order = np.empty((len(rows), n_frames), dtype=np.int64)
    order[:, inside] = which.reshape(len(rows), -1)
    order[:, ~inside] = len(distinct) + np.arange(len(rows) * len(over)).reshape(len(rows), -1)
    return spectral.levels(bands[torch.from_numpy(order).to(device)].transpose(1, 2))


def _bands(spectral: Spectral, frames: Tensor) -> Tensor:
    """Power of (frame, time) tapered frames in the bins or mel bands: (frame, bin)."""
    bank: Tensor | None = getattr(spectral.scale, "fb", None)
    bands = []
    size = CHUNK if frames.device.type == "cpu" else len(frames)
    for some in torch.split(frames, size):
        squares = torch.view_as_real(torch.fft.rfft(some, n=spectral.spec.n_fft)).square_()
        power = squares[..., 0] + squares[..., 1]
        bands.append(power if bank is None else torch.matmul(power, bank))
    return torch.cat(bands)
