"""What is asked, of which checkpoints, and how an answer is read as an option.

Knows questions and the checkpoints they are put to. Knows no model's answers, and loads no weights.

    tasks      the random choices and their options; the one rule that reads an answer
    free       the second rule: which option a free answer names
    prompts    the hundred ways to put a task: narrators x frames, and the forms a prompt is rendered in
    natural    the hundred that real models answer: contexts x each task's cues
    cells      the key of one experiment: whatever can change its numbers changes it
    grids      sets of prompts, forms and decodings, by name
    sources    checkpoints in a GGUF file, or in a package that holds one
    ladders    the checkpoints of one lineage, pinned by hash, from their description
    cuts       whether a tokenizer cuts text as its own file says                                 (torch)
    hub        checkpoints that somebody else keeps: tokenizers, refusals in a sentence           (torch)
    pinning    ladders of the hub: commits found and written into the description    (torch)
"""
