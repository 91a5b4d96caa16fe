"""Papermill's command as often as asked, by a process that imports what it and the notebooks need once.

Each run is a fork of its own, and its kernel another one. Reads lines of JSON: the folder to run in, the
arguments, and a file for what is said on stderr. Answers each with the exit code.
"""

import gc
import json
import os
import signal
import sys

# As a kernel sets it; read when matplotlib is imported.
os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"

import numpy as np
import pandas as pd
from ipykernel.kernelapp import IPKernelApp
from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import local_provisioner
from papermill.cli import papermill

from synprep import demo, figures, fingerprint, inspection, merge, preprocess, survey  # noqa: F401
from synprep._core import kernels


class Kernel:
    """A kernel that waits for its start; what papermill needs of a `subprocess.Popen`.

    It is forked before there is an event loop or a thread.
    """

    stdin = stdout = stderr = returncode = None

    def __init__(self):
        reader, self.writer = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(reader)
            return
        os.close(self.writer)
        os.setsid()
        with open(reader) as file:
            if order := file.read():  # nothing, where papermill did not get so far
                run_kernel(*json.loads(order))
        sys.exit()

    def start(self, command, cwd=None, env=None, **_):
        """As `jupyter_client.launcher.launch_kernel`."""
        env = dict(env or os.environ, JPY_PARENT_PID=str(os.getpid()))
        with open(self.writer, "w") as file:
            json.dump([command, cwd or os.getcwd(), env], file)
        return self

    def poll(self):
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self):
        return self.poll()  # asked when it has ended

    def send_signal(self, number):
        os.kill(self.pid, number)


def run_kernel(command, cwd, env):
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    parent = f"--IPKernelApp.parent_handle={os.getppid()}"  # which it does not outlive
    IPKernelApp.launch_instance([*command[command.index("-f") :], parent])


def main():
    # Not by TCP: a port that is chosen for a kernel may be taken, by another kernel, before this one starts.
    AsyncKernelManager.transport.default_value = "ipc"
    kernels.count(np.zeros((1, 1, 1), np.uint8))  # what is compiled is loaded
    pd.set_option("display.max_columns", 20)  # as where pandas is imported in a kernel
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if path != here]  # as for any notebook
    gc.collect()
    gc.freeze()  # so that no fork looks through, and copies, what all have
    for line in sys.stdin:
        folder, arguments, stderr = json.loads(line)
        if child := os.fork():
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
            continue
        signal.alarm(300)  # dies, if it waits for ever; its kernel with it
        for number, path in enumerate((os.devnull, os.devnull, stderr)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        os.chdir(folder)
        local_provisioner.launch_kernel = Kernel().start
        papermill(arguments, "papermill")  # exits; an error is shown as Python shows any


if __name__ == "__main__":
    main()
