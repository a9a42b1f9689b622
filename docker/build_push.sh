#!/usr/bin/env bash
# Builds the images and, with --push, pushes them.
#
#   docker/build_push.sh [--push] [--engine docker|podman|buildah] REPOSITORY [cpu|cuda ...] [-- BUILD OPTIONS]
#
#   docker/build_push.sh wmtp cpu
#   docker/build_push.sh --push ghcr.io/OWNER/wmtp cpu cuda
#   docker/build_push.sh --engine buildah wmtp cpu -- --isolation chroot
#
# Both kinds without one. Tags: VERSION-KIND (Cargo.toml's version) and COMMIT-KIND (12 digits). A tree with
# changes gets neither: its tag is `dirty-KIND`, and it is not pushed. Log in to the registry first
# (`docker login`): this script reads no secret. $PUSH_OPTIONS are added to every push.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "build_push.sh: $1" >&2
    exit 2
}

push=no engine=docker repository="" kinds=()
while [ $# -gt 0 ]; do
    case $1 in
        --push) push=yes ;;
        --engine)
            [ $# -gt 1 ] || fail "--engine needs docker, podman or buildah"
            engine=$2
            shift
            ;;
        --)
            shift
            break
            ;;
        -h | --help)
            sed -n '2,12s/^# \{0,1\}//p' "$0"
            exit
            ;;
        -*) fail "unknown option \`$1\`; --help lists them" ;;
        cpu | cuda) kinds+=("$1") ;;
        *)
            [ -z "$repository" ] || fail "\`$1\` is not a kind of image: cpu, cuda"
            repository=$1
            ;;
    esac
    shift
done
[ -n "$repository" ] || fail "name the repository, such as ghcr.io/OWNER/wmtp"
case $engine in docker | podman | buildah) ;; *) fail "no engine \`$engine\`: docker, podman, buildah" ;; esac
[ ${#kinds[@]} -gt 0 ] || kinds=(cpu cuda)

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
commit=$(git rev-parse HEAD)
tags=("$version" "${commit:0:12}")
if [ -n "$(git status --porcelain)" ]; then
    [ "$push" = no ] || fail "the tree has changes that are not committed: nothing is pushed"
    tags=(dirty) commit=""
fi

for kind in "${kinds[@]}"; do
    case $kind in cpu) file=docker/Dockerfile.cpu ;; cuda) file=docker/Dockerfile ;; esac
    names=()
    for tag in "${tags[@]}"; do names+=(--tag "$repository:$tag-$kind"); done
    "$engine" build --file "$file" --build-arg "WMTP_COMMIT=$commit" \
        --label "org.opencontainers.image.version=$version" --label "org.opencontainers.image.revision=$commit" \
        "${names[@]}" "$@" .
    for tag in "${tags[@]}"; do
        echo "built $repository:$tag-$kind"
        [ "$push" = yes ] || continue
        # shellcheck disable=SC2086 # several options in one variable
        "$engine" push ${PUSH_OPTIONS:-} "$repository:$tag-$kind"
        echo "pushed $repository:$tag-$kind"
    done
done
