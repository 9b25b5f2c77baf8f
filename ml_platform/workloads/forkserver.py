"""Imported by the process that a run's steps are forked from: it and the steps end with the run's process, whatever ended that,
and their threads sleep while they wait."""

import os

from ml_platform.core.threads import wait_passively
from ml_platform.resources.stopping import end_with_parent

end_with_parent()
wait_passively()
os.register_at_fork(after_in_child=end_with_parent)
