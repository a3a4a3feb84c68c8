"""How what was measured gets onto a page: as figures, as numbers in sentences, as verdicts.

Knows the store and the measures. Knows no page list, and nothing of how a page is run or bound.
Whatever draws comes in pairs: `load_x(...)` is the tidy frame, `plot_x(frame)` the figure.

    show                what a notebook puts on its page: figures, text, claims, numbers in words
    views               read-outs of several ladders, checked; as arrays; what they give, told
    figures             what figures share: panels, names on lines; those of seeds
    verdicts            the claims on a ladder, computed once; counted and drawn across tasks
    open_tasks          draws read as answers, counted and drawn; how near the truth they are
    validation_figures  what was simulated of the claims and of the joint test
    explorer            every distribution of some series, packed for a page to move through
    bench               what the read-out costs beside its peers, and against its thresholds
    training_figures    how an organism was made and knows its world; its card; what it all cost
"""
