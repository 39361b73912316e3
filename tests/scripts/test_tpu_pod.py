"""The pod script prints the right commands and explains wrong arguments; no command is run."""

import shutil
import subprocess

import pytest

from tests.helpers.places import ROOT

SCRIPT = ROOT / "scripts" / "tpu_pod.sh"
WHERE = ("--dry-run", "--name=night", "--zone=us-east5-b")
REPO = "--repo=https://example.org/nightjax.git"
TRAINING = (
    "--",
    "--config=configs/dsr_fpa.py",
    "--workdir=gs://bucket/run",
    "--config.data.streams.source.crop=(512, 512)",
)
SSH = "gcloud compute tpus tpu-vm ssh night --zone=us-east5-b"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")


def call(*words):
    return subprocess.run(["bash", SCRIPT, *words], capture_output=True, text=True, check=False)


def commands(*words):
    done = call(*words)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_syntax():
    assert subprocess.run(["bash", "-n", SCRIPT], check=False).returncode == 0


def test_create():
    (line,) = commands("create", *WHERE, "--type=v5litepod-16", "--spot", "--project=p")
    assert line == (
        "gcloud compute tpus tpu-vm create night --zone=us-east5-b --project=p --accelerator-type=v5litepod-16 "
        "--version=v2-alpha-tpuv5-lite --spot"
    )


def test_install():
    (line,) = commands("install", *WHERE, REPO, "--branch=next")
    assert line.startswith(f"{SSH} --worker=all ")
    assert "git clone -q --branch=next https://example.org/nightjax.git nightjax" in line
    assert ".[tpu,gcs]" in line


def test_data_reach_every_worker_and_are_copied_once():
    (line,) = commands("data", *WHERE, "--from=gs://bucket/tensorflow_datasets")
    copy = "gcloud storage rsync --recursive gs://bucket/tensorflow_datasets"
    assert line == f"{SSH} --worker=all '--command=mkdir -p tensorflow_datasets && {copy} tensorflow_datasets'"
    assert (
        f"{copy} /mnt/data'" in commands("data", *WHERE, "--from=gs://bucket/tensorflow_datasets", "--to=/mnt/data")[0]
    )


def test_evaluate_joins_all_workers():
    (line,) = commands("evaluate", *WHERE, "--", "--workdir=gs://bucket/run", "--step=best")
    assert line.startswith(f"{SSH} --worker=all ")
    assert "-m nightjax.evaluate --distributed --workdir=gs://bucket/run --step=best" in line


def test_export_takes_one_worker_and_no_tpu():
    (line,) = commands("export", *WHERE, "--worker=1", "--", "--workdir=gs://bucket/run", "--output=gs://bucket/ship")
    assert line.startswith(f"{SSH} --worker=1 ")
    assert "JAX_PLATFORMS=cpu .venv/bin/python -m nightjax.export --workdir=gs://bucket/run" in line


def test_train_runs_on_all_workers_and_returns():
    (line,) = commands("train", *WHERE, *TRAINING)
    assert line.startswith(f"{SSH} --worker=all ")
    assert "-m nightjax.main --distributed --config=configs/dsr_fpa.py --workdir=gs://bucket/run" in line
    assert r"crop=\(512\,\ 512\)" in line  # Quoted once more for the shell of the worker.
    assert line.endswith(">train.log 2>&1 </dev/null &'")


def test_status_logs_and_delete():
    describe, training = commands("status", *WHERE)
    assert "tpu-vm describe night" in describe and "tail -n 1 nightjax/train.log" in training
    assert commands("logs", *WHERE, "--worker=3") == [f"{SSH} --worker=3 '--command=tail -n 100 -f nightjax/train.log'"]
    assert commands("delete", *WHERE) == ["gcloud compute tpus tpu-vm delete night --zone=us-east5-b --quiet"]


def test_resume_is_describe_delete_create_install_train():
    lines = commands("resume", *WHERE, REPO, "--type=v5litepod-16", *TRAINING)
    assert "describe night" in lines[0]
    assert lines[1:] == [
        *commands("delete", *WHERE),
        *commands("create", *WHERE, "--type=v5litepod-16"),
        *commands("install", *WHERE, REPO),
        *commands("train", *WHERE, *TRAINING),
    ]


def test_resume_copies_data_too():
    given = (*WHERE, REPO, "--type=v5litepod-16", "--from=gs://bucket/data")
    (copied,) = commands("data", *given[:-1], given[-1])
    lines = commands("resume", *given, *TRAINING)
    assert lines.index(copied) == len(lines) - 2


def test_help():
    assert any("preempted" in line for line in commands("--help"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "a verb is missing"),
        (("crate",), "unknown verb 'crate'"),
        (("create", "--dry-run", "--zone=z", "--type=t"), "--name is missing"),
        (("create", "--dry-run", "--name=n", "--type=t"), "--zone is missing"),
        (("create", *WHERE), "--type is missing"),
        (("create", *WHERE, "--typ=v5litepod-16"), "'--typ=v5litepod-16'"),
        (("create", *WHERE, "--type="), "'--type='"),
        (("delete", *WHERE, "night2"), "'night2'"),
        (("train", *WHERE), "--config is missing"),
        (("train", *WHERE, "--", "--config=c.py"), "--workdir must be a gs:// path"),
        (("train", *WHERE, "--", "--config=c.py", "--workdir=runs/a"), "--workdir must be a gs:// path"),
        (("data", *WHERE), "--from is missing"),
        (("data", *WHERE, "--from=/home/me/data"), "--from has an odd value"),
        (("data", *WHERE, "--from=gs://bucket/a;reboot"), "--from has an odd value"),
        (("data", *WHERE, "--from=gs://bucket/a", "--to=$(reboot)"), "--to has an odd value"),
        (("evaluate", *WHERE, "--", "--workdir=runs/a"), "--workdir must be a gs:// path"),
        (("export", *WHERE, "--", "--workdir=runs/a"), "--workdir must be a gs:// path"),
        (("resume", *WHERE, REPO, *TRAINING), "--type is missing"),
        (("resume", *WHERE, REPO, "--type=v5litepod-16"), "--config is missing"),
    ],
)
def test_wrong_arguments_end_in_one_line_before_any_command(words, expected):
    done = call(*words)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("nightjax: error: ") and done.stderr.count("\n") == 1
    assert expected in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--repo=/home/me/nightjax",), "a folder of this machine"),
        (("--repo=file:///home/me",), "a folder of this machine"),
        (("--repo=../nightjax",), "a folder of this machine"),
        (("--repo=https://me:ghp_secret@example.org/x.git",), "token"),
        (("--repo=https://ghp_secret@example.org/x.git",), "token"),
        (("--repo=https://example.org/x.git;reboot",), "--repo has an odd value"),
        ((REPO, "--branch=main;reboot"), "--branch has an odd value"),
        ((REPO, "--branch=--upload-pack=x"), "--branch has an odd value"),
        ((REPO, "--name=night day"), "--name has an odd value"),
        ((REPO, "--zone=$(reboot)"), "--zone has an odd value"),
        ((REPO, "--worker=0;reboot"), "--worker has an odd value"),
    ],
)
def test_nothing_odd_reaches_a_worker_and_no_token_is_printed(words, expected):
    done = call("install", *WHERE, *words)
    assert done.returncode == 2 and expected in done.stderr and not done.stdout
    assert "secret" not in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("state", "deleted", "made"),
    [("PREEMPTED", True, True), ("", False, True), ("READY", False, False), ("CREATING", False, False)],
)
def test_resume_looks_before_it_deletes(tmp_path, state, deleted, made):
    """With a ``gcloud`` that answers with a state and notes what it is asked."""
    fake = tmp_path / "gcloud"
    answer = f'echo "{state}"' if state else "exit 1"
    fake.write_text(f'#!/bin/bash\necho "$4" >>{tmp_path}/asked\nif [[ $4 == describe ]]; then {answer}; fi\n')
    fake.chmod(0o755)
    where = [word for word in WHERE if word != "--dry-run"]
    done = subprocess.run(
        ["bash", SCRIPT, "resume", *where, REPO, "--type=v5litepod-16", *TRAINING],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    asked = (tmp_path / "asked").read_text().split()
    assert asked[0] == "describe" and ("delete" in asked, "create" in asked) == (deleted, made)
    assert done.returncode == (0 if made else 2), done.stderr
    if not made:
        assert done.stderr.startswith("nightjax: error: night is") and done.stderr.count("\n") == 1
