"""What a sample of draws says about a law whose options cannot be listed, and how much of it the sample has not seen.

`counts` is always (..., options): how often each option was drawn, whole numbers, zeros allowed and without effect, so that
samples over a shared list of options stack. n is their sum over the last axis; f1 and f2 are how many options were drawn once
and twice. Entropies in bits. Knows nothing of models, tasks or files.

scipy has the plug-in entropy only; the rest is here, with tests against known laws (tests/test_coverage.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from ..errors import CrystalError
from .phases import Array, entropy_bits, ratio

BIT = np.log(2)


class Sample(NamedTuple):
    """The numbers every estimator begins with, each (...)."""

    n: Array
    seen: Array  # options drawn at all
    f1: Array
    f2: Array


def sample(counts: Array) -> Sample:
    """Raises: CrystalError for counts that are negative, no whole numbers, or sum to less than 2."""
    counts = np.asarray(counts)
    if (counts < 0).any() or (counts != np.round(counts)).any():
        raise CrystalError("counts must be whole numbers, 0 or more", mend="pass how often each option was drawn")
    if (counts.sum(-1) < 2).any():
        raise CrystalError("one draw or none says nothing about a law", mend="draw at least twice")
    return Sample(counts.sum(-1), (counts > 0).sum(-1), (counts == 1).sum(-1), (counts == 2).sum(-1))


# --- coverage and richness -------------------------------------------------------------------------------------------


def coverage(counts: Array) -> Array:
    """Estimated mass of the options that were seen: Good-Turing with the correction of Chao and Jost (2012).

    1 - (f1/n) (n-1) f1 / ((n-1) f1 + 2 f2); where f2 = 0, f1 - 1 and 2 stand for f1 and 2 f2 in the fraction.
    """
    s = sample(counts)
    return 1 - s.f1 / s.n * (1 - _twice(s))


def _twice(s: Sample) -> Array:
    """A = 2 f2 / ((n-1) f1 + 2 f2): estimated mean probability of an option drawn once (Chao, Wang and Jost 2013, eq. 7d)."""
    once = np.where(s.f2 > 0, s.f1, s.f1 - 1)
    twice = np.where(s.f2 > 0, 2.0 * s.f2, 2.0)
    return np.where(s.f1 > 0, twice / ((s.n - 1) * np.maximum(once, 0) + twice), 1.0)


def richness(counts: Array) -> Array:
    """Chao1 (Chao 1984), a lower bound on how many options there are: seen + (n-1)/n f1^2 / (2 f2), or f1 (f1-1)/2 if f2 = 0."""
    s = sample(counts)
    unseen = np.where(s.f2 > 0, s.f1**2 / (2.0 * np.maximum(s.f2, 1)), s.f1 * (s.f1 - 1) / 2)
    return s.seen + (s.n - 1) / s.n * unseen


# --- entropy ---------------------------------------------------------------------------------------------------------


def plug_in(counts: Array) -> Array:
    """Entropy of the observed shares. Low by about (options - 1) / (2 n ln 2) while n is well above the number of options."""
    return entropy_bits(counts / sample(counts).n[..., None])


def miller_madow(counts: Array) -> Array:
    """Plug-in plus (seen - 1) / (2 n ln 2): its first-order bias, as far as it was seen (Miller 1955)."""
    s = sample(counts)
    return plug_in(counts) + (s.seen - 1) / (2 * s.n * BIT)


def chao_shen(counts: Array) -> Array:
    """Entropy by Chao and Shen (2003): shares scaled to the coverage C, each weighed by its chance 1 - (1 - C p)^n to be seen.

    C is Good-Turing's; where all draws are different, f1 = n - 1 stands for n, since C = 0 has no entropy.
    """
    s = sample(counts)
    c = 1 - np.where(s.f1 == s.n, s.n - 1, s.f1) / s.n
    p = c[..., None] * counts / s.n[..., None]
    inside = -special.expm1(s.n[..., None] * special.log1p(-np.minimum(p, 1 - 1e-16)))
    return (special.entr(p) / np.where(counts > 0, inside, 1)).sum(-1) / BIT


def chao_wang_jost(counts: Array) -> Array:
    """Entropy by Chao, Wang and Jost (2013): from the slope of the curve of distinct options, seen part exact, rest estimated.

    sum (X/n) [digamma(n) - digamma(X)] over seen options, whose bias is what more than n draws would show (Zahl 1977), plus
    (f1/n) sum_{j>=1} (1-A)^j / (n-1+j) for that.
    """
    s = sample(counts)
    n, x = s.n[..., None], np.maximum(counts, 1)
    seen = (counts / n * (special.digamma(n) - special.digamma(x))).sum(-1)
    return (seen + s.f1 / s.n * _tail(1 - _twice(s), s.n)) / BIT


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def _tail(z: Array, n: Array) -> Array:
    """sum_{j>=1} z^j / (n-1+j) for 0 <= z < 1, to 12 digits for any n.

    The published closed form cancels where A n is large, the series crawls where A is small, and scipy's hyp2f1 gives nan. With
    s = -log(1 - z t) the integral of z t^(n-1) / (1 - z t) over t in [0, 1] is that of t(s)^(n-1) over s, smooth; Gauss-Legendre
    over the s where the integrand is above e^-40.
    """
    z, n = np.broadcast_arrays(np.clip(z, 1e-300, None), n)
    low, high = -np.log1p(-z * np.exp(-40 / (n - 1))), -np.log1p(-z)
    s = low[..., None] + (high - low)[..., None] * (_NODES + 1) / 2
    return (high - low) / 2 * (np.exp((n[..., None] - 1) * np.log(-np.expm1(-s) / z[..., None])) @ _WEIGHTS)


ENTROPIES = {"plug-in": plug_in, "Miller-Madow": miller_madow, "Chao-Shen": chao_shen, "Chao-Wang-Jost": chao_wang_jost}


def liquidity(counts: Array, weights: Array | None = None) -> Array:
    """Information, in bits, that the prompt carries about the answer, from counts (prompts, options); 0 for a crystal.

    Entropy of the pooled counts less the mean entropy of the prompts' counts, both by Chao, Wang and Jost. The prompts must
    have equally many draws, or pooling would weigh them by it. weights (..., prompts): whole numbers, how often a prompt counts.
    Bias: what two entropy estimates at different n leave, next to nothing where `coverage` is near 1; `liquidity_floor` shows it.
    """
    counts = np.asarray(counts)
    if len({*counts.sum(-1).tolist()}) != 1:
        raise CrystalError("prompts with different numbers of draws cannot be pooled", mend="draw the same n from each")
    w = np.ones(len(counts)) if weights is None else np.asarray(weights)
    inside = w @ chao_wang_jost(counts) / w.sum(-1)
    return chao_wang_jost(w @ counts) - inside


def liquidity_floor(counts: Array, rng: np.random.Generator) -> float:
    """`liquidity` after the draws were dealt out again over the prompts at random: what a crystal with these draws shows.

    Deals without replacement (multivariate hypergeometric), so every prompt keeps its n and the pool its counts.
    """
    left, hands = np.asarray(counts).sum(0), []
    for n in np.asarray(counts).sum(-1):
        hands.append(rng.multivariate_hypergeometric(left, int(n), method="marginals"))
        left = left - hands[-1]
    return float(liquidity(np.array(hands)))


# --- two laws, many laws: collisions ---------------------------------------------------------------------------------


def collision(counts: Array) -> Array:
    """Unbiased estimate of sum p^2, the chance that two draws agree: sum c (c-1) / (n (n-1))."""
    n = sample(counts).n.astype(float)
    return (counts * (counts - 1.0)).sum(-1) / (n * (n - 1))


def cross_collision(first: Array, second: Array) -> Array:
    """Unbiased estimate of sum p q, the chance that a draw from one law and one from the other agree."""
    return (first * np.asarray(second, float)).sum(-1) / (sample(first).n * sample(second).n.astype(float))


def overlap(first: Array, second: Array) -> Array:
    """2 sum p q / (sum p^2 + sum q^2), Morisita's index (1959): 1 for equal laws, 0 for disjoint ones, whatever K is.

    1 - overlap is K MSE / (sum p^2 + sum q^2): MSE in units of the most it could be. A ratio of two unbiased estimates, both
    from pairs of draws, so it settles once n is well above sqrt(K), not K, even for flat laws. nan if no two draws agreed.
    """
    return ratio(2 * cross_collision(first, second), collision(first) + collision(second))


def agreement(counts: Array, weights: Array | None = None) -> Array:
    """Chance that two draws of different prompts agree over the chance that two of the same prompt do; counts (prompts, options).

    `overlap` for any number of laws: mean over pairs of sum p_i p_j by mean of sum p_i^2. 1 for a crystal, 0 if every prompt
    has options of its own; 1 - agreement is `crystal.measure.phases.spread` in units of the most it could be. weights
    (..., prompts).
    """
    counts = np.asarray(counts)
    w = np.ones(len(counts)) if weights is None else np.asarray(weights, float)
    w = w / w.sum(-1, keepdims=True)
    p = counts / sample(counts).n[:, None]
    pairs = p @ p.T
    between = ((w @ pairs) * w).sum(-1) - w**2 @ np.diag(pairs)
    return ratio(between, w @ collision(counts) * (1 - (w**2).sum(-1)))


def laws_overlap(p: Array, q: Array) -> Array:
    """`overlap` of two laws that are known."""
    return ratio(2 * (p * q).sum(-1), (p**2).sum(-1) + (q**2).sum(-1))
