"""The process behind `run_isolated`: `python -m finet_deploy.runtimes.child FILE FORMAT THREADS`.

Reads the inputs from the working directory and writes the outputs there. An error of ours goes to stdout as JSON.
"""

from __future__ import annotations

import sys

import msgspec
from safetensors.numpy import load_file, save_file

from finet_deploy.errors import FinetDeployError
from finet_deploy.runtimes import open_session
from finet_deploy.runtimes.isolated import INPUTS_FILE, OUTPUTS_FILE, Failure


def main(path: str, fmt: str, threads: str) -> None:
    """Run one file on all inputs."""
    try:
        session = open_session(path, fmt, threads=int(threads))
        outputs = {name: session.run(x) for name, x in load_file(INPUTS_FILE).items()}
    except FinetDeployError as error:
        sys.stdout.buffer.write(msgspec.json.encode(Failure(error.message, error.where, error.do)))
        sys.exit(FinetDeployError.exit_code)
    save_file(outputs, OUTPUTS_FILE)


if __name__ == "__main__":
    main(*sys.argv[1:])
