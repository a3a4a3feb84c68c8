"""Measure, exactly, how post-training crystallizes a language model's random choices.

One way of data flow; a module knows only those to its left or above, and imports never form a circle:

    tasks, prompts                                      what is asked, and how an answer is read
    automaton -> tree -> engine -> readout, sampling    what one checkpoint answers           (torch)
    ladders -> cells -> manifest -> store               which checkpoints, and their answers, kept
    resample                                            fills the store from the checkpoints  (torch)
    world -> curricula, tokenizer -> training -> organism   ladders trained here, with their truth (torch)
    phases -> inference -> verdicts                     what the answers mean, and whether a claim holds
    views -> figures, overview, training_figures        the same, shown
    show, telling                                       what a notebook puts on its page
    pages -> runs -> book                               pages executed, bound and rendered
    commands -> cli                                     `crystal <command>`

Importing `crystal` loads neither torch nor transformers nor matplotlib.
"""

__version__ = "0.1.0"
