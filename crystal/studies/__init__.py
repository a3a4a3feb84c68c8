"""Past the paper: one module for each question that needs more than one training run.

Knows the runs of experiments and replicas, the measures, and how they are shown. Knows no trainer.

    answerable          candidates for natural prompts: put to checkpoints, chosen by a rule
    runs                every run of an experiment measured on the probe; means over parents
    formats             which of format and weights froze the answers; contexts against wordings
    judged              the claims over training runs; settling; is it found who demonstrated
    seed_control        can the seed be chosen: demonstrators, mixtures, doses, other worlds
    real                a real base, post-trained here; its arms: does what was demonstrated decide
    remelting           what gives diversity back
    kinetics            when the distributions freeze; does the way up equal the way down
    figures             training runs, forms and real checkpoints, drawn
    later               what DPO and RL do to a real base after SFT
    phase               a page of one phase and one task: what it compares, judges and measures
    phase_figures       the same, drawn; all tasks of a phase, the first page
    phase_words         the same, in words; the first page's table of verdicts
    experiment_figures  seed control and remelting, drawn
"""
