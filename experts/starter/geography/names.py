"""Which of ISO's entries are countries, and what people call them. Choices, not facts."""

from __future__ import annotations

GONE = {"AN", "CS"}
"""Entries of GeoNames that are no countries any more."""
TERRITORIES = frozenset((
    "AI", "AQ", "AS", "AW", "AX", "BL", "BM", "BQ", "BV", "CC", "CK", "CW", "CX", "EH", "FK",
    "FO", "GF", "GG", "GI", "GL", "GP", "GS", "GU", "HK", "HM", "IM", "IO", "JE", "KY", "MF",
    "MO", "MP", "MQ", "MS", "NC", "NF", "NU", "PF", "PM", "PN", "PR", "RE", "SH", "SJ", "SX",
    "TC", "TF", "TK", "UM", "VG", "VI", "WF", "YT",
))  # fmt: skip
"""What ISO 3166 lists besides the 193 members of the UN, Kosovo, Palestine, Taiwan, the Vatican."""
NAMES = {"PS": "Palestine", "TL": "Timor-Leste", "VA": "Vatican City"}
WITH_ARTICLE = frozenset((
    "AE", "BS", "CD", "CF", "CG", "DO", "GB", "GM", "KM", "MH", "MV", "NL", "PH", "SB", "SC", "US",
))  # fmt: skip
ALIASES = {
    "AE": "UAE", "BA": "Bosnia",
    "CD": "DR Congo|DRC|the DRC|Congo-Kinshasa|Democratic Republic of Congo",
    "CG": "Congo-Brazzaville|Congo Republic|Republic of Congo", "CI": "Cote d'Ivoire",
    "CV": "Cape Verde",
    "CZ": "Czech Republic|the Czech Republic", "GB": "UK|the UK|Great Britain|Britain|U.K.",
    "KN": "St Kitts and Nevis|St Kitts", "KP": "DPRK", "KR": "Republic of Korea",
    "LC": "St Lucia", "MK": "Macedonia", "MM": "Burma", "NL": "Holland", "PG": "PNG",
    "RU": "Russian Federation", "ST": "Sao Tome", "SY": "Syrian Arab Republic", "SZ": "Swaziland",
    "TL": "East Timor", "TR": "Turkiye|Türkiye", "TT": "Trinidad",
    "US": "USA|the USA|US|the US|United States of America|America|the States|U.S.",
    "VA": "Vatican|the Vatican|Holy See|the Holy See", "VC": "St Vincent|Saint Vincent",
}  # fmt: skip
