"""Queries as people put them."""

from router.encode import Messages
from router.framing import AFTER, BEFORE, EXCHANGES, WAYS, framed

QUERY: Messages = [{"role": "user", "content": "What is 3 + 4?"}]


def test_words_stand_before_the_query_after_it_or_there_was_another_one() -> None:
    before, after, another = (framed(QUERY, way) for way in range(WAYS))
    assert before == [{"role": "user", "content": f"{BEFORE[0]}What is 3 + 4?"}]
    assert after == [{"role": "user", "content": f"What is 3 + 4?{AFTER[0]}"}]
    assert [turn["role"] for turn in another] == ["user", "assistant", "user"]
    assert another[1]["content"] == EXCHANGES[0][1]
    assert another[2:] == QUERY


def test_all_words_have_their_turn() -> None:
    found = {str(framed(QUERY, number)) for number in range(100)}
    assert len(found) == len(BEFORE) + len(AFTER) + len(EXCHANGES)


def test_a_system_prompt_stays_first_and_the_conversation_as_it_was() -> None:
    system = {"role": "system", "content": "Be brief."}
    turns = [system, *QUERY, {"role": "assistant", "content": "7"}, *QUERY]
    kept = [dict(turn) for turn in turns]
    for number in range(WAYS):
        put = framed(turns, number)
        assert put[0] == system
        assert "What is 3 + 4?" in put[-1]["content"]
    assert framed(turns, 2)[3:] == turns[1:]
    assert turns == kept
