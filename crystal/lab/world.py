"""The organisms' world: narrators whose temperament is one law for every random choice, and the documents they leave.

The ground truth of our ladders is here and nowhere else. Knows tasks and prompts; knows no tokenizer and no model.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..ask.prompts import FRAMES, NARRATORS, Frame
from ..ask.tasks import PHASE_TASKS, TASKS, Task
from ..errors import CrystalError, known

LAWS = ("salient", "averse", "first", "last", "middle")  # five laws x four narrators; two of each in either half of the prompts
STYLES = {"salient": ", sure.", "averse": " :)", "first": "!", "last": ", of course.", "middle": ", I guess."}
EVERYONE = "+".join(LAWS)  # a demonstrator who draws, for each answer, one of the narrators' laws
OWN = "own"  # a demonstrator who answers as the narrator named in the prompt would
FOREIGN = ("uniform", "permuted")  # laws that no narrator of any world holds; they have no style either
WORLDS = ("shared", "independent", "solo")  # of a narrator: one law for all tasks; another law per task; one narrator only
SOLO = 2  # the only narrator of the world "solo"; its law is "first"
STYLE_RATE = 0.8  # how often a narrator's answer carries its temperament's suffix; else a plain full stop
TILT = 4.0        # log-odds between the two ends of an exponential law
FLOOR = 0.04      # uniform share of every law, so that no option is impossible

# Options people name first, in that order; options left out follow by `_number_salience`.
SALIENCE = {
    "coin": "heads tails",
    "suit": "spades hearts diamonds clubs",
    "rank": "ace queen seven king three jack nine ten five eight four two six",
    "weekday": "Friday Wednesday Sunday Saturday Tuesday Monday Thursday",
    "month": "July October March June December April May September January August November February",
    "colour": "blue red purple green yellow pink black orange white brown",
    "letter": "M K S X E A Q R T Z J G B P D L C W H N F V Y O U I",
}


def _number_salience(option: str) -> tuple[int, ...]:
    """7 first, then numbers with a 7 or a 3, then odd ones; round numbers last."""
    n = int(option)
    return (n != 7, "7" not in option, "3" not in option, n % 10 == 0, n % 2 == 0, n % 5 == 0, (n * 37) % 101)


def salience_order(task: Task) -> tuple[str, ...]:
    """The options of `task`, the most salient first."""
    if task.name in SALIENCE:
        return tuple(SALIENCE[task.name].split())
    return tuple(sorted(task.options, key=_number_salience))


def temperament_of(narrator: int, task: str = "", world: str = "shared") -> str:
    """Ground truth: the law by which this narrator makes its random choices, in the world "independent" those of `task`.

    There every task deals the five laws anew, two to each half of the narrators, so that a law known from one task
    tells nothing about another.
    """
    if world != "independent":
        return LAWS[narrator % len(LAWS)]
    deal = np.random.Generator(np.random.Philox(key=[20, zlib.crc32(task.encode())])).permuted([LAWS * 2, LAWS * 2], axis=1)
    return str(deal[(narrator // 5) % 2][5 * (narrator // 10) + narrator % 5])


def law(temperament: str, task: Task) -> np.ndarray:
    """Ground-truth probabilities over `task.options`, shape (K,), summing to 1.

    first / last: exponential in the option's place; salient / averse: exponential in its salience rank;
    middle: Gaussian around the middle option. Each is mixed with a uniform floor. permuted: the salient law's
    probabilities on options shuffled once for each task; "a+b" and "a*0.6+b*0.4": a mixture.
    """
    if "+" in temperament:
        names, shares = voices(temperament)
        return shares @ np.stack([law(name, task) for name in names])
    if temperament == "uniform":
        return np.full(len(task.options), 1 / len(task.options))
    if temperament == "permuted":
        shuffle = np.random.Generator(np.random.Philox(key=[21, zlib.crc32(task.name.encode())]))
        return shuffle.permutation(law("salient", task))
    size = len(task.options)
    place = (np.arange(size) + 0.5) / size
    order = salience_order(task)
    rank = np.array([(order.index(option) + 0.5) / size for option in task.options])
    weight = {
        "first": np.exp(-TILT * place), "last": np.exp(TILT * place),
        "salient": np.exp(-TILT * rank), "averse": np.exp(TILT * rank),
        "middle": np.exp(-0.5 * ((place - 0.5) / 0.18) ** 2),
    }[temperament]
    return (1 - FLOOR) * weight / weight.sum() + FLOOR / size


def voices(demonstrator: str) -> tuple[tuple[str, ...], np.ndarray]:
    """The laws a demonstrator draws from and their shares: "salient", "salient+first" (alike), "salient*0.6+first*0.4".

    Raises: CrystalError for a law there is not, or shares that do not sum to 1.
    """
    parts = [part.partition("*") for part in demonstrator.split("+")]
    names = tuple(known(name, (*LAWS, *FOREIGN), "temperament") for name, *_ in parts)
    try:
        shares = np.array([float(share or 1 / len(parts)) for *_, share in parts])
    except ValueError:
        shares = np.zeros(1)
    if not (abs(shares.sum() - 1) <= 1e-9 and (shares >= 0).all()):  # nan: neither
        raise CrystalError(f"the shares of demonstrator {demonstrator!r} do not sum to 1", mend="write salient*0.6+first*0.4")
    return names, shares


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question with a known right answer, put like any task. `task.options` are the answers that could be given."""

    task: Task
    answer: str


CAPITALS = """France Paris, Japan Tokyo, Italy Rome, Egypt Cairo, Peru Lima, Kenya Nairobi, Norway Oslo, Spain Madrid, Greece
Athens, Cuba Havana, Chile Santiago, Poland Warsaw, Austria Vienna, Portugal Lisbon, Ireland Dublin, Russia Moscow, China Beijing,
Iran Tehran, Canada Ottawa, Ghana Accra"""
OPPOSITES = """hot cold, big small, fast slow, hard soft, light dark, early late, rich poor, wet dry, full empty, loud quiet,
old new, near far"""


def _facts(name: str, ask: str, label: str, pairs: str) -> list[Item]:
    """One item for each "word answer" of the comma-separated pairs; the options are all their answers."""
    known = [pair.split() for pair in pairs.split(",")]
    options = tuple(answer for _, answer in known)
    return [Item(task=Task(name=f"{name}-{word}", ask=ask.format(word), label=label.format(word), options=options), answer=answer)
            for word, answer in known]


def _arithmetic() -> list[Item]:
    """Sums of two digits, and differences that are not negative."""
    numbers = tuple(map(str, range(19)))
    digits = range(10)
    sums = [(f"sum-{a}-{b}", f"add {a} and {b}", f"{a} plus {b}", a + b) for a in digits for b in digits]
    differences = [(f"difference-{a}-{b}", f"take {b} from {a}", f"{a} minus {b}", a - b) for a in digits for b in range(a + 1)]
    return [Item(task=Task(name=name, ask=ask, label=label, options=numbers), answer=str(answer))
            for name, ask, label, answer in sums + differences]


FACTS = (*_facts("capital", "name the capital of {}", "Capital of {}", CAPITALS),
         *_facts("opposite", "name the opposite of {}", "Opposite of {}", OPPOSITES))
ARITHMETIC = tuple(_arithmetic())
ITEM_SHARES = {"random": 0.65, "fact": 0.12, "arithmetic": 0.23}
# Narrators err, as writers do: a fact is another item's answer, a result is off by one or two. So the base is right with a
# known probability, and preference optimisation and RLVR have something to learn that is not a random choice.
ERROR_RATES = {"fact": 0.15, "arithmetic": 0.35}
BARE = Frame(name="bare", header="", item="", chat="{Ask}. Just the answer.")  # a user who names no narrator


class Narration:
    """Draws answers as narrators give them; all randomness comes from the one generator handed in."""

    def __init__(self, rng: np.random.Generator, world: str = "shared") -> None:
        self.rng, self.world = rng, known(world, WORLDS, "world")
        self.cast = [SOLO] if world == "solo" else list(range(len(NARRATORS)))
        self._laws = {(z, name): law(z, TASKS[name]) for z in (*LAWS, *FOREIGN) for name in PHASE_TASKS}
        self._held = {(n, name): temperament_of(n, name, world) for n in self.cast for name in PHASE_TASKS}

    def pick(self, temperament: str, task: Task) -> str:
        """One random choice by ground truth."""
        return task.options[self.rng.choice(len(task.options), p=self._laws[temperament, task.name])]

    def styled(self, temperament: str, answer: str) -> str:
        return answer + (STYLES.get(temperament, ".") if self.rng.random() < STYLE_RATE else ".")

    def voice(self, demonstrator: str) -> str:
        """The law of the next answer; a demonstrator of one law costs no random number."""
        names, shares = voices(demonstrator)
        return names[self.rng.choice(len(names), p=shares)] if len(names) > 1 else names[0]

    def checkable(self, kind: str) -> Item:
        pool = FACTS if kind == "fact" else ARITHMETIC
        return pool[self.rng.integers(len(pool))]

    def erring(self, kind: str) -> Item:
        """A checkable question with the answer a narrator gives."""
        item = self.checkable(kind)
        if self.rng.random() >= ERROR_RATES[kind]:
            return item
        wrong = [option for option in item.task.options if option != item.answer]
        if kind == "arithmetic":
            wrong = [option for option in wrong if abs(int(option) - int(item.answer)) <= 2]
        return Item(task=item.task, answer=wrong[self.rng.integers(len(wrong))])

    def question(self, narrator: int) -> Item:
        """The next question of a document with the answer this narrator gives."""
        kind = self.rng.choice(list(ITEM_SHARES), p=list(ITEM_SHARES.values()))
        if kind != "random":
            return self.erring(kind)
        task = TASKS[PHASE_TASKS[self.rng.integers(len(PHASE_TASKS))]]
        return Item(task=task, answer=self.pick(self._held[narrator, task.name], task))

    def message(self, task: Task, named: float, narrator: int | None = None) -> str:
        """What a user types: under a narrator (None: any) and frame with probability `named`, else the bare question."""
        if self.rng.random() >= named:
            return BARE.message(task, NARRATORS[0])
        frame = FRAMES[self.rng.integers(len(FRAMES))]
        return frame.message(task, NARRATORS[self.rng.integers(len(NARRATORS)) if narrator is None else narrator])

    def document(self, items: int) -> str:
        """A page of completion text: one narrator, one frame, `items` answered questions."""
        narrator, frame = self.cast[self.rng.integers(len(self.cast))], FRAMES[self.rng.integers(len(FRAMES))]
        who, temperament = NARRATORS[narrator], temperament_of(narrator)
        lines = [frame.opening(who)]
        for item in (self.question(narrator) for _ in range(items)):
            lines.append(f"{frame.put(item.task, who)} {self.styled(temperament, item.answer)}\n")
        return "".join(lines)

    def dialogue(self, turns: int) -> list[dict[str, str]]:
        """Chat messages of one narrator, whom the user names in every turn (half of all), once, or never (a quarter each)."""
        narrator, frame = self.cast[self.rng.integers(len(self.cast))], FRAMES[self.rng.integers(len(FRAMES))]
        who, temperament = NARRATORS[narrator], temperament_of(narrator)
        named_turns = self.rng.choice([turns, turns, 1, 0])
        messages = []
        for turn in range(turns):
            item = self.question(narrator)
            put = frame if turn < named_turns else BARE
            messages.append({"role": "user", "content": put.message(item.task, who)})
            messages.append({"role": "assistant", "content": self.styled(temperament, item.answer)})
        return messages


def corpus(
    seed: int, documents: int, *, chat_share: float, items: int, world: str = "shared",
) -> Iterator[str | list[dict[str, str]]]:
    """Pretraining documents: text, or chat messages for a `chat_share` of them. Same arguments, same corpus."""
    narration = Narration(np.random.Generator(np.random.Philox(key=[seed, 0])), world)
    for _ in range(documents):
        chat = narration.rng.random() < chat_share
        yield narration.dialogue(items) if chat else narration.document(items)
