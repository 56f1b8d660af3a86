"""The file descriptors of the process: each connection takes one, and many systems begin with a soft limit of 1024 in all."""

from __future__ import annotations

import logging
import resource

SPARE = 256  # besides HTTP connections: gRPC's, those above the limit that are told so, files that are read

log = logging.getLogger("cosparse.serve")


def allow(connections: int) -> None:
    """Raises the soft limit as far as so many connections want it and the hard one lets it; a warning where that is not enough."""
    wanted = connections + SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # what may be set may be less than what is stated, as in a sandbox
        most = soft
    if most < wanted:
        reason = f"--connections {connections}: expected {wanted} file descriptors, got {most}; ulimit -n {wanted}, or fewer connections"
        log.warning("few file descriptors", extra={"reason": reason})
