"""Measure, exactly, how post-training crystallizes a language model's random choices.

One way of data flow; a module knows only those to its left or above, and imports never form a circle:

    tasks, prompts                                      what is asked, and how an answer is read
    cells -> grids -> ladders                           which checkpoints there are, and what each is asked
    hub -> pinning                                      ladders of the hub: commits written down, refusals in a sentence
    automaton -> tree, memory -> engine -> readout, sampling   what one checkpoint answers    (torch)
    manifest -> store                                   its answers, kept
    batches -> board, nodes -> cluster -> resample      fills the store from the checkpoints, here or on Ray  (torch)
    drawn -> redraw                                     draws: kept; filled by sampling (torch)
    servers -> dialects -> served, draw_tables, scoring a model behind a server: drawn from, its draws as a table; bounds
    world -> recipes -> experiments                     ladders and branches to be trained here, with their truth
    curricula, tokenizer -> training -> organism -> growing   the same, trained, read, taken in        (torch)
    phases -> inference -> evidence, marks -> judging -> claims -> verdicts   what answers mean, whether a claim holds
    synthetic -> simulation -> validation               the claims tried on ladders of known truth
    coverage                                            the same for supports that no list can hold
    records -> foreign -> tally -> importers            logs of other tools, as a table of counts
    sheets -> groups -> tables                          a table of answers of any ladder, read, checked, typed
    tables, claims -> tabled, tabled_*                  the claims on such a table
    views -> figures, overview, training_figures, open_*, validation_figures, readings, named, paper   shown
    branches -> kinetics, replicas, settled, ...        experiments and training runs: measured, judged, shown
    shapes -> bench_figures                             what a read-out costs beside its peers, shown (measured by scripts/)
    show, telling                                       what a notebook puts on its page
    own_rows -> pages -> own_pages, freshness -> runs -> book   pages listed, executed, bound and rendered
    commands, table_commands -> cli                                     `crystal <command>`

Importing `crystal` loads neither torch nor transformers nor matplotlib.
"""

__version__ = "0.1.0"
