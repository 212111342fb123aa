"""Settings for a command: from environment and options, or a sentence that says why not."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from server.commands.client import CommandError
from server.settings import Settings


def load_settings(**options: Any) -> Settings:
    """The settings, `options` before the environment. Raises CommandError."""
    try:
        return Settings(**options)
    except ValidationError as error:
        fault = error.errors()[0]
        field, *inner = map(str, fault["loc"]) or ["settings"]
        place = f"TRIVIUM_{field.upper()}" if field in Settings.model_fields else field
        number = next((f" (number {int(part) + 1})" for part in inner if part.isdecimal()), "")
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "tuple_type":
            message = 'it is a list: \'["one", "another"]\''
        raise CommandError(f"{place}{number}: {message}") from None
    except SettingsError as error:
        found = re.search(r'field "(\w+)"', str(error))
        place = f"TRIVIUM_{found[1].upper()}" if found else str(error)
        raise CommandError(
            f"{place} is not JSON; a list is written as '[\"http://10.0.0.5:8001\"]'"
        ) from None
