"""Papermill's command as often as asked, by a process that imports it once: each run is a fork of its own.

Reads lines of JSON: the folder to run in, the arguments, and a file for what is said on stderr. Answers each
with the exit code.
"""

import json
import os
import sys

from jupyter_client import AsyncKernelManager
from papermill.cli import papermill


def main():
    # Not by TCP: a port that is chosen for a kernel may be taken, by another kernel, before this one starts.
    AsyncKernelManager.transport.default_value = "ipc"
    for line in sys.stdin:
        folder, arguments, stderr = json.loads(line)
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        for number, path in enumerate((os.devnull, os.devnull, stderr)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(folder)
        papermill(arguments, "papermill")  # exits; an error is shown as Python shows any


if __name__ == "__main__":
    main()
