"""Every refusal and failure a request can meet, as one tree without HTTP in it.

::

    HelexaError
    ├── RequestRefused              the request is wrong; sending it again will not help
    │   ├── InvalidJson, MissingModelField, InvalidRequestBody, UnsupportedParameter
    │   ├── PreviousResponseNotFound
    │   ├── UnsupportedOperation, VisionUnsupported, ContextLengthExceeded
    │   ├── PayloadTooLarge, HeadersTooLarge, RequestTimeout, TemplateRenderFailed
    │   ├── InvalidApiKey, Forbidden, ModelNotFound, InsufficientQuota
    ├── TryLater                    will pass; carries ``retry_after_s``
    │   ├── RateLimitExceeded
    │   └── ServiceUnavailable, ModelLoading, ModelRecovering, Overloaded, InsufficientVram
    ├── UpstreamFailed              the last candidate failed
    │   ├── UpstreamConnectionError
    │   └── UpstreamTimeout
    └── InternalError               a bug of ours

Each class fixes its ``code`` (the names of the contract). ``extras`` are additional members of
the error body. ``helexa.wire.errors`` renders status, headers and the dialect's envelope.
Messages follow "what, with the value, and what to do".
"""

from __future__ import annotations

from typing import ClassVar


class HelexaError(Exception):
    """Base of the tree.

    Args:
        message: For the client; never contains internals, prompts or secrets.
        param: JSON path of the offending member, for example ``messages[0].role``.
        retry_after_s: Seconds until it is worth asking again (the truth, not clamped).
        extras: Further members of the error body, JSON-able.
    """

    code: ClassVar[str | None] = None
    lasting: ClassVar[bool] = False
    """Only a person can change what led to it; the same will be said until then."""

    def __init__(
        self,
        message: str,
        /,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        **extras: object,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.extras = extras


class RequestRefused(HelexaError):
    """The request cannot be served as it is."""

    lasting = True


class InvalidJson(RequestRefused):
    code = "invalid_json"


class MissingModelField(RequestRefused):
    code = "missing_model_field"


class InvalidRequestBody(RequestRefused):
    code = "invalid_request_body"


class PreviousResponseNotFound(RequestRefused):
    """Clients that know the code send the whole conversation instead."""

    code = "previous_response_not_found"


class UnsupportedParameter(RequestRefused):
    code = "unsupported_parameter"


class UnsupportedOperation(RequestRefused):
    code = "unsupported_operation"


class VisionUnsupported(RequestRefused):
    code = "vision_unsupported"


class ContextLengthExceeded(RequestRefused):
    """The prompt is longer than the limit advertised for the model (tokens)."""

    code = "context_length_exceeded"

    def __init__(self, prompt_len: int, maximum: int, param: str = "messages") -> None:
        # LangChain knows an overflow by "prompt is too long", others by the first words.
        what, cure = "the prompt", "The prompt is too long: shorten the messages."
        if param != "messages":  # one of several inputs
            what, cure = f"`{param}`", "Shorten it, or split it."
        super().__init__(
            f"This model's maximum context length is {maximum} tokens, "
            f"but {what} has {prompt_len}. {cure}",
            param=param,
            prompt_len=prompt_len,
            max=maximum,
        )


class PayloadTooLarge(RequestRefused):
    code = "payload_too_large"


class HeadersTooLarge(RequestRefused):
    code = "headers_too_large"


class RequestTimeout(RequestRefused):
    code = "request_timeout"


class TemplateRenderFailed(RequestRefused):
    code = "template_render_failed"


class InvalidApiKey(RequestRefused):
    code = "invalid_api_key"


class Forbidden(RequestRefused):
    code = "forbidden"


class ModelNotFound(RequestRefused):
    code = "model_not_found"


class InsufficientQuota(RequestRefused):
    """A hard balance is spent; only an operator can change that."""

    code = "insufficient_quota"


class TryLater(HelexaError):
    """Will pass by itself; ``retry_after_s`` says when it is worth asking again."""


class RateLimitExceeded(TryLater):
    code = "rate_limit_exceeded"


class ServiceUnavailable(TryLater):
    code = "service_unavailable"


class ModelLoading(TryLater):
    """Extras: ``progress`` (0..1) and ``eta_s`` when known."""

    code = "model_loading"


class ModelRecovering(TryLater):
    code = "model_recovering"


class Overloaded(TryLater):
    code = "overloaded"


class InsufficientVram(TryLater):
    code = "insufficient_vram"


class UpstreamFailed(HelexaError):
    """Every candidate was tried and the last one failed."""


class UpstreamConnectionError(UpstreamFailed):
    code = "upstream_connection_error"


class UpstreamTimeout(UpstreamFailed):
    code = "upstream_timeout"


class InternalError(HelexaError):
    """A bug of ours; the message names the request id and nothing else."""


def let_frames_go(error: BaseException) -> None:
    """Make an error fit to be kept: with its traceback it would keep the frames it came through,
    and with them what they hold, which may hold the error (a cycle)."""
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = None
        seen = seen.__cause__ or seen.__context__
