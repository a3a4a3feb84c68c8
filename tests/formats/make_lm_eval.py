"""lm_eval with a model whose replies and scores are known."""

import itertools
import math

from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

REPLIES = {
    "clerk": [" 7", " Seven, of course.", " 3", " I would rather not say.", " 7\n"],
    "mathematician": [" **4**", " 17", "", " 0.", " Café 7"],
}
SCORES = {
    ("clerk", " heads"): 0.5,
    ("clerk", " tails"): 0.25,
    ("mathematician", " heads"): 0.125,
    ("mathematician", " tails"): 0.625,
}


def narrator(context):
    return "clerk" if "clerk" in context else "mathematician"


@register_model("known")
class Known(LM):
    def __init__(self, **options):
        super().__init__()

    def generate_until(self, requests, disable_tqdm=False):
        left = {name: itertools.cycle(replies) for name, replies in REPLIES.items()}
        return [next(left[narrator(request.args[0])]) for request in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        return [
            (math.log(SCORES[narrator(context), " " + option.strip()] if context else 0.5), False)
            for context, option in (request.args for request in requests)
        ]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        return [-1.0] * len(requests)


if __name__ == "__main__":
    cli_evaluate()
