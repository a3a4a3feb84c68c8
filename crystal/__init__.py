"""Measure, exactly, how post-training crystallizes a language model's random choices.

One way of data flow; a module knows only those to its left or above, and imports never form a circle:

    tasks, prompts                                      what is asked, and how an answer is read
    cells -> grids -> ladders                           which checkpoints there are, and what each is asked
    hub -> pinning                                      ladders of the hub: commits written down, refusals in a sentence
    automaton -> tree, memory -> engine -> readout, sampling   what one checkpoint answers    (torch)
    manifest -> store                                   its answers, kept
    resample                                            fills the store from the checkpoints  (torch)
    drawn -> redraw                                     draws of the open tasks: kept; filled by sampling (torch)
    world -> recipes -> experiments                     ladders and branches to be trained here, with their truth
    curricula, tokenizer -> training -> organism -> growing   the same, trained, read, taken in        (torch)
    phases -> inference, marks -> verdicts              what the answers mean, and whether a claim holds
    coverage                                            the same for supports that no list can hold
    views -> figures, overview, training_figures, open_*     the same, shown
    branches -> kinetics, replicas, settled, ...        experiments and training runs: measured, judged, shown
    show, telling                                       what a notebook puts on its page
    pages -> runs -> book                               pages executed, bound and rendered
    commands -> cli                                     `crystal <command>`

Importing `crystal` loads neither torch nor transformers nor matplotlib.
"""

__version__ = "0.1.0"
