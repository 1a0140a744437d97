"""Logs of server and worker: a sentence for people, fields for machines, on standard error.

One JSON object a line; on a terminal, coloured text. What libraries log, warn and fail with comes
in the same form. What is bound to the context (`request_id` while a request is answered, `cycle`
and `fence` while a cycle runs, `import` during an import) stands in every line, also in those of
libraries.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
from types import TracebackType

import structlog

log = structlog.get_logger("uncaught")

# `scheme://user:password@`, up to the last @ of the word: a password may hold one.
_PASSWORD_IN_URL = re.compile(r"(\w+://[^\s:/@\"']*:)[^\s\"']+@")


def configure(level: int = logging.INFO) -> None:
    """Send our own logs, and those of the libraries, through one formatter."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _WithoutPasswords(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # It says "Context impl" at every look at the schema's revision, so at every health check.
    logging.getLogger("alembic.runtime.migration").setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread


class _WithoutPasswords(structlog.stdlib.ProcessorFormatter):
    """Masks the password of any URL, whichever library wrote it into whichever message."""

    def format(self, record: logging.LogRecord) -> str:
        return _PASSWORD_IN_URL.sub(r"\1***@", super().format(record))


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    log.critical("the process crashed", action="crashed", exc_info=(kind, error, trace))


def _log_uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is None or isinstance(args.exc_value, SystemExit):
        return
    log.critical(
        "a thread crashed",
        action="thread_crashed",
        thread=args.thread.name if args.thread else None,
        exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
    )
