#!/bin/sh
# scale.sh MODEL OUT.gguf: a Q4_K_M of Llama 3.2 1B's shape for `invoke load-test`, out of a small model
# of ours (a train artifact's merged/), which it answers like. Takes 6 GB beside OUT while it works.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$(realpath "$1")
out=$(realpath "$(dirname "$2")")
work=$(mktemp -d "$out/scale.XXXXXX")
trap 'rm -rf "$work"' EXIT
run() {
    docker run --rm --init --network none --read-only --tmpfs /tmp:mode=1777 --cap-drop ALL \
        --user "$(id -u):$(id -g)" --memory 12g --volume "$root:/app:ro" \
        --volume "$model:/model:ro" --volume "$work:/work" "$@"
}
run cartwright/trainer-cpu:local stages.pretrain widen --model /model --out /work/wide
run --entrypoint python3 cartwright/converter:local /opt/llama.cpp/convert_hf_to_gguf.py \
    /work/wide --outtype f16 --outfile /work/f16.gguf
rm -r "$work/wide"
run --entrypoint llama-quantize cartwright/converter:local /work/f16.gguf /work/q4.gguf Q4_K_M 2
mv "$work/q4.gguf" "$2"
