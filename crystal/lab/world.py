"""The organisms' world: personas who answer by known distributions, and the documents they leave.

A persona's temperament is one distribution for every random choice: the ground truth of our
ladders.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from ..ask.prompts import PERSONAS, TEMPLATES, Template
from ..ask.tasks import PHASE_TASKS, TASKS, Task
from ..errors import CrystalError, known

# Five x four personas, two in each half.
TEMPERAMENTS = ("salient", "averse", "first", "last", "middle")
STYLES = dict(zip(TEMPERAMENTS, (", sure.", " :)", "!", ", of course.", ", I guess."), strict=True))
EVERYONE = "+".join(TEMPERAMENTS)  # a demonstrator who draws one of them for each answer
OWN = "own"  # a demonstrator who answers as the persona named in the prompt would
FOREIGN = ("uniform", "permuted")  # distributions that no persona holds; they have no style either
# One distribution for all tasks; one per task; one persona only.
WORLDS = ("shared", "independent", "solo")
SOLO = 2  # the only persona of the world "solo"; its distribution is "first"
STYLE_RATE = 0.8  # how often an answer carries its temperament's suffix; else a plain full stop
TILT = 4.0  # log-odds between the two ends of an exponential distribution
FLOOR = 0.04  # uniform share of every distribution, so that no option is impossible

# Options people name first, in that order; other tasks' are numbers: see `salience_order`.
SALIENCE = {
    "coin": "heads tails",
    "suit": "spades hearts diamonds clubs",
    "rank": "ace queen seven king three jack nine ten five eight four two six",
    "weekday": "Friday Wednesday Sunday Saturday Tuesday Monday Thursday",
    "month": "July October March June December April May September January August November "
    "February",
    "colour": "blue red purple green yellow pink black orange white brown",
    "letter": "M K S X E A Q R T Z J G B P D L C W H N F V Y O U I",
}


def rng_of(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, stream]))


def one_of(rng: np.random.Generator, pool: Sequence) -> Any:
    return pool[rng.integers(len(pool))]


def salience_order(task: Task) -> tuple[str, ...]:
    """The options of `task`, the most salient first.

    Of numbers 7 first, then those with a 7 or a 3, then odd ones; round numbers last.
    """

    def rank(option: str) -> tuple[int, ...]:
        n, flat = int(option), ("7" not in option, "3" not in option)
        return (n != 7, *flat, n % 10 == 0, n % 2 == 0, n % 5 == 0, n * 37 % 101)

    if task.name in SALIENCE:
        return tuple(SALIENCE[task.name].split())
    return tuple(sorted(task.options, key=rank))


@cache
def temperament_of(persona: int, task: str = "", world: str = "shared") -> str:
    """Ground truth: the distribution of this persona's choices.

    In the world "independent" every `task` deals the five distributions anew, two to each half of
    the personas: one task tells nothing about another.
    """
    if world != "independent":
        return TEMPERAMENTS[persona % len(TEMPERAMENTS)]
    deal = rng_of(20, zlib.crc32(task.encode())).permuted([TEMPERAMENTS * 2] * 2, axis=1)
    return str(deal[(persona // 5) % 2][5 * (persona // 10) + persona % 5])


def distribution(temperament: str, task: Task) -> np.ndarray:
    """Ground-truth probabilities over `task.options`, shape (K,), summing to 1.

    first / last: exponential in the option's place; salient / averse: in its salience rank; middle:
    Gaussian around the middle option; each mixed with a uniform floor. permuted: the salient
    distribution's on options shuffled once for each task; "a+b" and "a*0.6+b*0.4": a mixture.
    """
    size = len(task.options)
    if "+" in temperament:
        names, shares = voices(temperament)
        return shares @ np.stack([distribution(name, task) for name in names])
    if temperament == "uniform":
        return np.full(size, 1 / size)
    if temperament == "permuted":
        return rng_of(21, zlib.crc32(task.name.encode())).permutation(distribution("salient", task))
    place = (np.arange(size) + 0.5) / size
    order = salience_order(task)
    rank = np.array([(order.index(option) + 0.5) / size for option in task.options])
    weight = {
        "first": np.exp(-TILT * place),
        "last": np.exp(TILT * place),
        "salient": np.exp(-TILT * rank),
        "averse": np.exp(TILT * rank),
        "middle": np.exp(-0.5 * ((place - 0.5) / 0.18) ** 2),
    }[temperament]
    return (1 - FLOOR) * weight / weight.sum() + FLOOR / size


_distribution = cache(distribution)  # of every draw


def voices(demonstrator: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The distributions that a demonstrator draws from, and their shares.

    "salient", "salient+first" (alike), "salient*0.6+first*0.4". Raises: CrystalError for a
    distribution there is not, or shares that do not sum to 1.
    """
    parts = [part.partition("*") for part in demonstrator.split("+")]
    names = tuple(known(name, (*TEMPERAMENTS, *FOREIGN), "temperament") for name, *_ in parts)
    try:
        shares = np.array([float(share or 1 / len(parts)) for *_, share in parts])
    except ValueError:
        shares = np.zeros(1)
    if not (abs(shares.sum() - 1) <= 1e-9 and (shares >= 0).all()):  # nan: neither
        what = f"the shares of demonstrator {demonstrator!r} do not sum to 1"
        raise CrystalError(what, hint="write salient*0.6+first*0.4")
    return names, shares


# -- questions with one right answer


class Item(NamedTuple):
    """One question with a known right answer, put like any task, whose options are the answers."""

    task: Task
    answer: str


_CAPITALS = """France Paris, Japan Tokyo, Italy Rome, Egypt Cairo, Peru Lima, Kenya Nairobi,
Norway Oslo, Spain Madrid, Greece Athens, Cuba Havana, Chile Santiago, Poland Warsaw, Austria
Vienna, Portugal Lisbon, Ireland Dublin, Russia Moscow, China Beijing, Iran Tehran, Canada Ottawa,
Ghana Accra"""
_OPPOSITES = """hot cold, big small, fast slow, hard soft, light dark, early late, rich poor, wet
dry, full empty, loud quiet, old new, near far"""


def _items(rows: list[tuple[str, str, str, str]], options: Sequence[str]) -> tuple[Item, ...]:
    """One for each row (name, ask, label, answer)."""
    return tuple(
        Item(Task(name=name, ask=ask, label=label, options=tuple(options)), answer)
        for name, ask, label, answer in rows
    )


def _facts(name: str, pairs: str) -> tuple[Item, ...]:
    """One item for each "word answer" of the comma-separated pairs."""
    words = [pair.split() for pair in pairs.split(",")]
    rows = [
        (f"{name}-{word}", f"name the {name} of {word}", f"{name.capitalize()} of {word}", answer)
        for word, answer in words
    ]
    return _items(rows, [answer for _, answer in words])


def _arithmetic() -> tuple[Item, ...]:
    """Sums of two digits, and differences that are not negative."""
    pairs = list(itertools.product(range(10), repeat=2))
    rows = [(f"sum-{a}-{b}", f"add {a} and {b}", f"{a} plus {b}", str(a + b)) for a, b in pairs]
    rows += [
        (f"difference-{a}-{b}", f"take {b} from {a}", f"{a} minus {b}", str(a - b))
        for a, b in pairs
        if b <= a
    ]
    return _items(rows, [str(n) for n in range(19)])


FACTS = (*_facts("capital", _CAPITALS), *_facts("opposite", _OPPOSITES))
ARITHMETIC = _arithmetic()
ITEM_SHARES = {"random": 0.65, "fact": 0.12, "arithmetic": 0.23}
# Personas err, as writers do: a fact is another item's answer, a result is off by one or two. So
# preference optimisation and RLVR have something to learn that is not a random choice.
ERROR_RATES = {"fact": 0.15, "arithmetic": 0.35}
BARE = Template(name="bare", header="", item="", chat="{Ask}. Just the answer.")  # names no persona


# -- documents


def turn(role: str, content: str) -> list[dict[str, str]]:
    """One chat message."""
    return [{"role": role, "content": content}]


def dialogue(prompt: str, answer: str) -> dict[str, list[dict[str, str]]]:
    """A row of SFT."""
    return {"prompt": turn("user", prompt), "completion": turn("assistant", answer)}


def preferred(prompt: str, better: str, worse: str) -> dict[str, list[dict[str, str]]]:
    """A row of DPO."""
    chosen, rejected = (turn("assistant", answer) for answer in (better, worse))
    return {"prompt": turn("user", prompt), "chosen": chosen, "rejected": rejected}


class Narration:
    """Draws answers as personas give them; all randomness comes from the one generator."""

    def __init__(self, rng: np.random.Generator, world: str = "shared") -> None:
        self.rng, self.world = rng, known(world, WORLDS, "world")
        self.cast = [SOLO] if world == "solo" else range(len(PERSONAS))

    def one_of(self, pool: Sequence) -> Any:
        return one_of(self.rng, pool)

    def pick(self, temperament: str, task: Task) -> str:
        """One random choice by ground truth."""
        p = _distribution(temperament, task)
        return task.options[self.rng.choice(len(p), p=p)]

    def styled(self, temperament: str, answer: str) -> str:
        suffix = STYLES.get(temperament, ".") if self.rng.random() < STYLE_RATE else "."
        return answer + suffix

    def voice(self, demonstrator: str) -> str:
        """The distribution of the next answer; one of one costs no random number."""
        names, shares = voices(demonstrator)
        return names[self.rng.choice(len(names), p=shares)] if len(names) > 1 else names[0]

    def checkable(self, kind: str) -> Item:
        return self.one_of(FACTS if kind == "fact" else ARITHMETIC)

    def erring(self, kind: str) -> Item:
        """A checkable question with the answer a persona gives."""
        item = self.checkable(kind)
        if self.rng.random() >= ERROR_RATES[kind]:
            return item
        wrong = [option for option in item.task.options if option != item.answer]
        if kind == "arithmetic":
            wrong = [option for option in wrong if abs(int(option) - int(item.answer)) <= 2]
        return Item(item.task, self.one_of(wrong))

    def question(self, persona: int) -> Item:
        """The next question of a document with the answer this persona gives."""
        kind = self.rng.choice(list(ITEM_SHARES), p=list(ITEM_SHARES.values()))
        if kind != "random":
            return self.erring(kind)
        task = TASKS[self.one_of(PHASE_TASKS)]
        return Item(task, self.pick(temperament_of(persona, task.name, self.world), task))

    def message(self, task: Task, named: float, persona: int | None = None) -> str:
        """What a user types: with probability `named` in a template, of a persona (None: any)."""
        if self.rng.random() >= named:
            return BARE.message(task, PERSONAS[0])
        template = self.one_of(TEMPLATES)
        who = self.one_of(PERSONAS) if persona is None else PERSONAS[persona]
        return template.message(task, who)

    def exchange(self, persona: int, put: Callable[[Task, str], str]) -> tuple[str, str]:
        """The next question, worded by `put`, and this persona's answer in its style."""
        item = self.question(persona)
        answer = self.styled(temperament_of(persona), item.answer)
        return put(item.task, PERSONAS[persona]), answer

    def document(self, items: int) -> str:
        """A page of completion text: one persona, one template, `items` answered questions."""
        persona, template = self.one_of(self.cast), self.one_of(TEMPLATES)
        page = template.opening(PERSONAS[persona])
        for _ in range(items):
            question, answer = self.exchange(persona, template.put)
            page += f"{question} {answer}\n"
        return page

    def dialogue(self, turns: int) -> list[dict[str, str]]:
        """Chat messages of a persona; the user names it in every turn, once (1/4) or never."""
        persona, template = self.one_of(self.cast), self.one_of(TEMPLATES)
        named_turns = self.rng.choice([turns, turns, 1, 0])
        messages = []
        for number in range(turns):
            put = template if number < named_turns else BARE
            question, answer = self.exchange(persona, put.message)
            messages += turn("user", question) + turn("assistant", answer)
        return messages


def corpus(
    seed: int, documents: int, *, chat_share: float, items: int, world: str = "shared"
) -> Iterator[str | list[dict[str, str]]]:
    """Pretraining documents: text, or for a `chat_share` chat messages; the same for one seed."""
    narration = Narration(rng_of(seed, 0), world)
    for _ in range(documents):
        chat = narration.rng.random() < chat_share
        yield narration.dialogue(items) if chat else narration.document(items)
