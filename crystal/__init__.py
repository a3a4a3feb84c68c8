"""Measure, exactly, how post-training crystallizes a language model's random choices.

A room imports only from rooms above it. Its docstring lists its modules, none before one it is
built on; (torch) marks those that need torch or transformers. README.md follows one prompt through.

    ask        what is asked, of which checkpoints; how an answer is read
    read       how one checkpoint's answer is read: exactly, by drawing, over HTTP
    keep       where answers are kept, and what fills the store, here or on a cluster
    lab        the ladders trained here: world, recipes, growth
    measure    what answers mean: quantities, intervals, verdicts; arrays in, numbers out
    present    figures, numbers in sentences, verdicts: what stands on a page
    tables     answers of any ladder, measured by anyone, judged the same way
    studies    past the paper: freezing, choosing the seed, remelting; experiments
    book       pages listed, run, bound and rendered

Below every room: `errors`, `texts`, `files`, `workers`; above: `commands`, `checkpoint_commands`,
`cli`.
"""

__version__ = "0.1.0"
