"""inspect_ai with a model whose replies are known: two prompts, five epochs; one sample fails.

Events, of which nothing is imported, and the traceback, which names files of the machine, are taken
out by inspect_ai itself.
"""

import sys
from pathlib import Path

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.log import read_eval_log, write_eval_log
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    get_model,
)

LONG = "3. That is my answer, and here is why I gave it: " + "it came to mind first, " * 8


def said(*contents, stop="stop", error=None):
    choices = [
        ChatCompletionChoice(
            message=ChatMessageAssistant(content=content, source="generate"), stop_reason=stop
        )
        for content in contents
    ]
    return ModelOutput(model="mockllm/model", choices=choices, usage=ModelUsage(), error=error)


def answers(last):
    """last: the mathematician's fifth reply; None is a failure."""
    left = {
        "clerk": iter(
            [
                said("7"),
                said(" Seven, of course."),
                said("3"),
                said("I would rather not say."),
                said("7\n", "8"),
            ]
        ),
        "mathematician": iter(
            [
                said([ContentReasoning(reasoning="9 is odd"), ContentText(text="**4**")]),
                said(LONG),
                said("42"),
                said("", stop="content_filter", error="refused"),
                last,
            ]
        ),
    }

    def answer(messages, tools, tool_choice, config):
        reply = next(left["clerk" if "clerk" in messages[-1].text else "mathematician"])
        if reply is None:
            raise RuntimeError("the server is gone")
        return reply

    return answer


if __name__ == "__main__":
    out = Path(sys.argv[1])
    data = [
        Sample(
            id="clerk",
            input="You are a lottery clerk. Pick a random digit.",
            metadata={"narrator": "clerk"},
        ),
        Sample(
            input="You are a mathematician. Pick a random digit.",
            metadata={"narrator": "mathematician"},
        ),
    ]
    (log,) = eval(
        Task(name="digit", dataset=data),
        epochs=5,
        log_dir=str(out / "whole"),
        log_format="json",
        display="none",
        model=get_model("mockllm/model", custom_outputs=answers(None), memoize=False),
        temperature=1.0,
        max_samples=1,
        fail_on_error=False,
    )
    log = read_eval_log(log.location)
    for sample in log.samples:
        sample.events, sample.events_data, sample.attachments = [], None, {}
        if sample.error:
            sample.error.traceback = sample.error.traceback_ansi = ""
    write_eval_log(log, str(out / "digit.json"))
