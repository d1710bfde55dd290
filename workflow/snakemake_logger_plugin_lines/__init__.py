"""`snakemake --logger lines`: one line for each finished job, with how many are left and an estimate of the time.

    [ 12/57] trained binary-s1, 21 s; 45 left, about 3 minutes

Errors and everything that is no job read as they do without this plugin. Snakemake finds a package of this name on the
path.
"""

import sys
import time
from collections import Counter, defaultdict

from snakemake.logging import DefaultFormatter, get_event
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# What says nothing that the lines do not say.
SILENT = {LogEvent.JOB_STARTED, LogEvent.PROGRESS, LogEvent.RESOURCES_INFO, LogEvent.SHELLCMD, LogEvent.RUN_INFO}


class Estimate:
    """How long the jobs that are left will take, from how long the finished ones of their rules took.

    A rule of which none has finished counts as the mean of all. Jobs that ran side by side count as side by side.
    """

    def __init__(self, jobs: Counter, now: float):
        self.left = Counter(jobs)
        self.started = now
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def finished(self, rule: str, seconds: float) -> None:
        self.left[rule] -= 1
        self.seconds[rule].append(seconds)

    def remaining(self, now: float) -> float:
        """Seconds until the last job ends."""
        every = [seconds for of_rule in self.seconds.values() for seconds in of_rule]
        mean = sum(every) / len(every)
        work = sum(
            count * (sum(known) / len(known) if (known := self.seconds.get(rule)) else mean)
            for rule, count in self.left.items()
            if count > 0
        )
        side_by_side = max(sum(every) / max(now - self.started, 1e-9), 0.1)
        return work / side_by_side


def spoken(seconds: float) -> str:
    """`40 s`, `3 minutes`, `2.5 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


class LogHandler(LogHandlerBase):
    """Writes to standard error, as Snakemake's own handler does."""

    def __post_init__(self) -> None:
        self.formatter = DefaultFormatter(self.common_settings.quiet, self.common_settings.show_failed_logs)
        self.estimate = Estimate(Counter(), time.monotonic())
        self.total = self.done = 0
        self.running: dict[int, tuple[str, str, float]] = {}

    writes_to_stream = True
    writes_to_file = False
    has_filter = False
    has_formatter = True
    needs_rulegraph = False

    def emit(self, record) -> None:
        event = get_event(record)
        if record.getMessage() == "Select jobs to execute...":
            return
        if self.common_settings.dryrun or event in (None, LogEvent.ERROR, LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR):
            self._say(self.formatter.format(record))
        elif event == LogEvent.RUN_INFO:
            jobs = Counter({rule: count for rule, count in record.stats.items() if rule != "total"})
            self.total = sum(jobs.values())
            self.estimate = Estimate(jobs, time.monotonic())
        elif event == LogEvent.JOB_INFO:
            self.running[record.jobid] = record.rule_name, record.rule_msg or record.rule_name, time.monotonic()
        elif event == LogEvent.JOB_FINISHED:
            self._finished(record.job_id)
        elif event not in SILENT:
            self._say(self.formatter.format(record))

    def _finished(self, job: int) -> None:
        rule, message, started = self.running.pop(job, ("", "a job", time.monotonic()))
        now = time.monotonic()
        self.done += 1
        self.estimate.finished(rule, now - started)
        left = self.total - self.done
        rest = f"; {left} left, about {spoken(self.estimate.remaining(now))}" if left else ""
        self._say(f"[{self.done:>3}/{self.total}] {message.partition(' -> ')[0]}, {now - started:.0f} s{rest}")

    def _say(self, text: str) -> None:
        if text:
            print(text, file=sys.stderr, flush=True)
