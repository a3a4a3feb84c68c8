"""How what was measured gets onto a page: as figures, as numbers in sentences, as verdicts.

Knows the store and the measures. Knows no page list, and nothing of how a page is run or bound. Whatever draws comes in pairs:
`load_x(...)` is the tidy frame, `plot_x(frame)` the figure. matplotlib is loaded when something is drawn.

    show                what a notebook puts on its page: figures, text, claims
    answering           rows as arrays: answered prompts only
    views               read-outs of several ladders, checked, in one frame
    telling             estimates and verdicts as text, what was answered first
    verdicts            the claims on every task of a ladder, adjusted for their number
    axes                what figures share: panels, names, colours
    figures             the pages of the phases
    overview            across tasks: which claim held where
    open_views          draws read as answers and counted
    open_numbers        open and large tasks: what draws say, and how near the truth
    open_figures        the same, drawn
    training_figures    how an organism was made, and how well it knows its world
    validation_figures  what was simulated of the claims
    joint_figures       the same of the joint test, and organisms with a known demonstrator
    costs               what ladders and experiments cost
    bench_figures       what the read-out costs beside its peers
    bench_bars          the same, held against the marks it was given
    reading_costs       what reading a ladder costs, carried over from what was measured
"""
