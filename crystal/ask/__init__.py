"""What is asked, of which checkpoints, and how an answer is read as an option.

Knows questions and the checkpoints they are put to. Knows no model's answers, loads no weights.

    tasks    the random choices and their options; the two rules that read an answer
    prompts  the ways to put a task: personas x templates, and the natural contexts x cues
    cells    what a checkpoint is asked, and the key of one experiment
    ladders  the checkpoints of one lineage, pinned by hash, from their description
    sources  checkpoints of others: the hub, its tokenizers and commits; files, packages  (torch)
"""
