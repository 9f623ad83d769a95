"""What is found out about a request when it is made ready for its backend."""

from typing import Any

import pytest

from gateway.upstream.encoding import facts_of, is_constrained

IMAGE = {"type": "image_url", "image_url": {"url": "https://images.example/a.png"}}


@pytest.mark.parametrize(
    ("content", "media"),
    [
        (None, 0),
        ("Hello", 0),
        (["Hello", {"type": "text", "text": "there"}], 0),
        (["Look:", IMAGE, IMAGE], 2),
        ([{"type": "refusal", "refusal": "no"}, IMAGE], 1),
    ],
    ids=["none", "text", "bare text among parts", "bare text beside images", "a refusal beside an image"],
)
def test_media_are_counted_among_parts_of_every_form(content: Any, media: int) -> None:
    facts = facts_of([{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}])
    assert (facts["messages"], facts["media"]) == (2, media)
    assert (facts["media_bytes"] > 0) == (media > 0)


@pytest.mark.parametrize("name", ["response_format", "structured_outputs", "tools"])
def test_a_request_that_binds_the_form_of_its_answer_is_known(name: str) -> None:
    assert is_constrained({"messages": [], name: {}})
    assert not is_constrained({"messages": [], "temperature": 1})
