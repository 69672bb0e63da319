"""What to tell a user about a status word that the provider's table does not have: how to map it in the configuration.

Such a word counts as processing. One that looks like an end is named as such, because a wait for it would only end at
its deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from taskbridge.errors import printable
from taskbridge.models import TaskStatus
from taskbridge.provider.payload import read_state

if TYPE_CHECKING:
    from taskbridge.provider.payload import StateTable

# A guess, which is only ever shown.
_LIKELY_ENDS: Final[StateTable] = {
    **dict.fromkeys(("*Completed", "*Finished", "*Succeeded"), (TaskStatus.COMPLETED, None)),
    **dict.fromkeys(("*Failed", "*Cancelled", "*Canceled"), (TaskStatus.FAILED, None)),
}


def mapping_advice(connection: str, word: str | None) -> str:
    """Return a clause that says how to map an unknown status word, and whether it looks like an end."""
    table = f"[connections.{connection}.states]"
    if word is None:
        return "it sends no status word, so none can be mapped"
    guess = read_state(_LIKELY_ENDS, word)
    # The key is quoted, because a bare key of TOML has no spaces.
    shown = printable(word, 80).replace("\\", "\\\\").replace('"', '\\"')
    if guess.recognized:
        return f'the word looks like an end: if it is one, add "{shown}" = "{guess.status}" to {table}'
    return f'if you know what it means, add "{shown}" = "…" to {table}'
