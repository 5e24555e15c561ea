"""How the calls that a command places go: what is said in them, and how long they may take."""

from __future__ import annotations

from typing import Annotated

import attrs
from cyclopts import Parameter, validators
from cyclopts.types import ExistingFile

from agentao_trio.cli.wav import read_wav

__all__ = ["AS_USUAL", "Course"]

Seconds = Annotated[float, Parameter(validator=validators.Number(gte=0, lte=86_400))]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Course:
    """What is said, and how long everything may take."""

    play: Annotated[ExistingFile | None, Parameter(show_default=False)] = None
    """WAV file to say; 8 kHz, or with the extra audio any rate from 8 to 48 kHz."""
    timeout: Seconds = 60
    """Seconds to let it ring; 0 is as long as it takes."""
    max_duration: Seconds = 60
    """Seconds after which an answered call is hung up; 0 is no limit."""
    tail: Seconds = 1
    """Seconds to go on listening when everything has been said."""

    def audio(self) -> bytes:
        """16-bit samples at 8 kHz, none for a call that listens. Raises :class:`WavError`."""
        return b"" if self.play is None else read_wav(self.play)


#: None of these options.
AS_USUAL: Course = Course()
