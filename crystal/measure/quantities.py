"""The quantities: arrays in, numbers out. Entropies and divergences are in bits.

answers: (prompts, options), each row the distribution of the answer given that it is an option.
weights: (..., prompts), how much each prompt counts; statistics broadcast over the leading axes.
counts: (..., options), how often each option was drawn. The formulas of arXiv:2606.29933 were not
available: the readings of its "MSE distance ratio" and "ProbMass" are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import CrystalError

TINY = 1e-12  # squared distances and bits below this are rounding, not differences
BIT = np.log(2)
Array = np.ndarray


def even(weights: Array) -> Array:
    """Weights that sum to 1 over the prompts."""
    return weights / weights.sum(-1, keepdims=True)


def _weights(answers: Array, weights: Array | None) -> Array:
    return even(np.ones(len(answers)) if weights is None else weights)


def _cut(x: Array) -> Array:
    """Zero for what is a difference of equal numbers but for rounding."""
    return np.where(np.abs(x) < TINY, 0.0, x)


def ratio(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator; 0/0 is nan ("nothing to compare"), x/0 is inf."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.true_divide(_cut(numerator), _cut(denominator))


# --- one distribution, two distributions


def entropy_bits(p: Array) -> Array:
    """H(p) = -sum p log2 p over the last axis; 0 log 0 = 0."""
    return -(p * np.log2(np.where(p > 0, p, 1.0))).sum(-1)


def mse(p: Array, q: Array) -> Array:
    """(1/K) sum (p_k - q_k)^2. Shrinks with K: on large supports read TV and JSD beside it."""
    return ((p - q) ** 2).mean(-1)


def tv(p: Array, q: Array) -> Array:
    """Total variation, 1/2 sum |p_k - q_k|: the mass that must move to make p into q."""
    return np.abs(p - q).sum(-1) / 2


def jsd_bits(p: Array, q: Array) -> Array:
    """Jensen-Shannon divergence, H((p+q)/2) - (H(p)+H(q))/2: 0 if equal, 1 if disjoint."""
    return _cut(entropy_bits((p + q) / 2) - (entropy_bits(p) + entropy_bits(q)) / 2)


# --- liquid: how much the prompt matters


def mean_distribution(answers: Array, weights: Array | None = None) -> Array:
    """p_s (..., options), the mean over prompts: what a prompt drawn at random is answered."""
    return _weights(answers, weights) @ answers


def liquidity_bits(answers: Array, weights: Array | None = None) -> Array:
    """Information, in bits, that the prompt carries about the answer.

    Generalised Jensen-Shannon divergence H(mean_i p_i) - mean_i H(p_i). Zero: a crystal. Ceiling:
    log2(options), or log2(prompts) if that is less.
    """
    w = _weights(answers, weights)
    return _cut(entropy_bits(w @ answers) - w @ entropy_bits(answers))


def grouped(answers: Array, groups: Array) -> Array:
    """Mean distribution of every group of prompts, (groups, options), in sorted order of group."""
    return np.stack([answers[groups == group].mean(0) for group in np.unique(groups)])


def template_floor_bits(answers: Array, groups: Array, weights: Array | None = None) -> Array:
    """Mean liquidity among the prompts of one group: what wordings do in one context. Plus the
    liquidity between the groups' means it is the whole.

    groups: (prompts,) labels; weights must not differ within one.
    """
    names, first, sizes = np.unique(groups, return_index=True, return_counts=True)
    inside = np.array([liquidity_bits(answers[groups == name]) for name in names])
    return (_weights(answers, weights)[..., first] * sizes) @ inside


def vendi(answers: Array, weights: Array | None = None) -> Array:
    """Number of distinct distributions, from 1 to the number of prompts: 2^H of the eigenvalues of
    the kernel 1 - JSD (positive definite: Martins et al. 2009; Vendi score of order 1: Friedman and
    Dieng 2023).
    """
    kernel = 1 - jsd_bits(answers[:, None], answers[None])
    scores = []
    for root in np.sqrt(np.atleast_2d(_weights(answers, weights))):
        used = root > 0  # prompts left out only add zero eigenvalues
        inside = kernel[np.ix_(used, used)] * np.outer(root[used], root[used])
        scores.append(2 ** entropy_bits(np.clip(np.linalg.eigvalsh(inside), 0, None)))
    return np.reshape(scores, () if weights is None else weights.shape[:-1])


def spread(answers: Array, weights: Array | None = None) -> Array:
    """D_s: mean of MSE(p_i, p_j) over pairs of different prompts, whatever their weights."""
    w = _weights(answers, weights)
    mean = w @ answers
    scatter = w @ (answers**2).mean(-1) - (mean**2).mean(-1)  # half the mean over all, i = j too
    return ratio(2 * scatter, 1 - (w**2).sum(-1))


# --- nucleation: collapse onto a seed


def compression(later: Array, base: Array, weights: Array | None = None) -> Array:
    """MSE ratio, compression: D_later / D_base. nan: the base never varied."""
    return ratio(spread(later, weights), spread(base, weights))


def mse_ratio_seed(base: Array, target: Array) -> Array:
    """MSE ratio, seed: min_i / mean_i of MSE(p_base,i, target); 1: none is nearer. Biased low."""
    cross = (target @ base.T) / base.shape[1]
    far = np.clip((base**2).mean(-1) - 2 * cross + (target**2).mean(), 0, None)
    return ratio(far.min(), (even(np.ones(len(far))) * far).sum())


# --- settling: redistribution on the same options


def support(seed: Array, quantile: float = 0.9) -> Array:
    """A: the smallest set of options that holds a quantile of the seed; mask (..., options)."""
    order = np.argsort(-seed, -1, kind="stable")
    before = np.cumsum(np.take_along_axis(seed, order, -1), -1)
    before -= np.take_along_axis(seed, order, -1)
    mask = np.zeros(seed.shape, bool)
    np.put_along_axis(mask, order, before < quantile - TINY, -1)
    return mask


def probmass(p: Array, options: Array) -> Array:
    """ProbMass: mass of p on the options of the mask A; by chance, |A|/K."""
    return (p * options).sum(-1)


def lower_half(p: Array) -> Array:
    """Mask of the floor(K/2) least likely options; among ties the later ones count as lower."""
    order = np.argsort(np.argsort(-p, -1, kind="stable"), -1)
    return order >= p.shape[-1] - p.shape[-1] // 2


def spearman(p: Array, q: Array) -> Array:
    """Rank correlation of options, ties shared; nan if all options of either are tied."""
    from scipy.stats import rankdata  # here: it takes long to import

    a, b = (rankdata(x, axis=-1) - (x.shape[-1] + 1) / 2 for x in (p, q))
    return ratio((a * b).sum(-1), np.sqrt((a**2).sum(-1) * (b**2).sum(-1)))


# --- counts: what a sample has seen


class Sample(NamedTuple):
    """The numbers every estimator begins with, each (...)."""

    n: Array  # draws
    seen: Array  # options drawn at all
    f1: Array  # drawn once
    f2: Array  # drawn twice


def sample(counts: Array) -> Sample:
    """Raises: CrystalError for counts that sum to less than 2."""
    counts = np.asarray(counts)
    n = counts.sum(-1)
    if (n < 2).any():
        what = "one draw or none says nothing about a distribution"
        raise CrystalError(what, hint="draw at least twice")
    return Sample(n, (counts > 0).sum(-1), (counts == 1).sum(-1), (counts == 2).sum(-1))


def coverage(counts: Array) -> Array:
    """Estimated mass of the options that were seen (Good-Turing as of Chao and Jost 2012):
    1 - (f1/n) (n-1) f1 / ((n-1) f1 + 2 f2); if f2 = 0, f1 - 1 and 2 stand in the fraction.
    """
    s = sample(counts)
    return 1 - s.f1 / s.n * (1 - _twice(s))


def _twice(s: Sample) -> Array:
    """A = 2 f2 / ((n-1) f1 + 2 f2), mean probability of an option drawn once (Chao 2013, 7d)."""
    once = np.where(s.f2 > 0, s.f1, s.f1 - 1)
    twice = np.where(s.f2 > 0, 2.0 * s.f2, 2.0)
    return np.where(s.f1 > 0, twice / ((s.n - 1) * np.maximum(once, 0) + twice), 1.0)


def richness(counts: Array) -> Array:
    """Chao1 (Chao 1984), a lower bound on the number of options:
    seen + (n-1)/n f1^2 / (2 f2), or f1 (f1-1)/2 if f2 = 0.
    """
    s = sample(counts)
    unseen = np.where(s.f2 > 0, s.f1**2 / (2.0 * np.maximum(s.f2, 1)), s.f1 * (s.f1 - 1) / 2)
    return s.seen + (s.n - 1) / s.n * unseen


def chao_wang_jost(counts: Array) -> Array:
    """Entropy by Chao, Wang and Jost (2013): sum (X/n) [digamma(n) - digamma(X)] over seen options,
    plus what more than n draws would show (Zahl 1977), (f1/n) sum_{j>=1} (1-A)^j / (n-1+j).
    """
    from scipy import special  # here: read-outs do without it

    s = sample(counts)
    n, x = s.n[..., None], np.maximum(counts, 1)
    seen = (counts / n * (special.digamma(n) - special.digamma(x))).sum(-1)
    return (seen + s.f1 / s.n * _tail(1 - _twice(s), s.n)) / BIT


_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def _tail(z: Array, n: Array) -> Array:
    """sum_{j>=1} z^j / (n-1+j) for 0 <= z < 1, to 12 digits for any n, where hyp2f1 gives nan.

    With s = -log(1 - z t) the integral of z t^(n-1) / (1 - z t) over [0, 1] is that of t(s)^(n-1):
    Gauss-Legendre above e^-40.
    """
    z, n = np.broadcast_arrays(np.clip(z, 1e-300, None), n)
    low, high = -np.log1p(-z * np.exp(-40 / (n - 1))), -np.log1p(-z)
    s = low[..., None] + (high - low)[..., None] * (_NODES + 1) / 2
    powers = np.exp((n[..., None] - 1) * np.log(-np.expm1(-s) / z[..., None]))
    return (high - low) / 2 * (powers @ _WEIGHTS)


def liquidity(counts: Array, weights: Array | None = None) -> Array:
    """`liquidity_bits` from counts (prompts, options) of equally many draws, by the entropies of
    Chao, Wang and Jost; `liquidity_floor` shows the bias. weights: whole numbers.
    """
    counts = np.asarray(counts)
    if len({*counts.sum(-1).tolist()}) != 1:
        what = "prompts with different numbers of draws cannot be pooled"
        raise CrystalError(what, hint="draw the same n from each")
    w = np.ones(len(counts)) if weights is None else np.asarray(weights)
    inside = w @ chao_wang_jost(counts) / w.sum(-1)
    return chao_wang_jost(w @ counts) - inside


def liquidity_floor(counts: Array, rng: np.random.Generator) -> float:
    """`liquidity` of the draws dealt out anew over the prompts, which keep their n: what a crystal
    shows.
    """
    left, hands = np.asarray(counts).sum(0), []
    for n in np.asarray(counts).sum(-1):
        hands.append(rng.multivariate_hypergeometric(left, int(n), method="marginals"))
        left = left - hands[-1]
    return float(liquidity(np.array(hands)))


def collision(counts: Array) -> Array:
    """sum c (c-1) / (n (n-1)): unbiased for sum p^2, the chance that two draws agree."""
    n = sample(counts).n.astype(float)
    return (counts * (counts - 1.0)).sum(-1) / (n * (n - 1))


def agreement(counts: Array, weights: Array | None = None) -> Array:
    """`overlap` of all prompts of counts (prompts, options), unbiased: mean of sum p_i p_j by that
    of p_i^2. 1 for a crystal, 0 if no options are shared; 1 - agreement is `spread` over the most
    it could be.
    """
    counts = np.asarray(counts)
    w, p = _weights(counts, weights), counts / sample(counts).n[:, None]
    pairs = p @ p.T
    between = ((w @ pairs) * w).sum(-1) - w**2 @ np.diag(pairs)
    return ratio(between, w @ collision(counts) * (1 - (w**2).sum(-1)))


def overlap(p: Array, q: Array) -> Array:
    """2 sum p q / (sum p^2 + sum q^2), Morisita's index (1959): 1 if equal, 0 if disjoint.
    1 - overlap is MSE over the most it could be.
    """
    return ratio(2 * (p * q).sum(-1), (p**2).sum(-1) + (q**2).sum(-1))
