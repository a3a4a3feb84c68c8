"""How pages become a book: listed, run when stale, bound, rendered.

Knows templates, their parameters, and what a page depends on. Knows nothing of what a page says.

    own_rows   the reader's own list of pages, book/own.yml
    pages      the list of pages, and the typed parameters of their templates
    own_pages  a page over a table of the reader's own
    freshness  whether a page is as its inputs are, and what has changed
    runs       runs pages through papermill, each whole or not at all
    binding    binds prose and pages, and has the book engine render them
"""
