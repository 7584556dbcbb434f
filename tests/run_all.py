"""Runs every test executable of the workspace, two at a time: most of them wait for a broker most of
the time. What each prints comes in one piece, when it has ended. Fails if any of them fails.

    run_all.py [ARGUMENT…]    arguments go to every executable, a part of a test's name for example
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import time

AT_A_TIME = 2
# Executables that take long, so that none of them is left alone at the end.
FIRST = ["stopped", "contract", "watch_lists", "conformance", "kills", "storm", "websocket", "forgotten", "access", "faults", "scale", "replay"]


def executables():
    """Builds them all; says of each its name, its file and the folder that it expects to run in."""
    build = ["cargo", "test", "--release", "--workspace", "--lib", "--bins", "--tests", "--no-run"]
    said = subprocess.run([*build, "--message-format=json-render-diagnostics"], stdout=subprocess.PIPE, text=True)
    if said.returncode != 0:
        sys.exit(said.returncode)
    for line in said.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["profile"]["test"]:
            yield message["target"]["name"], message["executable"], os.path.dirname(message["manifest_path"])


def run(name, executable, folder):
    began = time.monotonic()
    ended = subprocess.run([executable, *sys.argv[1:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    sys.stdout.buffer.write(f"\n     Running {name} ({time.monotonic() - began:.0f} s)\n".encode() + ended.stdout)
    sys.stdout.flush()
    return ended.returncode == 0


def main():
    found = list(executables())
    found.sort(key=lambda test: FIRST.index(test[0]) if test[0] in FIRST else len(FIRST))
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        passed = list(pool.map(lambda test: run(*test), found))
    failed = [name for (name, *_), ok in zip(found, passed) if not ok]
    if failed:
        sys.exit(f"\nfailed: {', '.join(failed)}")
    print(f"\nall {len(found)} test executables passed")


main()
