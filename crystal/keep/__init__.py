"""Where answers are kept, and what fills the store: this machine, a cluster, a server.

Knows cells and the files they lie in; whatever is written is whole or not there, and verified before use. Knows nothing
of what an answer means.

    progress     how far a long walk is
    sums         a hash for every other file that pages read
    producers    who computed a shard, and with what
    manifest     the durable log under a ladder's cells: files named by their hash
    report       what a look through a whole log found
    shards       rows of many cells as one parquet file, and back
    store        exact read-outs, by cell
    drawn        drawn texts and their counts, by cell
    makings      with which config.json and tokenizer the cells of a checkpoint were read
    draw_tables  drawn answers to closed tasks as one table of counts
    prompt_tables  prompts of every task as a table, for other frameworks
    batches      a ladder's grid cut into batches, and the reader of one checkpoint
    board        which batches wait, are done, are given up
    nodes        a Ray cluster, joined or made, and the room on it
    cluster      the batches of a plan, read by workers on Ray
    resample     reads a ladder again: what the store lacks is kept, the rest compared
    redraw       draws answers from a ladder's stage ends
    served       draws answers from a model behind a server
"""
