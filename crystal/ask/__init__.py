"""What is asked, of which checkpoints, and how an answer is read as an option.

Knows questions and the checkpoints they are put to. Knows no model's answers, and loads no weights.

    tasks      the random choices and their options; the one rule that reads an answer
    prompts    the hundred ways to put a task: narrators x frames, and the forms a prompt is rendered in
    natural    the hundred that real models answer: contexts x each task's cues
    cells      the key of one experiment: whatever can change its numbers changes it
    grids      sets of prompts, forms and decodings, by name
    ladders    the checkpoints of one lineage, pinned by hash, from their description
    hub        checkpoints that somebody else keeps: tokenizers, refusals in a sentence           (torch)
    pinning    ladders of the hub: commits found and written into the description    (torch)
"""
