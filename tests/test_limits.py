"""No test waits for ever, and all can be interrupted, also those that start in the background."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WAITS = """
import signal, time
import conftest
conftest.SECONDS = 1

def test_waits():
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    time.sleep(100)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarms")
def test_a_test_that_waits_fails_also_where_interrupts_are_ignored(tmp_path):
    (tmp_path / "test_waits.py").write_text(WAITS)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    shell = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    result = subprocess.run([*shell, *command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "TimeoutError: the test has taken more than 1 s" in result.stdout
    assert "1 failed" in result.stdout
