#!/usr/bin/env bash
# Starts one run as N processes on this machine, on CPU, as a cluster would start it on N hosts.
#
#   launch/local.sh N [DEVICES] -- FLAGS
#
# DEVICES (1) simulated devices for each process; FLAGS are those of multimed_jax.main. A signal to
# the script goes to all processes. Exit code: 0 finished, 75 stopped and saved, else the error.
#
#   PYTHON (python)                   the interpreter
#   MULTIMED_MODULE (multimed_jax.main)  another command of the package
#   MULTIMED_SILENCE_S (60)           a process not heard of for so long counts as lost
set -u -m # -m: a group for each process, so that Ctrl-C reaches them once, from here

fail() {
  echo "error: $1" >&2
  exit 1
}

usage="usage: launch/local.sh N [DEVICES] -- FLAGS"
[[ ${1-} =~ ^[1-9][0-9]*$ ]] || fail "$usage"
count=$1
shift
devices=1
if [[ ${1-} =~ ^[1-9][0-9]*$ ]]; then
  devices=$1
  shift
fi
[[ ${1-} == -- ]] || fail "$usage"
shift

python=${PYTHON:-python}
silence=${MULTIMED_SILENCE_S:-60}
free_port='import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
port=$("$python" -c "$free_port") || fail "no Python at $python"

# A flag that is given twice counts as given last.
export XLA_FLAGS="${XLA_FLAGS-} --xla_force_host_platform_device_count=$devices"
export JAX_PLATFORMS=${JAX_PLATFORMS:-cpu}
export MULTIMED_NUM_PROCESSES=$count MULTIMED_COORDINATOR="127.0.0.1:$port"
export MULTIMED_SILENCE_S=$silence

# What the shell itself has to say of killed processes is left out: they are named below.
exec 3>&2 2>/dev/null

declare -A running=()
forward() {
  [[ ${#running[@]} -eq 0 ]] || kill -s "$1" "${!running[@]}"
}
trap 'forward TERM' TERM
trap 'forward INT' INT

for ((i = 0; i < count; i++)); do
  MULTIMED_PROCESS=$i "$python" -m "${MULTIMED_MODULE:-multimed_jax.main}" "$@" 2>&3 3>&- &
  running[$!]=$i
done

worst=0
timer=
while ((${#running[@]})); do
  ended=
  wait -n -p ended "${!running[@]}" ${timer:+"$timer"}
  code=$?
  [[ -n ${ended-} ]] || continue # a signal came, and was sent on
  if [[ $ended == "$timer" ]]; then
    timer=
    echo "error: processes ${running[*]} did not end by themselves and are killed" >&3
    forward KILL
    continue
  fi
  unset "running[$ended]"
  if ((code != 0 && code != 75)); then
    ((worst != 0 && worst != 75)) || worst=$code
    # The others notice by themselves; this is for one that cannot.
    if [[ -z $timer ]]; then
      sleep $((${silence%.*} + 20)) 3>&- &
      timer=$!
    fi
  elif ((code == 75 && worst == 0)); then
    worst=75
  fi
done
[[ -z $timer ]] || kill "$timer"
exit "$worst"
