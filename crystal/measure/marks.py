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
    "seed-in-base": Mark(
        "nucleation", "The law that SFT collapses onto is already present in the base.",
        "distance of SFT's law to the seed, relative to the nearer rival", "below", 0.5,
        "a seed that explains less than half of what a rival leaves unexplained is no seed; equality would let luck pass"),
    "seed-named": Mark(
        "nucleation", "The seed named is the demonstrator's.",
        "share of the nearest base prompts whose narrator holds the demonstrator's law", "above", 0.5,
        "a majority: the law named most often is then the true one", percent=True),
    "same-options": Mark(
        "settling", "The final stage stays on the seed's options.",
        "ProbMass over the seed's own mass on its options", "above", 0.9,
        "of ten answers the seed gave within its options, nine remain there: 'largely the same'", percent=True),
    "little-promoted": Mark(
        "settling", "The final stage promotes little that SFT ranked low.",
        "mass gained by options in the lower half of SFT's ranking", "below", 0.05,
        "one answer in twenty; more would be seen in any sample of a hundred", percent=True),
    "smaller-move": Mark(
        "settling", "The final stage moves the law less than SFT did.",
        "MSE(SFT, final) over MSE(base, SFT)", "below", 1.0,
        "equality: beyond it the later stages, not SFT, decide the law"),
    "seed-shared": Mark(
        "nucleation", "The seed is present in the other ladder's base too.",
        "distance of SFT's law to the other base's seed, relative to the nearer rival", "below", 0.5,
        "the mark of seed-in-base, for the same measure on a foreign base"),
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
    "steps-times-rate": Mark(
        "kinetics", "The transition is a matter of steps times learning rate.",
        "factor between the half-life in steps times rate at the highest and the lowest rate", "below", 2.0,
        "the rates differ by nine: two is within what a schedule-free optimiser may add"),
    "held-out-recedes": Mark(
        "kinetics", "Long SFT takes held-out tasks away from the seed again.",
        "distance to the demonstrator's law at the last step over the smallest on the way, held-out tasks", "above", 1.2,
        "a fifth: more than the steps next to the smallest differ by"),
    "fluctuations-peak": Mark(
        "kinetics", "Narrators differ most in how far they have come near the transition.",
        "variance of progress over narrators, peak over last step", "above", 1.5,
        "half as much again as where the path ends"),
    "reward-decides": Mark(
        "settling", "A preference against the seed takes mass off the seed's options that one for it leaves there.",
        "ProbMass on the seed's options after favouring DPO minus the same after opposing DPO, demonstrated tasks", "above", 0.02,
        "one answer in fifty: visible in a thousand samples", percent=True),
    "remelts": Mark(
        "remelting", "The base's distributions come back.",
        "mean distance to the base's answers, prompt by prompt, over that of the crystal", "below", 0.5,
        "more than half of the way back"),
    "widens": Mark(
        "remelting", "What is gained is only a wider crystal.",
        "liquidity regained, as a share of what was lost", "below", 0.25,
        "entropy without this much liquidity is the same wider law for every prompt", percent=True),
    "raw-text-stays-liquid": Mark(
        "format", "Chat SFT crystallizes the chat form only.",
        "liquidity of SFT over liquidity of the base, both as raw text", "above", 0.5,
        "the mark of collapse, from the other side", percent=True),
}
