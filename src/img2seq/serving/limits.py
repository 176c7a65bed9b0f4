"""What a server lets in, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass

from img2seq.config.decoding import Decoding
from img2seq.errors import ConfigError, Img2SeqError

MOST_ROWS = 64  # captions of a picture built side by side
MOST_TOKENS = 512  # of a caption


@dataclass(frozen=True)
class Limits:
    """Limits of a server; each is a flag of `img2seq serve`.

    Attributes:
        max_queue: pictures that wait for the model; more are refused at once.
        max_batch: pictures captioned together.
        max_wait_s: how long a picture waits for others to join it.
        timeout_s: how long a request may take.
        max_bytes: of a request's body, counted as it comes.
        max_body_memory: bytes of all bodies that are read at one time; later ones wait.
    """

    max_queue: int = 128
    max_batch: int = 16
    max_wait_s: float = 0.005
    timeout_s: float = 30.0
    max_bytes: int = 20_000_000
    max_body_memory: int = 64_000_000

    @property
    def max_pictures(self) -> int:
        """Return how many pictures a request may hold."""
        return min(32, self.max_queue)


class Refusal(Img2SeqError):
    """A request that is not answered, and why.

    Attributes:
        status: of HTTP.
        retry_after_s: when it may be tried again, where that helps.
        closes: whether the connection ends with it, for more would come that nobody wants.
    """

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None, closes: bool = False):
        super().__init__(message)
        self.status, self.retry_after_s, self.closes = status, retry_after_s, closes


def busy(message: str, retry_after_s: int = 1) -> Refusal:
    """Return the refusal of a server that cannot take more now."""
    return Refusal(503, message, retry_after_s=retry_after_s)


def check_cost(decoding: Decoding) -> None:
    """Raise ConfigError for settings that would keep the model from everyone else."""
    if decoding.n_rows > MOST_ROWS:
        name = "n_best" if decoding.method == "sample" else "beam_size"
        raise ConfigError(f"{name}: expected at most {MOST_ROWS} on a server; found {decoding.n_rows}")
    if decoding.max_length > MOST_TOKENS:
        raise ConfigError(f"max_length: expected at most {MOST_TOKENS} on a server; found {decoding.max_length}")
