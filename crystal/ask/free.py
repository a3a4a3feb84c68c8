"""The second reading rule: which option a free answer names. "Sure! The coin landed on heads." is
heads.

`tasks.read` reads an answer that begins with its option; a chat model answers in sentences. The
rule, in order: 1. A text that is an option and nothing else is read as `tasks.read` reads it. 2.
What only looks like an option is struck out: ranges, pairs and bounds ("between 1 and 10",
"randint(1, 10)", "less than 50"), what is counted ("six sides", "26 letters"), list numbers, what
is denied ("not heads"), supposed ("if it is heads") or weighed ("the chance of heads"), and English
words ("a", "I", "may", "one of them"). 3. Where one option is named, however often, it is the
answer; where none is, there is no answer. 4. Where several are named, the last clause that names
any decides, if it names exactly one, or names exactly one behind its last cue ("landed on", "is",
"I pick"). Otherwise they compete. A clause ends at a full stop, a question or exclamation mark, a
colon, a semicolon, a dash between spaces, the end of a line, or before "so", "therefore" and the
like.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping

from .tasks import _FOLD, DIGIT_JOINERS, JOINERS, Task, number_word, read

FREE_VERSION = 1  # raise it whenever `read_free` can return something else
FREE_TOKENS = 48  # of a free answer

_WORD = r"[^\W_]"
_QUOTE = "\"'“”‘’*`("
_BEFORE = (
    rf"(?<!{_WORD})(?<!{_WORD}[{re.escape(JOINERS)}])"
    rf"(?:(?<![0-9][{DIGIT_JOINERS}])(?<![-$€£])|(?![0-9]))"
)
_AFTER = (
    rf"(?!{_WORD})(?![{re.escape(JOINERS)}]{_WORD})(?!(?<=[0-9])[{DIGIT_JOINERS}][0-9])"
    r"(?! (?:hundred|thousand|million)\b)"
)
_NUMBER = rf"(?:[0-9]+|{'|'.join(sorted(map(number_word, range(101)), key=len, reverse=True))})"
_COUNTED = (
    "sided|sides?|faces?|letters|cards|suits|ranks|days|months|colou?rs|options|numbers|choices|"
    "possible|possibilities|outcomes|digits|digit number|times|flips|rolls|tosses|ways|more|"
    "others?|"
    "equally|different|people|players|minutes|seconds|hours|weeks|years|percent|%|heads|tails"
)
_BOUND = (
    "out of|less than|more than|greater than|smaller than|lower than|higher than|below|under|"
    "above|over|up to|at least|at most|multiples? of|divisible by|divided by|different from|"
    "other than|except"
)
_ADJECTIVES = rf"(?:(?!is|was|and|or|of|for|to){_WORD}+[\s-]){{0,2}}"
_RANGE = (
    r"(?:\s*(?:\bto\b|\bthrough\b|\bthru\b|[–—…]|\.\.+)\s*|\s+-\s+|(?<=[0-9])-(?=[0-9]))"
)
_DENIED = r"\bnot|n['’]t(?: be)?|\binstead of(?: \w+ing)?|\brather than|\bneither|\bnor"
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
    """The option of `task` that a whole answer names, or None: an open task, none named, or several
    that compete.

    A text that was cut at a limit of tokens is read as it stands: a number at its very end may be
    the beginning of another.
    """
    if not task.closed:
        return None
    if (begun := read(text, task)) and not _beyond(text, task):
        return begun
    named = list(_mentions(text, task))
    if len({option for _, option in named}) < 2:
        return named[0][1] if named else None
    return _last_clause(text, named)


def read_all(texts: Mapping[str, int], task: Task) -> dict[str | None, int]:
    """Option -> how many of the drawn `texts` (text -> count) name it, in the order of options;
    None: no option.
    """
    found: dict[str | None, int] = dict.fromkeys((*task.options, None), 0)
    for text, count in texts.items():
        found[read_free(text, task)] += count
    return found


def _beyond(text: str, task: Task) -> bool:
    """Whether words follow an answer that was begun."""
    return bool(re.search(_WORD, text[task.pattern.match(text.translate(_FOLD)).end() :]))


def _mentions(text: str, task: Task) -> Iterator[tuple[int, str]]:
    """Where an option is named, and which, from left to right."""
    left = _struck(text, task).translate(_FOLD)
    for match in _names(task).finditer(left):
        if _meant(text, match.start(), match.end()):
            yield match.start(), task.spellings[match[0]]


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


# --- what is named ------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _names(task: Task) -> re.Pattern[str]:
    """Every spelling as a whole word of case-folded text, with the boundaries of `tasks.read` on
    both sides.
    """
    ordered = sorted(task.spellings, key=len, reverse=True)
    return re.compile(rf"{_BEFORE}(?:{'|'.join(map(re.escape, ordered))}){_AFTER}")


def _meant(text: str, start: int, end: int) -> bool:
    """Whether a word that English has, too, is meant as an option here."""
    word = text[start:end]
    if len(word) == 1 and word.isalpha() and word.isascii():
        return _meant_letter(text, start, end)
    if word.lower() == "one":
        return _meant_one(text, start, end)
    if word.lower() in _ALIKE:
        asked = re.match(r" (?:I|we|you|the|be|your|it)\b", text[end:]) and word.lower() == "may"
        return word[0].isupper() and not asked and not re.search(r"\bthe $", text[:start], re.I)
    return True


def _meant_letter(text: str, start: int, end: int) -> bool:
    """A capital that stands alone; of A and I, and of small letters, one that is quoted, called a
    letter, or ends a clause.
    """
    if re.match(r"\.[A-Za-z]", text[end:]) or re.search(r"[A-Za-z]\.$", text[:start]):
        return False  # U.S.
    quoted = text[start - 1 : start] in (*_QUOTE,) and text[end : end + 1] in (*_QUOTE, ")")
    called = re.search(r"\bletter:? [\"'“‘*]*$", text[:start], re.I)
    if (
        (quoted and text[start - 1 : start])
        or called
        or text[start] not in "AI" + text[start].lower()
    ):
        return True
    last = re.match(r"[\"'”’*)_`]*(?:[.!?,;:\n]|$)", text[end:])
    return text[start].isupper() and bool(
        last or (text[start] == "A" and re.match(r" (?:is|for)\b", text[end:]))
    )


def _meant_one(text: str, start: int, end: int) -> bool:
    """The number, not the pronoun: it ends a clause, and stands where a number can stand."""
    last = re.match(r"[\"'”’*)_`]*(?:[.!?,;:\n]|$)| (?:is|on|and|this|for|as)\b", text[end:])
    return bool(last and _NUMERAL.search(text[:start]))


# --- what is struck out -------------------------------------------------------------------------


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
    ordered = sorted(task.spellings, key=len, reverse=True)
    some = rf"(?:{_NUMBER}|(?:{'|'.join(map(re.escape, ordered))}))"
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
