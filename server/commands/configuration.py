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
        place = ".".join(map(str, fault["loc"])) or "settings"
        raise CommandError(f"{place}: {fault['msg']}") from None
    except SettingsError as error:
        found = re.search(r'field "(\w+)"', str(error))
        place = f"TRIVIUM_{found[1].upper()}" if found else str(error)
        raise CommandError(
            f"{place} is not JSON; a list is written as '[\"http://10.0.0.5:8001\"]'"
        ) from None
