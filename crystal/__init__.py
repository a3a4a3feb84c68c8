"""Measure, exactly, how post-training crystallizes a language model's random choices.

Nine rooms. Data flows one way through them, from top to bottom: a room knows only rooms above it,
and imports never form a circle. Each room's docstring says what it knows and what it does not, and
lists its modules, none before one it is built on. Modules marked (torch) there need torch or
transformers; importing any other loads neither. README.md follows one prompt through the house.

    ask        what is asked, of which checkpoints; how an answer is read
    read       how one checkpoint's answer is read: exactly, by drawing, over HTTP
    keep       where answers are kept, and what fills the store, here or on a cluster
    lab        the ladders trained here: world, recipes, growth
    measure    what answers mean: quantities, intervals, verdicts; arrays in, numbers out
    present    figures, numbers in sentences, verdicts: what stands on a page
    tables     answers of any ladder, measured by anyone, judged the same way
    studies    past the paper: freezing, choosing the seed, remelting; experiments
    book       pages listed, run, bound and rendered

Beside them: `errors`, `texts`, `files` and `workers`, below every room; `commands`,
`checkpoint_commands` and `cli`, above every room. Importing `crystal` loads neither torch nor
transformers nor matplotlib.
"""

__version__ = "0.1.0"
