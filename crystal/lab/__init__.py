"""The ladders that are trained here, so that their truth is known: world, recipes, growth.

Knows worlds, recipes and trainers. Knows nothing of the claims, so that no claim can shape what it
is tried on.

    world         personas, each with one distribution for every choice, and their documents
    recipes       every hyperparameter of a ladder; experiments, and what was found
    curricula     what each stage is trained on
    instructions  what a real base is post-trained on, in place of a world  (torch)
    training      a ladder from nothing: tokenizer, base, SFT, DPO, RLVR  (torch)
    growing       what a ladder can do, how it enters the repository; experiments  (torch)
"""
