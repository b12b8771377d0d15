"""What a user names in a module of theirs, found in one place, whatever that module does as it is imported."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from actors.errors import UserError

log = logging.getLogger("touchdown")


def import_named(kind: str, module: str, attribute: str) -> Any:
    """The object ``attribute`` of a module.

    Args:
        kind: what is looked for, in a word.
        module: is imported first.
        attribute: its name there.

    Raises:
        UserError: there is no such module or no such name in it, or importing it raises.
    """
    name = f"{module}:{attribute}"
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{kind} {name!r}: {' '.join(str(error).split())}") from error
    except (Exception, SystemExit) as error:
        log.debug("%s %r", kind, name, exc_info=True)
        words = " ".join(str(error).split())
        raise UserError(f"{kind} {name!r}: importing {module} raised {type(error).__name__}: {words}") from error
