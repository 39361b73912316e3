"""First steps of methods without their later parts, bit by bit against the record."""

import pathlib
import subprocess
import sys

import pytest

from tests.safety import compare_steps, record_steps

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORD = ROOT / "tests/golden/first_steps.json.gz"


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["dacs", "dsr_fpa_none", "dsr_fpa_start_0", "t2s_da"])
def test_a_step_keeps_every_bit(tmp_path, variant):
    """Three steps from one state: scalars, and every array before and after. Masking and other parts are off."""
    here, there = record_steps.fingerprint(), compare_steps.read(str(RECORD))["fingerprint"]
    if here != there:
        other = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
        pytest.skip(f"bits hold for one kind of machine and one set of versions; here other {', '.join(other)}")
    new = tmp_path / "steps.json.gz"
    record = [sys.executable, "tests/safety/record_steps.py", str(new), "--only", variant]
    subprocess.run(record, cwd=ROOT, check=True, capture_output=True)
    compare = [sys.executable, "tests/safety/compare_steps.py", str(RECORD), str(new), "--only", variant]
    done = subprocess.run(compare, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
