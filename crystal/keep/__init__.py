"""Where answers are kept, and what fills the store: this machine, a cluster, a server.

Knows cells and the files they lie in; whatever is written is whole or not there, and verified
before use. Knows nothing of what an answer means.

    sums      a hash for every other file that pages read
    manifest  the durable log under a ladder's cells: files named by their hash, and who made them
    store     exact read-outs and drawn texts, by cell
    drawn     draws as tables; what the stored cells of a checkpoint were read with
    resample  reads a ladder again: what the store lacks is kept, the rest compared; asks one task
    cluster   the batches of a plan, read by workers on Ray
    drawing   draws answers from a ladder's stage ends, or from a model behind a server
"""
