"""Answers of any ladder, measured by anyone: logs and tables in, the claims on them out.

Knows the formats of others, and what a table must hold to be judged. Knows nothing of how the answers came about: the store is
never opened.

    packed          packed files, unpacked within bounds
    sheets          table files in, columns out
    groups          the rows of a table gathered: one law per ladder, stage, task, prompt
    records         files of records, read so that whatever is wrong is one sentence
    foreign         logs of lm-evaluation-harness, inspect_ai, OpenAI batches, plain replies
    looks           what a file looks like
    tally           answers read by the rule of their task, and counted
    names           names checked, stages in their order
    importers       the four above, as a table of counts
    laws            a table, read, checked, typed
    tabled          the claims on it
    tabled_numbers  what it shows apart from the claims, and all of it as data
    tabled_figures  the same, drawn
    paper           the paper's claims, on the ladders of this book beside published ones
"""
