"""Prompts as token ids: the user's text stands whole, and the model is about to answer; else a
sentence.
"""

from __future__ import annotations

import pytest
import tiny
from tokenizers.processors import TemplateProcessing

from crystal.errors import CrystalError
from crystal.read.engine import build
from crystal.read.vocabulary import DAY, Encoder

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ CONTENT }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = CHATML.replace("CONTENT", "m.content")
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
PARTS = CHATML.replace("CONTENT", "m.content[0]['text'] if m.content is not string else ''")
STRICT_PARTS = CHATML.replace("CONTENT", "m.content | map(attribute='text') | join('')")
DEEPSEEK_R1 = (
    "{% for m in messages %}{{ '[U]' if m.role == 'user' else '[A]' }}{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[A]<think>\n{% endif %}"
)


def encoder(template: object, ends: set[int] | None = None) -> Encoder:
    tokenizer = tiny.trained_tokenizer(template=template)
    return Encoder(tokenizer, frozenset({tokenizer.eos_token_id} if ends is None else ends), "here")


def asked(template: object, text: str = "A digit?", reply: str = "") -> str:
    made = encoder(template)
    return made.tokenizer.decode(made.encode(text, "chat", reply))


def test_a_reply_is_joined_by_one_space() -> None:
    made = encoder(None)
    said = [
        made.tokenizer.decode(made.encode(text, "completion", reply), skip_special_tokens=True)
        for text, reply in (
            ("A log.", "It is"),
            ("A log.\n", "It is"),
            ("A log.", ""),
            ("", "It is"),
        )
    ]
    assert said == ["A log. It is", "A log.\nIt is", "A log.", "It is"]


def test_a_reply_begins_where_the_assistants_text_does() -> None:
    head = "<|im_start|>user\nA digit?<|im_end|>\n<|im_start|>assistant\n"
    assert asked(PLAIN) == head and asked(PLAIN, reply="The digit") == head + "The digit"
    assert asked(MISTRAL) == "<s>[INST] A digit? [/INST]"
    assert asked(MISTRAL, reply="The digit") == "<s>[INST] A digit? [/INST] The digit"
    assert asked(DEEPSEEK_R1) == "[U]A digit?[A]<think>\n"
    assert asked(DEEPSEEK_R1, reply="The digit") == "[U]A digit?[A]The digit"


@pytest.mark.parametrize("template", [PARTS, STRICT_PARTS], ids=["leaves text out", "fails"])
def test_templates_that_want_parts_get_parts(template: str) -> None:
    assert asked(template, reply="The digit").endswith(
        "A digit?<|im_end|>\n<|im_start|>assistant\nThe digit"
    )


def test_white_space_at_the_ends_of_a_text_may_go() -> None:
    trims = CHATML.replace("CONTENT", "m.content | trim")
    assert asked(trims, "\n A  digit? \n") == asked(PLAIN, "A  digit?")
    assert "\n\n A  digit? \n<|im_end|>" in asked(PLAIN, "\n A  digit? \n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("'Hello'", "leaves the user's text out"),
        ("m.content | upper", "leaves the user's text out"),
        ("m.content | replace('digit', 'number')", "changes the user's text"),
        ("m.content | replace('  ', ' ')", "changes the user's text"),
        ("m.content[:20] if m.content[0] == 'A' else m.content", "changes the user's text"),
        ("m.content | tojson if '\"' in m.content else m.content", "changes the user's text"),
        ("raise_exception('System role is needed')", "cannot be rendered: System role is needed"),
        ("secret.key", "cannot be rendered: 'secret' is undefined"),
        ("1 / 0", "cannot be rendered: division by zero"),
    ],
    ids=lambda x: x if "m." in x or "(" in x else "",
)
def test_templates_that_do_not_say_what_the_user_says(content: str, said: str) -> None:
    with pytest.raises(CrystalError, match=f"{said}.*--form completion"):
        asked(CHATML.replace("CONTENT", content), 'A  "digit", or a much longer text?')


def test_several_templates_without_a_default() -> None:
    with pytest.raises(CrystalError, match="no default"):
        asked({"tool_use": PLAIN, "rag": PLAIN})
    assert asked({"tool_use": "x", "default": PLAIN}) == asked(PLAIN)


def test_a_turn_that_is_not_opened() -> None:
    """The next thing such a model says is not an answer; where the template shows how one begins, a
    reply can.
    """
    closed = PLAIN.replace("{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}", "")
    with pytest.raises(CrystalError, match="does not open the assistant's turn.*--reply"):
        asked(closed)
    assert asked(closed, reply="The") == asked(PLAIN, reply="The")


@pytest.mark.parametrize("tail", ["{{ eos_token }}", "{{ eos_token }}\n"])
def test_a_template_that_ends_the_answer_before_it_begins(tail: str) -> None:
    with pytest.raises(CrystalError, match="prompt ends in '</s>'"):
        asked(PLAIN + tail)


def test_a_mark_of_the_generation_prompt_may_end_other_turns() -> None:
    """Phi 3 lists `<|assistant|>` among its ends."""
    made = encoder(
        "{% for m in messages %}{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}%{% endif %}"
    )
    (mark,) = made.tokenizer("%", add_special_tokens=False)["input_ids"]
    both = Encoder(made.tokenizer, frozenset({mark, made.tokenizer.eos_token_id}), "here")
    assert both.encode("A digit?", "chat")[-1] == mark
    with pytest.raises(CrystalError, match="prompt ends in '%'"):
        both.encode("A digit%", "completion")


@pytest.mark.parametrize(
    ("form", "text", "reply"),
    [
        ("completion", "A digit:</s>", ""),
        ("completion", "A digit:", "It is</s>"),
        ("chat", "A digit:", "It is</s>"),
    ],
)
def test_a_prompt_that_ends_the_answer(form: str, text: str, reply: str) -> None:
    with pytest.raises(CrystalError, match="prompt ends in '</s>'"):
        encoder(PLAIN).encode(text, form, reply)


def test_an_end_that_the_tokenizer_adds_is_left_out() -> None:
    made, plain = encoder(None), encoder(None)
    specials = [("<s>", 0), ("</s>", 1)]
    made.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=specials
    )
    assert made.tokenizer("A digit:")["input_ids"][-1] == 1
    for text in ("A digit:", "<s>A digit:", "a</s>a"):
        assert made.encode(text, "completion") == plain.encode(text, "completion")
    assert made.encode("", "completion") == (0,)


def test_every_day_is_the_same_day() -> None:
    dated = "{{ strftime_now('%Y-%m-%d') }}\n" + PLAIN
    assert asked(dated).startswith(f"{DAY:%Y-%m-%d}\n<|im_start|>user")


@pytest.mark.parametrize(
    "template",
    [
        "{% set f = '%H:%M:%S' %}{{ strftime_now(f) }}",
        "{{ strftime_now ( '%H:' ~ '%M:%S' ) }}",
        "{% set now = strftime_now %}{% if now is defined %}{{ now('%H:%M:%S') }}{% endif %}",
    ],
)
def test_no_template_sees_the_clock(template: str) -> None:
    assert asked(template + PLAIN).startswith("00:00:00<|im_start|>user")


@pytest.mark.parametrize("begin", ["  {% if true %}A{% endif %}", "   {# c #}A", "\r\nA", "\nA"])
def test_a_dated_template_begins_as_it_did(begin: str) -> None:
    """White space before a block, a comment or at a line's end is taken as without the date."""
    dated = "{% if strftime_now is defined %}{{ strftime_now('%%Y') }}{% endif %}"
    assert asked(begin + dated + PLAIN) == asked(begin + "%Y" + PLAIN)


@pytest.mark.parametrize("form", ["completion", "chat"])
def test_a_prompt_that_is_no_text_is_a_sentence(form: str) -> None:
    with pytest.raises(CrystalError, match="not text in UTF-8"):
        encoder(PLAIN).encode("A digit\udcff:", form)


def test_a_token_without_a_place_in_the_model() -> None:
    tokenizer = tiny.trained_tokenizer()
    tokenizer.add_tokens(["<image>"])
    engine = build(tiny.model("llama", len(tokenizer) - 1), tokenizer)
    with pytest.raises(
        CrystalError, match=f"token {len(tokenizer) - 1}, for which the model has no place"
    ):
        engine.encode("A digit <image>", "completion")
