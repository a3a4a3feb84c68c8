"""The quantities of the three phases: arrays in, numbers out.

`answers` is always (prompts, options), each row the law of the answer given that it is an option; rows sum to 1.
A *law* is one such row, or the mean of them. Entropies are in bits, distances between laws in their own units.
`weights` (..., prompts) says how much each prompt counts (None: all alike); every statistic is a function of it and
broadcasts over its leading axes, so leaving out every unit in turn is one matrix product, not a loop.

Knows nothing of tasks, ladders or files. Formulas of arXiv:2606.29933 were not available: the three readings of its
"MSE distance ratio" and the one of "ProbMass" are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

TINY = 1e-12  # squared distances and bits below this are rounding, not differences
Array = np.ndarray


def _weights(answers: Array, weights: Array | None) -> Array:
    """Weights that sum to 1 over the prompts."""
    if weights is None:
        return np.full(len(answers), 1 / len(answers))
    return weights / weights.sum(-1, keepdims=True)


def _cut(x: Array) -> Array:
    """Differences of equal numbers come out as +-1e-17: call them zero."""
    return np.where(np.abs(x) < TINY, 0.0, x)


def ratio(numerator: Array, denominator: Array) -> Array:
    """numerator / denominator; 0/0 is nan ("nothing to compare"), x/0 is inf."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.true_divide(_cut(numerator), _cut(denominator))


# --- one law, two laws -----------------------------------------------------------------------------------------------


def entropy_bits(law: Array) -> Array:
    """H(p) = -sum p log2 p over the last axis, in bits; 0 log 0 = 0. Between 0 and log2(options)."""
    return -(law * np.log2(np.where(law > 0, law, 1.0))).sum(-1)


def effective_options(law: Array) -> Array:
    """2^H: how many equally likely options would be as uncertain. Between 1 and the number of options."""
    return 2 ** entropy_bits(law)


def normalised_entropy(law: Array) -> Array:
    """H(p) / log2(options): 1 for the uniform law."""
    return entropy_bits(law) / np.log2(law.shape[-1])


def mse(p: Array, q: Array) -> Array:
    """(1/K) sum (p_k - q_k)^2. Shrinks with K: on large supports read TV and JSD beside it."""
    return ((p - q) ** 2).mean(-1)


def tv(p: Array, q: Array) -> Array:
    """Total variation, 1/2 sum |p_k - q_k|: the mass that would have to move to make p into q."""
    return np.abs(p - q).sum(-1) / 2


def jsd_bits(p: Array, q: Array) -> Array:
    """Jensen-Shannon divergence, H((p+q)/2) - (H(p)+H(q))/2, in bits: 0 for equal laws, 1 for disjoint ones."""
    return _cut(entropy_bits((p + q) / 2) - (entropy_bits(p) + entropy_bits(q)) / 2)


# --- liquid: how much the prompt matters -----------------------------------------------------------------------------


def mean_law(answers: Array, weights: Array | None = None) -> Array:
    """p_s, the mean over prompts: what a reader who draws a prompt at random is answered. Shape (..., options)."""
    return _weights(answers, weights) @ answers


def liquidity_bits(answers: Array, weights: Array | None = None) -> Array:
    """Information, in bits, that the prompt carries about the answer.

    Generalised Jensen-Shannon divergence H(mean_i p_i) - mean_i H(p_i). Zero: every prompt gets the same law
    (a crystal). Ceiling: log2(options), or log2(prompts) if that is less.
    """
    w = _weights(answers, weights)
    return _cut(entropy_bits(w @ answers) - w @ entropy_bits(answers))


def liquidity_share(answers: Array, weights: Array | None = None) -> Array:
    """Liquidity over log2(options): 0 for a crystal, 1 if each answer is certain and prompts cover all options alike."""
    return liquidity_bits(answers, weights) / np.log2(answers.shape[1])


def grouped(answers: Array, groups: Array) -> Array:
    """Mean law of every group of prompts, (groups, options), in sorted order of group."""
    return np.stack([answers[groups == group].mean(0) for group in np.unique(groups)])


def frame_floor_bits(answers: Array, groups: Array, weights: Array | None = None) -> Array:
    """Mean liquidity, in bits, among the prompts of one group: what frames do while the narrator stays the same.

    groups: label of every prompt; weights must not differ within a group. Liquidity = this floor + the liquidity between
    the groups' mean laws, an identity.
    """
    names, first = np.unique(groups, return_index=True)
    inside = np.array([liquidity_bits(answers[groups == name]) for name in names])
    return (_weights(answers, weights)[..., first] * np.bincount(np.unique(groups, return_inverse=True)[1])) @ inside


def vendi(answers: Array, weights: Array | None = None) -> Array:
    """Number of distinct laws among the prompts: exp of the entropy of the eigenvalues of kernel 1 - JSD.

    1 if all rows are equal, the number of prompts if no two rows share an option. 1 - JSD in bits is positive
    definite (Martins et al. 2009). Vendi score of order 1: Friedman and Dieng 2023.
    """
    kernel = 1 - jsd_bits(answers[:, None], answers[None])
    flat = np.atleast_2d(_weights(answers, weights))
    scores = [_vendi(kernel, np.sqrt(w)) for w in flat]
    return np.reshape(scores, () if weights is None else weights.shape[:-1])


def _vendi(kernel: Array, root: Array) -> float:
    used = root > 0  # prompts left out only add zero eigenvalues
    eigenvalues = np.linalg.eigvalsh(kernel[np.ix_(used, used)] * np.outer(root[used], root[used]))
    return float(2 ** entropy_bits(np.clip(eigenvalues, 0, None)))


def spread(answers: Array, weights: Array | None = None) -> Array:
    """D_s: mean of MSE(p_i, p_j) over pairs of different prompts.

    With weights, a prompt that counts twice is not paired with itself.
    """
    w = _weights(answers, weights)
    mean = w @ answers
    scatter = w @ (answers**2).mean(-1) - (mean**2).mean(-1)  # half the mean MSE over all ordered pairs, i = j included
    return ratio(2 * scatter, 1 - (w**2).sum(-1))


# --- nucleation: collapse onto a seed --------------------------------------------------------------------------------


def compression(later: Array, base: Array, weights: Array | None = None) -> Array:
    """MSE ratio, compression: D_later / D_base. 1: nothing collapsed; 0: one law is left; nan: base never varied."""
    return ratio(spread(later, weights), spread(base, weights))


def distances(base: Array, target: Array) -> Array:
    """MSE of every base prompt to each target law (..., options): shape (..., prompts)."""
    cross = (target @ base.T) / base.shape[1]
    return np.clip((base**2).mean(-1) - 2 * cross + (target**2).mean(-1)[..., None], 0, None)


def mse_ratio_seed(base: Array, target: Array, weights: Array | None = None) -> Array:
    """MSE ratio, seed: min_i / mean_i of MSE(p_base,i, target). 1: no prompt is nearer than another; biased low."""
    w, far = _weights(base, weights), distances(base, target)
    return ratio(np.where(w > 0, far, np.inf).min(-1), (w * far).sum(-1))


# --- settling: redistribution on the same options --------------------------------------------------------------------


def support(seed: Array, quantile: float = 0.9) -> Array:
    """A: the smallest set of options that holds `quantile` of the seed law, as a mask (..., options).

    Chance level of ProbMass is A.mean(-1) = |A|/K; the seed's own mass on A, at least `quantile`, is what it is held against.
    """
    order = np.argsort(-seed, -1, kind="stable")
    before = np.cumsum(np.take_along_axis(seed, order, -1), -1) - np.take_along_axis(seed, order, -1)
    mask = np.zeros(seed.shape, bool)
    np.put_along_axis(mask, order, before < quantile - TINY, -1)
    return mask


def probmass(law: Array, options: Array) -> Array:
    """ProbMass: mass of `law` on the options of the mask."""
    return (law * options).sum(-1)


def lower_half(law: Array) -> Array:
    """Mask of the floor(K/2) least likely options; among ties the later ones count as lower."""
    ranks = np.argsort(np.argsort(-law, -1, kind="stable"), -1)
    return ranks >= law.shape[-1] - law.shape[-1] // 2


def promoted_mass(sft: Array, final: Array) -> Array:
    """Mass gained by options that the lower half of SFT's ranking held: what RL found that SFT had put last."""
    return (np.clip(final - sft, 0, None) * lower_half(sft)).sum(-1)


def ranks(law: Array) -> Array:
    """Rank of every option, 0 = least likely, ties shared."""
    a, b = law[..., :, None], law[..., None, :]
    return (a > b).sum(-1) + 0.5 * ((a == b).sum(-1) - 1)


def spearman(p: Array, q: Array) -> Array:
    """Rank correlation of options; nan if all options of either law are tied."""
    a, b = (ranks(x) - (x.shape[-1] - 1) / 2 for x in (p, q))
    return ratio((a * b).sum(-1), np.sqrt((a**2).sum(-1) * (b**2).sum(-1)))


class Redistribution(NamedTuple):
    """How far a later stage moved the SFT law: mass moved, order kept, mass that came from the bottom."""

    tv: Array
    spearman: Array
    promoted: Array


def redistribution(sft: Array, final: Array) -> Redistribution:
    """The three measures of a move between two mean laws (..., options)."""
    return Redistribution(tv(sft, final), spearman(sft, final), promoted_mass(sft, final))
