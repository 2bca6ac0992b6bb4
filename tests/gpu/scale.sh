#!/usr/bin/env bash
# The measurement at the scale of Llama 3.2 1B, on a host with an NVIDIA GPU and the images' packages:
#   tests/gpu/scale.sh make FOLDER         a model of that shape, pre-trained, fine-tuned and quantized
#   tests/gpu/scale.sh bench FOLDER        bench-gpu on it; PARAMS replaces the parameters below
# Each takes five to ten minutes on an H100. Rows have some 200 tokens; fine-tuning's manifest says how
# many a second it read. MODEL=base leaves QLoRA out; METHODS are the checkpoints, gptq-g32 one with
# groups of 32; PRETRAIN_STEPS, at most PRETRAIN_SEC, TRAIN_ROWS and BATCH_ROWS say how the model learns.
set -uo pipefail
step=$1 folder=$2
mkdir -p "$folder"
PRETRAIN_STEPS=${PRETRAIN_STEPS:-50} PRETRAIN_SEC=${PRETRAIN_SEC:-140}
TRAIN_ROWS=${TRAIN_ROWS:-8192} BATCH_ROWS=${BATCH_ROWS:-128}
MODEL=${MODEL:-train} METHODS=${METHODS-gptq gptq-g32 awq}
export GPTQMODEL_TORCH_EXTENSIONS_DIR=$folder/kernels

stage() { # name, output, parameters, inputs...
    local name=$1 out=$2 params=$3 begin=$SECONDS
    shift 3
    [ -e "$folder/$out" ] && return  # made by a run before
    printf '%s' "$params" >"$folder/$out.params.json"
    python3 -m "stages.$name" --params "$folder/$out.params.json" --out "$folder/$out" \
        "${@/#/--input=}" >"$folder/$out.log" 2>&1
    local code=$?
    echo "$out: exit $code after $((SECONDS - begin)) s"
    tail -n 4 "$folder/$out.log"
    return $code
}

pretrain() {
    python3 -c 'import torch
from gptqmodel.utils.marlin import prewarm_marlin_extension
print(prewarm_marlin_extension(torch.float16))' >"$folder/kernels.log" 2>&1 &  # beside all else
    python3 -m stages.pretrain train --llama-1b --init stages/base/shipped --tokenizer stages/base/shipped \
        --data-seed 7 --layers 16 --lines 16 --steps "$PRETRAIN_STEPS" --warmup-steps 20 --learning-rate 3e-5 \
        --limit-sec "$PRETRAIN_SEC" --report-every 50 --shard-texts 2000 --fresh-rows 0 \
        --commit "${COMMIT:-unknown}" --out "$folder/base" 2>&1 | tee "$folder/base.log" | tail -n 3
    mv "$folder/base/manifest.json" "$folder/base/pretrained.txt" "$folder"
}

make() {
    stage data data "{\"seed\": 20262, \"train_rows\": $TRAIN_ROWS, \"validation_rows\": 300,
        \"test_rows\": 3000, \"min_catalog_lines\": 8, \"max_catalog_lines\": 12}"
    [ -e "$folder/base" ] || pretrain || return 1
    [ "$MODEL" = base ] || stage train train "{\"device\": \"cuda\", \"seed\": 1, \"learning_rate\": 1e-4,
        \"batch_rows\": $BATCH_ROWS, \"compile_layers\": true, \"evaluations\": 1, \"evaluation_rows\": 64,
        \"parity_rows\": 60, \"max_drop\": 0.05}" base="$folder/base" data="$folder/data" || return 1
    local name group
    for name in $METHODS; do
        group=${name#*-g}
        [ "$group" = "$name" ] && group=128
        stage gptq "$name" "{\"method\": \"${name%%-*}\", \"group_size\": $group, \"device\": \"cuda\",
            \"seed\": 1, \"parity_rows\": 60, \"max_drop\": 0.05}" \
            model="$folder/$MODEL" data="$folder/data" &
    done
    wait
}

bench() {
    local default='{"variants": ["fp16", "bf16", "nf4", "gptq:marlin", "gptq:triton", "awq:marlin"]}'
    stage bench_gpu bench "${PARAMS:-$default}" model="$folder/$MODEL" data="$folder/data" \
        $(for name in $METHODS; do echo "$name=$folder/$name"; done)
}

$step
