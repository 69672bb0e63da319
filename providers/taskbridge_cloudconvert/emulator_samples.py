"""Tasks and jobs of the emulated CloudConvert that are there from the start, one for each way a life can go."""

from __future__ import annotations

from typing import Final

from taskbridge.emulator import Plan

from .emulator_checks import Draft, read_job
from .emulator_tasks import Book, NativeJob

__all__ = ["make_samples"]

HOUR: Final = 3600.0  # seconds
LONG_WORK: Final = Plan(queued=0, working=7 * 24 * HOUR)


def make_samples(book: Book) -> dict[str, str]:
    """Create them; the result has their shared ids by label."""
    finished = _sample_job(book, "finished-report", Plan(), age=HOUR)
    failed = _sample_job(book, "broken-report", Plan(outcome="failed"), age=HOUR)
    stopped = _sample_job(book, "stopped-report", LONG_WORK, age=HOUR)
    book.cancel(stopped.tasks[1], at=stopped.created + 60)
    long = _sample_job(book, "long-report", LONG_WORK, age=60)
    running = _sample_job(book, "report", None, age=0)
    (upload,) = book.create([Draft("import/upload", {}, ())])
    source = finished.tasks[0].id
    (described,) = book.create([Draft("metadata", {"input": source}, (source,))], plan=Plan(queued=0, working=0))
    return {
        "completed": finished.tasks[2].id,  # the export: the task whose files have URLs
        "failed": failed.tasks[1].id,
        "cancelled": stopped.tasks[1].id,
        "processing": long.tasks[1].id,
        "job": f"job/{finished.id}",
        "job-failed": f"job/{failed.id}",
        "job-running": f"job/{running.id}",
        "waiting-upload": upload.id,
        "metadata": described.id,
    }


def _sample_job(book: Book, document: str, plan: Plan | None, age: float) -> NativeJob:
    """Import, conversion and export of ``document``, submitted ``age`` seconds ago."""
    body = {
        "tasks": {
            "import": {"operation": "import/url", "url": f"https://example.com/{document}.docx"},
            "convert": {"operation": "convert", "input": "import", "output_format": "pdf"},
            "export": {"operation": "export/url", "input": "convert"},
        }
    }
    job = NativeJob(book.new_id(), book.now - age, tag=f"sample-{document}")
    book.create(read_job(body, lambda _: False), job, plan)
    return job
