"""How one checkpoint's answer is read: exactly, by drawing, or as far as a server tells.

Knows one model and one prompt at a time. Knows nothing of stages or stores.

    vocabulary   what a tokenizer means: tokens as bytes, checked; prompts as token ids
    cutting      a large tokenizer, of which only what a text needs is built               (torch)
    automaton    the reading rule, byte by byte, and a whole vocabulary pushed through it
    tree         forward passes over trees of tokens                                       (torch)
    checkpoints  weights that are the checkpoint's, and GGUF files dequantised once        (torch)
    engine       a checkpoint made ready, the fast tree proven                             (torch)
    readout      the exact distribution of an answer, not one sample drawn                 (torch)
    sampling     independent draws, for the price of the distinct ones                     (torch)
    servers      a model behind an OpenAI-compatible server, told to draw from everything
"""
