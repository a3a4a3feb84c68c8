"""Measure, exactly, how post-training crystallizes a language model's random choices.

One way of data flow; each module knows only those before it:

    tasks, prompts -> world -> training            what is asked, and the ladders we train
    tasks, prompts -> automaton -> readout -> store    what a checkpoint answers, kept
    store -> phases, inference -> figures -> pages     what the answers mean, shown

Importing `crystal` loads neither torch nor transformers nor matplotlib.
"""

__version__ = "0.1.0"
