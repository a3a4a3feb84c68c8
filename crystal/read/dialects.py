"""How each kind of server is told to draw from the whole law, and how to see whether it does.

No server takes all settings; each refuses or ignores some. The fullest dialect that is not refused is used, and whether
anything was ignored shows in what is drawn at a temperature so high that every token is likely.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from requests.adapters import HTTPAdapter

from ..errors import CrystalError
from .servers import Refused, Server

HOT, WARM, PROBES, ASKED, SHARE = 100.0, 2.0, 128, 16, 0.7  # see `probe`


def everything(temperature: float) -> dict:
    """vLLM, SGLang, llama.cpp, which know all of it or ignore the rest. To each of them top_k -1 is none; 0 is not."""
    return {"temperature": temperature, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0}


def transformers(temperature: float) -> dict:
    """`transformers serve` refuses top_k, and at any temperature is greedy unless this one field says otherwise."""
    settings = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0,
                "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "num_beams": 1}
    return {"temperature": temperature, "top_p": 1.0, "generation_config": json.dumps(settings)}


def openai(temperature: float) -> dict:
    """What the published interface knows."""
    return {"temperature": temperature, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def tgi(temperature: float) -> dict:
    """TGI takes only a top_p below 1; unset, it truncates nothing."""
    return {"temperature": temperature, "presence_penalty": 0.0, "frequency_penalty": 0.0}


DIALECTS: tuple[Callable[[float], dict], ...] = (everything, transformers, openai, tgi)


def connect(url: str, model: str, template: str, **settings) -> Server:
    """A server that has given one answer, spoken to in the fullest dialect that it takes.

    template: COMPLETION or CHAT, the way it will be asked. settings: timeout, patience, batch of `Server`.
    Raises: CrystalError if there is no server, or no such model or endpoint.
    """
    server = Server(url=url, model=model, **settings)
    server.session.mount(url, HTTPAdapter(pool_maxsize=64))
    server.models()
    with server.told(template):
        _settle(server, template)
    return server


def _settle(server: Server, template: str) -> None:
    for server.settings in DIALECTS:
        try:
            server.asked(template, "A word:", n=1, max_tokens=1, seed=1)
            return
        except Refused as error:
            if error.status not in (400, 422) or server.settings is DIALECTS[-1]:
                raise


def probe(server: Server, template: str, workers: int = 4) -> str:
    """Measure that the server samples, and from more than a few tokens; what was found, in a few words.

    At temperature 100 any token is about as likely as any other, so that PROBES answers of one token are nearly all different,
    unless the server decodes greedily, repeats itself for one seed, or cuts the law to K tokens. Refused if fewer than SHARE
    of those with a text are different. A whole vocabulary of 500 such tokens gives 0.88 with standard deviation 0.03: false
    alarm below 1e-9. K = 50 gives 0.39 at most, K = 100 gives 0.57; a K of 200 passes more often than not.
    Where several answers to one request repeat each other, one is asked for at a time (`server.batch` = 1).

    Some servers (OpenAI, vLLM) take no temperature above 2. As many different tokens prove a whole law there, too; fewer prove
    nothing, as the model may be so sure, unless every seed gives the same answers.
    Raises: CrystalError if the server does not draw from its whole law.
    """
    for temperature in (HOT, WARM):
        try:
            return _probed(server, template, workers, temperature)
        except CrystalError as error:
            if not isinstance(error.__cause__, Refused):
                raise
    return f"not probed: it refuses a temperature of {WARM:g}"


def _probed(server: Server, template: str, workers: int, temperature: float) -> str:
    for batch in (ASKED, 1):
        seen = _hot(server, template, batch, workers, temperature)
        readable = [text for part in seen for text in part if text and "\ufffd" not in text]
        said = f"{len({*readable})} of {len(readable)} hot tokens differ"
        if len(readable) < PROBES // 3:
            return f"not probed: only {len(readable)} of {PROBES} hot tokens have a text"
        whole, alone = len({*readable}) >= SHARE * len(readable), batch == 1
        unseeded = len({*map(tuple, seen)}) == 1
        repeating = not alone and all(len({*part}) == 1 for part in seen)
        if whole or (temperature == WARM and not unseeded and not repeating):
            server.batch = 1 if alone else server.batch
            return said if whole else f"not probed: {said}, and at {WARM:g}, the most it takes, a model may be so sure"
    raise CrystalError(f"the server does not draw from the model's whole law: {said}, where nearly all should",
                       where=f"{server.url}, asked as {server.settings.__name__}",
                       mend="start it so that it samples, without top-k, and minds seeds (vLLM: --generation-config vllm)")


def _hot(server: Server, template: str, batch: int, workers: int, temperature: float) -> list[list[str]]:
    """PROBES texts of one token each, ASKED to a part, in requests of at most `batch` answers, each with a seed of its own."""
    def some(part: int) -> list[str]:
        texts: list[str] = []
        while len(texts) < ASKED:
            n, seed = min(batch, ASKED - len(texts)), 1 + part * ASKED + len(texts)
            texts += server.ask(template, "A word:", n=n, max_tokens=1, seed=seed, temperature=temperature).texts
        return texts

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(some, range(PROBES // ASKED)))
