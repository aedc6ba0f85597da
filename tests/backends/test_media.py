"""Pictures have a place in the values, and nothing that reads texts loses one without a word."""

from __future__ import annotations

from typing import Any

import pytest
from local_servers import VllmLike, local_server

from reward_hub import AutoRM, InvalidConversationError, UnsupportedError, builtin
from reward_hub.messages import parse, parse_messages
from reward_hub.testing import FakeBackend
from reward_hub.types import Conversation, Media, Message, TokenInput

PICTURE = Media("image", b"RGB")
LOOKS = Message("user", ("What is this?", PICTURE))
ANSWER = Message("assistant", "A harbour.")


def test_a_message_holds_texts_and_media_in_their_order() -> None:
    assert LOOKS.media == (PICTURE,)
    assert LOOKS.to_dict()["content"] == [{"type": "text", "text": "What is this?"}, {"type": "image"}]
    assert Message("user", ("a", "b")).text == "ab"
    with pytest.raises(TypeError, match="1 image"):
        _ = LOOKS.text


@pytest.mark.parametrize(
    "given",
    [
        [LOOKS, ANSWER],
        Conversation((LOOKS, ANSWER)),
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}, ANSWER],
    ],
)
def test_the_border_refuses_what_is_not_text(given: Any) -> None:
    with pytest.raises(InvalidConversationError, match="neither a text nor a list of text parts") as caught:
        parse(given)
    assert caught.value.field == "messages[0].content"


def test_parts_that_are_all_text_are_one_text() -> None:
    assert parse_messages([Message("user", ("a", "b"))]) == (Message("user", "ab"),)


LOOKING = [TokenInput([1, 2, 3], [2]), TokenInput([1, 2, 3], [2], media=(PICTURE,))]


@pytest.fixture(scope="module")
def rm() -> Any:
    return AutoRM.load(builtin.path("arithmetic-orm"))


def test_no_backend_reads_an_input_without_its_picture(rm: Any) -> None:
    with pytest.raises(UnsupportedError, match="transformers takes no image"):
        rm.model.backend.read(LOOKING)
    with pytest.raises(UnsupportedError, match="fake takes no image"):
        FakeBackend(rm.model.backend._read, {}, 8).read(LOOKING)
    with local_server(VllmLike(rm, "classify")) as server:
        served: Any = AutoRM.load("rm", "api", api_base=server.address, checkpoint=builtin.path("arithmetic-orm"))
        with pytest.raises(UnsupportedError, match="api takes no image"):
            served.model.backend.read(LOOKING)
        served.close()


def test_a_backend_that_has_never_heard_of_media_is_not_given_any(rm: Any) -> None:
    with pytest.raises(UnsupportedError, match="takes no image"):
        rm.model.fit(lambda _: LOOKING[1], "a conversation", lambda value, _: value)
