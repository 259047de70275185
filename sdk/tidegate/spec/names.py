"""What things may be called."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

NAME_PATTERN = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
LABEL_KEY_PATTERN = r"^[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?$"
PATTERNS = {
    NAME_PATTERN: "lower-case letters, digits and hyphens, at most 63, starting with a letter",
    LABEL_KEY_PATTERN: "letters, digits, '.', '_', '/' and '-', at most 63",
}
"""Pattern → what it asks for, in words."""

DeploymentName = Annotated[
    str, StringConstraints(pattern=NAME_PATTERN), Field(description=PATTERNS[NAME_PATTERN])
]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(max_length=256)]
