"""Random choices a model can be asked to make, and the one rule that reads its answer.

Knows nothing of prompts, models or laws: a task is a question, its options and their aliases.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

READ_VERSION = 2  # raise it whenever `read` can return something else: stored read-outs then no longer match
ANSWER_VERSION = 1  # of `first_answer`; draws are kept as texts, so a new rule reads the old ones

LEAD = " \t\n\r\f\v\u00a0\"'“”‘’«»*_`#(["  # white space, quotes and markup that may stand before an answer
JOINERS = "'’-"  # one of these between two word characters joins them: twenty-one, Monday's, 1-2
DIGIT_JOINERS = ".,:/"  # one of these joins two digits only: 1.5, 1,000, 3:30, 1/2; in "three.The" it ends the answer
_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # ASCII only: never changes a length


@dataclass(frozen=True, kw_only=True)
class Task:
    """A random choice.

    ask: imperative clause, "pick a random digit from 0 to 9"; label: the same as a noun.
    options: in their natural order; empty for an open task, whose answers cannot be listed.
    aliases: spelling -> option, read without regard to ASCII case.
    fair: True where the reference law is uniform by the meaning of the question (a fair coin).
    """

    name: str
    ask: str
    label: str
    options: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict, hash=False)
    fair: bool = False

    @property
    def closed(self) -> bool:
        return bool(self.options)

    @functools.cached_property
    def spellings(self) -> dict[str, str]:
        """Every case-folded spelling -> the option it names."""
        every = self.aliases | {option: option for option in self.options}
        return {spelling.translate(_FOLD): option for spelling, option in every.items()}

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """The reading rule over case-folded text; the longest spelling is tried first."""
        ordered = sorted(self.spellings, key=len, reverse=True)
        word = r"[^\W_]"  # a letter or digit of any script; the underscore is markup here
        return re.compile(
            rf"[{re.escape(LEAD)}]*({'|'.join(map(re.escape, ordered))})"
            rf"(?!{word})(?![{re.escape(JOINERS)}]{word})(?!(?<=[0-9])[{re.escape(DIGIT_JOINERS)}][0-9])"
        )


def read(text: str, task: Task) -> str | None:
    """The option of `task` that `text` answers with, or None: an open task, no option, another word.

    Skips leading white space, quotes and markup, then takes the longest spelling that ends at a boundary:
    the end of the text, or a character that cannot continue it (`1` is not the answer in `17`, `1.5`, `1st`).
    Text made of bytes must be decoded with errors="replace": U+FFFD is a boundary.
    """
    match = task.pattern.match(text.translate(_FOLD)) if task.closed else None
    return task.spellings[match[1]] if match else None


_WORD = r"[^\W_]"
_ANSWER = re.compile(
    rf"[{re.escape(LEAD)}]*({_WORD}+(?:(?:[ {re.escape(JOINERS)}]|(?<=[0-9])[{re.escape(DIGIT_JOINERS)}](?=[0-9])){_WORD}+)*)"
)
_LINE = re.compile(rf"[{re.escape(LEAD)}]*[^\n]*\n?")


def first_answer(text: str) -> str | None:
    """What `text` answers an open task with, case-folded; None if it holds no letter or digit to begin with.

    Skips what `read` skips, then takes words joined by single spaces, hyphens or apostrophes up to the first character that
    is none of these: a full stop, a comma, the end of the line. "New York, of course" is "new york", "Yes.\\nNo" is "yes";
    "St. Louis" is "st", which is the price of ending at a full stop. Letters are composed first (NFC), so that an accent
    written apart is no boundary. Nothing is said about whether it is a city, say: that is for whoever reads the counts.
    """
    match = _ANSWER.match(unicodedata.normalize("NFC", text))
    return match[1].casefold() if match else None


def first_line(text: str) -> str:
    """The part of a drawn text that `first_answer` can see: up to and with the first line end behind the answer's beginning."""
    return _LINE.match(text)[0]


_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve "
    "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def number_word(n: int) -> str:
    """English name of 0 <= n <= 1000, hyphenated: 42 -> forty-two."""
    if n < 20:
        return _ONES[n]
    if n < 100:
        return _TENS[n // 10 - 2] + (f"-{_ONES[n % 10]}" if n % 10 else "")
    if n < 1000:
        return f"{_ONES[n // 100]} hundred" + (f" {number_word(n % 100)}" if n % 100 else "")
    return "one thousand"


def _numbers(name: str, ask: str, label: str, values: Iterable[int], fair: bool = False) -> Task:
    values = list(values)
    return Task(
        name=name, ask=ask, label=label, fair=fair,
        options=tuple(map(str, values)), aliases={number_word(v): str(v) for v in values},
    )


def _words(name: str, ask: str, label: str, options: str, aliases: dict[str, str] | None = None, fair: bool = False) -> Task:
    return Task(name=name, ask=ask, label=label, options=tuple(options.split()), aliases=aliases or {}, fair=fair)


_MONTHS = "January February March April May June July August September October November December"
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)

_ALL = (
    _words("coin", "flip a coin", "Coin flip", "heads tails", {"head": "heads", "tail": "tails"}, fair=True),
    _numbers("die", "roll a die", "Die roll", range(1, 7), fair=True),
    _numbers("d20", "roll a twenty-sided die", "Twenty-sided die roll", range(1, 21), fair=True),
    _numbers("digit", "pick a random digit from 0 to 9", "Random digit from 0 to 9", range(10), fair=True),
    _numbers("ten", "pick a random number from 1 to 10", "Random number from 1 to 10", range(1, 11), fair=True),
    _numbers("hundred", "pick a random number from 1 to 100", "Random number from 1 to 100", range(1, 101), fair=True),
    _numbers("prime", "pick a prime number below 50", "Prime number below 50", _PRIMES),
    _numbers("even", "pick an even number from 2 to 20", "Even number from 2 to 20", range(2, 21, 2)),
    _numbers("odd", "pick an odd number from 1 to 19", "Odd number from 1 to 19", range(1, 20, 2)),
    _words("letter", "pick a random letter", "Random letter", " ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), fair=True),
    _words("suit", "pick a card suit", "Card suit", "hearts diamonds clubs spades",
           {"heart": "hearts", "diamond": "diamonds", "club": "clubs", "spade": "spades",
            "♥": "hearts", "♦": "diamonds", "♣": "clubs", "♠": "spades"}, fair=True),
    _words("rank", "pick a card rank", "Card rank", "ace two three four five six seven eight nine ten jack queen king",
           {"1": "ace", "J": "jack", "Q": "queen", "K": "king"}
           | {str(n): number_word(n) for n in range(2, 11)}, fair=True),
    _words("weekday", "pick a day of the week", "Day of the week", _DAYS, {d[:3]: d for d in _DAYS.split()}),
    _words("month", "pick a month of the year", "Month of the year", _MONTHS,
           {m[:3]: m for m in _MONTHS.split()} | {"Sept": "September"}),
    _words("colour", "pick a colour", "Colour", "red orange yellow green blue purple pink brown black white"),
    # open or large supports, kept apart: no closed list can hold the first five, MSE says little about the last
    Task(name="first_name", ask="pick a first name", label="First name"),
    Task(name="city", ask="pick a city", label="City"),
    Task(name="animal", ask="pick an animal", label="Animal"),
    Task(name="fruit", ask="pick a fruit", label="Fruit"),
    Task(name="word", ask="pick a random word", label="Random word"),
    _numbers("thousand", "pick a random number from 1 to 1000", "Random number from 1 to 1000", range(1, 1001), fair=True),
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}
PHASE_TASKS: tuple[str, ...] = tuple(t.name for t in _ALL if t.closed and t.name != "thousand")
OPEN_TASKS: tuple[str, ...] = tuple(name for name in TASKS if name not in PHASE_TASKS)
