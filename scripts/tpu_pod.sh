#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs nightjax on a Cloud TPU pod slice.
#
#   scripts/tpu_pod.sh VERB [--dry-run] --name=NAME --zone=ZONE [options] [-- arguments of nightjax.main]
#
#   create   makes the slice                 --type=v5litepod-16 [--version=v2-alpha-tpuv5-lite] [--spot]
#   install  puts nightjax on every worker   [--repo=URL (default: this clone's origin)] [--branch=main]
#   data     copies prepared data sets from a bucket to every worker
#                                            --from=gs://bucket/tensorflow_datasets [--to=tensorflow_datasets]
#   train    starts the run on all workers   -- --config=configs/dsr_fpa.py --config.train.batch=16 --workdir=gs://bucket/run
#   status   state of the slice, and which workers train
#   logs     follows the log of one worker   [--worker=0]
#   evaluate scores a run on all workers     -- --workdir=gs://bucket/run
#   export   exports a run on the CPU of one worker, which needs no other
#                                            [--worker=0] -- --workdir=gs://bucket/run --output=gs://bucket/shipped
#   resume   makes a preempted slice again, installs, copies the data if --from is given, and runs `train` with the same
#            arguments; a slice that is still there and ready is left alone
#   delete   deletes the slice
#
# --project=ID is passed on to gcloud. --dry-run prints the commands and runs none of them. The workdir must be a
# gs:// path: every worker reads it, and the run continues from its newest checkpoint. Needs bash 4.4 and gcloud.
set -euo pipefail

fail() {
  echo "nightjax: error: $*" >&2
  exit 2
}

run() {
  local word line=''
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./:=@,+-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
  done
  echo "${line# }"
  if [[ $dry_run == no ]]; then "$@"; fi
}

tpu() {  # tpu COMMAND ARGUMENTS...
  local command=$1
  shift
  run gcloud compute tpus tpu-vm "$command" "$name" --zone="$zone" "${project[@]}" "$@"
}

on_workers() {  # on_workers WORKER COMMAND
  tpu ssh --worker="$1" --command="$2"
}

looks_like() {  # looks_like OPTION VALUE PATTERN EXAMPLE: what reaches a shell on the workers is plain.
  [[ $2 =~ ^$3$ ]] || fail "$1 has an odd value; it should look like $4"
}

check_repo() {
  # The address may hold a password, so no message repeats it.
  case $repo in
    *://*@* | *://*:*@*) fail "--repo has a user name or token in it, which every worker and log would see: give the plain address and let git ask a credential helper" ;;
    https://* | ssh://* | git@*:*) looks_like --repo "$repo" '[A-Za-z0-9_./:@~+-]+' https://github.com/OWNER/REPO.git ;;
    *) fail "--repo must be an address that the workers can reach, such as https://github.com/OWNER/REPO.git; a folder of this machine is not" ;;
  esac
}

check() {  # Before the first command of a verb, so that nothing is half done.
  [[ -n $name ]] || fail "--name is missing: the name of the TPU slice"
  [[ -n $zone ]] || fail "--zone is missing: such as --zone=us-central1-a"
  looks_like --name "$name" '[a-z]([-a-z0-9]*[a-z0-9])?' night
  looks_like --zone "$zone" '[a-z]+-[a-z0-9]+-[a-z]' us-central1-a
  looks_like --branch "$branch" '[A-Za-z0-9_][A-Za-z0-9_./-]*' main
  looks_like --worker "$worker" '([0-9]+|all)' 0
  case $1 in create | resume)
    [[ -n $type ]] || fail "--type is missing: such as --type=v5litepod-16" ;;
  esac
  case $1 in install | resume)
    [[ -n $repo ]] || fail "--repo is missing: this clone has no remote named origin"
    check_repo ;;
  esac
  case $1 in data) [[ -n $from ]] || fail "--from is missing: the folder of prepared data sets, such as gs://bucket/tensorflow_datasets" ;; esac
  [[ -z $from ]] || looks_like --from "$from" 'gs://[a-z0-9][-a-z0-9_.]*(/[A-Za-z0-9_.=-]+)*/?' gs://bucket/tensorflow_datasets
  looks_like --to "$to" '[A-Za-z0-9_/][A-Za-z0-9_./-]*' tensorflow_datasets
  case $1 in evaluate | export)
    [[ " ${arguments[*]} " == *" --workdir=gs://"* ]] || fail "--workdir must be a gs:// path that all workers reach: put it behind --" ;;
  esac
  case $1 in train | resume)
    [[ " ${arguments[*]} " == *" --config="* ]] || fail "--config is missing: put it behind --, as -- --config=configs/dsr_fpa.py"
    [[ " ${arguments[*]} " == *" --workdir=gs://"* ]] || fail "--workdir must be a gs:// path that all workers reach: put it behind --" ;;
  esac
}

create() {
  tpu create --accelerator-type="$type" --version="$version" "${spot[@]}"
}

install() {
  local fetch="git clone -q --branch=$branch $repo nightjax || git -C nightjax pull -q --ff-only"
  local python="python3 -m pip install -q --user uv && ~/.local/bin/uv venv -q --allow-existing --python=3.12"
  on_workers all "($fetch) && cd nightjax && $python && ~/.local/bin/uv pip install -q -e '.[tpu,gcs]'"
}

data() {
  # Every worker reads the whole of it, so each has its own copy. What it has already is not copied again.
  on_workers all "mkdir -p $to && gcloud storage rsync --recursive $from $to"
}

train() {
  local words
  words=$(printf ' %q' "${arguments[@]}")
  on_workers all "cd nightjax || exit; nohup .venv/bin/python -m nightjax.main --distributed$words >train.log 2>&1 </dev/null &"
}

evaluate() {
  local words
  words=$(printf ' %q' "${arguments[@]}")
  on_workers all "cd nightjax && .venv/bin/python -m nightjax.evaluate --distributed$words"
}

export_run() {
  local words
  words=$(printf ' %q' "${arguments[@]}")
  on_workers "$worker" "cd nightjax && JAX_PLATFORMS=cpu .venv/bin/python -m nightjax.export$words"
}

status() {
  tpu describe --format="value(state,health)"
  on_workers all "pgrep -f '[n]ightjax.main' >/dev/null || echo 'not training; its last line:'; tail -n 1 nightjax/train.log"
}

logs() {
  on_workers "$worker" "tail -n 100 -f nightjax/train.log"
}

resume() {
  local state
  tpu describe --format="value(state)" >"$answer" 2>/dev/null || true
  if [[ $dry_run == yes ]]; then cat "$answer"; fi
  state=$(tail -n 1 "$answer")
  case $dry_run-$state in
    no-READY) fail "$name is ready, so it was not preempted, and was left alone: start it with train, or delete it first" ;;
    no-PREEMPTED | no-TERMINATED | no-STOPPED | no-SUSPENDED | yes-*) tpu delete --quiet ;;  # It stays in the list.
    no-"" | no-gcloud*) ;;  # It is not in the list.
    *) fail "$name is $state, neither preempted nor gone: wait, or delete it first" ;;
  esac
  create
  install
  if [[ -n $from ]]; then data; fi
  train
}

delete() {
  tpu delete --quiet
}

verb=${1:-}
case $verb in
  create | install | data | train | evaluate | export | status | logs | resume | delete) shift ;;
  -h | --help) sed -n '3,/^set /{/^set /!s/^# \{0,1\}//p}' "$0"; exit 0 ;;
  "") fail "a verb is missing: create, install, data, train, evaluate, export, status, logs, resume or delete" ;;
  *) fail "unknown verb '$verb': create, install, data, train, evaluate, export, status, logs, resume or delete" ;;
esac

name='' zone='' type='' from='' to=tensorflow_datasets worker=0 dry_run=no
version=v2-alpha-tpuv5-lite branch=main
repo=$(git -C "$(dirname "$0")" remote get-url origin 2>/dev/null || true)
project=() spot=() arguments=()
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
while (($#)); do
  case $1 in
    --name=?*) name=${1#*=} ;;
    --zone=?*) zone=${1#*=} ;;
    --type=?*) type=${1#*=} ;;
    --version=?*) version=${1#*=} ;;
    --project=?*) project=("$1") ;;
    --repo=?*) repo=${1#*=} ;;
    --from=?*) from=${1#*=} ;;
    --to=?*) to=${1#*=} ;;
    --branch=?*) branch=${1#*=} ;;
    --worker=?*) worker=${1#*=} ;;
    --spot) spot=(--spot) ;;
    --dry-run) dry_run=yes ;;
    --)
      shift
      arguments=("$@")
      break
      ;;
    *) fail "unknown or empty option '$1' (options have the form --name=value; arguments of training follow --)" ;;
  esac
  shift
done
check "$verb"
if [[ $verb == export ]]; then export_run; else "$verb"; fi
