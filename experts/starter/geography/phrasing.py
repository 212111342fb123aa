"""How people ask about countries: many wordings, other names, names of places that do not exist."""

from __future__ import annotations

import re
import unicodedata
import zlib
from random import Random

from experts.starter.geography.facts import Country, fold
from experts.starter.geography.statements import Kind, Statement

EVALUATION_SHARE = 16
"""One question in this many is kept for evaluation, by a hash of its text."""
ASKS: dict[Kind, tuple[str, ...]] = {
    "capital": (
        "What is the capital of {}?", "what's the capital of {}", "capital of {}", "{} capital",
        "What is {}'s capital?", "which city is the capital of {}", "Tell me the capital of {}.",
        "Name the capital city of {}.", "do you know the capital of {}?", "{} capital city?",
        "What city is the seat of {}? I mean its capital.", "Can you tell me {}'s capital city?",
        "Could you please name the capital of {}?", "the capital of {} is?", "capital city of {}?",
        "I need to know the capital of {}", "I forgot the capital of {}, what was it?",
        "For a quiz: what is the capital of {}?", "What is the capital city of {}?",
        "My daughter asks what the capital of {} is.", "give me the capital of {}", "{}: capital?",
    ),
    "currency": (
        "What is the currency of {}?", "what currency is used in {}", "currency of {}",
        "What money do they use in {}?", "which currency does {} use?", "{} currency",
        "What is {}'s currency?", "What do people pay with in {}?", "{}: currency?",
        "Tell me the currency of {}.", "I am travelling to {}. What currency do I need?",
        "What is the currency code of {}?", "ISO currency code for {}", "money in {}?",
        "Which currency should I take to {}?", "what is the official currency of {}?",
        "Could you tell me which currency is used in {}?", "what's the money called in {}",
        "{} currency code", "name the currency of {}", "In which currency are prices in {}?",
    ),
    "codes": (
        "What is the ISO code of {}?", "ISO code for {}", "{} country code ISO",
        "What is the two-letter country code of {}?", "three-letter code of {}?",
        "What is {}'s ISO code?", "alpha-2 code of {}", "alpha-3 code of {}", "{} alpha-3",
        "What is the ISO 3166 code for {}?", "iso code {}", "Which ISO codes does {} have?",
        "give me the ISO 3166-1 alpha-2 code of {}", "Tell me the ISO country code of {}.",
        "which three letters stand for {}?", "which two letters stand for {} in ISO 3166?",
        "what's the 3 letter country code for {}", "what's the 2 letter country code for {}",
        "Please give me the ISO codes of {}", "ISO abbreviation of {}?",
    ),
    "calling": (
        "What is the calling code of {}?", "dialling code for {}", "{} phone code",
        "What is {}'s calling code?", "how do I call {} from abroad, which prefix?",
        "What is the international dialing code of {}?", "phone country code of {}",
        "which number do I dial before phone numbers in {}?", "country calling code {}",
        "Phone prefix of {}?", "Tell me the phone code for {}.", "telephone code {}",
        "I want to phone someone in {}. What is the country code?", "dial code {}?",
        "What's the telephone country code for {}?", "international prefix for {}",
        "which phone code does {} have?", "what do I dial to call {}?", "calling code {}",
    ),
    "domain": (
        "What is the internet domain of {}?", "top-level domain of {}", "{} TLD",
        "What is {}'s top-level domain?", "which internet domain belongs to {}?",
        "What is the country domain for {}?", "internet ending of {}", "tld for {}?",
        "Which domain ending do websites from {} have?", "ccTLD of {}", "{} internet domain",
        "What do web addresses in {} end in?", "Tell me the internet domain of {}.",
        "what's the web domain for {}", "What is the ccTLD of {}?", "domain of {}?",
    ),
    "continent": (
        "Which continent is {} in?", "On which continent is {}?", "continent of {}",
        "what continent does {} belong to?", "Where is {}? Which continent?", "{} continent",
        "What continent is {} on?", "Is {} in Africa or in another continent?",
        "Tell me the continent of {}.", "in which part of the world is {}, which continent?",
        "{} is on which continent?", "Is {} in Europe, Asia or elsewhere?",
    ),
    "neighbours": (
        "Which countries border {}?", "What are the neighbours of {}?", "neighbours of {}",
        "What countries does {} border?", "{} borders", "Which countries share a border with {}?",
        "List all countries that border {}.", "who are {}'s neighbours?", "border countries of {}",
        "Name the neighboring countries of {}.", "what countries are next to {}?", "{} neighbors",
        "Tell me which countries {} borders.", "What are {}'s neighboring countries?",
        "With which countries does {} have a land border?", "what countries surround {}",
        "Give me all neighbors of {}", "all the countries bordering {}?", "{}: neighbours?",
        "Which countries touch {}?", "Does {} have neighbours, and which?",
    ),
    "borders": (
        "Does {} border {}?", "Do {} and {} share a border?", "is {} next to {}?", "{} borders {}?",
        "Does {} have a border with {}?", "Are {} and {} neighbours?", "does {} touch {}",
        "Is there a land border between {} and {}?", "Is {} a neighbour of {}?",
        "can I drive straight from {} into {}? I mean, do they share a border?",
        "Tell me if {} borders {}.", "do {} and {} border each other", "Is {} adjacent to {}?",
        "does {} share a land border with {}?", "Have {} and {} a common border?",
        "Are {} and {} neighboring countries?",
    ),
    "capital-of": (
        "{} is the capital of which country?", "Which country's capital is {}?",
        "What country has {} as its capital?", "{} is the capital of what?",
        "whose capital is {}", "which country is {} the capital of?", "{} capital of?",
        "Of which country is {} the capital?", "{} is the capital city of which country",
        "Tell me which country has the capital {}.", "What country is {} the capital of?",
        "Name the country whose capital is {}.", "the capital {} belongs to which country?",
        "which country has {} as capital?", "I know {} is a capital, but of which country?",
    ),
    "currency-of": (
        "Which country uses the {}?", "what country uses the {}", "Where is the {} used?",
        "Which country has the {} as its currency?", "the {} is the currency of which country?",
        "Which countries use the {}?", "In which country do people pay with the {}?",
        "where do they use the {}?", "What country does the {} belong to?", "{} is used where?",
        "Whose currency is the {}?", "In what country would I pay in {}?", "{} currency of which?",
        "name the country that uses the {}", "Where can I pay with the {}?",
        "which country's money is the {}?", "The {} is the money of what country?",
    ),
    "code-of": (
        "Which country has the ISO code {}?", "What country is {}?", "{} is which country code?",
        "what country does the code {} stand for?", "country code {}", "ISO code {}",
        "Which country does {} stand for in ISO 3166?", "What does the country code {} mean?",
        "which country is abbreviated {}?", "{} is the ISO code of which country?",
        "Whose country code is {}?", "What country has the code {}?", "ISO 3166 {}?",
        "Tell me which country has the code {}.", "The code {} belongs to which country?",
    ),
    "calling-of": (
        "{} is whose calling code?", "Which country has the calling code {}?",
        "What country is {}?", "which country code is {} on the phone?",
        "{} phone code which country", "phone code {} is which country",
        "I got a call from {}. Which country is that?", "Whose dialling code is {}?",
        "Which country does the phone prefix {} belong to?", "country calling code {}?",
        "what country has the dialing code {}", "{} is the calling code of which country?",
        "What country calls from {}?", "phone number starts with {}, which country?",
        "which country is {} the telephone code of?", "Where is the number {} from?",
    ),
    "domain-of": (
        "Which country has the domain {}?", "{} is which country's domain?", "{} domain country",
        "What country does the internet domain {} belong to?", "which country is {}?",
        "Whose top-level domain is {}?", "What country uses the TLD {}?", "{} is whose TLD?",
        "Which country do websites ending in {} come from?", "web addresses in {} are from where?",
        "what country is the ending {}", "The ccTLD {} belongs to which country?",
        "A website ends in {}. Which country is that?", "Tell me which country has {} as its TLD.",
    ),
}  # fmt: skip
SHORT: dict[Kind, str] = {
    "capital": "the capital of {}", "currency": "the currency of {}",
    "codes": "the ISO codes of {}", "calling": "the calling code of {}",
    "domain": "the internet domain of {}", "continent": "the continent of {}",
    "neighbours": "the list of neighbours of {}",
    "capital-of": "the country whose capital is {}", "currency-of": "the country that uses the {}",
    "code-of": "the country with the ISO code {}",
    "calling-of": "the country with the calling code {}",
    "domain-of": "the country with the internet domain {}",
}  # fmt: skip
"""What is asked for, as a noun phrase."""


def ask(kind: Kind, *asked: str, random: Random) -> str:
    """A question of a kind about what it names, before typing accidents happen to it."""
    question = random.choice(ASKS[kind]).format(*asked)
    if kind in ("calling-of", "code-of", "domain-of"):  # "country code HU" is not about money
        return question
    return question[0].upper() + question[1:] if random.random() < 0.3 else question


def named(country: Country, random: Random) -> str:
    """A country as people write it: mostly by its name, now and then by another."""
    chance = random.random()
    if chance < 0.25 and country.aliases:
        name = random.choice(country.aliases)
    elif chance < 0.3 and country.official:
        name = country.official
    elif chance < 0.4:
        name = country.name
    else:
        name = str(country)
    return typed(name, random)


def typed(name: str, random: Random) -> str:
    """A name without its accents, or in lower case, now and then."""
    if random.random() < 0.4:
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        name = plain if len(plain) >= len(name) - 1 else name
    small = random.random() < 0.08 and len(name) > 3
    return name.lower() if small else name


def value_asked(statement: Statement, random: Random) -> str:
    """What a reverse question names, as people write it: "+36", "0036", "36", "hu"."""
    value = statement.subject
    if statement.kind == "calling-of":
        return random.choice((value, value, value, value.replace("+", "00"), value[1:]))
    if statement.kind == "domain-of":
        return value[1:] if random.random() < 0.1 else value
    if statement.kind == "code-of" or value.isupper():
        return value.lower() if random.random() < 0.08 else value
    return typed(value, random)


def for_evaluation(question: str) -> bool:
    """Whether a question is kept for evaluation: case, accents, punctuation do not count."""
    return zlib.crc32(normalised(question).encode()) % EVALUATION_SHARE == 0


def normalised(question: str) -> str:
    """A question's letters, digits and plus signs."""
    return re.sub(r"[^\w+]+", " ", fold(question)).strip()
