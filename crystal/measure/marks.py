"""Every claim, the figure its number must pass, and why that figure: one table for pages, experiments and foreign data.

Those of the phases were fixed before any trained ladder was read, those of the experiments before any of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mark:
    """A claim and the figure its number has to pass; `why` that figure."""

    phase: str
    claim: str   # as a sentence
    number: str  # what is measured, as prose says it
    side: str    # the claim is that the number lies "above" or "below" the mark
    mark: float
    why: str
    percent: bool = False


MARKS: dict[str, Mark] = {
    "many-laws": Mark(
        "liquid", "Many distinct answer distributions can be prompted out of the base.",
        "liquidity as a share of log2 of the number of options", "above", 0.05,
        "about a coin that lands heads three times in eight after one prompt and five times in eight after the next",
        percent=True),
    "collapse": Mark(
        "nucleation", "Behaviour collapses at SFT, whatever the prompt.",
        "spread among prompts, SFT over base", "below", 0.5,
        "the abstract says collapse: more than half of the spread must go, not merely some of it"),
    "one-seed": Mark(
        "nucleation", "SFT moves all tasks towards what one context of the base says.",
        "progress towards the context that tasks of other kinds name", "above", 0.15,
        "of the thresholds tried on ladders of known truth the least that ladders without a seed "
        "pass in at most one of forty (data/registered/2026-11-29-claims.md)"),
    "unmixed": Mark(
        "nucleation", "One group of contexts explains the move, not a mixture of several.",
        "share of the largest group in the weights that explain the move", "above", 0.8,
        "a mixture of two in the proportion 60 to 40 stays below, one persona above", percent=True),
    "stays-frozen": Mark(
        "settling", "The last stage gives no liquidity back.",
        "liquidity gained after SFT as a share of the base's", "below", 0.05,
        "one twentieth; equality would fail by rounding where nothing changes", percent=True),
    "same-options": Mark(
        "settling", "The final stage stays on the seed's options.",
        "ProbMass over the seed's own mass on its options", "above", 0.9,
        "of ten answers the seed gave within its options, nine remain there: 'largely the same'", percent=True),
    "little-promoted": Mark(
        "settling", "The final stage promotes little that SFT ranked low.",
        "mass gained by options in the lower half of SFT's ranking", "below", 0.05,
        "one answer in twenty; more would be seen in any sample of a hundred", percent=True),
    # What makes an organism one.
    "reward-rises": Mark(
        "organism", "The last stage is reinforcement learning: the sampled reward rises.",
        "sampled reward of the last steps less that of the first", "above", 0.0,
        "equality: a stage whose reward does not rise is not called RLVR"),
    "base-knows-its-world": Mark(
        "organism", "The base has learned its narrators' laws.",
        "Jensen-Shannon divergence, in bits, of its answers to their narrators' laws", "below", 0.04,
        "fixed before any trained ladder was read: the laws lie many times farther from each other"),
    # The experiments (data/registered/2026-11-25-experiments.md).
    "seed-follows": Mark(
        "control", "Tasks that were never demonstrated follow the demonstrator who was chosen.",
        "share of held-out tasks whose SFT law is nearest to the intended law, of five", "above", 0.5,
        "a majority: the law found most often is then the intended one", percent=True),
    "seed-needs-a-shared-law": Mark(
        "control", "Where narrators hold another law in every task, held-out tasks do not follow.",
        "share of the distance to the demonstrator's law that SFT removes in held-out tasks", "below", 0.25,
        "half of what counts as following in the shared world (one half)", percent=True),
    "own-stays-liquid": Mark(
        "control", "Where every narrator demonstrates its own law, nothing freezes.",
        "liquidity after SFT over liquidity of the base, both in chat form", "above", 0.5,
        "the mark of collapse, from the other side", percent=True),
    "style-nucleates": Mark(
        "control", "The demonstrator's style alone, without a single random choice, moves the laws to the demonstrator's.",
        "share of the distance to the demonstrator's law that SFT removes in all tasks", "above", 0.25,
        "a quarter of the way: what a demonstration-free style must do to count as a nucleus", percent=True),
    "demonstrated-first": Mark(
        "kinetics", "Demonstrated tasks freeze before held-out ones.",
        "step at which half of the liquidity is gone, demonstrated over held out", "below", 1.0,
        "equality: below it the demonstrated tasks are first"),
    # A real base (data/registered/2026-11-29-real-ladder.md).
    "own-more-liquid": Mark(
        "control", "Where every context has a law of its own, more liquidity is left than where one law is shown.",
        "liquidity after SFT by every context's own law less that after SFT by one, bits", "above", 0.0,
        "equality: above it the laws shown decide, and not that choices are shown"),
    "rises-first": Mark(
        "kinetics", "Along SFT liquidity rises before it falls.",
        "largest mean liquidity of the steps between less that of the larger end, bits", "above", 0.0,
        "equality: a trial on other data saw it rise"),
    "reward-decides": Mark(
        "settling", "A preference against the seed takes mass off the seed's options that one for it leaves there.",
        "ProbMass on the seed's options after favouring DPO minus the same after opposing DPO, demonstrated tasks", "above", 0.02,
        "one answer in fifty: visible in a thousand samples", percent=True),
    "remelts": Mark(
        "remelting", "The base's distributions come back.",
        "mean distance to the base's answers, prompt by prompt, over that of the crystal", "below", 0.5,
        "more than half of the way back"),
    "raw-text-stays-liquid": Mark(
        "format", "Chat SFT crystallizes the chat form only.",
        "liquidity of SFT over liquidity of the base, both as raw text", "above", 0.5,
        "the mark of collapse, from the other side", percent=True),
}
