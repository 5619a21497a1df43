#!/usr/bin/env bash
# Measure a frozen suite once for every new image behind a container tag, then say whether anything regressed.
#
#   track-new-image.sh SUITE.yaml IMAGE:TAG [overrides of tpw suite run, say model.path=/models/x]
#
# Exit status: 0 nothing new, or no regression; 1 a regression, or a config that could not be measured; else an error.
# RESULTS is the results folder (kept between runs), REGRESSION the drop that counts, STARTS the engine starts of each
# config, TPW the command, RUNTIME docker or enroot.
set -euo pipefail
suite=$1 tag=$2
shift 2
RESULTS=${RESULTS:-results} REGRESSION=${REGRESSION:-3%} STARTS=${STARTS:-2} TPW=${TPW:-.venv/bin/tpw}

case ${RUNTIME:-docker} in
docker) # a tag moves, a digest does not
    docker pull --quiet "$tag" >/dev/null
    image=$(docker image inspect --format '{{index .RepoDigests 0}}' "$tag")
    ;;
enroot) # one file for each digest
    digest=$(skopeo inspect --format '{{.Digest}}' "docker://$tag")
    image=$PWD/images/${digest#sha256:}.sqsh
    registry=${tag%%/*}
    mkdir -p images
    [[ -e $image ]] || enroot import --output "$image" "docker://$registry#${tag#*/}"
    ;;
*)
    echo "RUNTIME=$RUNTIME: docker or enroot" >&2
    exit 2
    ;;
esac

mkdir -p "$RESULTS"
done_file=$RESULTS/measured-$(basename "$suite" .yaml).txt
if [[ -e $done_file ]] && grep -qxF "$image" "$done_file"; then
    echo "$image: measured already"
    exit 0
fi

status=0
"$TPW" suite run "$suite" --starts "$STARTS" "engine.runtime=${RUNTIME:-docker}" "engine.image='$image'" \
    "results_dir=$RESULTS" "$@" || status=$?
if ((status == 0)); then
    echo "$image" >>"$done_file"
elif ((status != 1)); then
    exit "$status" # stopped, or misconfigured: the next run tries again
fi
touch "$done_file"
if (($(wc -l <"$done_file") + status < 2)); then # one that failed (1) is none of them, and is compared too
    echo "$image: the first that was measured, there is nothing to compare with yet"
    exit "$status"
fi
tracked=0 # only the suite's own studies
"$TPW" track "$(basename "$suite" .yaml)-*" --fail-on-regression "$REGRESSION" --results "$RESULTS" || tracked=$?
exit $((status > tracked ? status : tracked))
