"""How one checkpoint's answer is read: exactly, by drawing, or as far as a server tells.

Knows one model and one prompt at a time. Knows nothing of stages or stores.

    vocabulary   a tokenizer's tokens as bytes, sorted into a trie and kept
    spelling     the bytes of every token, checked against its tokenizer
    encoding     prompts as token ids: raw text, or a message in the chat template
    automaton    the reading rule, byte by byte, and a whole vocabulary pushed through it
    tree         forward passes over trees of tokens                                       (torch)
    memory       work that is cut smaller when the memory does not hold it                 (torch)
    proof        whether a model may be read through the fast tree: it is tried            (torch)
    checkpoints  weights that are the checkpoint's, all of them and no others              (torch)
    conversion   a GGUF file as a folder in hub layout, dequantised once                   (torch)
    engine       a checkpoint made ready to be read                                        (torch)
    masses       probabilities of a next token, summed over ranges of a vocabulary         (torch)
    readout      the exact law of an answer, not one sample drawn                          (torch)
    least        the fewest tokens from which a law could be known: a bound
    recorded     walks that keep their tree, for that bound                                (torch)
    sampling     independent draws, for the price of the distinct ones                     (torch)
    shapes       published shapes, and the least that a read-out of them can cost
    servers      a model behind an OpenAI-compatible server, asked over HTTP
    dialects     how each kind of server is told to draw from the whole law, and whether it does
    scoring      lower bounds on a served model's law, from the log-probabilities of a prompt
"""
