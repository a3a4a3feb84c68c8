"""Phase pages: links, a chip for every claim, a real base first, folds."""

from __future__ import annotations

import dataclasses
import json
import re

import pandas as pd
import pytest
import synthetic

from crystal.ask.tasks import PHASE_TASKS
from crystal.measure import chain, claims
from crystal.measure.inference import NOTHING, Estimate
from crystal.measure.quantities import liquidity_bits
from crystal.present import show
from crystal.studies import phase, phase_figures, phase_words, real

HOSTILE = '<script>alert(1)</script> | [x](y) "quoted"'
HOW = {"seed": 0, "permutations": 99}
OWN = {
    "liquid": {"quantile": 0.8},
    "nucleation": {},
    "settling": {"final": "dpo", "quantile": 0.8},
}


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """What a page displays, a dictionary of media types each."""
    found = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(show.CONTEXT, raising=False)
    monkeypatch.setattr("IPython.display.display", lambda data, raw: found.append(data))
    show.begin("test")
    found.clear()
    yield found
    show._current = None


def myst(shown) -> str:
    return "\n\n".join(output[show.MYST] for output in shown)


def verdict(claim: str, word: str = "holds", number: float = 0.5) -> claims.Verdict:
    found = Estimate(number, number - 0.1, number + 0.1)
    return claims.Verdict(claim, word, "so it is", found, None, None, 0.01, 0.9)


# --- chips and links


@pytest.mark.parametrize("name", chain.CLAIMS)
def test_every_claim_of_a_phase_has_a_chip_for_each_model(name):
    found = [verdict(claim) for claim in chain.CLAIMS[name]]
    text = phase_words.table(name, [("first", found), ("second", found)])
    assert text.count('class="chip"') == 2 * len(chain.CLAIMS[name])
    for claim in chain.CLAIMS[name]:
        threshold = claims.THRESHOLDS[claim]
        row = re.search(rf"<tr><th[^>]*><strong>{claim}</strong>.*?</tr>", text)[0]
        assert threshold.number.replace("'", "&#x27;") in row and f"{threshold.side} " in row


@pytest.mark.parametrize("word", chain.VERDICTS)
def test_a_chip_says_its_verdict_in_word_sign_and_colour(word):
    text = phase_words.chip(verdict("collapse", word))
    others = {
        phase_words.chip(verdict("collapse", other)) for other in chain.VERDICTS if other != word
    }
    assert word.replace("-", " ") in text and text not in others
    assert phase_words.COLOURS[word] in text and phase_words.SIGNS[word] in text


def test_a_chip_has_its_number_or_none():
    assert "0.5" in phase_words.chip(verdict("collapse"))
    assert "50" in (share := phase_words.chip(verdict("many-distributions"))) and " %" in share
    nothing = claims.Verdict("collapse", "undecided", "why", NOTHING, None, None, 1.0, 1.0)
    assert "number" not in phase_words.chip(nothing)


def test_no_chip_stands_where_a_model_has_no_verdict():
    text = phase_words.table("nucleation", [("bare", []), ("judged", [verdict("collapse")])])
    assert text.count('class="chip"') == 1
    assert '<td data-series="bare"></td>' in text


def test_a_hostile_title_is_shown_as_it_is():
    text = phase_words.table("liquid", [(HOSTILE, [verdict("many-distributions")])])
    assert "<script" not in text and "&lt;script&gt;" in text and "\n" not in text
    assert '"quoted"' not in text


@pytest.mark.parametrize("task", PHASE_TASKS)
def test_the_strip_leads_to_neighbours_in_every_phase(shown, task):
    phase_words.strip("nucleation", task)
    place = PHASE_TASKS.index(task)
    near = [PHASE_TASKS[n] for n in (place - 1, place, place + 1) if 0 <= n < len(PHASE_TASKS)]
    links = re.findall(r"\{page\}`(\w+) <(\w+)-(\w+)>`", myst(shown))
    pages = {f"{name}-{one}" for name in chain.CLAIMS for one in near} - {f"nucleation-{task}"}
    assert {f"{name}-{one}" for _, name, one in links} == pages and len(links) == len(pages)
    assert f"**{task}**" in myst(shown) and "**nucleation**" in myst(shown)


# --- folds


def test_a_fold_holds_all_that_is_shown_in_it(shown):
    show.prose("before")
    with show.fold("All numbers"):
        show.prose("````{admonition} inside\ntext\n````")
        show.prose("also", "<p>also</p>")
    show.prose("after")
    before, whole, rest, after = (output[show.MYST] for output in shown)
    assert (before, rest, after) == ("before", "", "after")
    assert whole.startswith("::::::::{dropdown} All numbers") and whole.endswith("\n::::::::")
    assert whole.index('id="all-numbers"') < whole.index("inside") < whole.index("also")
    assert shown[2]["text/html"] == "<p>also</p>" and "inside" in shown[1]["text/markdown"]


def test_nothing_of_a_fold_that_fails_is_shown(shown):
    with pytest.raises(ZeroDivisionError), show.fold("All numbers"):
        show.prose("inside")
        raise ZeroDivisionError
    show.prose("after")
    assert myst(shown) == "after"


# --- a page


@pytest.fixture(scope="module")
def ladders(tmp_path_factory):
    """A ladder that answers, one that does not answer at all, and no real base."""
    folder = tmp_path_factory.mktemp("phase")
    checkpoints = ("base", "sft-1", "sft", "dpo", "rlvr")
    distributions = synthetic.crystallizing(
        ("coin", "die", "digit"), checkpoints=checkpoints, seed=1
    )
    synthetic.write_ladder(folder, "made", distributions, title=HOSTILE)
    synthetic.write_ladder(folder, "few", distributions, invalid={("base", "digit"): 30})
    (folder / "book").mkdir()
    (folder / "book/crystal.mplstyle").write_text("font.size: 8\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRYSTAL_ROOT", str(folder))
        yield folder


def page(name: str, names: list[str], **how) -> phase.Data:
    """The page up to its first figure, and what it is made of."""
    data = phase.load(name, "digit", names, **HOW | OWN[name] | how)
    phase_words.show_head(data)
    if data.series:
        frame = phase_figures.load_picture(data)
        figure = phase_figures.plot_picture(frame)
        show.emit(figure, "before-after", data=frame, **phase_words.picture(data))
        phase_words.show_changed(data)
    return data


@pytest.mark.parametrize("name", chain.CLAIMS)
def test_a_page_begins_with_links_chips_and_the_picture(ladders, shown, name):
    data = page(name, ["made"])
    text = myst(shown)
    places = [text.index(x) for x in ("phase-strip", "verdict-chips", "before-after.svg")]
    assert places == sorted(places) and text.rindex("\n- ") > places[-1]
    assert text.count('class="chip"') == len(chain.CLAIMS[name])
    told = re.sub("^:alt: .*$", "", text, flags=re.M)  # an attribute: the engine escapes it
    assert "prompts answered" not in told and not re.search(r"(?<!\\)<script", told)
    assert [one.name for one in data.series] == ["made"]  # nobody read a real base here


@pytest.mark.parametrize("name", chain.CLAIMS)
def test_numbers_and_method_stand_in_folds(ladders, shown, name):
    data = phase.load(name, "digit", ["made"], **HOW | OWN[name])
    with show.fold("All numbers"):
        phase_words.show_numbers(data, phase.measure(data))
    with show.fold(phase_words.FOLD):
        phase_words.show_method(data, claims.judge)
    text = myst(shown)
    assert text.count("::::::::{dropdown}") == 2
    assert "Every prompt is answered" in text and "Source of crystal.measure.claims.judge" in text
    assert f'href="#{show.slug(phase_words.FOLD)}"' in phase_words.table(name, data.judged)
    recorded = json.loads((show._current.folder / "claims.json").read_text())
    assert {f"{claim}@made" for claim in chain.CLAIMS[name]} <= recorded.keys()


def test_prompts_that_are_not_answered_are_named_before_numbers(ladders, shown):
    page("liquid", ["made", "few"])
    text = re.sub(r"\\(?=\W)", "", myst(shown))
    assert text.index("70 of 100 prompts answered") < text.index("verdict-chips")


@pytest.mark.parametrize("name", chain.CLAIMS)
def test_words_of_captions_and_sentences_are_few(ladders, shown, name):
    data = phase.load(name, "digit", ["made"], **HOW | OWN[name])
    assert len(phase_words.picture(data)["caption"].split()) <= 40
    sentences = [sentence.removeprefix(HOSTILE) for sentence in phase_words.changed(data)]
    assert max(len(sentence.split()) for sentence in sentences) <= 25


def test_the_fall_begins_at_the_base_and_ends_at_the_verdicts_number(ladders, shown):
    data = phase.load("nucleation", "digit", ["made"], **HOW)
    fall = phase_figures.load_fall(data)
    assert fall["step"].tolist()[:2] == [0, 1] and fall["value"].iloc[0] == 1
    (collapse,) = (v for v in data.series[0].verdicts if v.claim == "collapse")
    assert fall["value"].iloc[-1] == pytest.approx(collapse.estimate.value)


def test_entropies_leave_the_liquidity_between_them(ladders, shown):
    data = phase.load("liquid", "digit", ["made"], **HOW | OWN["liquid"])
    frame = phase_figures.load_entropies(data)
    bits = frame["whole"].iloc[0] - frame["entropy"].mean()
    assert bits == pytest.approx(liquidity_bits(data.series[0].answers.distributions("base")))
    assert len(phase_figures.plot_entropies(frame).axes) == 1


@pytest.mark.parametrize(("word", "said"), [("holds", "is gone"), ("undecided", "not decided")])
def test_what_changed_is_said_as_the_verdict_has_it(ladders, shown, word, said):
    data = phase.load("nucleation", "digit", ["made"], **HOW)
    series = [dataclasses.replace(data.series[0], verdicts=[verdict("collapse", word)])]
    (sentence,) = phase_words.changed(dataclasses.replace(data, series=series))
    assert said in sentence


# --- the real base of this repository


@pytest.mark.parametrize("name", ["liquid", "nucleation"])
def test_a_real_base_stands_first_with_its_own_verdicts(monkeypatch, name):
    monkeypatch.delenv("CRYSTAL_ROOT", raising=False)
    one, every = phase.real_series(name, ["digit"]), phase.real_survey(name, HOW)
    assert (one.name, one.cluster) == (real.PARENT, "context")
    assert (
        one.at("digit", "base").count.measurable
        and {*chain.CLAIMS[name]} <= every.of("digit").keys()
    )
    if name == "nucleation":
        there = real.surveys(real.read(), **HOW)[real.PLAIN[0]]
        assert str(there.of("digit")["collapse"]) == str(every.of("digit")["collapse"])


def test_later_stages_of_a_real_base_are_shown_once_they_are_read(monkeypatch):
    monkeypatch.delenv("CRYSTAL_ROOT", raising=False)
    assert phase.real_there("settling") == phase.later.read()
    ends = real.ends()
    stages = {"sft": ends["plain"], "dpo": ends["first"], "rlvr": ends["own"]}
    monkeypatch.setattr(phase.verdicts, "kept", lambda rests_on, fresh: fresh())
    monkeypatch.setattr(phase.later, "read", lambda: True)
    monkeypatch.setattr(phase.later, "checkpoints", lambda: stages)
    assert phase.real_there("settling") and not phase.real_there("settling", "dpo")
    one = phase.real_series("settling", ["digit"])
    assert one.at("digit", "sft", "rlvr").count.measurable
    every = phase.real_survey("settling", HOW | {"final": "rlvr", "quantile": 0.9})
    assert {*chain.CLAIMS["settling"]} <= every.of("digit").keys()


# --- all tasks


@pytest.mark.parametrize("stages", [("base",), ("base", "SFT")])
def test_a_small_panel_for_every_task_of_a_phase(stages):
    rows = [
        {"model": model, "task": task, "stage": stage, "value": 0.4, "low": 0.3, "high": 0.5}
        for model in ("a", "b")
        for task in PHASE_TASKS
        for stage in stages
    ]
    figure = phase_figures.plot_every(pd.DataFrame(rows))
    titles = [ax.get_title("left") or ax.get_title() for ax in figure.axes]
    assert titles == list(PHASE_TASKS)
    assert all({line.get_label() for line in ax.lines} >= {"a", "b"} for ax in figure.axes)


def test_chapters_count_the_verdicts_of_the_pages(ladders):
    found = phase.surveys("nucleation", ["made"])
    verdict = [every.of("die")["collapse"].verdict for every in found.values()]
    said = phase_words.counts("nucleation", found)
    assert said.startswith(f"collapse: {HOSTILE} holds on ") and "of 3 tasks" in said
    assert verdict == ["holds"] and len(found) == 1
    frame = phase_figures.load_every("liquid", ["made"], phase.surveys("liquid", ["made"]))
    assert len(frame) == 3 and frame["low"].le(frame["value"]).all()
