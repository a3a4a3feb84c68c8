"""The ladders that are trained here, so that their truth is known: their world, their recipes, their growth.

Knows worlds, recipes and trainers. Knows nothing of the claims, so that no claim can shape what it is tried on.

    world         narrators, each with one law for every choice, and the documents they leave
    recipes       every hyperparameter of a ladder, read and checked
    experiments   branches to be grown from a ladder's rungs, and what was found
    describing    writes a ladder's description
    curricula     what each stage is trained on
    instructions  what a real base is post-trained on, in place of a world
    tokenizer     byte-level BPE, trained on the corpus                                    (torch)
    teaching      replies of real models: a teacher's, a base's, a rung's                   (torch)
    training      a ladder from nothing: base, SFT, DPO, RLVR                              (torch)
    organism      what a trained ladder can do, and how it enters the repository           (torch)
    growing       an experiment's branches: trained, read, recorded                        (torch)
"""
