"""How pages become a book: listed, run when stale, bound, rendered, packed.

Knows templates, their parameters, and what a page depends on. Knows nothing of what a page says.

    pages    the lists of pages, the reader's own among them, and the parameters of templates
    kernels  kernels forked from a process that has imported what pages use
    runs     whether a page is as its inputs are; papermill runs those that are not
    binding  binds prose and pages, has the book engine render them, packs the book
"""
