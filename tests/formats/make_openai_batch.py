"""Output files of OpenAI batches: bodies by the types of the openai package, the line about them by
the documented schema.
"""

import json
import sys
from pathlib import Path

from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

CHAT = {  # custom_id -> contents of the choices; None is a refusal
    "clerk-0": ["7", " Seven, of course."],
    "clerk-1": ["3", "I would rather not say."],
    "clerk-2": ["7\n"],
    "mathematician-0": ["**4**", None],
    "mathematician-1": ["42", ""],
}
COMPLETIONS = {"clerk-0": [" 7", " Seven, of course."], "mathematician-0": [" 0."]}
RESPONSES = {"clerk-0": "7", "mathematician-0": "**4**"}


def chat(contents):
    choices = [
        {
            "index": index,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {
                "role": "assistant",
                "content": content,
                "refusal": "I cannot do that." if content is None else None,
            },
        }
        for index, content in enumerate(contents)
    ]
    return ChatCompletion.model_validate(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": choices,
        },
        strict=True,
    )


def completion(texts):
    choices = [
        {"index": index, "finish_reason": "stop", "logprobs": None, "text": text}
        for index, text in enumerate(texts)
    ]
    return Completion.model_validate(
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 1,
            "model": "m",
            "choices": choices,
        },
        strict=True,
    )


def response(text):
    thought = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "9 is odd"}],
    }
    said = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }
    return Response.model_validate(
        {
            "id": "resp_1",
            "object": "response",
            "created_at": 1.0,
            "model": "m",
            "status": "completed",
            "output": [thought, said],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        },
        strict=True,
    )


def line(number, custom_id, response, error=None):
    return json.dumps(
        {"id": f"batch_req_{number}", "custom_id": custom_id, "response": response, "error": error}
    )


def answered(bodies):
    return [
        line(
            number,
            custom_id,
            {
                "status_code": 200,
                "request_id": f"req_{number}",
                "body": body.model_dump(mode="json"),
            },
        )
        for number, (custom_id, body) in enumerate(bodies.items())
    ]


if __name__ == "__main__":
    server = {
        "error": {
            "message": "The server had an error.",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    }
    expired = {
        "code": "batch_expired",
        "message": "This request could not be executed before the completion window expired.",
    }
    lines = answered({name: chat(contents) for name, contents in CHAT.items()})
    lines += [
        line(90, "clerk-3", {"status_code": 500, "request_id": "req_90", "body": server}),
        line(91, "clerk-4", None, expired),
    ]
    files = {
        "batch_chat": lines,
        "batch_completions": answered(
            {name: completion(texts) for name, texts in COMPLETIONS.items()}
        ),
        "batch_responses": answered({name: response(text) for name, text in RESPONSES.items()}),
    }
    for name, content in files.items():
        (Path(sys.argv[1]) / f"{name}.jsonl").write_text(
            "\n".join(content) + "\n", encoding="utf-8"
        )
