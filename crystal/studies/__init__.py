"""Past the paper: one module or a few for each question that needs more than one training run.

Knows the runs of experiments and replicas, the measures, and how they are shown. Knows no trainer.

    answerable         which candidates for natural prompts are answered, and the rule that chooses
    screening          candidates for natural prompts put to checkpoints          (torch)
    branches           every run of every parent, measured on the probe
    parents            what is said of several parents at once
    ends               where the runs began and ended
    formats            format against weights: which of the two froze the answers
    kinetics           when the laws freeze
    replicas           do the verdicts agree over training runs
    settled            settling, over all tasks and runs
    seed_control       can the seed be chosen
    contexts           liquidity between contexts against between wordings, by natural prompts
    contexts_figures   real checkpoints: what they answer, and free answers against begun ones
    controls           worlds in which it cannot, demonstrations that mean nothing
    doses              how few demonstrations it takes
    mixtures           demonstrators that are no single narrator
    named              does the seed say who demonstrated
    real               a real base, post-trained here
    real_figures       the same, drawn
    arms               its arms: does what was demonstrated decide
    remelting          what gives diversity back
    hysteresis         does the way up equal the way down
    remelting_figures  remelting, drawn
    remelting_tables   remelting, in tables
"""
