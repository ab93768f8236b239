"""One minute of `scripts/chaos/run.py`: what fails there most instructively, from one seed. Longer runs are for people: `--help` tells."""

import subprocess
import sys

from stubs import ROOT

# A minute, with what must come back in between.
FAULTS = ["freeze-worker-8", "kill-worker", "freeze-etcd-2", "cut-owner-etcd-8", "wipe-etcd", "kill-owner"]
DEADLINE = 240.0


def test_a_pool_heals_by_itself_while_people_type():
    command = [sys.executable, str(ROOT / "scripts/chaos/run.py"), "--seed", "1", "--seconds", "150", "--faults", ",".join(FAULTS)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stdout
    assert f"\n{len(FAULTS)} faults, 0 violations" in done.stdout, done.stdout
