# SPDX-License-Identifier: Apache-2.0
"""What every input gets: an answer or a ModelHashError, within a second and 64 MiB."""

import os
import resource
import signal

from tvm_model_hash.errors import ModelHashError

MAX_SECONDS = 1.0  # of the processor, so that another process on the machine is not to blame
MAX_BYTES = 64 << 20
# What is asked for and not touched takes no memory, but would not be given on another machine.
MAX_RESERVED_BYTES = 1 << 30


class TooMuchError(BaseException):
    """It took too long, or too much memory; not an Exception, which a reader may catch."""


class Guard:
    """Measures what a function takes, in a process with nothing else in it."""

    def __init__(self):
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)
        self._peak = self._peak_bytes()
        self._is_late = False
        signal.signal(signal.SIGPROF, self._late)

    def limit_reservations(self):
        """Let a reservation far above the limit fail, for all of this process."""
        reserved = self._pages(0) + MAX_RESERVED_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (reserved, reserved))

    def run(self, function, data):
        """Call a function with an input, and raise what it raises but must not."""
        before = self._pages(1)
        self._is_late = False
        signal.setitimer(signal.ITIMER_PROF, MAX_SECONDS)
        try:
            function(data)
        except ModelHashError:
            pass
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if self._is_late:
            raise TooMuchError(f"it took more than {MAX_SECONDS} s")
        peak = self._peak_bytes()
        if peak > self._peak:
            self._peak = peak
            if peak - before > MAX_BYTES:
                raise TooMuchError(f"it took {peak - before} bytes of memory")

    def _late(self, *_):
        self._is_late = True
        raise TooMuchError(f"it took more than {MAX_SECONDS} s")

    def _pages(self, field):
        pages = int(os.pread(self._statm, 100, 0).split()[field])
        return pages * resource.getpagesize()

    @staticmethod
    def _peak_bytes():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
