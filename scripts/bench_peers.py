"""What others offer for the same question: option scores of lm-evaluation-harness, typed choices of transformers, samples.

    lm-eval         log-likelihood of every option behind the prompt, through its own HFLM; needs `pip install lm-eval`
    typed choice    the pipeline behind the endpoint /v1/systemone of `transformers serve`, without the HTTP around it: the
                    next-token logits of one-token labels. Either the labels are the options themselves behind our very
                    prompt, where each option is a token; or it lists the options under letters, which is another question
    generate        samples

Each is given the same model object in float32 and starts from the same texts as the read-out.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from crystal.ask.ladders import load_ladder
from crystal.ask.prompts import CHAT, COMPLETION, Prompt
from crystal.ask.tasks import Task
from crystal.read.engine import Engine, load
from crystal.read.readout import readout

DELIMITER = {CHAT: "", COMPLETION: " "}  # what stands before an option's text in these corpora
BATCHES = (16, 64, 256)  # of lm-eval; the fastest is measured
LETTERS = 26  # most options that the endpoint lists by itself

Ids = tuple[int, ...]


class Subject(NamedTuple):
    """A rung of a shipped ladder, and its native form, in which it is read."""

    model: str
    rung: str
    form: str


# Both ends of each ladder: of one rung each, nobody could tell what the ladder does from what rung and form do
SUBJECTS = tuple(Subject(model, rung, load_ladder(model).rung(rung).native_form)
                 for model in ("nano-llama", "nano-olmo2") for rung in ("base", "rlvr"))
BASES = {subject.model: subject for subject in SUBJECTS if subject.rung == "base"}


def weights(subject: Subject) -> str:
    return f"data/weights/{subject.model}/{subject.rung}"


@functools.cache
def engine_of(subject: Subject) -> Engine:
    return load(weights(subject))


def encoded(engine: Engine, prompts: Sequence[Prompt], task: Task, form: str) -> list[Ids]:
    return [engine.encode(p.text(task, form), form) for p in prompts]


# -- samples -------------------------------------------------------------------------------------------------------


def generate(engine: Engine, ids: Ids, samples: int, tokens: int, *, shared: bool = False) -> torch.Tensor:
    """Plain ancestral samples (samples, prompt + tokens). shared: the prompt's keys and values are computed once."""
    torch.manual_seed(0)
    batch, start = torch.tensor([ids], device=engine.device), {}
    if shared:
        start = {"past_key_values": _started(engine, batch, samples)}
    return engine.model.generate(
        batch, attention_mask=torch.ones_like(batch), num_return_sequences=samples, max_new_tokens=tokens,
        use_cache=True,  # a configuration may say false, and every step would begin from nothing
        do_sample=True, top_k=0, top_p=1.0, temperature=1.0, num_beams=1, **start)


def _started(engine: Engine, batch: torch.Tensor, samples: int):
    from transformers import DynamicCache

    cache = DynamicCache(config=engine.model.config)
    with torch.inference_mode():
        engine.model(batch[:, :-1], past_key_values=cache, use_cache=True)
    cache.batch_repeat_interleave(samples)
    return cache


# -- option scores -------------------------------------------------------------------------------------------------


def harness(engine: Engine, form: str, batch: int):
    """lm-eval's model around ours."""
    from lm_eval.models.huggingface import HFLM

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return HFLM(pretrained=engine.model, tokenizer=engine.tokenizer, batch_size=batch, add_bos_token=form == COMPLETION)


def harness_scores(lm, prompts: Sequence[Prompt], task: Task, form: str) -> np.ndarray:
    """Probability of every option's text behind every prompt, as lm-eval sees it: (prompts, options)."""
    from lm_eval.api.instance import Instance

    texts = [p.text(task, form) for p in prompts]
    if form == CHAT:
        texts = [lm.apply_chat_template([{"role": "user", "content": text}]) for text in texts]
    requests = [Instance("loglikelihood", {}, (text, DELIMITER[form] + option), 0) for text in texts for option in task.options]
    scores = [math.exp(score) for score, _ in lm.loglikelihood(requests, disable_tqdm=True)]
    return np.reshape(scores, (len(prompts), len(task.options)))


def continuations(engine: Engine, task: Task, form: str) -> list[Ids]:
    """The one tokenization of every option that a scorer looks at."""
    return [tuple(engine.tokenizer(DELIMITER[form] + o, add_special_tokens=False)["input_ids"]) for o in task.options]


def option_scores(engine: Engine, prompts: Sequence[Ids], answers: Sequence[Ids], batch: int = 64) -> np.ndarray:
    """The definition behind lm-eval's number, written out: P(answer's tokens | prompt), (prompts, answers); float64."""
    pairs, out = [(ids, answer) for ids in prompts for answer in answers], []
    for low in range(0, len(pairs), batch):
        part = pairs[low : low + batch]
        rows = [torch.tensor(ids + answer) for ids, answer in part]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(engine.device)
        logs = engine.forward(padded, use_cache=False).double().log_softmax(-1)
        for row, (ids, answer) in zip(logs, part, strict=True):
            place = torch.arange(len(ids) - 1, len(ids) + len(answer) - 1)
            out.append(float(row[place, torch.tensor(answer)].sum().exp()))
    return np.reshape(out, (len(prompts), len(answers)))


def ended(engine: Engine, prompts: Sequence[Ids], task: Task, answers: Sequence[Ids]) -> np.ndarray:
    """P(the answer ends as that option | prompt and its tokens), (prompts, options): what a score without a boundary lacks."""
    pairs = [(k, ids, answer) for ids in prompts for k, answer in enumerate(answers)]
    found = readout(engine, [ids + answer for _, ids, answer in pairs], task, budget=1e-5, begun=[len(a) for _, _, a in pairs])
    return np.reshape([r.options[k] for (k, _, _), r in zip(pairs, found, strict=True)], (len(prompts), len(answers)))


# -- typed choices -------------------------------------------------------------------------------------------------


def typed_choice(engine: Engine, task: Task, form: str, *, letters: bool):
    """The decision pipeline, or None where it cannot be asked: options of several tokens, or too many for letters.

    letters: as the endpoint comes. Else its template prints our prompt alone and the labels are the options.
    """
    from transformers import DecisionConfig
    from transformers.pipelines import DecisionPipeline

    config = DecisionConfig()
    if form != CHAT or (letters and len(task.options) > LETTERS):
        return None
    if not letters:
        answers = continuations(engine, task, form)
        if any(len(a) > 1 for a in answers) or len(set(answers)) < len(answers):
            return None
        message = "{% set messages = [{'role': 'user', 'content': state}] %}"
        config = DecisionConfig(labels={"choice": list(task.options)}, chat_template=message + engine.tokenizer.chat_template)
    return DecisionPipeline(model=engine.model, tokenizer=copy.deepcopy(engine.tokenizer), decision_config=config)


def chosen(pipeline, prompts: Sequence[Prompt], task: Task, *, letters: bool) -> np.ndarray:
    """The probabilities it answers, (prompts, options); rows sum to 1: it gives no mass to anything but its labels."""
    rows = []
    for prompt in prompts:
        text = prompt.text(task, CHAT)
        question = {"type": "choice", "criteria": dict.fromkeys(task.options), **({"instructions": text} if letters else {})}
        answer = pipeline({"state": "" if letters else text, "questions": {"pick": question}})["pick"]
        rows.append([answer["probabilities"][option] for option in task.options])
    return np.array(rows)


# -- how far a score is from the law -------------------------------------------------------------------------------


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Of each pair of rows (prompts, options), both made to sum to 1: scores know of no answer but the options. (prompts,)."""
    p, q = (x / x.sum(1, keepdims=True) for x in (p, q))
    return abs(p - q).sum(1) / 2


def scoring(engine: Engine, prompts: Sequence[Prompt], task: Task, form: str, scores: np.ndarray | None) -> list[dict]:
    """What one tokenization without a boundary gets wrong, against the read-out at 1e-5; `scores`: lm-eval's own, if there.

    tv: mean over prompts; mass: what the scores of all options sum to; difference: largest of a score from the definition.
    agree: share of (prompt, option) within 1e-4 of the law once the boundary is put to the score.
    """
    ids, answers = encoded(engine, prompts, task, form), continuations(engine, task, form)
    law = np.array([r.options for r in readout(engine, ids, task, budget=1e-5)])
    defined = option_scores(engine, ids, answers)
    bounded = defined * ended(engine, ids, task, answers)
    seen = defined if scores is None else scores
    rows = [
        _row("option scores", seen, law) | {"difference": float(abs(seen - defined).max()) if scores is not None else None},
        _row("option scores and boundary", bounded, law) | {"agree": float((abs(bounded - law) <= 1e-4).mean())},
    ]
    for letters in (False, True):
        if pipeline := typed_choice(engine, task, form, letters=letters):
            rows.append(_row(f"typed choice, {'letters' if letters else 'options'}",
                             chosen(pipeline, prompts, task, letters=letters), law))
    one = float(np.mean([len(a) == 1 for a in answers]))
    return [{"task": task.name, "options": len(task.options), "one_token": one, "law_mass": float(law.sum(1).mean()), **row}
            for row in rows]


def _row(name: str, p: np.ndarray, law: np.ndarray) -> dict:
    tv = total_variation(p, law)
    return {"contestant": name, "tv": float(tv.mean()), "tv_largest": float(tv.max()), "mass": float(p.sum(1).mean())}
