"""Random choices a model can be asked to make, and the two rules that read its answer.

`read` reads an answer that begins with its option; `read_free` finds the option that a whole answer
names.
"""

from __future__ import annotations

import functools
import re
import string
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import CrystalError, known
from ..texts import is_number

READ_VERSION = 2  # raise it whenever `read` can return something else: stored read-outs then expire
ANSWER_VERSION = 1  # of `first_answer`; draws are kept as texts, so a new rule reads the old ones
FREE_TOKENS = 48  # of a free answer

LEAD = " \t\n\r\f\v\u00a0\"'“”‘’«»*_`#(["  # white space, quotes, markup that may precede an answer
JOINERS = "'’-"  # one of these between two word characters joins them: twenty-one, Monday's, 1-2
DIGIT_JOINERS = ".,:/"  # one of these joins two digits only: 1.5, 1,000, 3:30; not "three.The"
_FOLD = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # ASCII: keeps the length
_WORD = r"[^\W_]"  # a letter or digit of any script; the underscore is markup here
_LEAD = rf"[{re.escape(LEAD)}]*"
_NO_JOINER = (
    rf"(?!{_WORD})(?![{re.escape(JOINERS)}]{_WORD})"
    rf"(?!(?<=[0-9])[{re.escape(DIGIT_JOINERS)}][0-9])"
)


@dataclass(frozen=True, kw_only=True)
class Task:
    name: str
    ask: str  # imperative clause, "pick a random digit from 0 to 9"
    label: str  # the same as a noun
    options: tuple[str, ...] = ()  # in their natural order; none for an open task
    aliases: dict[str, str] = field(default_factory=dict, hash=False)  # spelling -> option
    fair: bool = False  # uniform by the meaning of the question (a fair coin)

    @property
    def closed(self) -> bool:
        return bool(self.options)

    @functools.cached_property
    def spellings(self) -> dict[str, str]:
        """Every case-folded spelling -> the option it names."""
        every = self.aliases | {option: option for option in self.options}
        return {spelling.translate(_FOLD): option for spelling, option in every.items()}

    @functools.cached_property
    def alternatives(self) -> str:
        """Every spelling, as a pattern; the longest is tried first."""
        return "|".join(map(re.escape, sorted(self.spellings, key=len, reverse=True)))

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """The reading rule over case-folded text."""
        return re.compile(f"{_LEAD}({self.alternatives}){_NO_JOINER}")


def read(text: str, task: Task) -> str | None:
    """The option of `task` that `text` answers with; None: an open task, no option, another word.

    Skips LEAD, then takes the longest spelling that ends at a boundary (`1` is not the answer in
    `17`, `1.5`, `1st`). Decode bytes with errors="replace": U+FFFD is a boundary.
    """
    match = task.pattern.match(text.translate(_FOLD)) if task.closed else None
    return task.spellings[match[1]] if match else None


_ANSWER = re.compile(
    rf"{_LEAD}({_WORD}+(?:(?:[ {re.escape(JOINERS)}]|"
    rf"(?<=[0-9])[{re.escape(DIGIT_JOINERS)}](?=[0-9])){_WORD}+)*)"
)
_LINE = re.compile(rf"{_LEAD}[^\n]*\n?")


def first_answer(text: str) -> str | None:
    """What `text` answers an open task with, case-folded; None if no letter or digit begins it.

    Skips LEAD, then takes words joined by single spaces, hyphens or apostrophes: "New York, of
    course" is "new york"; "St. Louis" is "st", the price of ending at a full stop. Letters are
    composed first (NFC), so that an accent written apart is no boundary.
    """
    match = _ANSWER.match(unicodedata.normalize("NFC", text))
    return match[1].casefold() if match else None


def first_line(text: str) -> str:
    """What `first_answer` can see of a text: up to the first line end after the answer begins."""
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


def _task(
    name: str,
    ask: str,
    options: str | Iterable[int],
    fair: bool = False,
    label: str = "",
    **aliases: str,
) -> Task:
    """options: words; or whole numbers, which may be spelled out. label: else what is picked."""
    if not isinstance(options, str):
        aliases = {number_word(number): str(number) for number in options}
        options = " ".join(aliases.values())
    label = label or ask.split(" ", 2)[2].capitalize()
    how = {"options": tuple(options.split()), "aliases": aliases, "fair": fair}
    return Task(name=name, ask=ask, label=label, **how)


_MONTHS = "January February March April May June July August September October November December"
_MONTH_NAMES = {month[:3]: month for month in _MONTHS.split()} | {"Sept": "September"}
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)
_RANKS = "ace two three four five six seven eight nine ten jack queen king"
_FACES = {"1": "ace", "J": "jack", "Q": "queen", "K": "king"}
_FACES |= {str(n): number_word(n) for n in range(2, 11)}
_SUITS = "hearts diamonds clubs spades"
_SIGNS = {suit[:-1]: suit for suit in _SUITS.split()} | dict(zip("♥♦♣♠", _SUITS.split()))
_COLOURS = "red orange yellow green blue purple pink brown black white"
_LETTERS = " ".join(string.ascii_uppercase)

# Every ladder of the book was asked these, so add none here: a task of your own is a file
# (`crystal.ask.prompts.load_task`).
_ALL = (
    _task("coin", "flip a coin", "heads tails", True, "Coin flip", head="heads", tail="tails"),
    _task("die", "roll a die", range(1, 7), True, "Die roll"),
    _task("d20", "roll a twenty-sided die", range(1, 21), True, "Twenty-sided die roll"),
    _task("digit", "pick a random digit from 0 to 9", range(10), True),
    _task("ten", "pick a random number from 1 to 10", range(1, 11), True),
    _task("hundred", "pick a random number from 1 to 100", range(1, 101), True),
    _task("prime", "pick a prime number below 50", _PRIMES),
    _task("even", "pick an even number from 2 to 20", range(2, 21, 2)),
    _task("odd", "pick an odd number from 1 to 19", range(1, 20, 2)),
    _task("letter", "pick a random letter", _LETTERS, True),
    _task("suit", "pick a card suit", _SUITS, True, **_SIGNS),
    _task("rank", "pick a card rank", _RANKS, True, **_FACES),
    _task("weekday", "pick a day of the week", _DAYS, **{day[:3]: day for day in _DAYS.split()}),
    _task("month", "pick a month of the year", _MONTHS, **_MONTH_NAMES),
    _task("colour", "pick a colour", _COLOURS),
    # open or large: no closed list can hold the first five, MSE says little about the last
    _task("first_name", "pick a first name", ""),
    _task("city", "pick a city", ""),
    _task("animal", "pick an animal", ""),
    _task("fruit", "pick a fruit", ""),
    _task("word", "pick a random word", ""),
    _task("thousand", "pick a random number from 1 to 1000", range(1, 1001), True),
)
TASKS = {task.name: task for task in _ALL}
PHASE_TASKS = tuple(t.name for t in _ALL if t.closed and t.name != "thousand")
OPEN_TASKS = tuple(name for name in TASKS if name not in PHASE_TASKS)


def own_task(
    name: str | None, options: tuple[str, ...], aliases: Mapping[str, str] | None = None
) -> Task:
    """A task that is not one of ours.

    Raises: CrystalError for a name of ours, or a spelling that `read` would not read as its option.
    """
    if not name or name in TASKS:
        what = f"the task {name} has options of its own" if name else "options without a task"
        raise CrystalError(what, hint="give them another name, such as --task mine")
    task = Task(name=name, ask=name, label=name, options=options, aliases=dict(aliases or {}))
    different = {option.translate(_FOLD) for option in options} - {""}
    if len(different) < max(len(options), 2):
        what = f"{','.join(options)!r:.60} does not list two or more different options"
        raise CrystalError(what, hint="list them as a,b,c, without regard to capitals")
    for spelling, option in (*task.aliases.items(), *zip(options, options)):
        known(option, options, "option")
        grouped = "_" in spelling and is_number(spelling.replace("_", ""))  # 1_000 is no number
        if grouped or read(spelling, task) != option:
            what = f"the alias {spelling!r:.60} would not be read as the option {option!r:.60}"
            if spelling in options:
                what = f"the option {spelling!r:.60} would not be read as itself"
            raise CrystalError(what, hint="let options be words or numbers, without underscores")
    return task


# -- the second rule: free answers

_QUOTE = "\"'“”‘’*`("
_BEFORE = (
    rf"(?<!{_WORD})(?<!{_WORD}[{re.escape(JOINERS)}])"
    rf"(?:(?<![0-9][{DIGIT_JOINERS}])(?<![-$€£])|(?![0-9]))"
)
_AFTER = rf"{_NO_JOINER}(?! (?:hundred|thousand|million)\b)"
_NUMBER = rf"(?:[0-9]+|{'|'.join(sorted(map(number_word, range(101)), key=len, reverse=True))})"
_COUNTED = (
    "sided|sides?|faces?|letters|cards|suits|ranks|days|months|colou?rs|options|numbers|choices|"
    "possible|possibilities|outcomes|digits|digit number|times|flips|rolls|tosses|ways|more|"
    "others?|equally|different|people|players|minutes|seconds|hours|weeks|years|percent|%|heads|"
    "tails"
)
_BOUND = (
    "out of|less than|more than|greater than|smaller than|lower than|higher than|below|under|"
    "above|over|up to|at least|at most|multiples? of|divisible by|divided by|different from|"
    "other than|except"
)
_ADJECTIVES = rf"(?:(?!is|was|and|or|of|for|to){_WORD}+[\s-]){{0,2}}"
_RANGE = r"(?:\s*(?:\bto\b|\bthrough\b|\bthru\b|[–—…]|\.\.+)\s*|\s+-\s+|(?<=[0-9])-(?=[0-9]))"
_DENIED = r"\bnot|n['’]t(?: be)?|\binstead of(?: \w+ing)?|\brather than|\bneither|\bnor"
_ENDS = r"[\"'”’*)_`]*(?:[.!?,;:\n]|$)"  # of a clause
_CLAUSE = re.compile(
    r"[.!?]+(?=[\s\"'”’*)_`]|$)|[:;\n]|\s[-–—]+\s|—|\b(?=(?:so|therefore|thus|hence)\b)", re.I
)
_CUE = re.compile(
    r"\b(?:lands?(?:ed)?(?: on)?|c[ao]mes? up|turn(?:s|ed) up|is|was|it's|be|got|get|roll(?:s|ed)?|"
    r"pick(?:s|ed)?|choose|chose|chosen|select(?:s|ed)?|dr[ae]w|drawn|go(?:ing)? with|say|answer|"
    r"choice|result)\b",
    re.I,
)
_ALIKE = {"may", "march", "mar", "sat", "sun", "wed", "mon", "thu", "fri", "sep", "dec", "jun"}
_NUMERAL = re.compile(  # what may stand before "one" where it is the number
    r"(?:^|[.!?:;,\n]\s*|\b(?:is|was|be|it's|number|digit|an?|got|on|up|shows?|say|said|rolled|"
    r"with)\s+)[\"'“‘*(]*$",
    re.I,
)


def read_free(text: str, task: Task) -> str | None:
    """The option that a whole answer names; None: an open task, none named, or several compete.

    1. An option and nothing else is read as `read` reads it. 2. What only looks like an option is
    struck out: ranges and bounds ("between 1 and 10"), what is counted ("six sides"), list numbers,
    what is denied, supposed or weighed ("not heads", "if it is heads"), English words ("a", "may").
    3. Where one option is named, however often, it is the answer. 4. Where several are, the
    last clause that names any decides if it names exactly one, or exactly one behind its last cue
    ("landed on", "is", "I pick").
    """
    if not task.closed:
        return None
    begun = task.pattern.match(text.translate(_FOLD))
    if begun and not re.search(_WORD, text[begun.end() :]):
        return task.spellings[begun[1]]
    found = _names(task).finditer(_struck(text, task).translate(_FOLD))
    named = [(m.start(), task.spellings[m[0]]) for m in found if _meant(text, *m.span())]
    if len({option for _, option in named}) < 2:
        return named[0][1] if named else None
    return _last_clause(text, named)


def read_all(texts: Mapping[str, int], task: Task, rule=read_free) -> dict[str | None, int]:
    """How many of the drawn `texts` (text -> count) name each option, in order, and None: none."""
    found: dict[str | None, int] = dict.fromkeys((*task.options, None), 0)
    for text, count in texts.items():
        found[rule(text, task)] += count
    return found


def _last_clause(text: str, named: list[tuple[int, str]]) -> str | None:
    """The only option named in the last clause that names any, or behind that clause's last cue."""
    begins = [0, *(match.end() for match in _CLAUSE.finditer(text))]
    begin = max(at for at in begins if at <= named[-1][0])
    cues = [match.end() for match in _CUE.finditer(text, begin, named[-1][0])]
    for since in (begin, *cues[-1:]):
        options = {option for at, option in named if at >= since}
        if len(options) == 1:
            return options.pop()
    return None


@functools.lru_cache(maxsize=64)
def _names(task: Task) -> re.Pattern[str]:
    """Every spelling as a whole word of case-folded text, bounded as in `read` on both sides."""
    return re.compile(rf"{_BEFORE}(?:{task.alternatives}){_AFTER}")


def names_option(text: str, task: Task) -> bool:
    """Whether any spelling of an option stands in `text` as a word, whatever it means there."""
    return _names(task).search(text.translate(_FOLD)) is not None


def _meant(text: str, start: int, end: int) -> bool:
    """Whether a word that English has, too, is meant as an option here."""
    word = text[start:end]
    if len(word) == 1 and word.isalpha() and word.isascii():
        return _meant_letter(text, start, end)
    if word.lower() == "one":  # the number ends a clause and stands where a number can stand
        last = re.match(rf"{_ENDS}| (?:is|on|and|this|for|as)\b", text[end:])
        return bool(last and _NUMERAL.search(text[:start]))
    if word.lower() in _ALIKE:
        asked = re.match(r" (?:I|we|you|the|be|your|it)\b", text[end:]) and word.lower() == "may"
        return word[0].isupper() and not asked and not re.search(r"\bthe $", text[:start], re.I)
    return True


def _meant_letter(text: str, start: int, end: int) -> bool:
    """A capital alone; A, I or a small letter if quoted, called a letter, or ending a clause."""
    if re.match(r"\.[A-Za-z]", text[end:]) or re.search(r"[A-Za-z]\.$", text[:start]):
        return False  # U.S.
    before, after = text[start - 1 : start], text[end : end + 1]
    quoted = before and before in _QUOTE and after in (*_QUOTE, ")")
    called = re.search(r"\bletter:? [\"'“‘*]*$", text[:start], re.I)
    if quoted or called or text[start] not in "AI" + text[start].lower():
        return True
    last = re.match(_ENDS, text[end:])
    verb = text[start] == "A" and re.match(r" (?:is|for)\b", text[end:])
    return text[start].isupper() and bool(last or verb)


def _struck(text: str, task: Task) -> str:
    """The text, as long as before, with blanks where something only looks like an option."""
    text = re.sub(
        r"\b(?<=ty) (?=(?:one|two|three|four|five|six|seven|eight|nine)\b)", "-", text, flags=re.I
    )
    if re.search(r"(?m)^\W*1[.)] +\S", text):
        text = re.sub(r"(?m)^\W*[0-9]+[.)] +(?=\S)", _blank, text)
    for pattern in _strikes(task):
        text = pattern.sub(_blank, text)
    return text


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


@functools.lru_cache(maxsize=64)
def _strikes(task: Task) -> tuple[re.Pattern[str], ...]:
    """Patterns of what is no answer, the longest phrases first."""
    some = rf"(?:{_NUMBER}|(?:{task.alternatives}))"
    one = rf"[{_QUOTE}]*(?<!{_WORD}){some}(?!{_WORD})[{_QUOTE})]*"
    sides = "(?:a |an |the )?"
    phrases = (
        rf"\bbetween\s+{sides}{one}\s+(?:and|or|to)\s+{sides}{one}",
        rf"(?:\bfrom\s+)?(?<!{_WORD}){one}{_RANGE}{one}",
        rf"\b(?:{_BOUND})\s+{_NUMBER}\b",
        rf"(?<!{_WORD}){_NUMBER}[\s-]{_ADJECTIVES}(?:{_COUNTED})(?!{_WORD})",
        rf"[(\[]\s*{_NUMBER}\s*,\s*{_NUMBER}\s*[)\]]|(?<={_WORD})\([^)\n]*\)?",
        r"\b(?:probability|chances?|odds|likelihood)\b[^.!?,;:\n]*",
        r"(?m)^\W*[QA]:",
        rf"(?<!{_WORD})[0-9]+%",
        rf"\bd(?:6|20)\b|\b(?:day|month|version|gpt|step|option|round|chapter)[\s-]{_NUMBER}\b",
        rf"(?:{_DENIED})\s+{sides}{one}",
        r"\b(?:if|unless|whether|had it|suppose|assuming)\b[^.!?,;:\n]*",
        r"\b(?:my|your|his|her|the)(?: own)? (?:head|heart)\b|\bheads up\b",
    )
    return tuple(re.compile(phrase, re.I) for phrase in phrases)
