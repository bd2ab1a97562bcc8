"""Loops over memory that numba compiles: normalise, Mish, pool and dropout at once.

Compiling takes two seconds; numba keeps the result beside this file, or below the home folder where
that may not be written.  It is compiled anew for another processor or another source.
"""

from __future__ import annotations

import numba
import numpy as np

FLOAT, INT, WORD = np.float32, np.int32, np.uint32
# A sum may be added up in eight parts, and a product with it.  Infinities and NaN stay what they
# are, so a training that diverges shows it.
FAST = {"contract", "reassoc", "nsz", "arcp"}


@numba.njit(fastmath=FAST, cache=True)
def exp(x):
    """``e**x`` of a float32, from x = 20 on that of 20, where Mish is x to the last digit.

    A power of two: its whole part goes into the exponent's bits, the rest r into the first terms of
    the series of 2**r, |r| <= 1/2, with a relative error of 1e-7.
    """
    power = min(max(x * FLOAT(1.4426950408889634), FLOAT(-126)), FLOAT(29))
    whole = np.floor(power + FLOAT(0.5))
    r = power - whole
    series = FLOAT(1.5403530e-4) * r + FLOAT(1.3333558e-3)
    series = series * r + FLOAT(9.6181291e-3)
    series = series * r + FLOAT(5.5504109e-2)
    series = series * r + FLOAT(0.24022651)
    series = series * r + FLOAT(0.69314718)
    series = series * r + FLOAT(1)
    return series * INT((INT(whole) + INT(127)) << INT(23)).view(FLOAT)


@numba.njit(cache=True)
def random_word(counter, key, second_key):
    """32 random bits of a counter: the mixing of Wellons' lowbias32, with a key in two places."""
    word = counter ^ key
    word ^= word >> WORD(16)
    word = WORD(word * WORD(0x7FEB352D)) + second_key
    word ^= word >> WORD(15)
    word = WORD(word * WORD(0x846CA68B))
    return word ^ (word >> WORD(16))


@numba.njit(fastmath=FAST, cache=True, nogil=True, error_model="numpy")
def forward(  # noqa: PLR0917  (numba knows no keywords)
    x, gamma, beta, n_groups, eps, keys, threshold, scale, step, y, slope, moments, first, last
):
    """The groups from ``first`` to before ``last``, counted through the batch.

    Parameters
    ----------
    x : (batch * channel, frame, bin) float32 array
        What the convolution gave.
    gamma, beta : (channel,) float64 array
    keys : (batch * channel, 2) uint32 array
        Of the random bits of each row.
    threshold, scale : uint32, float32
        A random word below the threshold drops a value; the others are scaled.
    step : 1 or 2
        Frames that are pooled into one.
    y, slope : (batch * channel, frame // step, bin) float32 array
        Results: the values, and their derivative by the normalised value that was taken; the last
        bit of it says which of two that was.
    moments : (batch * group, 2) float64 array
        Results: mean, and one over the standard deviation.
    """
    n_channels, n_frames, n_bins = gamma.shape[0], x.shape[1], x.shape[2]
    size = n_channels // n_groups
    for group in range(first, last):
        total, squares = 0.0, 0.0
        for row in range(group * size, group * size + size):
            for frame in range(n_frames):
                values = x[row, frame]
                part, part_squares = FLOAT(0), FLOAT(0)
                for j in range(n_bins):
                    part += values[j]
                    part_squares += values[j] * values[j]
                total += part
                squares += part_squares
        mean = total / (n_frames * n_bins * size)
        variance = max(squares / (n_frames * n_bins * size) - mean * mean, 0.0)
        inverse = 1 / np.sqrt(variance + eps)
        moments[group, 0], moments[group, 1] = mean, inverse
        for row in range(group * size, group * size + size):
            channel = row % n_channels
            a = FLOAT(gamma[channel] * inverse)
            b = FLOAT(beta[channel] - mean * gamma[channel] * inverse)
            key, second_key = keys[row, 0], keys[row, 1]
            for frame in range(y.shape[1]):
                values, others = x[row, frame * step], x[row, frame * step + step - 1]
                for j in range(n_bins):
                    z, other = values[j] * a + b, others[j] * a + b
                    # Mish is z * tanh(log(1 + e**z)) = z * n / (n + 2) with n = e**z (e**z + 2)
                    e, other_e = exp(z), exp(other)
                    n, other_n = e * (e + FLOAT(2)), other_e * (other_e + FLOAT(2))
                    q, other_q = FLOAT(1) / (n + FLOAT(2)), FLOAT(1) / (other_n + FLOAT(2))
                    t, other_t = n * q, other_n * other_q
                    is_other = other * other_t > z * t
                    z, e, q, t = (other, other_e, other_q, other_t) if is_other else (z, e, q, t)
                    derivative = t + z * (FLOAT(4) * e * (e + FLOAT(1))) * (q * q)
                    word = random_word(WORD(frame * n_bins + j), key, second_key)
                    factor = scale if word >= threshold else FLOAT(0)
                    y[row, frame, j] = z * t * factor
                    bits = FLOAT(derivative * factor).view(INT) & INT(-2)
                    slope[row, frame, j] = INT(bits | (INT(1) if is_other else INT(0))).view(FLOAT)


@numba.njit(fastmath=FAST, cache=True, nogil=True, error_model="numpy")
def backward(  # noqa: PLR0917
    x, gamma, n_groups, slope, moments, step, dy, dx, sums, first, last
):
    """From the gradient ``dy`` of ``y`` to that of ``x``, with the arrays of ``forward``.

    ``sums``, (batch * channel, 2) float64, becomes each row's share of the gradients of beta and of
    gamma.
    """
    n_channels, n_frames, n_bins = gamma.shape[0], x.shape[1], x.shape[2]
    size = n_channels // n_groups
    for group in range(first, last):
        mean, inverse = moments[group]
        of_beta, of_gamma = 0.0, 0.0
        for row in range(group * size, group * size + size):
            total, products = 0.0, 0.0
            for frame in range(dy.shape[1]):
                values, others = x[row, frame * step], x[row, frame * step + step - 1]
                part, part_products = FLOAT(0), FLOAT(0)
                for j in range(n_bins):
                    is_other = FLOAT(slope[row, frame, j]).view(INT) & INT(1)
                    dz = slope[row, frame, j] * dy[row, frame, j]
                    part += dz
                    part_products += dz * (others[j] if is_other else values[j])
                total += part
                products += part_products
            products = (products - mean * total) * inverse
            sums[row, 0], sums[row, 1] = total, products
            of_beta += gamma[row % n_channels] * total
            of_gamma += gamma[row % n_channels] * products
        # what every value of the group gets, by the mean and the variance: p + q * x
        q = -inverse * inverse * of_gamma / (n_frames * n_bins * size)
        p = FLOAT(-inverse * of_beta / (n_frames * n_bins * size) - q * mean)
        q = FLOAT(q)
        for row in range(group * size, group * size + size):
            a = FLOAT(gamma[row % n_channels] * inverse)
            for frame in range(dy.shape[1]):
                values, others = x[row, frame * step], x[row, frame * step + step - 1]
                to, to_other = dx[row, frame * step], dx[row, frame * step + step - 1]
                for j in range(n_bins):
                    is_other = FLOAT(slope[row, frame, j]).view(INT) & INT(1)
                    dz = a * (slope[row, frame, j] * dy[row, frame, j])
                    # in this order: without pooling both are one row
                    to_other[j] = (dz if is_other else FLOAT(0)) + (p + q * others[j])
                    to[j] = (FLOAT(0) if is_other else dz) + (p + q * values[j])
            for frame in range(dy.shape[1] * step, n_frames):  # a last frame that no pool takes
                for j in range(n_bins):
                    dx[row, frame, j] = p + q * x[row, frame, j]
