"""Answers of any ladder, measured by anyone: logs and tables in, the claims on them out.

Knows the formats of others, and what a table must hold to be judged. Knows nothing of how the
answers came about: the store is never opened.

    sheets     files of strangers within bounds, as columns or as records
    table      a table, read, checked, typed: one distribution per ladder, stage, task, prompt
    foreign    logs of lm-evaluation-harness, inspect_ai, OpenAI batches, plain replies
    importers  the four above, counted by the rule of their task, as a table
    survey     the claims on a table, as data, text and figures; the paper's beside them
"""
